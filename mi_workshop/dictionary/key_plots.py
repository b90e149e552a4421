"""Figures of the answer key: scores of units, what taking them out does, all kinds side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mi_workshop.dictionary.key import FOUND
from mi_workshop.plots import BLUE, GREY, INK, ORANGE, new_figure, open_frames

if TYPE_CHECKING:
    from mi_workshop.dictionary.effects import Effects
    from mi_workshop.dictionary.key import FeatureKey
    from mi_workshop.dictionary.overview import Overview

PANELS = (
    ("monosemanticity", "monosemanticity\n(F1 as it fires)"), ("found", "share of\nconcepts found"),
    ("validation own", "nats lost on own\nquestions (validation)"), ("recovered", "loss recovered,\nas many per token"),
)  # fmt: skip


def draw_key(key: FeatureKey) -> Any:
    """Left: live units by precision and recall; right: by family, the share of concepts found."""
    figure = new_figure(12, 4.8)
    dots, bars = figure.subplots(1, 2, width_ratios=[1, 1.1])
    t, families = key.table, key.families
    jitter = np.random.default_rng(0).uniform(-0.012, 0.012, (2, len(t)))
    dots.plot(t.recall + jitter[0], t.precision + jitter[1], "o", ms=5, mfc="none", color=BLUE, alpha=0.6)
    dots.plot([FOUND, FOUND, 1.03], [1.03, FOUND, FOUND], color=INK, lw=1, ls=":")
    dots.set(xlim=(-0.04, 1.04), ylim=(-0.04, 1.04))
    dots.set_xlabel("recall: of the concept's tokens, where it fires", fontsize=12)
    dots.set_ylabel("precision: where it fires, the concept holds", fontsize=12)
    mean, low, high = key.monosemanticity
    dots.set_title(f"{len(t)} live units: mean F1 {mean:.2f} [{low:.2f}, {high:.2f}], by chance {key.chance:.2f}", fontsize=12, loc="left")  # fmt: skip
    y = np.arange(len(families))[::-1]
    bars.barh(y, families.found, 0.6, color=BLUE, edgecolor=INK)
    for at, row in zip(y, families.itertuples(), strict=True):
        bars.text(1.02, at, f"{row.found * row.concepts:.0f} of {row.concepts}; best for {row.units} units", va="center", fontsize=11)  # fmt: skip
    bars.set_yticks(y, families.index, fontsize=12)
    bars.set_xlim(0, 1)
    bars.set_xticks([0, 0.5, 1])
    bars.set_xlabel(f"share of concepts found (F1 at least {FOUND})", fontsize=12)
    open_frames(dots, bars)
    return figure


def draw_effects(effects: Effects) -> Any:
    """Left: each unit's effect on its own questions and on others; right: on its own, against a random direction of the same size."""
    figure = new_figure(11.5, 4.6)
    t = effects.table
    top = max(float(t[["own", "other", "random"]].max(axis=None)), 0.02) * 1.5
    for ax, column, said in zip(
        figure.subplots(1, 2, sharey=True), ("other", "random"),
        ("lost on other questions (nats)", "lost on its own, by a random direction of the same size (nats)"), strict=True,
    ):  # fmt: skip
        ax.plot([-top, top], [-top, top], color=GREY, lw=1, ls=":")
        ax.plot(t[column], t.own, "o", ms=6, mfc="none", color=BLUE, mew=1.4)
        for unit in _apart(t.own) if column == "other" else ():
            ax.annotate(t.concept[unit], (t.other[unit], t.own[unit]), (8, -3), textcoords="offset points", fontsize=11, parse_math=False)  # fmt: skip
        ax.set_xscale("symlog", linthresh=0.01)
        ax.set_yscale("symlog", linthresh=0.01)
        ax.set(xlim=(-0.02, top), ylim=(-0.02, top))
        ax.set_xlabel(said, fontsize=12)
        open_frames(ax)
    figure.axes[0].set_ylabel("lost on its own questions (nats)", fontsize=12)
    figure.suptitle(f"{len(t)} units taken out one at a time, {effects.text}: above the line is specific", fontsize=13, x=0.01, ha="left")  # fmt: skip
    return figure


def _apart(own: pd.Series) -> list[int]:
    """The units with the largest effects that are far enough from each other to be named, three at most."""
    named: list[int] = []
    for unit, effect in own[own > 0.02].sort_values(ascending=False).items():
        if all(own[other] > 1.8 * effect for other in named):
            named.append(unit)
    return named[:3]


def draw_overview(found: Overview) -> Any:
    """A panel for each measure, a row for each kind of units; the dictionaries filled, the others hollow."""
    t = found.table
    figure = new_figure(13, 0.42 * len(t) + 1.6)
    y = np.arange(len(t))[::-1]
    trained = np.array([str(name).startswith("SAE") for name in t.index])
    axes = figure.subplots(1, len(PANELS), sharey=True)
    for ax, (column, said) in zip(axes, PANELS, strict=True):
        values = t[column].to_numpy(float)
        top = max(1.0 if column != "found" else 0.0, float(np.nanmax(values, initial=0)))
        for at in y[np.isnan(values)]:
            ax.text(0, at, "  not measured", va="center", fontsize=11, color=INK)
        ax.hlines(y, 0, values, color=GREY, lw=1)
        for kind, fill in ((trained, BLUE), (~trained, "white")):
            ax.plot(values[kind], y[kind], "o", ms=9, mfc=fill, color=BLUE, mew=1.8)
        if column == "monosemanticity":
            ax.hlines(y, t.low, t.high, color=INK, lw=3)
            ax.plot(t.tuned, y, "|", ms=13, mew=2, color=ORANGE)
            ax.plot(t.chance, y, "x", ms=7, mew=1.6, color=INK)
        if column == "validation own":
            ax.plot(t["validation random"], y, "x", ms=7, mew=1.6, color=INK)
        ax.set_xlim(min(0, float(np.nanmin(values, initial=0))) - 0.04 * top, 1.1 * top)
        ax.set_ylim(-0.6, len(t) - 0.4)
        ax.set_title(said, fontsize=12)
        open_frames(ax)
    axes[0].set_yticks(y, t.index, fontsize=12)
    figure.supxlabel(f"layer {found.layer}; filled: trained dictionaries; ×: tokens shuffled (left), a random direction of the same size (third); |: F1 with a threshold of the unit's own", fontsize=11)  # fmt: skip
    return figure
