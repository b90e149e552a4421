"""Figures of toy models: directions of the features in the plane, how they overlap, and their training as an animation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from mi_workshop.heat_plots import DIVERGING
from mi_workshop.plots import BLUE, GREY, INK, _short, new_figure

if TYPE_CHECKING:
    from mi_workshop.superposition import Toy


def draw_toys(toys: Sequence[Toy]) -> Figure:
    """A column for each model: above, the features' directions (two hidden dimensions) or lengths; below, how each feature is read from each other (W Wᵀ)."""
    figure = new_figure(max(3.1 * len(toys), 4.5), 6)
    axes = figure.subplots(2, len(toys), squeeze=False)
    for top, below, toy in zip(*axes, toys, strict=True):
        top.set_title(f"sparsity {toy.sparsity:g}", fontsize=13, loc="left")
        (_plane if toy.W.shape[1] == 2 else _bars)(top, toy)
        gram = toy.W @ toy.W.T
        below.imshow(gram, cmap=LinearSegmentedColormap.from_list("", DIVERGING), vmin=-1, vmax=1)
        if len(gram) <= 8:
            for i, j in np.ndindex(gram.shape):
                text = f"{gram[i, j]:.1f}".replace("-0.0", "0.0").replace("-", "−")
                below.text(
                    j, i, text, ha="center", va="center", fontsize=9, color="white" if abs(gram[i, j]) > 0.6 else INK
                )
        below.set_xticks([])
        below.set_yticks([])
        below.set_xlabel("read from feature", fontsize=11)
    axes[1, 0].set_ylabel("written by feature", fontsize=11)
    return figure


def _plane(ax: Any, toy: Toy) -> None:
    for name, (x, y) in zip(toy.names, toy.W, strict=True):
        ax.annotate(
            "", (x, y), (0, 0), arrowprops={"arrowstyle": "-|>", "lw": 2.5, "color": BLUE, "shrinkA": 0, "shrinkB": 0}
        )
        if np.hypot(x, y) > 0.25:
            ax.text(
                1.16 * x,
                1.16 * y,
                _short(name.removeprefix("feature "), 10),
                ha="center",
                va="center",
                fontsize=11,
                parse_math=False,
            )
    ax.axhline(0, color=GREY, lw=0.6)
    ax.axvline(0, color=GREY, lw=0.6)
    ax.set(xlim=(-1.45, 1.45), ylim=(-1.45, 1.45), aspect="equal", xticks=[], yticks=[])


def _bars(ax: Any, toy: Toy) -> None:
    """Lengths; full where a feature has its dimensions to itself, hatched where it shares them."""
    table = toy.table
    for i, (length, dimensions) in enumerate(zip(table.length, table.dimensions, strict=True)):
        alone = dimensions > 0.9
        ax.bar(i, length, color=BLUE if alone else "white", edgecolor=BLUE, hatch=None if alone else "///")
    ax.set(ylim=(0, 1.5), xticks=range(len(table)), ylabel="length")
    ax.set_xticklabels([_short(n.removeprefix("feature "), 8) for n in toy.names], fontsize=9)


def animate(toy: Toy) -> Any:
    """Training as a plotly figure with a slider and a play button."""
    import plotly.graph_objects as go

    def frame(W: np.ndarray) -> list[Any]:
        y = W[:, 1] if W.shape[1] > 1 else np.zeros(len(W))
        zeros = np.zeros(len(W))
        x, y = (np.stack([zeros, side, np.full(len(W), np.nan)], 1).ravel() for side in (W[:, 0], y))
        labels = [text for name in toy.names for text in ("", name.removeprefix("feature "), "")]
        return [
            go.Scatter(
                x=x,
                y=y,
                text=labels,
                mode="lines+markers+text",
                textposition="top center",
                line={"color": BLUE, "width": 3},
                marker={"size": 7},
            )
        ]

    frames = [go.Frame(data=frame(W), name=str(i)) for i, W in enumerate(toy.history)]
    steps = [
        {"args": [[f.name], {"mode": "immediate", "frame": {"duration": 0}}], "label": f.name, "method": "animate"}
        for f in frames
    ]
    play = {
        "args": [None, {"frame": {"duration": 80}, "transition": {"duration": 0}, "fromcurrent": True}],
        "label": "▶ play",
        "method": "animate",
    }
    reach = 1.2 * float(np.abs(toy.history).max())
    figure = go.Figure(data=frame(toy.history[-1]), frames=frames)
    figure.update_layout(
        width=560, height=560, showlegend=False, template="simple_white", font_size=15, title=f"{len(toy.W)} features, sparsity {toy.sparsity:g}",
        xaxis={"range": [-reach, reach]}, yaxis={"range": [-reach, reach], "scaleanchor": "x"},
        sliders=[{"steps": steps, "active": len(frames) - 1, "currentvalue": {"prefix": "snapshot "}}], updatemenus=[{"type": "buttons", "buttons": [play], "x": 0, "y": 1.12}],
    )  # fmt: skip
    return figure
