"""What a talk needs on a stage: a theme, a clock, a reset, a plan B, an address to follow, a box for what the audience names.

``notebooks/live_demo`` is the talk; ``teach.preflight`` runs it beforehand. A live cell begins with the line ``# live: NAME``: if
it fails or is interrupted, the picture NAME of ``plan_b.zip`` (made from the built notebook by tools/plan_b.py) is shown below it.
"""

from __future__ import annotations

import base64
import html
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import ipywidgets as w
import numpy as np
from IPython import get_ipython
from IPython.display import HTML, display

from mi_workshop.circuits.graph import AttributionGraph
from mi_workshop.circuits.swap import swap
from mi_workshop.circuits.trace import trace
from mi_workshop.models import Model
from mi_workshop.plots import BLUE, INK, new_figure, open_frames, picture
from mi_workshop.saliency import Attribution
from mi_workshop.show import Shown, image
from mi_workshop.teach.preflight import LIVE
from mi_workshop.widgets.saliency_controls import said
from mi_workshop.widgets.view import Pictured, Spoken
from mi_workshop.worlds.atlas import Atlas, WorldError

PARTS = {  # minutes
    "Why explainability matters": 3, "What transformers hide": 2, "How circuit tracing helps": 3,
    "Seeing the reasoning path": 10, "Why this matters": 2, "Our own tools": 2,
}  # fmt: skip
PLAN_B = Path(__file__).parent / "plan_b.zip"
TYPED = 40  # characters of what somebody typed that are looked at
THEME = """<style>
.jp-NotebookPanel:has(.mi-talk) { --jp-content-font-size1: 22px; --jp-content-line-height: 1.45; --jp-code-font-size: 18px;
  --jp-widgets-font-size: 20px; --jp-widgets-inline-height: 36px; }
.jp-NotebookPanel:has(.mi-talk) .jp-OutputArea-output :is(table, pre) { font-size: 18px; }
.jp-NotebookPanel:has(.mi-talk) .jp-OutputArea-output img { max-width: 100%; max-height: 74vh; width: auto; height: auto; }
.jp-NotebookPanel:has(.mi-talk) .mi-audience img { width: 100%; max-height: 56vh; object-fit: contain; object-position: left; }
.jp-NotebookPanel:has(.mi-talk) .mi-big :is(.mi-stage, .mi-side) { height: 50vh; }
body[data-jp-deck-mode="presenting"] .jp-Cell:has(.mi-clock) { position: fixed !important; inset: auto auto 0 3em !important; width: max-content !important; z-index: 9; background: var(--jp-layout-color0, white); }
body[data-jp-deck-mode="presenting"] .jp-Cell:has(.mi-clock) :is(.jp-Cell-inputWrapper, .jp-OutputArea-promptOverlay) { display: none; }
.jp-NotebookPanel:has(.mi-talk) .mi-heat.mi-big .mi-side { height: auto; max-height: 50vh; }
.jp-NotebookPanel:has(.mi-talk) .mi-big:has(.mi-circuit) { display: flex; flex-direction: column; padding: 4px 8px; }
.jp-NotebookPanel:has(.mi-talk) .mi-big:has(.mi-circuit) .mi-circuit { order: -1; margin: 0; }
@container (min-width: 1000px) { /* a graph on one slide: circuit, buttons, then its nodes beside the answers */
  .jp-NotebookPanel:has(.mi-talk) .mi-big:has(.mi-circuit) :is(.mi-bar, .mi-status, .mi-circuit :is(h2, p), .mi-row:has(.mi-name), .mi-answer:not(.mi-chain)) { display: none !important; }
  .jp-NotebookPanel:has(.mi-talk) .mi-big:has(.mi-circuit) .mi-main { position: relative; padding-top: 2.4em; }
  .jp-NotebookPanel:has(.mi-talk) .mi-big:has(.mi-circuit) .mi-act { position: absolute; inset: 0 0 auto; display: flex; gap: .6em; align-items: baseline; border: 0; padding: 0; }
  .jp-NotebookPanel:has(.mi-talk) .mi-big:has(.mi-circuit) .mi-act .mi-row { margin: 0; flex-wrap: nowrap; }
  .jp-NotebookPanel:has(.mi-talk) .mi-big:has(.mi-circuit) .mi-act > h2 { min-width: 0; overflow: hidden; white-space: nowrap; text-overflow: ellipsis; }
  .jp-NotebookPanel:has(.mi-talk) .mi-big:has(.mi-circuit) .mi-act select { max-width: 12em; }
}
</style><div class="mi-talk"></div>"""  # for the notebook that shows it, and for no other that is open beside it

