"""Sliders for the pre-activations of a small layer, and what the activation functions make of them. Made of ipywidgets alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ipywidgets as w
from matplotlib.figure import Figure

from mi_workshop.plots import picture
from mi_workshop.solu import Units
from mi_workshop.widgets.saliency_controls import STYLE, said
from mi_workshop.widgets.view import Pictured, Spoken


class SoluExplorer(Pictured, w.VBox):
    """``solu.explore``: see there. ``sliders`` are the controls, ``units`` is what is shown."""

    units: Units

    def __init__(self, x: Sequence[float]) -> None:
        if not 2 <= len(x) <= 6:
            raise ValueError(f"A layer of 2 to 6 neurons is shown, not of {len(x)}.")
        self.sliders = [
            w.FloatSlider(value=float(v), min=min(-4, v), max=max(8, v), step=0.1, description=f"neuron {i + 1}", continuous_update=False, style=STYLE)
            for i, v in enumerate(x)
        ]  # fmt: skip
        self._map, self._said = w.HTML(), w.HTML()
        super().__init__([*self.sliders, self._map, self._said, Spoken()])
        for slider in self.sliders:
            slider.observe(self._show, "value")
        self._show()

    def _show(self, change: Any = None) -> None:
        self.units = Units(tuple(slider.value for slider in self.sliders))
        self._map.value = picture(self.figure(), self.describe())
        self._said.value = said([self.describe()])

    def figure(self) -> Figure:
        return self.units.figure()

    def describe(self) -> str:
        return self.units.words()
