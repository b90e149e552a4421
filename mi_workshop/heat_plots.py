"""Heat maps and attention patterns as figures, for where no widget can run; they share their colours with the views."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from mi_workshop.plots import BLUE, GREY, INK, _short, ink_on, new_figure, open_frames

if TYPE_CHECKING:
    from mi_workshop.attention import Attention

# Light to dark, so that the order is seen in grey too; of the diverging one the two sides are told apart by the minus signs.
SEQUENTIAL = ["#F7FBFF", "#C6DBEF", "#6BAED6", "#2171B5", "#08306B"]
DASHES = ["-", "--", ":", "-."]  # of the lines of heads drawn together
MOST_ROWS = 40  # with a name each
BRUSHED = 20  # words of the brush in a row
DIVERGING = ["#7F2704", "#E6550D", "#FDBE85", "#FFFFFF", "#9ECAE1", "#3182BD", "#08306B"]


def row_ticks(rows: Sequence[str]) -> tuple[Any, list[str]]:
    """Where names of rows stand, and which: each row's where there are few, otherwise one for each block ("h.3.mlp" is of "h.3")."""
    if len(rows) <= MOST_ROWS:
        return np.arange(len(rows)) + 0.5, [shown(name, 24) for name in rows]
    ticks, labels, start = [], [], 0
    for key, group in groupby(rows, lambda name: m.group() if (m := re.match(r".*?\d+(?=\.|$)", name)) else ""):
        some = list(group)
        ticks.append(start + len(some) / 2)
        labels.append(shown(key or ", ".join(some), 24))
        start += len(some)
    return np.array(ticks), labels


def shown(text: str, length: int = 18) -> str:
    """A name in a figure: short, and what cannot be seen made visible."""
    return _short("".join(c if c.isprintable() else "␣" for c in text), length)


def tall(n: int) -> float:
    """Inches for ``n`` rows."""
    return 0.36 * n if n <= MOST_ROWS else float(np.clip(0.12 * n, 6, 13))


def minus_signs(ax: Any, values: Any, shades: Any, low: float, middle: float = 0.0) -> None:
    """A − on every cell that is clearly below zero, for where no number says so: in grey both ends of a diverging scale are dark."""
    below = np.argwhere(values < min(0.15 * low, 0))
    if len(below):
        colours = [ink_on(shades[i, j]) for i, j in below]
        ax.scatter(below[:, 1] + middle, below[:, 0] + middle, marker="_", s=18, lw=1, c=colours)


def draw_cells(
    ax: Any,
    values: Any,
    rows: Sequence[str],
    columns: Sequence[str],
    low: float,
    high: float,
    scale: list[str],
    wide: float,
    upward: bool = True,
) -> Any:
    """The map on ``ax``, which is ``wide`` inches wide."""
    n, m = values.shape
    ax.set_facecolor("white")
    ax.patch.set(hatch="////", edgecolor="#999999")
    colours = LinearSegmentedColormap.from_list("", scale)
    drawn = ax.pcolormesh(
        np.ma.masked_invalid(values),
        cmap=colours,
        vmin=low,
        vmax=high,
        edgecolors="white",
        linewidth=0.5 if n <= MOST_ROWS else 0,
    )
    digits = 0 if max(-low, high) >= 100 else 1 if max(-low, high) >= 10 else 2
    shades = colours(np.clip((np.nan_to_num(values) - low) / (high - low), 0, 1))
    room = wide / max(m, 1) >= 0.5 and n <= MOST_ROWS
    if not room:
        minus_signs(ax, values, shades, low, 0.5)
    for i, j in np.argwhere(np.isfinite(values)) if room else []:
        text = f"{round(values[i, j], digits) + 0.0:.{digits}f}".replace("-", "−")
        ax.text(j + 0.5, i + 0.5, text, ha="center", va="center", fontsize=11, color=ink_on(shades[i, j]))
    every = int(np.ceil(0.18 * m / wide))
    names = [shown(name) for name in columns[::every]]
    upright = max(map(len, names), default=0) * 0.1 > wide / max(m, 1) * every
    ax.set_xticks(np.arange(m)[::every] + 0.5, names, rotation=90 if upright else 0, fontsize=11, parse_math=False)
    ax.set_yticks(*row_ticks(rows), fontsize=11, parse_math=False)
    ax.tick_params(length=0)
    if not upward:
        ax.invert_yaxis()
    return drawn


