"""Several methods on one question, side by side: ``gallery(model, input, target)``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from mi_workshop.heat_plots import DIVERGING, draw_heat_map
from mi_workshop.plots import _short, new_figure
from mi_workshop.show import Shown

from .attribution import METHODS, Attribution, SaliencyError, attribute
from .inputs import problem
from .plots import draw_heat

COLUMNS = 5


@dataclass(frozen=True, eq=False)
class Gallery(Shown):
    """``maps``: {method: Attribution}, as ``gallery["occlusion"]``. Each map has its own scale: sizes cannot be compared between methods."""

    maps: dict[str, Attribution]

    def __getitem__(self, method: str) -> Attribution:
        return self.maps[method]

    def words(self) -> str:
        first = next(iter(self.maps.values()))
        tops = {name: max(a.by_part.items(), key=lambda item: abs(item[1]))[0] for name, a in self.maps.items()}
        said = ", ".join(f"{name} {part}" for name, part in tops.items())
        return f"{len(self.maps)} methods for the {first.target} in {first.model}. Most by each: {said}."

    def figure(self) -> Figure:
        first = next(iter(self.maps.values()))
        title = f"{first.target} ({first.model})"
        if not first.picture:
            values = np.stack([a.scores / (np.abs(a.scores).max() or 1) for a in self.maps.values()])
            unit = "share of the row's largest"
            return draw_heat_map(values, list(self.maps), list(first.input), _short(title, 50), unit, -1, 1, DIVERGING, upward=False)  # fmt: skip
        lines = -(-(len(self.maps) + 1) // COLUMNS)
        figure = new_figure(9.5, 2.15 * lines + 0.4)
        figure.suptitle(_short(title, 80), x=0.01, ha="left", fontsize=14, parse_math=False)
        axes = figure.subplots(lines, COLUMNS, squeeze=False).flat
        for ax in axes:
            ax.set_axis_off()
        axes[0].imshow(first.input, interpolation="nearest")
        axes[0].set_title("input", fontsize=12, loc="left")
        for ax, (name, a) in zip(axes[1:], self.maps.items(), strict=False):
            draw_heat(ax, a)
            ax.set_title(name, fontsize=12, loc="left", parse_math=False)
        return figure


def gallery(model: Any, input: Any, target: Any = None, methods: Sequence[str] | None = None, baseline: Any = None, seed: int = 0) -> Gallery:  # fmt: skip
    """``attribute`` by each of ``methods`` (by default all that fit), with the methods' default options. Raises SaliencyError as it does."""
    p, maps = problem(model, input, target, baseline), {}
    for name in methods or METHODS:
        try:
            maps[name] = attribute(p, None, method=name, seed=seed)
        except SaliencyError:
            if methods:
                raise
    return Gallery(maps)
