"""A scrubber through the layers of a cube; made of ipywidgets alone. ``scrubber.layer.value = 2`` from Python does what the slider does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ipywidgets as w
import numpy as np

from mi_workshop.cube.metrics import CubeError
from mi_workshop.cube.plots import draw_bars, grid
from mi_workshop.cube.stack import units
from mi_workshop.heat_plots import shown
from mi_workshop.plots import picture
from mi_workshop.widgets.saliency_controls import STYLE, said
from mi_workshop.widgets.view import Pictured, Spoken

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from mi_workshop.cube import Cube

NAMED = 5  # strongest units of a layer


class LayerScrubber(Pictured, w.VBox):
    """``cube.scrub``: see there. ``layer``, ``metric`` and ``prompt`` are controls (the row of the map, a variable of the cube, a number); ``error`` is the sentence
    shown instead, "" where there is none."""

    def __init__(self, cube: Cube, prompt: int = 0, metric: str | None = None) -> None:
        self.cube, self.error = cube, ""
        variable = cube.variable(metric)
        self.grid = grid(cube, variable, None, prompt)
        self.layer = w.IntSlider(value=0, min=0, max=len(self.grid.rows) - 1, description="layer", style=STYLE)
        self.metric = w.Dropdown(options=list(cube.metrics), value=variable, description="metric", style=STYLE)
        n = len(cube.prompts)
        self.prompt = w.BoundedIntText(value=prompt % n, min=0, max=n - 1, description=f"prompt of {n}", style=STYLE)
        self._map, self._said = w.HTML(), w.HTML(layout=w.Layout(max_width="60em"))
        super().__init__([self.layer, w.HBox([self.metric, self.prompt]), self._map, self._said, Spoken()])
        self.layer.observe(self._show, "value")
        for control in (self.metric, self.prompt):
            control.observe(self._begin, "value")
        self._begin()
        if self.error:
            raise CubeError(self.error)

    def _begin(self, change: Any = None) -> None:
        """Another map: its rows may be others."""
        try:
            self.grid, self.error = grid(self.cube, self.metric.value, None, self.prompt.value), ""
        except Exception as error:
            self._fail(error)
            return
        self.layer.max = len(self.grid.rows) - 1
        try:
            found, what = units(self.cube, self.prompt.value, None, NAMED)
            self._units = None if " of " in what or found.empty else found
        except CubeError:  # there are none to name
            self._units = None
        self._show()

    def _fail(self, error: Exception) -> None:
        self.error = str(error) if isinstance(error, ValueError) else f"This went wrong in the kernel: {type(error).__name__}."  # fmt: skip
        self._map.value, self._said.value = "", said([self.error], alert=True)

    def _show(self, change: Any = None) -> None:
        """Draw the present layer; nothing is raised here, since no one would see it."""
        try:
            self.error = ""
            words = self.describe()
            self._map.value, self._said.value = picture(self.figure(), words, 72), said([words])
        except Exception as error:
            self._fail(error)

    @property
    def strongest(self) -> pd.DataFrame | None:
        """The units with the largest activations in this layer, strongest first; None where the cube has none, and for modules and heads."""
        at = self.grid.at[self.layer.value]
        if self._units is None or [*at] != ["layer"]:
            return None
        here = self._units[self._units.layer == at["layer"]].sort_values("strength", key=abs, ascending=False)
        return here.drop_duplicates("unit").head(NAMED)

    def figure(self) -> Figure:
        """The layer's numbers for each token, on the scale of all layers, and the strongest units."""
        g, i = self.grid, self.layer.value
        return draw_bars(g.columns, g.values[i], f"{g.rows[i]}: {g.title}", (g.low, g.high), self.strongest)

    def describe(self) -> str:
        """The layer in words, or the error."""
        g, i, best = self.grid, self.layer.value, self.strongest
        j = int(np.nanargmax(np.abs(g.values[i])))
        where = f" at {g.columns[j]!r} [{j}]" if any(g.columns) else ""
        named = [] if best is None else [f"{r.label} at {r.where!r} {r.strength:.3g}" for r in best.itertuples()]
        words = f"{g.metric} of {g.site}, {g.rows[i]} ({i + 1} of {len(g.rows)}), {shown(self.cube.prompts[self.prompt.value], 60)!r}: largest {g.values[i, j]:.3g}{where}."
        return self.error or words + (f" Strongest: {'; '.join(named)}." if named else "")