_names: dict[str, Any] = {}
_weights: list[tuple[Any, dict[str, Any]]] = []
_undo: list[Callable[[], Any]] = []


# -------------------------------------------------------------------------------------------- the state of the talk
def begin(*models: Model) -> HTML:
    """Put on the theme, warm up the ``models`` (one trace and one swap each) and remember the state to which ``reset`` returns."""
    for model in models:
        prompt = "Fact: the capital of the state containing Dallas is"
        for result in (trace(model, prompt), swap(model, prompt, "Texas", "California", n_random=1)):
            result._repr_mimebundle_()
    _weights[:] = [(m.replacement, {k: v.clone() for k, v in m.replacement.state_dict().items()}) for m in models]
    _undo.clear()
    _names.clear()
    _names.update(_namespace())
    if shell := get_ipython():
        hooks = shell.events.callbacks["post_run_cell"]
        hooks[:] = [hook for hook in hooks if getattr(hook, "__name__", "") != "rescue"] + [rescue]
    return HTML(THEME + said(["Warmed up. Now: Edit, Clear Outputs of All Cells; run stage.reset(); start the deck."]))


def reset() -> HTML:
    """As after ``begin``: its variables and weights, no hooks; clock, box and views as they opened. No model is loaded."""
    for replacement, weights in _weights:
        replacement.reset_hooks()
        replacement.load_state_dict(weights)
    for undo in _undo:
        undo()
    if shell := get_ipython():
        for name in _namespace().keys() - _names.keys():
            del shell.user_ns[name]
        shell.user_ns.update(_names)
    return HTML(THEME + said(["As before the talk."]))


def _namespace() -> dict[str, Any]:
    shell: Any = get_ipython()
    found = shell.user_ns if shell else {}
    return {k: v for k, v in found.items() if not k.startswith("_") and k not in shell.user_ns_hidden}


def show(shown: AttributionGraph | Any) -> Any:
    """A graph, or another view, in the size for a projector; ``reset`` puts it back as it opened."""
    view = shown.show(threshold=0.75) if isinstance(shown, AttributionGraph) else shown
    view.size = "stage"
    names = ("interventions", "supernodes", "selected", "threshold", "clicked")
    opened = {name: getattr(view, name) for name in names if view.has_trait(name)}

    def again() -> None:
        for name, value in opened.items():
            setattr(view, name, value)

    _undo.append(again)
    return view


@dataclass(frozen=True)
class Bars(Shown):
    """How much each word of an ``attribution`` adds to the answer, as bars that can be read from the last row."""

    attribution: Attribution

    def words(self) -> str:
        return self.attribution.words()

    def figure(self) -> Any:
        a = self.attribution
        figure = new_figure(14, 3.6)
        ax, places = figure.add_subplot(), range(len(a.scores))
        ax.bar(places, a.scores, color=BLUE, edgecolor=INK)
        for x, score in zip(places, a.scores, strict=True):
            ax.text(
                x,
                max(score, 0),
                f"{round(float(score), 1) + 0.0:.1f}".replace("-", "−"),
                ha="center",
                va="bottom",
                fontsize=15,
            )
        ax.set_xticks(places, list(a.input), fontsize=15, parse_math=False)
        ax.set_title(
            f"how much each word adds to {a.target.removeprefix('logit of ')}",
            fontsize=17,
            loc="left",
            parse_math=False,
        )
        ax.set_yticks([])
        ax.margins(y=0.12)
        open_frames(ax)
        return figure


