"""Controls around ``attribute``: method, baseline and the method's own options, with what the map scores beside it; and own pictures.

Made of ipywidgets alone. Every control can be set from Python, ``explorer.method.value = "occlusion"``, and then does what a click does.
"""

from __future__ import annotations

import base64
import html
import inspect
import warnings
from typing import TYPE_CHECKING, Any

import ipywidgets as w

from mi_workshop.models.small import ImageModel, ImageTextModel
from mi_workshop.pictures import ONLY_SHAPES, read_picture
from mi_workshop.plots import image, png
from mi_workshop.saliency.attribution import METHODS, Attribution, attribute
from mi_workshop.saliency.inputs import FILLED, SaliencyError, problem
from mi_workshop.saliency.keys import Key, answer_keys
from mi_workshop.saliency.methods import NO_BASELINE, either
from mi_workshop.saliency.scores import agreement, curve_areas, curves, mass, pointing
from mi_workshop.widgets.view import Pictured
from mi_workshop.worlds.scenes import SIDE, Scenes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLE = {"description_width": "7em"}


def options_of(method: str) -> dict[str, w.Widget]:
    """A slider for each of a method's own options that is a number; they act when they are let go."""
    out: dict[str, w.Widget] = {}
    for name, option in list(inspect.signature(METHODS[method]).parameters.items())[1:]:
        value, common = option.default, {"description": name, "continuous_update": False, "style": STYLE}
        if type(value) is int:
            out[name] = w.IntSlider(value=value, min=1, max=4 * value, **common)
        elif type(value) is float:
            out[name] = w.FloatSlider(value=value, min=0, max=max(4 * value, 0.5), step=0.01, **common)
    return out


class Explorer(Pictured, w.VBox):
    """``saliency.explore``: see there. ``method``, ``baseline`` and ``options`` ({name: slider}) are controls, ``attribution`` is the map shown,
    ``scores`` what it scores; ``error`` is the sentence shown instead, "" where there is none."""

    def __init__(self, model: Any, input: Any, target: Any = None, method: str = "integrated_gradients") -> None:
        self.model, self.input, self.target = model, input, target
        self.options: dict[str, w.Widget] = {}
        self.attribution: Attribution | None = None
        self.key: Key | None = None
        self.scores: dict[str, float] = {}
        self.error = ""
        baselines = [*FILLED, "blur"] if problem(model, input, target).picture else ["mean", "zero"]
        if method not in METHODS:
            raise SaliencyError(f"There is no method {method!r}; choose {either(METHODS)}.")
        self.method = w.Dropdown(options=list(METHODS), value=method, description="method", style=STYLE)
        self.baseline = w.Dropdown(options=baselines, description="baseline", style=STYLE)
        self._sliders, self._map, self._said = w.VBox(), w.HTML(), w.HTML()
        super().__init__(
            [w.HBox([w.VBox([*self.top(), self.method, self.baseline, self._sliders]), self._said]), self._map]
        )
        self.method.observe(self._choose, "value")
        self.baseline.observe(self._show, "value")
        self._new_input()
        if self.error:
            raise SaliencyError(self.error)

    def top(self) -> list[w.Widget]:
        """Controls above those of the method."""
        return []

    # ----------------------------------------------------------------- computing
    def _new_input(self, change: Any = None) -> None:
        """Another input: its answer keys, where a world knows them, are computed once."""
        try:
            self.key = answer_keys(self.model, self.input, self.target)
        except Exception:  # no key, or what is asked does not fit, which the map will say
            self.key = None
        self._choose()

    def _choose(self, change: Any = None) -> None:
        self.options = options_of(self.method.value)
        for slider in self.options.values():
            slider.observe(self._show, "value")
        self._sliders.children = tuple(self.options.values())
        self.baseline.disabled = self.method.value in NO_BASELINE
        self._show()

    def _show(self, change: Any = None) -> None:
        """Compute and show; nothing is raised here, since no one would see it."""
        self._said.value = "<p>Computing …</p>"
        try:
            p = problem(self.model, self.input, self.target, self.baseline.value)
            options = {name: slider.value for name, slider in self.options.items()}
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = attribute(p, None, method=self.method.value, **options)
                self.scores = self._score(found) if self.key else curve_areas(curves(p, found.scores))
            self.attribution, self.error = found, ""
            figure = found.figure()
            data = base64.b64encode(png(figure, dpi=120)).decode()
            self._map.value = image(data, found.words(), int(figure.get_figwidth() * 80))
            self._said.value = "".join(f"<p>{html.escape(line)}</p>" for line in self._lines())
        except Exception as error:
            known = isinstance(error, ValueError) and str(error)
            self.error = str(error) if known else f"This went wrong in the kernel: {type(error).__name__}."
            self._map.value, self._said.value = "", f'<p role="alert">{html.escape(self.error)}</p>'

    def _score(self, a: Attribution) -> dict[str, float]:
        assert self.key is not None
        ranked, masks = agreement(a, self.key), {key: self.key.true_mask(key) for key in ("model", "world")}
        out = {"tau": ranked["tau"], "auc": ranked["auc"]}
        for key, mask in masks.items():
            out |= {f"pointing_{key}": float(pointing(a, mask)), f"mass_{key}": mass(a, mask)}
        return out

    def _lines(self) -> list[str]:
        """The scores in words."""
        assert self.attribution is not None
        s, seconds = self.scores, f"{self.attribution.seconds:.2f} s"
        if not self.key:
            return [f"No answer key: insertion {s['insertion']:.2f} (should be large), deletion {s['deletion']:.2f} (small).", seconds]  # fmt: skip
        lines = []
        for key, about, name in (("model", f"what changes {self.attribution.model}", "tau"), ("world", "what should matter", "auc")):  # fmt: skip
            hit = "points at it" if s[f"pointing_{key}"] else "points elsewhere"
            rank = f"{'rank agreement τ' if name == 'tau' else 'AUC'} {s[name]:.2f}"
            lines.append(f"{key.capitalize()} key ({about}): {hit}, {s[f'mass_{key}']:.0%} of the mass inside, {rank}.")
        return [*lines, seconds]

    # ------------------------------------------------------------------- showing
    def figure(self) -> Figure:
        """The map that is shown, or the last before an error."""
        assert self.attribution is not None
        return self.attribution.figure()

    def describe(self) -> str:
        """The map and its scores in words, or the error."""
        assert self.attribution is not None
        return self.error or " ".join([self.attribution.words(), *self._lines()[:-1]])