def draw_heat_map(
    values: Any, rows: list[str], columns: list[str], title: str, unit: str, low: float, high: float, scale: list[str], upward: bool = True
) -> Figure:  # fmt: skip
    """``values`` [rows, columns] as colours of ``scale`` between ``low`` and ``high``, with their numbers where there is room;
    what is not finite is hatched. ``upward``: row 0 at the bottom."""
    n, m = values.shape
    width, height = float(np.clip(2.6 + 0.62 * m, 5, 16)), max(1.7 + tall(n), 2.6)
    figure = new_figure(width, height)
    ax = figure.add_subplot()
    drawn = draw_cells(ax, values, rows, columns, low, high, scale, width - 2.6, upward)
    known = np.isfinite(values).sum()
    partial = "" if known == values.size else f"  ·  {known} of {values.size} cells computed"
    ax.set_title(_short(title, 90) + partial, fontsize=12, loc="left", parse_math=False)
    bar = figure.colorbar(drawn, ax=ax, pad=0.02)
    bar.set_label(shown(unit, 50), fontsize=11, parse_math=False)
    bar.ax.tick_params(labelsize=11)
    return figure


def draw_lines(attention: Attention, layer: int, heads: list[int]) -> Figure:
    """Attention as lines from the token that looks, on the left, to the one that is looked at; the darker the more. The chosen heads of one layer with
    names, and every head as a small picture, layers upwards."""
    n_layers, n_heads, queries, keys = attention.pattern.shape
    share = attention.pattern / attention.top
    side = float(np.clip(4 / max(n_layers, n_heads), 0.4, 1.0)) if n_layers * n_heads > 1 else 0.0
    tall = float(np.clip(0.22 * keys + 0.9, 2.5, 12))
    figure = new_figure(4.6 + side * n_heads, max(tall, (side + 0.25) * n_layers + 0.4))
    parts: Any = figure.subfigures(1, 2, width_ratios=[4.6, side * n_heads]) if side else (figure, None)
    chosen, small = parts
    colours = ["#0072b2", "#b34f00", "#00664b", "#333333"]

    def draw(ax: Any, weights: np.ndarray, style: int, width: float, much: float = 1.0, least: float = 0.01) -> None:
        for q, k in np.argwhere(weights >= least):
            ends, alpha = [(q + 0.5) / queries, (k + 0.5) / keys], float(much * min(weights[q, k], 1))
            ax.plot([0, 1], ends, DASHES[style], color=colours[style], lw=width, alpha=alpha, antialiased=width > 1)
        ax.set(xlim=(0, 1), ylim=(1, 0), xticks=[], yticks=[])

    ax = chosen.add_subplot()
    for head in heads:
        draw(ax, share[layer, head], head % 4 if len(heads) > 1 else 0, 2.0)
    size = float(np.clip(300 / keys, 5, 11))
    names = [_short(token, 14) for token in attention.tokens]
    ax.set_yticks((np.arange(queries) + 0.5) / queries, attention.queries or names, fontsize=size, parse_math=False)
    right = ax.secondary_yaxis("right")
    right.set_yticks((np.arange(keys) + 0.5) / keys, names, fontsize=size, parse_math=False)
    for one in (ax, right):
        one.tick_params(length=0)
    ax.set_title(f"{attention.kind}: {' and '.join(f'head {layer}.{head}' for head in heads)}", fontsize=12, loc="left")
    if small is not None:
        for row, line in enumerate(small.subplots(n_layers, n_heads, squeeze=False)[::-1]):
            for head, ax in enumerate(line):
                silent = bool(attention.silent[row, head])
                draw(ax, share[row, head], 0, 0.8, 0.35 if silent else 1, least=0.05)
                ax.set_title(
                    f"{row}.{head}{' silent' if silent else ''}", fontsize=float(np.clip(7 * side, 5, 9)), pad=2
                )
    return figure


