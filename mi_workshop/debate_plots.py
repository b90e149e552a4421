"""Figures of ``debate``. Line styles, markers and numbers carry the meaning; colour repeats it."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
FLOOR = 1e-4  # total variation below which points are drawn at the edge


def draw_taus(found: Correlations) -> Figure:
    """A panel for each data set: share of passages by Kendall's τ, a line for each pair of measures."""
    worlds = list(found.means.columns)
    figure = new_figure(3.4 * len(worlds) + 2.6, 3.2)
    axes = np.atleast_1d(figure.subplots(1, len(worlds), sharey=True))
    for ax, world in zip(axes, worlds, strict=True):
        for (pair, counts), (colour, style) in zip(found.counts.loc[world].iterrows(), STYLES, strict=False):
            edges = np.append(counts.index.to_numpy(float), 1.0)
            share = counts.to_numpy() / max(counts.sum(), 1)
            ax.stairs(share, edges, color=colour, ls=style, lw=2.2, label=pair)
        ax.axvline(0, color=GREY, lw=0.8)
        ax.set_title(world, fontsize=13)
        ax.set_xlabel("Kendall τ in a passage", fontsize=12)
    axes[0].set_ylabel("share of passages", fontsize=12)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", fontsize=11, frameon=False)
    open_frames(*axes)
    return figure


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
    figure = new_figure(3.4 * len(worlds) + 2.6, 3.6)
    axes = np.atleast_1d(figure.subplots(1, len(worlds), sharey=True))
    for ax, world in zip(axes, worlds, strict=True):
        here = points.loc[world]
        for kind, marker, colour in (("another seed", "s", INK), ("uniform", "^", GREEN), ("adversary, by passage", "D", ORANGE)):  # fmt: skip
            rows = here.loc[kind]
            ax.plot(rows.tvd.clip(FLOOR), rows.jsd, marker, color=colour, ms=7, mfc="none", mew=1.6, label=kind)
        trained = here[here.index.get_level_values("kind").str.startswith("λ")]
        ax.plot(trained.tvd.clip(FLOOR), trained.jsd, "o", color=BLUE, ms=4, alpha=0.5)
        means = trained.groupby(level="kind", sort=False).mean()
        ax.plot(means.tvd.clip(FLOOR), means.jsd, "o-", color=BLUE, ms=8, label="trained adversary")
        for kind, row in means.iterrows():
            ax.annotate(str(kind)[4:], (max(row.tvd, FLOOR), row.jsd), (0, -15), textcoords="offset points", fontsize=9, ha="center")  # fmt: skip
        ax.axhline(np.log(2), color=GREY, lw=1, ls=":")
        ax.set_xscale("log")
        ax.set_xlim(FLOOR * 0.7, 1)
        ax.set_ylim(-0.08, 0.76)
        ax.set_title(world, fontsize=13)
        ax.set_xlabel("TVD of predictions", fontsize=12)
    axes[0].set_ylabel("JSD of attention", fontsize=12)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", fontsize=11, frameon=False, title="numbers: λ")  # fmt: skip
    open_frames(*axes)
    return figure
