"""The attention brush: a passage's attention weights as bars that can be moved, and what the prediction does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import traitlets as t

from mi_workshop.widgets.view import HERE, STYLE, View, module

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from mi_workshop.models.attention_rnn import PassageModel
    from mi_workshop.worlds.passages import Passage


def distance(a: Any, b: Any) -> float:
    """Total variation of two distributions: half of the sum of absolute differences, from 0 to 1."""
    return float(np.abs(np.asarray(a, float) - np.asarray(b, float)).sum() / 2)


class AttentionBrush(View):
    """``weights`` of the words of a passage, put in the place of the model's own; they can be set from Python, too.

    ``answer`` holds the probabilities ``before`` (own weights) and ``after``, and in ``text`` how far weights and prediction have moved, in total
    variation. What goes wrong in the model stands in its ``error``. Raises traitlets.TraitError for weights that are not one number of
    0 or more for each word, one of them more than 0; they are divided by their sum.
    """

    _esm = module("attention_brush.js")
    _css = STYLE + (HERE / "attention_brush.css").read_text(encoding="utf-8")
    saved = ("words", "own", "weights", "title", "answer", "size")
    words = t.List(t.Unicode()).tag(sync=True)
    own = t.List(t.Float()).tag(sync=True)
    weights = t.List(t.Float()).tag(sync=True)
    title = t.Unicode().tag(sync=True)
    answer = t.Dict().tag(sync=True)
    can_ask = t.Bool(False).tag(sync=True)
    size = t.Enum(["normal", "stage"], "normal").tag(sync=True)

    def __init__(self, model: PassageModel, passage: Passage, size: str = "normal") -> None:
        self._model, self._passage = model, passage
        self._before, own = (x[0].tolist() for x in model.predict([passage]))
        asked = f": {' '.join(passage.question[:-1])}?" if passage.question else ""
        super().__init__(
            words=list(passage.words), own=own, weights=own, title=f"{type(model.world).__name__}{asked}", can_ask=True, size=size
        )  # fmt: skip
        self._ask()
        self.observe(self._ask, "weights")

    @t.validate("weights")
    def _normalised(self, proposal: Any) -> list[float]:
        given = np.array(proposal.value, float)
        if (
            given.shape != (len(self._passage.words),)
            or not np.isfinite(given).all()
            or (given < 0).any()
            or not given.any()
        ):
            raise t.TraitError(
                f"Give {len(self._passage.words)} weights, one of 0 or more for each word, and not all 0."
            )
        return (given / given.sum()).tolist()

    def _ask(self, change: Any = None) -> None:
        try:
            now = self._model.predict([self._passage], torch.tensor([self.weights]))[0][0].tolist()
        except Exception as error:  # the reader must see it: nothing else shows a callback's errors
            self.answer = {"error": str(error) or f"This went wrong in the kernel: {type(error).__name__}."}
            return
        classes, before = self._model.world.classes, self._before
        first, second = (classes[int(np.argmax(p))] for p in (before, now))
        moved = f"The weights have moved by {distance(self.own, self.weights):.2f}, the prediction by {distance(before, now):.2f} (of 1, total variation)."
        kept = f"The answer stays {first}." if first == second else f"The answer was {first} and is now {second}."
        rows = [sorted(({"token": c, "prob": p} for c, p in zip(classes, each, strict=True)), key=lambda r: -r["prob"]) for each in (before, now)]  # fmt: skip
        self.answer = {"text": f"{moved}\n{kept}", "before": rows[0], "after": rows[1], "error": ""}

    def figure(self) -> Figure:
        """Weights and prediction as bars, the model's own beside those of now."""
        from mi_workshop.heat_plots import draw_brush

        before, now = ([(r["token"], r["prob"]) for r in self.answer.get(k, [])] for k in ("before", "after"))
        return draw_brush(self.words, self.own, self.weights, before, dict(now))

    def describe(self) -> str:
        """In words: the largest weights, and what has moved."""
        top = sorted(range(len(self.words)), key=lambda i: -self.weights[i])[:3]
        said = ", ".join(f"{self.words[i]} [{i}] {self.weights[i]:.2f}" for i in top)
        return f"{self.title} · attention over {len(self.words)} words, most on {said}. {self.answer.get('error') or self.answer['text']}".replace("\n", " ")  # fmt: skip
