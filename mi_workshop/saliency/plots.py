"""Figures of ``saliency``: heat over a picture, tokens with their numbers, waterfalls. In grey, place, outlines and numbers carry the meaning."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure

from mi_workshop.heat_plots import DIVERGING, SEQUENTIAL
from mi_workshop.plots import BLUE, GREY, INK, ORANGE, _short, new_figure, open_frames

from .methods import UNSIGNED

if TYPE_CHECKING:
    from .attribution import Attribution
    from .keys import Key

LINE = 11  # tokens in a line


def draw_attribution(a: Attribution) -> Figure:
    """Heat over the picture, or the tokens with their scores."""
    return _picture(a) if a.picture else _tokens(a)


def _colours(a: Attribution) -> tuple[Any, float, float]:
    """Colour map and its ends."""
    top = float(np.abs(a.scores).max()) or 1.0
    unsigned = a.method in UNSIGNED
    return LinearSegmentedColormap.from_list("", SEQUENTIAL if unsigned else DIVERGING), 0.0 if unsigned else -top, top


def _picture(a: Attribution) -> Figure:
    """The picture, and beside it the heat over its greys. A solid line goes round what has half of the highest score, a dashed one round
    what has half of the lowest, where that is negative."""
    figure = new_figure(7.4, 3.5)
    left, right = figure.subplots(1, 2)
    left.imshow(a.input)
    left.set_title(_short(f"{a.model}: {a.target}", 36), fontsize=12, loc="left", parse_math=False)
    scale, low, high = _colours(a)
    grey = np.asarray(a.input) @ [0.299, 0.587, 0.114]
    right.imshow(150 + 0.4 * grey, cmap="gray", vmin=0, vmax=255)
    opacity = np.clip(0.15 + 0.85 * np.abs(a.scores) / high, 0, 1)
    right.imshow(a.scores, cmap=scale, vmin=low, vmax=high, alpha=opacity)
    for sign, style in ((1, "solid"), (-1, "dashed")):
        if (sign * a.scores).max() >= high / 2:
            right.contour(sign * a.scores, [high / 2], colors=INK, linewidths=1.2, linestyles=style)
    figure.colorbar(ScalarMappable(Normalize(low, high), scale), ax=right, pad=0.02)
    right.set_title(a.method, fontsize=12, loc="left", parse_math=False)
    for ax in (left, right):
        ax.set_xticks([])
        ax.set_yticks([])
    return figure


def _tokens(a: Attribution) -> Figure:
    """The tokens in lines, each on its colour with its score below."""
    scale, low, high = _colours(a)
    lines = -(-len(a.scores) // LINE)
    figure = new_figure(1.1 * min(LINE, len(a.scores)) + 0.3, 0.75 * lines + 0.5)
    ax = figure.add_subplot()
    for i, (token, score) in enumerate(zip(a.input, a.scores, strict=True)):
        x, y = i % LINE, -(i // LINE)
        colour = scale((score - low) / (high - low))
        dark = np.dot(colour[:3], [0.299, 0.587, 0.114]) < 0.5
        ax.add_patch(_box(x, y, colour))
        ax.text(x, y + 0.12, _short(token, 11), ha="center", va="center", fontsize=12, color="white" if dark else INK, parse_math=False)  # fmt: skip
        ax.text(x, y - 0.2, f"{score:{'' if low == 0 else '+'}.2g}".replace("-", "−"), ha="center", va="center", fontsize=9, color="white" if dark else INK)  # fmt: skip
    ax.set_xlim(-0.5, min(LINE, len(a.scores)) - 0.5)
    ax.set_ylim(0.5 - lines, 0.5)
    ax.set_axis_off()
    ax.set_title(_short(f"{a.method} for the {a.target} ({a.model})", 90), fontsize=12, loc="left", parse_math=False)
    return figure


def _box(x: float, y: float, colour: Any) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((x - 0.48, y - 0.42), 0.96, 0.84, facecolor=colour, edgecolor=GREY, lw=0.6)


def draw_waterfall(a: Attribution, top: int) -> Figure:
    """One step for each of the ``top`` strongest parts, upwards from the number at the baseline; the others together are the first step."""
    assert a.base is not None and a.output is not None
    strongest = sorted(a.by_part.items(), key=lambda item: -abs(item[1]))
    rest = strongest[top:]
    steps = [(f"{len(rest)} others", sum(v for _, v in rest))] * bool(rest) + strongest[:top][::-1]
    ends = a.base + np.cumsum([0, *(value for _, value in steps)])
    figure = new_figure(8, 0.42 * len(steps) + 1.5)
    ax = figure.add_subplot()
    for i, ((_, value), start) in enumerate(zip(steps, ends, strict=False)):
        up = value >= 0
        ax.barh(i, value, 0.66, left=start, color=BLUE if up else ORANGE, edgecolor=INK, hatch=None if up else "///")
        ax.plot([start + value] * 2, [i, i + 1], color=GREY, lw=0.8)
        text = f" {value:+.2f} ".replace("-", "−")
        ax.text(max(start, start + value), i, text, ha="left", va="center", fontsize=11)
    ax.axvline(a.base, color=GREY, lw=1, ls=":")
    ax.axvline(ends[-1], color=INK, lw=1, ls=":")
    ax.set_yticks(range(len(steps)), [_short(name, 30) for name, _ in steps], fontsize=11, parse_math=False)
    low, high = min(ends), max(ends)
    ax.set_xlim(low - 0.05 * (high - low), high + 0.14 * (high - low))
    ax.set_xlabel(f"{a.target}: {a.base:.2f} at the baseline {a.baseline!r}, {a.output:.2f} for the input".replace("-", "−"), fontsize=11, parse_math=False)  # fmt: skip
    ax.set_title(f"{a.method} ({a.model})", fontsize=12, loc="left", parse_math=False)
    open_frames(ax)
    return figure


def draw_key(key: Key) -> Figure:
    """A bar for each part: how much its substitution changes the number; a star marks what should matter."""
    table = key.table[::-1]
    figure = new_figure(7.5, 0.34 * len(table) + 1.4)
    ax = figure.add_subplot()
    names = [f"★ {_short(n, 30)}" if m else _short(n, 30) for n, m in zip(table.index, table.matters, strict=True)]
    for hatch, wanted in (("", True), ("///", False)):
        rows = np.flatnonzero(table.matters.to_numpy() == wanted)
        ax.barh(rows, table.effect.to_numpy()[rows], 0.7, color=BLUE if wanted else ORANGE, edgecolor=INK, hatch=hatch)
    ax.set_yticks(range(len(table)), names, fontsize=11, parse_math=False)
    ax.set_xlabel(_short(f"mean change of the {key.target}", 60), fontsize=11, parse_math=False)
    ax.set_title(f"{key.model}: what matters to it  ·  ★ what should", fontsize=12, loc="left", parse_math=False)
    open_frames(ax)
    return figure
