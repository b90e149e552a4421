"""Figures of ``judge``. In grey, positions, line styles, marks and numbers carry the meaning."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mi_workshop.circuits.feature_html import _draw_sentence
from mi_workshop.plots import BLUE, GREEN, GREY, INK, ORANGE, _short, new_figure, open_frames

if TYPE_CHECKING:
    from mi_workshop.dictionary.judge import Case, Interpretation
    from mi_workshop.dictionary.judge_all import Judged, Misled, Sources

STYLES = ((BLUE, "-"), (ORANGE, "--"), (GREEN, "-."), (GREY, ":"), (INK, (0, (1, 3))))
SAID = {
    "simulation": "its own rule", "top": "rule from the top alone", "token": "best single token", "another": "rule of another unit",
    "shuffled": "fitted to shuffled activations",
}  # fmt: skip


def draw_interpretation(found: Interpretation) -> Figure:
    """What the unit is said to be, and held-out sentences: words shaded by the true level, below them true and predicted level."""
    row = 0.62
    lines = textwrap.wrap(found.said, 88)[:3]
    height = 1.15 + 0.34 * len(lines) + row * len(found.cases)
    figure = new_figure(12, height)
    figure.set_layout_engine("none")
    figure.text(0.015, 1 - 0.12 / height, "\n".join(lines), fontsize=18, weight="bold", va="top", parse_math=False)
    top = 1 - (0.3 + 0.34 * len(lines)) / height
    s = found.scores
    told = f"{found.name}  ·  by {found.by}"
    figure.text(0.015, top, told, fontsize=11, color="#444444", va="center", parse_math=False)
    told = (
        f"simulation {s['simulation']:.2f}  ·  detection {s['detection']:.2f}  ·  precision {s['precision']:.2f}  ·  recall {s['recall']:.2f}  ·  "
        "below each word: true | predicted level, of 10"
    )
    figure.text(0.015, top - 0.28 / height, told, fontsize=12, va="center", parse_math=False)
    for i, case in enumerate(found.cases):
        _draw_case(figure, case, (len(found.cases) - i - 0.35) * row / height, 0.22 / height)
    return figure


def _draw_case(figure: Figure, case: Case, y: float, below: float) -> None:
    renderer: Any = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    figure.text(0.015, y, case.group, fontsize=11, color="#444444", va="center")
    x = 0.125
    start = max(0, case.at - 9)  # a long passage is shown around its token
    for i, (word, true, predicted) in enumerate(zip(case.words, case.true, case.predicted, strict=True)):
        if i < start or x > 0.93:
            continue
        shade = {"bbox": {"boxstyle": "square,pad=.15", "fc": to_rgba(ORANGE, 0.08 + 0.057 * true), "ec": "none"}}
        text = figure.text(
            x, y, word, fontsize=13, va="center", parse_math=False, weight="bold" if i == case.at else "normal",
            **(shade if true else {}),
        )  # fmt: skip
        width = text.get_window_extent(renderer).width / figure.bbox.width
        if true or predicted:
            right = abs(true - predicted) <= 3 and bool(true) == bool(predicted)
            figure.text(
                x + width / 2, y - below, f"{true} | {predicted}" + " ✗" * (not right), fontsize=11, ha="center", va="center",
                weight="normal" if right else "bold",
            )  # fmt: skip
            width = max(width, 0.045)
        x += width + 0.012


def _steps(ax: Any, by_name: dict[str, Any], label: str) -> None:
    """For each name, the share of units that score at least as much as x."""
    for (name, values), (colour, line) in zip(by_name.items(), STYLES, strict=False):
        x = np.sort(values.dropna().to_numpy())
        share = 1 - np.arange(len(x)) / max(len(x), 1)
        ax.step(x, share, where="pre", color=colour, ls=line, lw=2.5, label=f"{name}: mean {x.mean():.2f}")
    ax.set_xlabel(label, fontsize=13)
    ax.set_ylabel("share of units that reach it", fontsize=13)
    ax.set_ylim(0, 1.02)
    ax.legend(fontsize=11, frameon=False)
    ax.tick_params(labelsize=12)


def draw_judged(found: Judged) -> Figure:
    """Scores of the rules and of their controls; rules from the top against rules from the whole range, a dot for each unit."""
    both = "top" in found.table
    figure = new_figure(12 if both else 7.5, 4.8)
    axes = np.atleast_1d(figure.subplots(1, 1 + both))
    _steps(axes[0], {SAID[k]: found.table[k] for k in SAID if k in found.table}, "simulation score, held-out sentences")
    if both:
        axes[1].plot([0, 1], [0, 1], color=GREY, lw=1)
        axes[1].scatter(found.table.top, found.table.simulation, s=28, color=BLUE, alpha=0.5, ec=INK, lw=0.4)
        above = (found.table.simulation > found.table.top + 0.02).sum()
        below = (found.table.simulation < found.table.top - 0.02).sum()
        axes[1].set_title(f"{above} gain more than 0.02 by the whole range, {below} lose", fontsize=12, loc="left")
        axes[1].set_xlabel("explained from the top alone", fontsize=13)
        axes[1].set_ylabel("explained from the whole range", fontsize=13)
        axes[1].tick_params(labelsize=12)
    figure.suptitle(f"{len(found.table)} {found.name}", fontsize=12, x=0.01, ha="left", parse_math=False)
    open_frames(*axes)
    return figure


def draw_sources(found: Sources) -> Figure:
    figure = new_figure(12, 4.6)
    axes = figure.subplots(1, 2, sharey=True)
    for ax, column, label in zip(axes, ("simulation", "detection"), ("simulation score", "detection score (chance 0.5)"), strict=True):  # fmt: skip
        _steps(ax, {name: one.table[column] for name, one in found.found.items()}, f"{label}, held-out sentences")
    axes[1].set_ylabel("")
    open_frames(*axes)
    return figure


def draw_misled(found: Misled) -> Figure:
    """A dot for each unit: purity at the top against purity over the range; beside it one unit's sentences, strongest first."""
    chosen = [e for e in found.examples if e.group != "silent"][:16]
    height = max(5.2, 1.1 + 0.36 * len(chosen))
    figure = new_figure(16, height)
    figure.set_layout_engine("none")
    ax = figure.add_axes((0.05, 0.13, 0.29, 0.77))
    t, worst = found.table, found.table.loc[found.shown]
    ax.plot([0, 1], [0, 1], color=GREY, lw=1)
    drift = np.random.default_rng(0).normal(0, 0.006, (2, len(t)))
    ax.scatter(t.top + drift[0], t["range"] + drift[1], s=28, color=BLUE, alpha=0.45, ec=INK, lw=0.4)
    ax.scatter([worst.top], [worst["range"]], s=170, fc="none", ec=ORANGE, lw=2.5)
    ax.annotate(f"{found.one} {found.shown}", (worst.top, worst["range"]), (-12, 12), textcoords="offset points", ha="right", fontsize=12)  # fmt: skip
    ax.set_xlim(min(0.4, t.top.min()) - 0.03, 1.04)
    ax.set_ylim(-0.04, 1.04)
    ax.set_xlabel("hypothesis holds: strongest tokens", fontsize=12)
    ax.set_ylabel("hypothesis holds: whole range", fontsize=12)
    ax.tick_params(labelsize=11)
    open_frames(ax)
    head = f"{found.one} {found.shown}: “{_short(worst.hypothesis, 60)}”?  {worst.top:.0%} at the top, {worst['range']:.0%} over the range"
    figure.text(0.37, 1 - 0.35 / height, head, fontsize=14, weight="bold", va="center", parse_math=False)
    peak = max((max(e.activations) for e in chosen), default=1.0)
    for i, example in enumerate(chosen):
        _draw_sentence(figure, example, peak, 1 - (0.85 + 0.36 * i) / height, left=0.35)
    return figure