def draw_brush(
    words: list[str], own: list[float], now: list[float], before: list[tuple[str, float]], after: dict[str, float]
) -> Figure:
    """The attention weights of the words, the model's own hatched and those of now filled, in rows of at most ``BRUSHED`` words, and the
    prediction with either."""
    rows = -(-len(words) // BRUSHED)
    each = -(-len(words) // rows)
    figure = new_figure(max(0.36 * each + 3.4, 6), 2.4 * rows + 0.8)
    grid: Any = figure.add_gridspec(rows, 2, width_ratios=[max(0.36 * each, 3), 2.2])
    left, right = [figure.add_subplot(grid[row, 0]) for row in range(rows)], figure.add_subplot(grid[:, 1])
    parts = [slice(row * each, (row + 1) * each) for row in range(rows)]
    panels = [(ax, words[part], (own[part], now[part])) for ax, part in zip(left, parts, strict=True)]
    classes = [c for c, _ in before]
    for ax, names, pair in (*panels, (right, classes, ([p for _, p in before], [after[c] for c in classes]))):
        at = np.arange(len(names))
        ax.bar(at - 0.2, pair[0], 0.4, color="white", edgecolor=GREY, hatch="////", label="the model's own")
        ax.bar(at + 0.2, pair[1], 0.4, color=BLUE, edgecolor=INK, label="now")
        ax.set_xticks(at, [_short(name, 14) for name in names], rotation=90, fontsize=11, parse_math=False)
        open_frames(ax)
    for ax in left:
        ax.set(xlim=(-0.6, each - 0.4), ylim=(0, 1.05 * max(*own, *now)))
    left[0].set_title("attention weight", fontsize=12, loc="left")
    right.set_title("prediction", fontsize=12, loc="left")
    left[0].legend(frameon=False, fontsize=11)
    return figure


def draw_attention(attention: Attention) -> Figure:
    """Every head's pattern, layers upwards; queries downwards, keys across, dark is much. Heads that write nothing are pale."""
    n_layers, n_heads, n, _ = attention.pattern.shape
    if attention.queries:
        return draw_lines(attention, n_layers - 1, [0])
    side = float(np.clip(14 / n_heads, 0.45, 2.0))
    figure = new_figure(max(side * n_heads, 3) + 0.4, min((side + 0.3) * n_layers, 40))
    axes = figure.subplots(n_layers, n_heads, squeeze=False)
    names = [_short(token, 11) for token in attention.tokens]
    for layer, row in enumerate(axes[::-1]):
        for head, ax in enumerate(row):
            silent = bool(attention.silent[layer, head])
            ax.imshow(attention.pattern[layer, head], cmap=LinearSegmentedColormap.from_list("", SEQUENTIAL), vmin=0, vmax=attention.top, alpha=0.35 if silent else 1)  # fmt: skip
            ax.set_title(
                f"{layer}.{head}{'  silent' if silent else ''}", fontsize=float(np.clip(6 * side, 6, 11)), pad=2
            )
            named = n <= 16 and side >= 2
            ax.set_xticks(range(n) if named and layer == 0 else [], names if named and layer == 0 else [], rotation=90, fontsize=8, parse_math=False)  # fmt: skip
            ax.set_yticks(range(n) if named and head == 0 else [], names if named and head == 0 else [], fontsize=8, parse_math=False)  # fmt: skip
            ax.tick_params(length=0)
    return figure
