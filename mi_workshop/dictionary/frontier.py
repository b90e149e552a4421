"""How much each kind of dictionary leaves unexplained with how many features: FVU against L0, in one plot."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from mi_workshop import results
from mi_workshop.dictionary.core import DictionaryError
from mi_workshop.show import Shown, either

NAMES = {"l1": "L1", "topk": "TopK", "batchtopk": "BatchTopK", "jumprelu": "JumpReLU"}


@dataclass(frozen=True, eq=False)
class Frontier(Shown):
    """``table``: one row per trained dictionary of one layer of ``atlas``, indexed by kind and setting, with ``fvu``, ``l0``, ``dead`` and ``recovered`` on held-out sentences;
    ``provenance`` says how they were trained."""

    table: pd.DataFrame
    layer: int
    provenance: str = field(repr=False)

    def at(self, l0: float) -> pd.Series:
        """FVU of each kind at that many features per token, between its trained points (log-log); kinds that do not reach it are left out."""
        import numpy as np

        found = {}
        for kind, rows in self.table.sort_values("l0").groupby("kind"):
            if rows.l0.min() <= l0 <= rows.l0.max():
                found[kind] = float(np.exp(np.interp(np.log(l0), np.log(rows.l0), np.log(rows.fvu))))
        return pd.Series(found, name="fvu", dtype=float).sort_values()

    def words(self) -> str:
        between = self.at(8)
        order = ", ".join(f"{NAMES[str(kind)]} {value:.2%}" for kind, value in between.items())
        return (
            f"Layer {self.layer} of atlas, {len(self.table)} dictionaries of 512 features trained alike: with 8 features per token {order} of the variance "
            f"stay unexplained on held-out sentences. {self.provenance}"
        )

    def figure(self) -> Any:
        from matplotlib.ticker import LogLocator

        from mi_workshop.plots import BLUE, GREEN, GREY, INK, ORANGE, new_figure, open_frames

        figure = new_figure(8, 5)
        ax = figure.add_subplot()
        looks = {"l1": (GREY, "s"), "topk": (BLUE, "o"), "batchtopk": (GREEN, "^"), "jumprelu": (ORANGE, "D")}
        for (kind, (colour, marker)), style in zip(looks.items(), ("-", "--", "-.", ":"), strict=True):
            rows = self.table[self.table.index.get_level_values("kind") == kind].sort_values("l0")
            ax.plot(rows.l0, rows.fvu, color=colour, marker=marker, ms=9, lw=2, ls=style, mec=INK, label=NAMES[kind])
        ax.set(xscale="log", yscale="log", xticks=(ticks := (1, 2, 4, 8, 16)), xticklabels=ticks)
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter(lambda fvu, _: f"{100 * fvu:g} %")
        ax.minorticks_off()
        ax.tick_params(labelsize=13)
        ax.set_xlabel("active features per token (L0)", fontsize=13)
        ax.set_ylabel("unexplained variance (FVU)", fontsize=13)
        ax.set_title(f"layer {self.layer}, held-out sentences: lower left is better", fontsize=13, loc="left")
        ax.legend(fontsize=13, frameon=False)
        open_frames(ax)
        return figure


def frontier(layer: int = 2) -> Frontier:
    """The stored comparison of the kinds (``python -m training.dictionaries --frontier`` makes it again). Raises DictionaryError for a layer that was not run."""
    stored = results.read("dictionaries")
    table = stored["frontier"]
    layers = sorted(set(table.index.get_level_values("layer")))
    if layer not in layers:
        raise DictionaryError(f"The kinds were compared at layer {either(map(str, layers))}, not {layer!r}.")
    return Frontier(table.xs(layer, level="layer"), layer, str(stored))