class PictureUpload(Explorer):
    """``saliency.picture_upload``: see there. ``upload`` and ``text`` are controls; ``take(bytes)`` does what an upload does."""

    def __init__(self, model: Any, query: str | None = None, picture: Any = None, method: str = "grad_cam") -> None:
        if not isinstance(model, ImageModel | ImageTextModel):
            raise SaliencyError(f"Pictures are for models that look at pictures, not for {type(model).__name__}.")
        self.upload = w.FileUpload(accept="image/*", multiple=False, description="Your picture")
        words = "query" if isinstance(model, ImageTextModel) else "class"
        query = "a red circle" if query is None and words == "query" else query
        self.text = w.Text(value=query or "", description=words, placeholder="the likeliest", continuous_update=False, style=STYLE)  # fmt: skip
        self.note = w.HTML()
        picture = Scenes().sample(1, "test")[0] if picture is None else picture
        super().__init__(model, picture, query or None, method)
        self.upload.observe(self._uploaded, "value")
        self.text.observe(self._asked, "value")

    def top(self) -> list[w.Widget]:
        return [self.upload, self.note, self.text]

    def take(self, data: bytes) -> None:
        """Explain the picture in a file's bytes; a sentence is shown for what is no picture."""
        try:
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                self.input = read_picture(data, SIDE if self.model.world else None)
        except ValueError as error:
            self.note.value = f'<p role="alert">{html.escape(str(error))}</p>'
            return
        self.note.value = "".join(f"<p>{html.escape(str(one.message))}</p>" for one in said)
        self._new_input()

    def _uploaded(self, change: Any = None) -> None:
        for data in uploaded(self.upload.value):
            self.take(data)

    def _asked(self, change: Any = None) -> None:
        self.target = self.text.value.strip() or None
        self._new_input()


def uploaded(value: Any) -> list[bytes]:
    """The bytes in ``FileUpload.value``: a tuple of files in ipywidgets 8, a dictionary by name in 7."""
    return [bytes(file["content"]) for file in (value.values() if isinstance(value, dict) else value)]
