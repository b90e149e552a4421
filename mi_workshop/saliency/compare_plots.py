"""Figures of ``compare`` and ``limits``. In grey, marks, line styles and numbers carry the meaning."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from mi_workshop.heat_plots import SEQUENTIAL
from mi_workshop.plots import BLUE, GREEN, GREY, INK, ORANGE, _short, new_figure, open_frames
from mi_workshop.show import counted

if TYPE_CHECKING:
    from .compare import Curves, Overview, Sanity
    from .limits import Dose

STYLES = [  # of the methods in turn: colour, line, mark
    (colour, line, mark)
    for line, marks in (("-", "os^Dv"), ("--", "os^Dv"))
    for colour, mark in zip((BLUE, ORANGE, GREEN, INK, GREY), marks, strict=True)
]


def _lines(ax: Any, x: Any, by_method: dict[str, Any], every: int = 1) -> None:
    for (name, y), (colour, line, mark) in zip(by_method.items(), STYLES * 2, strict=False):
        ax.plot(x, y, line, color=colour, marker=mark, ms=6, markevery=every, lw=2, label=name)


def draw_curves(found: Curves) -> Figure:
    """Insertion and deletion, a line for each method, the areas in the legends."""
    figure = new_figure(11, 4.6)
    axes = figure.subplots(1, 2, sharey=True)
    for ax, kind, good in zip(axes, ("insertion", "deletion"), ("large", "small"), strict=True):
        share = next(iter(found.tables.values())).index
        _lines(ax, share, {f"{m}  {_number(found.areas.loc[m, kind])}": t[kind] for m, t in found.tables.items()}, len(share) // 6)  # fmt: skip
        ax.set_title(f"{kind}: a good map's area is {good}", fontsize=13, loc="left")
        ax.set_xlabel("share of the " + ("highest scores put in" if kind == "insertion" else "highest scores taken out"), fontsize=12)  # fmt: skip
        ax.legend(fontsize=10, frameon=False, title="area", alignment="left")
        ax.axhline(0, color=GREY, lw=0.8, ls=":")
        ax.axhline(1, color=GREY, lw=0.8, ls=":")
        ax.tick_params(labelsize=11)
    axes[0].set_ylabel("number explained\n(0: baseline, 1: whole input)", fontsize=12)
    figure.suptitle(
        f"{found.model}, mean over {counted(found.inputs, 'input')}", fontsize=12, x=0.01, ha="left", parse_math=False
    )
    open_frames(*axes)
    return figure


def draw_sanity(found: Sanity) -> Figure:
    """A line for each method over the layers, from the output down; 1 is the map of the trained model."""
    table = found.table
    figure = new_figure(max(7.5, 4 + 0.7 * len(table)), 4.6)
    ax = figure.add_subplot()
    cascading = found.check == "cascading"
    x = np.arange(len(table) + cascading)
    _lines(ax, x, {m: np.concatenate([[1.0], table[m]]) if cascading else table[m] for m in table})
    names = ["trained"] * cascading + [_short(str(n), 22) for n in table.index]
    ax.set_xticks(x, names, fontsize=11, rotation=0 if len(names) < 9 else 60, ha="center" if len(names) < 9 else "right", parse_math=False)  # fmt: skip
    ax.axhline(0, color=GREY, lw=0.8, ls=":")
    ax.set_ylim(min(-0.1, float(np.nanmin(table.to_numpy())) - 0.05), 1.05)
    ax.set_ylabel("similarity of the map", fontsize=12)
    ax.set_xlabel("random weights: this layer and all above it" if cascading else "random weights: this layer alone", fontsize=12)  # fmt: skip
    ax.set_title(f"{found.model}: does the map notice? Mean over {counted(found.inputs, 'input')}", fontsize=13, loc="left", parse_math=False)  # fmt: skip
    ax.legend(fontsize=10, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    open_frames(ax)
    return figure


def draw_overview(found: Overview) -> Figure:
    """Means in large, half the widths of their intervals below; the better within its column, the darker."""
    means = found.means
    figure = new_figure(2.4 + 0.85 * means.shape[1], 1.5 + 0.44 * len(means))
    ax = figure.add_subplot()
    place = means.rank(pct=True, ascending=True)
    for column in means:
        if found.falls(str(column)):
            place[column] = means[column].rank(pct=True, ascending=False)
    shades = 0.65 * place.to_numpy()  # dark letters are readable on all of them
    ax.set_facecolor("white")
    ax.pcolormesh(np.ma.masked_invalid(shades), cmap=LinearSegmentedColormap.from_list("", SEQUENTIAL[:3]), vmin=0, vmax=0.65, edgecolors="white", linewidth=1)  # fmt: skip
    for (method, column), row in found.table.iterrows():
        if np.isfinite(row["mean"]):
            at = means.columns.get_loc(column) + 0.5, means.index.get_loc(method)
            ax.text(at[0], at[1] + 0.36, _number(row["mean"]), ha="center", va="center", fontsize=12, color=INK)
            half = (row["high"] - row["low"]) / 2
            ax.text(at[0], at[1] + 0.78, f"± {_number(half)}", ha="center", va="center", fontsize=8.5, color=INK)
    words = [str(c).replace("_per_pixel", "\nper pixel").replace("_world", "\n(world)").replace(" · ", "\n").replace(" ", "\n").replace("-", "-\n") for c in means]  # fmt: skip
    arrows = [f"{w}\n{'↓' if found.falls(str(c)) else '↑'}" for w, c in zip(words, means, strict=True)]
    ax.set_xticks(np.arange(means.shape[1]) + 0.5, arrows, fontsize=10, parse_math=False)
    ax.set_yticks(np.arange(len(means)) + 0.5, list(means.index), fontsize=12, parse_math=False)
    ax.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
    ax.invert_yaxis()
    ax.set_title(f"{found.title}  ·  dark: better; ↑ high is good, ↓ low is", fontsize=13, loc="left", parse_math=False)
    return figure


def _number(x: float) -> str:
    return (f"{x:.2f}" if abs(x) < 10 else f"{x:.3g}").replace("-", "−")


def draw_dose(found: Dose) -> Figure:
    """The number over the dose of one part; dose 1 is the input."""
    figure = new_figure(7, 4)
    ax = figure.add_subplot()
    curve = found.curve
    ax.plot(curve.index, curve, "-", color=BLUE, lw=2.4)
    ax.plot([1.0], [curve[1.0]], "o", color=INK, ms=9)
    ax.annotate(
        "the input", (1.0, curve[1.0]), (-10, -8), textcoords="offset points", ha="right", va="top", fontsize=12
    )
    ax.axvline(1, color=GREY, lw=0.8, ls=":")
    ax.set_xlabel(f"dose of: {found.part} (0: the baseline)", fontsize=12, parse_math=False)
    ax.set_ylabel(_short(found.target, 30), fontsize=12, parse_math=False)
    ax.set_title(f"{found.model}: attribution {_number(found.attribution)} by {found.method}", fontsize=13, loc="left", parse_math=False)  # fmt: skip
    open_frames(ax)
    return figure
