"""Figures of ``saliency``: heat over a picture, tokens with their numbers, waterfalls. In grey, place, outlines and numbers carry the meaning."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mi_workshop.heat_plots import DIVERGING, SEQUENTIAL
from mi_workshop.plots import BLUE, GREY, INK, ORANGE, _short, ink_on, new_figure, open_frames

from .methods import UNSIGNED

if TYPE_CHECKING:
    from .attribution import Attribution
    from .keys import Key, Pairs

LINE = 11  # tokens in a line
GREYS = 32  # brightness between two of the greys under a map: without its finest texture a stored picture takes half of the room
CLIPPED = 0.995  # quantile of a picture's scores at which its colours end


def draw_attribution(a: Attribution) -> Figure:
    """Heat over the picture, or the tokens with their scores."""
    return _picture(a) if a.picture else _tokens(a)


def _colours(a: Attribution) -> tuple[Any, float, float]:
    """Colour map and its ends; for pictures the strongest ½ % of the pixels, which would make all others pale, are beyond them."""
    sizes = np.abs(a.scores)
    top = float(np.quantile(sizes, CLIPPED) if a.picture else 0) or float(sizes.max()) or 1.0
    unsigned = a.method in UNSIGNED
    return LinearSegmentedColormap.from_list("", SEQUENTIAL if unsigned else DIVERGING), 0.0 if unsigned else -top, top


def draw_heat(ax: Any, a: Attribution) -> tuple[Any, float, float]:
    """The heat over the picture's greys; returns the colour map and its ends. A solid line goes round what has half of the
    score at the scale's upper end or more, a dashed one round what has half of the lower end's."""
    scale, low, high = _colours(a)
    grey = np.asarray(a.input) @ [0.299, 0.587, 0.114]
    ax.imshow(150 + 0.4 * (grey // GREYS * GREYS), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    opacity = np.clip(0.15 + 0.85 * np.abs(a.scores) / high, 0, 1)
    ax.imshow(a.scores, cmap=scale, vmin=low, vmax=high, alpha=opacity, interpolation="nearest")
    for sign, style in ((1, "solid"), (-1, "dashed")):
        if (sign * a.scores).max() >= high / 2:
            ax.contour(sign * a.scores, [high / 2], colors=INK, linewidths=1.2, linestyles=style)
    return scale, low, high


def _picture(a: Attribution) -> Figure:
    """The picture, and beside it its heat (``draw_heat``)."""
    figure = new_figure(6.6, 3.1)
    left, right = figure.subplots(1, 2)
    left.imshow(a.input, interpolation="nearest")
    left.set_title(f"{a.model}:\n{_short(a.target, 40)}", fontsize=11, loc="left", parse_math=False)
    scale, low, high = draw_heat(right, a)
    figure.colorbar(ScalarMappable(Normalize(low, high), scale), ax=right, pad=0.02, extend="both" if low else "max")
    right.set_title(a.method, fontsize=12, loc="left", parse_math=False)
    for ax in (left, right):
        ax.set_xticks([])
        ax.set_yticks([])
    return figure


def _tokens(a: Attribution) -> Figure:
    """The tokens in lines, each on its colour with its score below."""
    scale, low, high = _colours(a)
    words = list(a.input)
    lines = [words[i : i + LINE] for i in range(0, len(words), LINE)]
    figure = new_figure(1.1 * min(LINE, len(words)) + 0.3, 0.75 * len(lines) + 0.5)
    ax = figure.add_subplot()
    draw_words(ax, lines, a.scores, scale, low, high, ".2g" if low == 0 else "+.2g", 12)
    ax.set_title(_short(f"{a.method} for the {a.target} ({a.model})", 90), fontsize=12, loc="left", parse_math=False)
    return figure


def draw_words(
    ax: Any, lines: list[list[str]], scores: np.ndarray, scale: Any, low: float, high: float, number: str, size: float
) -> None:
    """Words in ``lines``, each on the colour of its score between ``low`` and ``high``, with the score below, in the format ``number``."""
    places = [(x, -y, word) for y, line in enumerate(lines) for x, word in enumerate(line)]
    for (x, y, word), score in zip(places, scores[: len(places)], strict=True):
        colour = scale((score - low) / (high - low))
        ink = ink_on(colour)
        ax.add_patch(Rectangle((x - 0.48, y - 0.42), 0.96, 0.84, facecolor=colour, edgecolor=GREY, lw=0.6))
        ax.text(x, y + 0.12, _short(word, 11), ha="center", va="center", fontsize=size, color=ink, parse_math=False)
        text = f"{score:{number}}".replace("-", "−")
        ax.text(x, y - 0.22, text, ha="center", va="center", fontsize=0.77 * size, color=ink)
    ax.set_xlim(-0.5, max(map(len, lines)) - 0.5)
    ax.set_ylim(0.5 - len(lines), 0.5)
    ax.set_axis_off()


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
    """A bar for each part: how much its substitution changes the number; a star marks what should matter. Parts that nothing else could stand for
    have no bar, and say so."""
    table = key.table[::-1]
    figure = new_figure(7.5, 0.34 * len(table) + 1.4)
    ax = figure.add_subplot()
    names = [f"★ {_short(n, 30)}" if m else _short(n, 30) for n, m in zip(table.index, table.matters, strict=True)]
    for hatch, wanted in (("", True), ("///", False)):
        rows = np.flatnonzero(table.matters.to_numpy() == wanted)
        ax.barh(rows, table.effect.to_numpy()[rows], 0.7, color=BLUE if wanted else ORANGE, edgecolor=INK, hatch=hatch)
    for row in np.flatnonzero(table.effect.isna()).tolist():
        ax.text(0, row, " no other word could stand here", va="center", fontsize=9, color=INK)
    ax.set_yticks(range(len(table)), names, fontsize=11, parse_math=False)
    ax.set_ylim(-0.6, len(table) - 0.4)
    ax.set_xlabel(_short(f"mean change of the {key.target}", 60), fontsize=11, parse_math=False)
    ax.set_title(f"{key.model}: what matters to it  ·  ★ what should", fontsize=12, loc="left", parse_math=False)
    open_frames(ax)
    return figure


def draw_pairs(pairs: Pairs, top: int = 6) -> Figure:
    """For the pairs that interact most: what each part does alone, and what both do together."""
    table = pairs.table.sort_values("interaction", ascending=False).head(top)[::-1]
    figure = new_figure(8.5, 0.85 * len(table) + 1.5)
    ax = figure.add_subplot()
    y = np.arange(len(table))
    for i, (column, colour, hatch) in enumerate(
        (("both", BLUE, ""), ("other", ORANGE, "///"), ("one", "white", "..."))
    ):
        ax.barh(y + 0.26 * (1 - i), table[column], 0.26, color=colour, edgecolor=INK, hatch=hatch, label={"both": "both together", "one": "the first alone", "other": "the second alone"}[column])  # fmt: skip
    for at, interaction in enumerate(table.interaction):
        ax.text(
            1.01, at, f"interaction {interaction:.2g}", fontsize=11, va="center", transform=ax.get_yaxis_transform()
        )
    ax.set_yticks(y, [f"{_short(a, 22)}\n{_short(b, 22)}" for a, b in table.index], fontsize=11, parse_math=False)
    ax.set_xlabel(_short(f"mean change of the {pairs.target}", 60), fontsize=11, parse_math=False)
    ax.set_title(f"{pairs.model}: two parts together", fontsize=12, loc="left", parse_math=False)
    ax.legend(
        fontsize=10, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.2 if len(table) < 4 else -0.12), ncols=3
    )
    open_frames(ax)
    return figure