# ----------------------------------------------------------------------------------------------------------- plan B
def plan_b(name: str) -> HTML:
    """The stored picture of the live cell ``name``, with its alt text. Raises ValueError, with the names there are, for another."""
    with zipfile.ZipFile(PLAN_B) as file:
        if f"{name}.png" not in file.namelist():
            names = ", ".join(sorted(Path(entry).stem for entry in file.namelist() if entry.endswith(".png")))
            raise ValueError(f"There is no stored picture {str(name)[:TYPED]!r}: choose {names}.")
        png, alt = base64.b64encode(file.read(f"{name}.png")).decode(), file.read(f"{name}.txt").decode()
    return HTML(said(["Plan B: this picture was made before the talk."]) + image(png, alt, 1100))


def rescue(result: Any) -> None:
    """IPython calls this after each cell: plan B, below a live cell that failed or was interrupted."""
    live = LIVE.match(result.info.raw_cell or "")
    if live and not result.success:
        display(plan_b(live[1]))


# -------------------------------------------------------------------------------------------------------- the clock
class Clock(Pictured, w.HBox):
    """Minutes and seconds, the part of the talk, and until when it lasts. Press play; the browser counts, also while the kernel works."""

    def __init__(self, parts: dict[str, int]) -> None:
        self.parts, self.minutes = parts, sum(parts.values())
        self.play = w.Play(max=3 * 3600, interval=1000)
        self.bar = w.IntProgress(max=60 * self.minutes, layout=w.Layout(width="9em"))
        self.text = w.HTML(self.line(0), layout=w.Layout(width="24em"))
        super().__init__([self.play, self.bar, self.text, Spoken()])
        self.add_class("mi-clock")
        w.jslink((self.play, "value"), (self.bar, "value"))
        self.play.observe(lambda change: setattr(self.text, "value", self.line(change.new)), "value")

    def line(self, seconds: int) -> str:
        """What stands beside the bar after ``seconds``."""
        time, end = f"<b>{seconds // 60}:{seconds % 60:02}</b> ", 0
        for name, minutes in self.parts.items():
            end += minutes
            if seconds < 60 * end:
                return f"{time}{html.escape(name)}, until {end}"
        return f"{time}{seconds // 60 - end} min over"

    def describe(self) -> str:
        return f"{self.minutes} minutes: {', '.join(f'{name} {n}' for name, n in self.parts.items())}."

    def figure(self) -> Any:
        figure = new_figure(9, 2.9)
        ax, rows, minutes = figure.add_subplot(), range(0, -len(self.parts), -1), list(self.parts.values())
        ax.barh(rows, minutes, left=np.cumsum([0, *minutes[:-1]]), color=BLUE, edgecolor=INK)
        ax.set_yticks(rows, [f"{name}, {n} min" for name, n in self.parts.items()], fontsize=13, parse_math=False)
        ax.set_xlabel("minute", fontsize=12)
        open_frames(ax)
        return figure


def timer(minutes: int = 22, parts: dict[str, int] = PARTS) -> Clock:
    """A clock for a talk of ``parts`` (name to minutes); ValueError if they do not add up to ``minutes``."""
    if sum(parts.values()) != minutes:
        raise ValueError(f"The parts add up to {sum(parts.values())} minutes, not {minutes}.")
    clock = Clock(parts)
    playing = "playing" if clock.play.has_trait("playing") else "_playing"  # its name in ipywidgets 7
    _undo.extend((lambda: clock.play.set_trait(playing, False), lambda: clock.play.set_trait("value", 0)))
    return clock


