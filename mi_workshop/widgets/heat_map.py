"""A heat map that answers: rows by columns (layers by tokens, layers by heads), and what a click on a cell computes.

``heat_map.js`` draws it; what a cell answers is computed by the caller's ``on_click``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import traitlets as t

from mi_workshop.widgets.view import HERE, STYLE, View, module

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PARTS = {"text": "", "before": [], "after": [], "controls": [], "error": ""}


class HeatMap(View):
    """A map of ``values`` [rows, columns] (NaN: not computed); ``on_click(row, column)`` says what a cell is about.

    ``values`` may be a DataFrame, whose index and columns then name ``rows`` and ``columns``. ``unit`` says what the numbers
    are ("probability of Austin"). ``low`` and ``high`` are the ends of the scale, by default those of the values; with
    ``diverging`` it is symmetric around 0. ``upward`` puts row 0 at the bottom, as layers stand in a graph.

    ``on_click`` returns a text, or ``{"text", "before", "after", "controls"}`` with ``before`` and ``after`` lists of
    ``{"token", "prob"}`` and ``controls`` of ``{"name", "token", "prob"}`` (and a ``note``, if there is one). What it raises is
    shown as a sentence. ``selected`` ([row, column], or []) can be set from Python and then answers as a click does.
    Raises ValueError if the shapes do not fit or the scale is empty; traitlets.TraitError for a cell outside the map.
    """

    _esm = module("heat_map.js")
    _css = STYLE + (HERE / "heat_map.css").read_text(encoding="utf-8")
    saved = (
        "cells",
        "rows",
        "columns",
        "title",
        "unit",
        "low",
        "high",
        "scale",
        "upward",
        "selected",
        "answer",
        "size",
    )
    cells = t.List(t.List()).tag(sync=True)
    rows = t.List(t.Unicode()).tag(sync=True)
    columns = t.List(t.Unicode()).tag(sync=True)
    title = t.Unicode().tag(sync=True)
    unit = t.Unicode().tag(sync=True)
    low = t.Float().tag(sync=True)
    high = t.Float().tag(sync=True)
    scale = t.List(t.Unicode()).tag(sync=True)
    upward = t.Bool(True).tag(sync=True)
    selected = t.List(t.Int(), maxlen=2).tag(sync=True)
    answer = t.Dict().tag(sync=True)
    can_ask = t.Bool(False).tag(sync=True)
    size = t.Enum(["normal", "stage"], "normal").tag(sync=True)

    def __init__(
        self, values: Any, rows: Sequence[str] | None = None, columns: Sequence[str] | None = None, title: str = "", unit: str = "",
        on_click: Callable[[int, int], str | Mapping[str, Any]] | None = None, low: float | None = None, high: float | None = None,
        diverging: bool = False, upward: bool = True, size: str = "normal",
    ) -> None:  # fmt: skip
        from mi_workshop.heat_plots import DIVERGING, SEQUENTIAL

        if isinstance(values, pd.DataFrame):
            rows, columns = rows or list(values.index), columns or list(values.columns)
        self.values = np.array(values, float)
        names = [[str(name) for name in side or []] for side in (rows, columns)]
        if self.values.ndim != 2 or self.values.shape != tuple(map(len, names)):
            shape = " × ".join(map(str, self.values.shape))
            raise ValueError(f"Values of {shape} need as many names: there are {len(names[0])} for the rows and {len(names[1])} for the columns.")  # fmt: skip
        self._ends, self._diverging, self._on_click = (low, high), diverging, on_click
        low, high = self._range()
        super().__init__(
            cells=plain(self.values), rows=names[0], columns=names[1], title=str(title), unit=str(unit), low=low, high=high,
            scale=DIVERGING if diverging else SEQUENTIAL, upward=upward, can_ask=on_click is not None, size=size,
        )  # fmt: skip
        self.observe(self._ask, "selected")

    def _range(self) -> tuple[float, float]:
        known = self.values[np.isfinite(self.values)]
        low, high = self._ends
        if self._diverging:
            high = max([abs(x) for x in (low, high) if x is not None] or [np.abs(known).max(initial=0)])
            low = -high
        low = float(known.min(initial=np.inf) if low is None else low)
        high = float(known.max(initial=-np.inf) if high is None else high)
        if not np.isfinite([low, high]).all() or (low == high and self._ends == (None, None)):
            low, high = (-1.0, 1.0) if self._diverging else (0.0, 1.0) if not known.size else (low, low + 1)
        if low >= high:
            raise ValueError(f"The scale runs from {low:g} to {high:g}: low must be less than high.")
        return low, high

    def update(self, values: Any) -> None:
        """Show other values [rows, columns], for instance with more of a sweep computed. Raises ValueError for another shape."""
        new = np.array(values, float)
        if new.shape != self.values.shape:
            raise ValueError(f"The map has the shape {self.values.shape}, the new values {new.shape}.")
        self.values = new
        low, high = self._range()
        with self.hold_sync():
            self.cells, self.low, self.high = plain(new), low, high

    @t.validate("selected")
    def _inside(self, proposal: Any) -> list[int]:
        cell = list(proposal.value)
        if cell and (len(cell) != 2 or not all(0 <= i < n for i, n in zip(cell, self.values.shape, strict=True))):
            raise t.TraitError(f"There is no cell {cell} in a map of {' × '.join(map(str, self.values.shape))}.")
        return cell

    def _ask(self, change: Any) -> None:
        if self._on_click is None or not self.selected:
            self.answer = {}
            return
        try:
            found = self._on_click(*self.selected)
            parts = dict(found) if isinstance(found, Mapping) else {"text": "" if found is None else str(found)}
        except Exception as error:  # the reader must see it: nothing else shows a callback's errors
            parts = {"error": str(error) or f"This went wrong in the kernel: {type(error).__name__}."}
        self.answer = {"cell": self.selected} | PARTS | {k: v for k, v in parts.items() if k in PARTS}

    # ----------------------------------------------------------------- showing
    def figure(self) -> Figure:
        """The map as a picture; cells that were not computed are hatched."""
        from mi_workshop.heat_plots import draw_heat_map

        return draw_heat_map(
            self.values, self.rows, self.columns, self.title, self.unit, self.low, self.high, self.scale, self.upward
        )

    def describe(self) -> str:
        """The map in words: its size, how much is computed, and where its highest and lowest values are."""
        known = np.isfinite(self.values)
        words = f"{self.title or 'Heat map'}: {len(self.rows)} rows by {len(self.columns)} columns{f', {self.unit}' if self.unit else ''}; {known.sum()} of {known.size} cells computed"  # fmt: skip
        if not known.any():
            return f"{words}."
        ends = []
        for name, flat in (("highest", np.nanargmax(self.values)), ("lowest", np.nanargmin(self.values))):
            row, column = np.unravel_index(int(flat), self.values.shape)
            ends.append(f"{name} {self.values[row, column]:.3g} at {self.rows[row]}, {self.columns[column]}")
        return f"{words}; {', '.join(ends)}."


def plain(values: Any) -> list[list[float | None]]:
    """Rows of numbers that JSON can hold: None for what is not finite, six digits of the others."""
    return [[float(f"{v:.6g}") if np.isfinite(v) else None for v in row] for row in np.asarray(values, float)]
