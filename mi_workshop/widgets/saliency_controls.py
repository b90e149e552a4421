"""Controls around ``attribute``: method, baseline and the method's own options, with what the map scores beside it; and own pictures.

Made of ipywidgets alone. Every control can be set from Python, ``explorer.method.value = "occlusion"``, and then does what a click does.
"""

from __future__ import annotations

import html
import inspect
import warnings
from typing import TYPE_CHECKING, Any

import ipywidgets as w

from mi_workshop.models.small import ImageModel, ImageTextModel
from mi_workshop.pictures import read_picture
from mi_workshop.plots import picture
from mi_workshop.saliency.attribution import METHODS, Attribution, attribute
from mi_workshop.saliency.explore import against, in_words
from mi_workshop.saliency.inputs import FILLED, SaliencyError, problem
from mi_workshop.saliency.keys import Key, answer_keys
from mi_workshop.saliency.methods import NO_BASELINE
from mi_workshop.show import either
from mi_workshop.widgets.view import Pictured, Spoken
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

    attribution: Attribution
    key: Key | None
    scores: dict[str, float]
    options: dict[str, w.Widget]

    def __init__(self, model: Any, input: Any, target: Any = None, method: str = "integrated_gradients", above: tuple[w.Widget, ...] = ()) -> None:  # fmt: skip
        self.model, self.input, self.target, self.error = model, input, target, ""
        baselines = [*FILLED, "blur"] if problem(model, input, target).picture else ["mean", "zero"]
        if method not in METHODS:
            raise SaliencyError(f"There is no method {method!r}; choose {either(METHODS)}.")
        self.method = w.Dropdown(options=list(METHODS), value=method, description="method", style=STYLE)
        self.baseline = w.Dropdown(options=baselines, description="baseline", style=STYLE)
        self._sliders, self._map, self._said = w.VBox(), w.HTML(), w.HTML(layout=w.Layout(max_width="24em"))
        super().__init__([*above, self.method, self.baseline, self._sliders, w.HBox([self._map, self._said]), Spoken()])
        self.method.observe(self._choose, "value")
        self.baseline.observe(self._show, "value")
        self._begin()
        if self.error:
            raise SaliencyError(self.error)

    def _begin(self) -> None:
        """Another input: its answer keys, where a world knows them, are computed once."""
        try:
            self.key = answer_keys(self.model, self.input, self.target)
        except Exception:  # no key; or what is asked does not fit, which the map will say
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
        self._said.value = said(["Computing …"])
        try:
            p = problem(self.model, self.input, self.target, self.baseline.value)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = attribute(
                    p, None, None, self.method.value, **{name: s.value for name, s in self.options.items()}
                )
                self.scores = against(p, found, self.key)
            self.attribution, self.error = found, ""
            self._map.value = picture(self.figure(), found.words())
            self._said.value = said([*in_words(self.scores, self.key), f"{found.seconds:.2f} s"])
        except Exception as error:
            known = isinstance(error, ValueError) and str(error)
            self.error = str(error) if known else f"This went wrong in the kernel: {type(error).__name__}."
            self._map.value, self._said.value = "", said([self.error], alert=True)

    def figure(self) -> Figure:
        """The map that is shown, or the last before an error."""
        return self.attribution.figure()

    def describe(self) -> str:
        """The map and its scores in words, or the error."""
        return self.error or " ".join([self.attribution.words(), *in_words(self.scores, self.key)])


class PictureUpload(Explorer):
    """``saliency.picture_upload``: see there. ``upload`` and ``text`` are controls; ``take(bytes)`` does what an upload does."""

    def __init__(self, model: Any, query: str | None = None, picture: Any = None, method: str = "grad_cam") -> None:
        if not isinstance(model, ImageModel | ImageTextModel):
            raise SaliencyError(f"Pictures are for models that look at pictures, not for {type(model).__name__}.")
        asks = isinstance(model, ImageTextModel)
        query = query or ("a red circle" if asks else "")
        self.upload, self.note = w.FileUpload(accept="image/*", multiple=False, description="Your picture"), w.HTML()
        self.text = w.Text(value=query, description="query" if asks else "class", placeholder="the likeliest", continuous_update=False, style=STYLE)  # fmt: skip
        picture = Scenes().sample(1, "test")[0] if picture is None else picture
        super().__init__(model, picture, query or None, method, (self.upload, self.note, self.text))
        self.upload.observe(self._take, "value")
        self.text.observe(self._ask, "value")

    def take(self, data: bytes) -> None:
        """Explain the picture in a file's bytes; a sentence is shown for what is no picture."""
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                self.input = read_picture(data, SIDE if self.model.world else None)
        except ValueError as error:
            self.note.value = said([str(error)], alert=True)
            return
        self.note.value = said([str(one.message) for one in caught])
        self._begin()

    def _take(self, change: Any) -> None:
        for data in uploaded(change["new"]):
            self.take(data)

    def _ask(self, change: Any = None) -> None:
        self.target = self.text.value.strip() or None
        self._begin()


def said(lines: list[str], alert: bool = False) -> str:
    """Sentences as HTML, whoever they come from. ``Spoken`` says them aloud, an alert says itself."""
    mark = 'role="alert"' if alert else 'class="mi-said"'
    return "".join(f'<p {mark} style="line-height: 1.4; margin: 0 0 .6em">{html.escape(line)}</p>' for line in lines)


def uploaded(value: Any) -> list[bytes]:
    """The bytes in ``FileUpload.value``: a tuple of files in ipywidgets 8, a dictionary by name in 7."""
    return [bytes(file["content"]) for file in (value.values() if isinstance(value, dict) else value)]