# ----------------------------------------------------------------------------------------------------- the audience
@dataclass(frozen=True)
class Follow(Shown):
    """Where the audience follows: ``address``, as a QR code and in letters."""

    address: str

    def words(self) -> str:
        return f"Follow along: {self.address}, as a QR code and in letters."

    def code(self) -> Any:
        """The QR code, a ``segno.QRCode``."""
        import segno

        return segno.make(self.address, error="m", micro=False)

    def figure(self) -> Any:
        figure = new_figure(11, 4.6)
        code, text = figure.subplots(1, 2, width_ratios=(1, 1.5))
        code.imshow([[not dark for dark in row] for row in self.code().matrix_iter(border=4)], cmap="gray")
        text.text(0, 0.6, "Follow along", fontsize=30, weight="bold", color=INK)
        text.text(0, 0.4, self.address.removeprefix("https://"), fontsize=21, color=INK, parse_math=False)
        for ax in (code, text):
            ax.set_axis_off()
        return figure


def follow() -> Follow:
    """The one public address, which stands in pyproject.toml; its front page leads on to Colab and Binder."""
    urls = metadata.metadata("mi-workshop").get_all("Project-URL") or []
    return Follow(next(url.partition(", ")[2].rstrip("/") for url in urls if url.startswith("Repository,")))


def named(text: object, known: Sequence[str], world: Atlas) -> str:
    """The one of ``known`` that somebody typed, in whatever case; WorldError with the nearest ones if it is none of them."""
    typed = " ".join(str(text)[:TYPED].split())
    if found := {name.casefold(): name for name in known}.get(typed.casefold()):
        return found
    raise WorldError(f"{typed!r} is not in this model's world; {world.nearest(typed, list(known))}")


class Audience(Pictured, w.VBox):
    """``city``: what somebody calls out, traced; ``place``: what its state or country is swapped for. Enter in a box starts it."""

    def __init__(self, model: Model, city: str = "Oakland") -> None:
        assert isinstance(model.world, Atlas)
        self.model, self.world = model, model.world
        make = {"continuous_update": False, "style": {"description_width": "6em"}, "layout": w.Layout(width="24em")}
        self.city = w.Text(description="City", placeholder="a city", **make)
        self.place = w.Text(description="swap for", placeholder="a state or country", **make)
        self.answer, self._drawn, self._words = w.HTML(), new_figure(9, 5), ""
        super().__init__([w.HBox([self.city, self.place]), self.answer, Spoken()])
        self.add_class("mi-audience")
        for box in (self.city, self.place):
            box.observe(self._answer, "value")
        self._first(city)
        _undo.append(lambda: self._first(city))

    def _first(self, city: str) -> None:
        self.place.value, self.city.value = "", city

    def _answer(self, change: Any) -> None:
        try:
            city = named(self.city.value, list(self.world.home), self.world)
            home, prompt = self.world.home[city], self.world.two_hop(city).prompt
            if change.owner is self.city or not self.place.value:
                shown: Shown = trace(self.model, prompt, max_n_logits=1).prune()
                line = f"{prompt} … Right: {self.world.answer(prompt)}"
            else:
                kind = [place.name for place in self.world.places.values() if place.kind == home.kind]
                place = named(self.place.value, [name for name in kind if name != home.name], self.world)
                shown = result = swap(self.model, prompt, home.name, place, at="city")
                line = f"{prompt} … With {place} in place of {home.name}. Expected: {result.expected}"
            self._drawn, self._words = shown.figure(), shown.describe()
            if isinstance(shown, AttributionGraph):
                self._drawn.set_size_inches(12, 4.5)  # the same letters on less paper
            self.answer.value = said([line]) + picture(self._drawn, self._words, dpi=94)
        except Exception as error:  # the room must see a sentence: nothing else shows a callback's errors
            self.answer.value = said([str(error) or type(error).__name__], alert=True)

    def describe(self) -> str:
        return self._words

    def figure(self) -> Any:
        return self._drawn
