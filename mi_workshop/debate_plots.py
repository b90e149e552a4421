"""Figures of ``debate``. Line styles, markers and numbers carry the meaning; colour repeats it."""

from __future__ import annotations

from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from mi_workshop.heat_plots import SEQUENTIAL
from mi_workshop.plots import BLUE, GREEN, GREY, INK, ORANGE, _short, new_figure, open_frames
from mi_workshop.saliency.plots import draw_words

if TYPE_CHECKING:
    from .debate import Correlations, Pair

STYLES = ((BLUE, "-"), (ORANGE, "--"), (GREEN, "-."), (INK, ":"))
LINE = 9  # words in a line, at most; a sentence begins a new one
BESIDE = (
    ("right", (-8, -5)),
    ("right", (-2, 8)),
    ("left", (-4, -18)),
    ("left", (-2, 8)),
)  # where the λ of a mean stands
FLOOR = 1e-4  # total variation below which points are drawn at the edge


def draw_taus(found: Correlations) -> Figure:
    """A panel for each data set: share of passages by Kendall's τ, a line for each pair of measures."""
    worlds = list(found.means.columns)
    figure, axes = _panels(len(worlds), 3.0)
    for ax, world in zip(axes, worlds, strict=True):
        for (pair, counts), (colour, style) in zip(found.counts.loc[world].iterrows(), STYLES, strict=False):
            edges = np.append(counts.index.to_numpy(float), 1.0)
            share = counts.to_numpy() / max(counts.sum(), 1)
            ax.stairs(share, edges, color=colour, ls=style, lw=2.2, label=pair)
        ax.axvline(0, color=GREY, lw=0.8)
        ax.set_title(world, fontsize=13)
        ax.set_xticks([-1, -0.5, 0, 0.5, 1])
        ax.set_xlabel("Kendall τ in a passage", fontsize=12)
        ax.set_ylabel("share of passages", fontsize=12)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=11, frameon=False)
    open_frames(*axes)
    return figure


def _panels(n: int, height: float) -> tuple[Figure, list[Any]]:
    """A figure and its ``n`` panels, two in a row."""
    rows, columns = (n + 1) // 2, min(n, 2)
    figure = new_figure(1.0 + 4.0 * columns, height * rows + 0.8)
    axes = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
    for ax in axes[n:]:
        ax.set_axis_off()
    return figure, list(axes[:n])


def draw_pair(found: Pair) -> Figure:
    """One passage twice, each word on its weight, side by side."""
    i = found.index
    passage = found.passages[i]
    lines, scale = _lines(passage.words), LinearSegmentedColormap.from_list("", SEQUENTIAL)
    figure = new_figure(13, 0.52 * len(lines) + 1.0)
    for side, ax in enumerate(figure.subplots(1, 2)):
        ax.set_title(_short(found.said(side), 60), fontsize=13, loc="left", parse_math=False)
        weights = found.weights[side][i].numpy()
        draw_words(ax, lines, weights, scale, 0, max(float(weights.max()), 1e-9), ".2f", 9.5)
    asked = "".join(f"{word} " for word in passage.question)
    said = f"{asked}  TVD {found.tvd[i]:.3f}, JSD {found.jsd[i]:.2f} (of at most 0.69)"
    figure.suptitle(said, fontsize=13, x=0.01, ha="left", parse_math=False)
    return figure


def _lines(words: tuple[str, ...]) -> list[list[str]]:
    lines: list[list[str]] = [[]]
    for word in words:
        if lines[-1] and (lines[-1][-1] == "." or len(lines[-1]) == LINE):
            lines.append([])
        lines[-1].append(word)
    return lines


def draw_trade_off(points: pd.DataFrame) -> Figure:
    """A panel for each data set: total variation of the predictions (logarithmic) against divergence of the attention, both from the base model."""
    worlds = list(dict.fromkeys(points.index.get_level_values("world")))
    figure, axes = _panels(len(worlds), 3.3)
    for ax, world in zip(axes, worlds, strict=True):
        here = points.loc[world]
        for kind, marker, colour in (("another seed", "s", INK), ("uniform", "^", GREEN), ("adversary, by passage", "D", ORANGE)):  # fmt: skip
            rows = here.loc[kind]
            ax.plot(rows.tvd.clip(FLOOR), rows.jsd, marker, color=colour, ms=7, mfc="none", mew=1.6, label=kind)
        trained = here[here.index.get_level_values("kind").str.startswith("λ")]
        ax.plot(
            trained.tvd.clip(FLOOR), trained.jsd, "o", color=BLUE, ms=4, alpha=0.5, label="trained adversary, one seed"
        )
        means = trained.groupby(level="kind", sort=False).mean()
        ax.plot(means.tvd.clip(FLOOR), means.jsd, "o-", color=BLUE, ms=8, label="trained adversary, mean (numbers: λ)")
        for (kind, row), (side, offset) in zip(means.iterrows(), cycle(BESIDE)):
            ax.annotate(str(kind)[4:], (max(row.tvd, FLOOR), row.jsd), offset, textcoords="offset points", fontsize=11, ha=side)  # fmt: skip
        ax.axhline(np.log(2), color=GREY, lw=1, ls=":")
        ax.set_xscale("log")
        ax.set_xlim(FLOOR * 0.7, 1)
        ax.set_ylim(-0.12, 0.8)
        ax.set_title(world, fontsize=13)
        ax.set_xlabel("TVD of predictions", fontsize=12)
        ax.set_ylabel("JSD of attention", fontsize=12)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=11, frameon=False)
    open_frames(*axes)
    return figure
