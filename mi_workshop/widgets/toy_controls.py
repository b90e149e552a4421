"""Controls around a toy model of superposition; made of ipywidgets alone. ``explorer.sparsity.value = 0.5`` from Python does what a slider does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ipywidgets as w

from mi_workshop.plots import picture
from mi_workshop.superposition.toys import Toy, train_toy
from mi_workshop.widgets.saliency_controls import STYLE, said
from mi_workshop.widgets.view import Pictured, Spoken

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST = 8  # features that the eye can tell apart in the plane


class ToyExplorer(Pictured, w.VBox):
    """``superposition.explore_toy``: see there. ``features``, ``sparsity``, ``importance`` and ``hidden`` are controls, ``toy`` is the model shown; ``error`` is the sentence
    shown instead, "" where there is none."""

    toy: Toy

    def __init__(self, n_features: int, sparsity: float, importance: float, hidden: str) -> None:
        if not 2 <= n_features <= MOST:
            raise ValueError(f"Choose 2 to {MOST} features to look at in the plane, not {n_features}.")
        if not 0 <= sparsity <= 0.99 or not 0.3 <= importance <= 1:
            raise ValueError(f"The sliders go from 0 to 0.99 (sparsity) and from 0.3 to 1 (importance), not to {sparsity} and {importance}.")  # fmt: skip
        if hidden not in ("linear", "relu"):
            raise ValueError(f"There is no hidden layer {hidden!r}: choose 'linear' or 'relu'.")
        common = {"continuous_update": False, "style": STYLE}
        self.features = w.IntSlider(value=n_features, min=2, max=MOST, description="features", **common)
        self.sparsity = w.FloatSlider(value=sparsity, min=0, max=0.99, step=0.01, description="sparsity", **common)
        self.importance = w.FloatSlider(value=importance, min=0.3, max=1, step=0.05, description="importance", **common)
        self.hidden = w.Dropdown(options=["linear", "relu"], value=hidden, description="hidden layer", style=STYLE)
        self.controls = (self.features, self.sparsity, self.importance, self.hidden)
        self.error, self._map, self._said = "", w.HTML(), w.HTML(layout=w.Layout(max_width="24em"))
        super().__init__([w.HBox([w.VBox([*self.controls, self._said]), self._map]), Spoken()])
        for control in self.controls:
            control.observe(self._show, "value")
        self._show()

    def _show(self, change: Any = None) -> None:
        """Train and show; nothing is raised here, since no one would see it."""
        self._said.value = said(["Training …"])
        try:
            n, sparsity, importance, hidden = (control.value for control in self.controls)
            self.toy, self.error = train_toy(n, 2, sparsity, importance, hidden, steps=400)[0], ""
            self._map.value = picture(self.figure(), self.toy.words())
            self._said.value = said([self.toy.words()])
        except Exception as error:
            self.error = f"This went wrong in the kernel: {type(error).__name__}."
            self._map.value, self._said.value = "", said([self.error], alert=True)

    def figure(self) -> Figure:
        """The model that is shown, or the last before an error."""
        return self.toy.figure()

    def describe(self) -> str:
        """The settings and the model in words, or the error."""
        n, sparsity, importance, hidden = (control.value for control in self.controls)
        return self.error or f"{n} features, each {importance:g} times as important as the one before, hidden layer {hidden}. {self.toy.words()}"  # fmt: skip