def draw_sentences(title: str, shown: list[tuple[str, list[str], list[float]]]) -> Figure:
    """Sentences, each with its group and the activation of each word as a share of the maximum: shade, weight and underline grow with it."""
    height = 0.9 + 0.42 * len(shown)
    figure = new_figure(12, height)
    figure.set_layout_engine("none")
    renderer: Any = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    figure.text(0.015, 1 - 0.35 / height, title, fontsize=15, weight="bold", va="center", parse_math=False)
    for i, (group, words, share) in enumerate(shown):
        x, y = 0.12, 1 - (0.9 + 0.42 * i) / height
        figure.text(0.015, y, group, fontsize=12, color="#444444", va="center", parse_math=False)
        for word, s in zip(words, share, strict=True):
            shade = {"bbox": {"boxstyle": "square,pad=.15", "fc": to_rgba(ORANGE, 0.08 + 0.5 * min(s, 1)), "ec": "none"}} if s > 0 else {}  # fmt: skip
            text = figure.text(x, y, word, fontsize=14, va="center", parse_math=False, weight="bold" if s > 0.5 else "normal", **shade)  # fmt: skip
            width = text.get_window_extent(renderer).width / figure.bbox.width
            if s > 0:
                below = y - 0.16 / height
                figure.add_artist(Line2D([x, x + width], [below, below], color=ORANGE, lw=1 + 4 * min(s, 1)))
            x += width + 0.012
    return figure


def draw_table(title: str, table: Any) -> Figure:
    """The players' rules and their scores."""
    height = 1.3 + 0.4 * (len(table) + 1)
    figure = new_figure(13, height)
    figure.set_layout_engine("none")
    for j, line in enumerate(textwrap.wrap(title, 110)[:3]):
        figure.text(0.015, 1 - (0.3 + 0.27 * j) / height, line, fontsize=13, va="center", parse_math=False)
    places = np.concatenate([[0.015, 0.12], 0.52 + 0.08 * np.arange(len(table.columns) - 2)])
    rows = [list(table.columns), *table.itertuples(index=False)]
    for i, row in enumerate(rows):
        for x, value in zip(places, row, strict=False):
            said = ("–" if np.isnan(value) else f"{value:.2f}") if isinstance(value, float) else _short(str(value), 50)
            y = 1 - (1.3 + 0.4 * i) / height
            figure.text(x, y, said, fontsize=12, va="center", parse_math=False, weight="bold" if not i else "normal")
    return figure
