"""Figures of toy models: the features' directions and how they overlap, their training as an animation, and the four experiments."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import rc_context
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from mi_workshop.heat_plots import DIVERGING, SEQUENTIAL, minus_signs
from mi_workshop.lens import Result
from mi_workshop.plots import BLUE, GREY, INK, ORANGE, _short, ink_on, new_figure, open_frames

if TYPE_CHECKING:
    from .experiments import Bases, OneAxis, OneNeuron, PhaseDiagram
    from .toys import Toy

CASES = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])  # of two features: the first, the second, both
SIZES: Any = {"axes.titlesize": 14, "axes.titlelocation": "left", "axes.labelsize": 13, "legend.fontsize": 13, "legend.frameon": False, "text.parse_math": False}  # fmt: skip


def for_a_room(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Titles, labels and ticks to be read from its back."""

    @wraps(draw)
    def drawn(*args: Any) -> Figure:
        with rc_context(SIZES):
            figure = draw(*args)
        for ax in figure.axes:
            ax.tick_params(labelsize=13)
        return figure

    return drawn


def _label(name: str, length: int = 12) -> str:
    return _short(name.removeprefix("feature "), length)


@for_a_room
def draw_toys(toys: Sequence[Toy]) -> Figure:
    """A column for each model: above, the features' directions (up to two hidden dimensions) or lengths; below, what each feature makes each other one read (W Wᵀ)."""
    figure = new_figure(max(3.6 * len(toys), 5), 7)
    axes = figure.subplots(2, len(toys), squeeze=False, height_ratios=[1.15, 1])
    for top, below, toy in zip(*axes, toys, strict=True):
        shapes = toy.table["shape"]
        found = [f"{n} × {name}" for name, n in shapes[shapes != "not represented"].value_counts().items()]
        top.set_title(f"sparsity {toy.sparsity:g}\n{', '.join(found[:2]) or 'nothing represented'}")
        if toy.W.shape[1] <= 2:
            _plane(top, toy.W, toy.names, outline=shapes.isin(["triangle", "pentagon", "hexagon"]).any())
        else:
            alone, step = toy.dimensions > 0.9, max(1, len(toy.W) // 5)
            top.bar(range(len(toy.W)), toy.lengths, color=np.where(alone, BLUE, "white"), edgecolor=BLUE, hatch=np.where(alone, "", "///").tolist())  # fmt: skip
            top.set_xticks(range(0, len(toy.W), step), [_label(name) for name in toy.names[::step]])
            top.set(ylim=(0, 1.5), yticks=[0, 0.5, 1, 1.5], xlabel="feature; hatched: it shares", ylabel="length")
            open_frames(top)
        _grid(below, toy.W @ toy.W.T, DIVERGING, -1, 1)
        below.set(xticks=[], yticks=[], xlabel="… this one gets, before the ReLU")
    axes[1, 0].set_ylabel("if this feature is 1 …")
    return figure


def _grid(ax: Any, values: np.ndarray, scale: list[str], low: float, high: float, digits: int = 1) -> None:
    """Numbers as colours, written out where there is room."""
    shown = ax.imshow(values, cmap=LinearSegmentedColormap.from_list("", scale), vmin=low, vmax=high)
    if len(values) > 8:
        minus_signs(ax, values, shown.to_rgba(values), low)
    for (i, j), value in np.ndenumerate(values) if len(values) <= 8 else []:
        text, size = f"{round(float(value), digits) + 0.0:.{digits}f}".replace("-", "−"), 12 if len(values) < 7 else 9
        ax.text(j, i, text, ha="center", va="center", fontsize=size, color=ink_on(shown.to_rgba(value)))


def _arrow(ax: Any, end: Any, colour: str = BLUE, width: float = 3) -> None:
    ax.annotate("", end, (0, 0), arrowprops={"arrowstyle": "-|>,head_width=.4,head_length=.8", "lw": width, "color": colour, "shrinkA": 0, "shrinkB": 0})  # fmt: skip


def _plane(ax: Any, W: np.ndarray, names: Sequence[str] = (), outline: bool = False) -> None:
    """Directions in the plane, or on a line; dashed through their ends where that makes a figure."""
    ends = np.pad(W, ((0, 0), (0, 2 - W.shape[1])))
    lengths = np.hypot(*ends.T)
    ax.axhline(0, color=GREY, lw=0.6)
    ax.axvline(0, color=GREY, lw=0.6)
    if outline:
        kept = ends[lengths > 0.3]
        ax.fill(*kept[np.argsort(np.arctan2(*kept.T))].T, facecolor="#E6EEF5", edgecolor=GREY, ls="--", lw=1.5)
    for end in ends[lengths > 0.1]:
        _arrow(ax, end)
    for name, end, length in zip(names, ends, lengths, strict=False):
        if length > 0.3:
            ax.text(*(end * (1 + 0.22 / length)), _label(name), ha="center", va="center", fontsize=14)
    ax.set(xlim=(-1.5, 1.5), ylim=(-1.5, 1.5), aspect="equal", xticks=[], yticks=[])


class Animation(Result):
    """The training of a toy: plotly with a play button and a slider; ``figure()`` is a strip of five moments, for where plotly cannot run."""

    def __init__(self, toy: Toy) -> None:
        self.toy, self.name = toy, "training of a toy model"

    def words(self) -> str:
        return f"The features' directions while they are trained, from random ones to the end. {self.toy.words()}"

    def figure(self) -> Figure:
        figure, last = new_figure(13, 3), len(self.toy.history) - 1
        for ax, share in zip(figure.subplots(1, 5), (0, 0.05, 0.15, 0.4, 1), strict=True):
            _plane(ax, self.toy.history[round(share * last)][:, :2])
            ax.set_title(f"after {share:.0%} of the steps", fontsize=13)
        return figure

    def interactive(self) -> dict[str, Any]:
        toy, last = self.toy, len(self.toy.history) - 1
        lines = {"type": "scatter", "mode": "lines+markers", "line": {"color": BLUE, "width": 4}, "marker": {"size": 9}, "hoverinfo": "skip"}  # fmt: skip
        labels = {"type": "scatter", "mode": "text", "text": [html.escape(_label(n)) for n in toy.names], "textfont": {"size": 18}, "hoverinfo": "skip"}  # fmt: skip

        def points(W: np.ndarray) -> list[dict[str, Any]]:
            ends = np.pad(W[:, :2], ((0, 0), (0, max(0, 2 - W.shape[1]))))
            beyond = (ends * (1 + 0.15 / np.hypot(*ends.T).clip(0.15))[:, None]).round(2)
            x, y = ([value for end in side.round(2).tolist() for value in (0, end, None)] for side in ends.T)
            return [{"x": x, "y": y}, {"x": beyond[:, 0].tolist(), "y": beyond[:, 1].tolist()}]

        now = {"mode": "immediate", "frame": {"duration": 0}, "transition": {"duration": 0}}
        steps = [{"args": [[str(i)], now], "label": f"{i / last:.0%}", "method": "animate"} for i in range(last + 1)]
        buttons = [{"args": [None, now | {"frame": {"duration": 90}}], "label": "▶ play", "method": "animate"}, {"args": [[None], now], "label": "❚❚ pause", "method": "animate"}]  # fmt: skip
        axis = {"range": [-1.5, 1.5], "showgrid": False, "zerolinecolor": "#BBBBBB", "showticklabels": False, "ticks": "", "mirror": True, "linecolor": GREY}  # fmt: skip
        layout = {
            "width": 560, "height": 650, "showlegend": False, "font": {"size": 15, "color": INK}, "plot_bgcolor": "white", "paper_bgcolor": "white",
            "margin": {"l": 20, "r": 20, "t": 70, "b": 20}, "xaxis": axis, "yaxis": axis | {"scaleanchor": "x"},
            "title": {"text": f"{len(toy.W)} features, {toy.W.shape[1]} dimensions, sparsity {toy.sparsity:g}", "x": 0.02, "font": {"size": 18}},
            "sliders": [{"steps": steps, "active": last, "currentvalue": {"prefix": "trained: ", "font": {"color": INK, "size": 15}}, "ticklen": 0, "minorticklen": 0, "font": {"color": "rgba(0,0,0,0)"}}],
            "updatemenus": [{"type": "buttons", "direction": "right", "buttons": buttons, "x": 1, "xanchor": "right", "y": 1.1, "yanchor": "bottom", "showactive": False}],
        }  # fmt: skip
        drawn = [look | at for look, at in zip((lines, labels), points(toy.W), strict=True)]
        return {"data": drawn, "layout": layout, "frames": [{"name": str(i), "data": points(W)} for i, W in enumerate(toy.history)]}  # fmt: skip


@for_a_room
def draw_phases(diagram: PhaseDiagram) -> Figure:
    """The phases as trained, with the boundaries on paper; and a cut through it: both lengths over the density."""
    figure, r = new_figure(12.5, 5.6), np.geomspace(0.1, 10, 201)
    left, right = figure.subplots(1, 2, width_ratios=[1.25, 1])
    left.pcolormesh(diagram.density, diagram.importance, diagram.table, cmap=LinearSegmentedColormap.from_list("", ["#FFFFFF", "#9ECAE1", "#08306B"]), vmin=0, vmax=1, shading="nearest")  # fmt: skip
    left.plot(np.where(r < 1, 4 * r / (2 + 5 * r), 4 / (2 * r + 5)), r, color=ORANGE, lw=3, label="on paper")
    left.plot([4 / 7, 1], [1, 1], color=ORANGE, lw=3)
    for text, x, y, colour in (("both share\nthe dimension", 0.1, 1, INK), ("second\nleft out", 0.6, 0.25, INK), ("second\nalone", 0.6, 4, "white")):  # fmt: skip
        left.text(x, y, text, color=colour, fontsize=15, ha="center", va="center")
    left.set(yscale="log", ylabel="importance of the second (first = 1)")
    left.set_yticks([0.1, 1, 10], ["1/10", "1", "10"])
    row = int(np.abs(np.log(diagram.importance / 0.5)).argmin())
    cut = diagram.importance[row]
    right.plot(diagram.density, diagram.lengths[row, :, 0], "s--", color=INK, lw=2, ms=7, label="first feature")
    right.plot(diagram.density, diagram.lengths[row, :, 1], "o-", color=BLUE, lw=3, ms=8, label="second feature")
    right.axvline(4 * cut / (2 + 5 * cut) if cut < 1 else 4 / (2 * cut + 5), color=ORANGE, lw=2)
    right.set(ylim=(-0.05, 1.35), title=f"a cut at importance {cut:.2f}: length of the arrows")
    open_frames(right)
    for ax, place in ((left, "upper left"), (right, "lower left")):
        ax.set(xscale="log", xlabel="density: how often each is present")
        ax.set_xticks([0.03, 0.1, 0.3, 1], ["0.03", "0.1", "0.3", "1"])
        ax.set_xticks([], minor=True)
        ax.legend(loc=place)
    return figure


@for_a_room
def draw_one_axis(result: OneAxis) -> Figure:
    """For each model the axis with both arrows, and below what is read when one feature is there, the other, or both."""
    figure, at = new_figure(max(5.6 * len(result.toys.models), 6), 5.8), np.arange(3)
    axes = figure.subplots(2, len(result.toys.models), squeeze=False, height_ratios=[1, 2.2])
    for top, below, toy in zip(*axes, result.toys.models, strict=True):
        top.plot([-1.4, 1.4], [0, 0], color=GREY, lw=1.2)
        read = toy.read(CASES)
        for i, (name, end, colour) in enumerate(zip(toy.names, toy.W[:, 0], (BLUE, ORANGE), strict=True)):
            kept, place, side = abs(end) > 0.5, at - 0.2 + 0.4 * i, 0.24 - 0.48 * i
            if abs(end) > 0.1:
                _arrow(top, (end, 0), colour, 4)
            top.text(end * kept, side, _label(name) if kept else f"{_label(name)} is left out", color=colour, fontsize=15, ha="center", va="center", weight="bold")  # fmt: skip
            below.bar(place, read[:, i], 0.38, color="white" if i else colour, edgecolor=colour, hatch="///" if i else None, lw=1.5, label=f"{_label(name)}, as read")  # fmt: skip
            below.hlines(CASES[:, i], place - 0.19, place + 0.19, color=INK, lw=3, label="what is true" if i else None)
            for x, value in zip(place, read[:, i], strict=True):
                below.text(x, value + 0.04, f"{value:.1f}", ha="center", fontsize=13)
        top.set(xlim=(-1.5, 1.5), ylim=(-0.5, 0.5), title=f"sparsity {toy.sparsity:g}")
        top.axis("off")
        below.set_xticks(at, [*(f"{_label(name)}\nonly" for name in toy.names), "both"])
        below.set(ylim=(0, 1.3), yticks=[0, 1])
        open_frames(below)
    figure.legend(*below.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


@for_a_room
def draw_bases(result: Bases) -> Figure:
    """For both models what each feature writes into each hidden number, and the losses after random rotations."""
    figure, high = new_figure(12, 6.2), 1.08 * max(float(result.rotated.max()), 1e-3)
    axes = figure.subplots(2, 2, height_ratios=[1.7, 1])
    said = (("linear: any basis will do", "hidden number"), ("ReLU: the neurons are the basis", "neuron (after its ReLU)"))  # fmt: skip
    for (top, below), toy, turned, chance, (title, name) in zip(axes.T, result.models, result.rotated, result.table.by_chance, said, strict=True):  # fmt: skip
        relu = toy.hidden == "relu"
        h = toy.W.clip(0) if relu else toy.W
        order = np.argsort(np.where(toy.dimensions > 0, h.argmax(1) * relu, h.shape[1]), kind="stable")
        _grid(top, h[order], DIVERGING, -1, 1)
        top.set_yticks(range(len(h)), [_label(toy.names[i]) for i in order])
        top.set_xticks(range(h.shape[1]), [str(i + 1) for i in range(h.shape[1])])
        top.set(xlabel=name, title=f"{title}\nalignment {toy.alignment:.2f} (chance {chance:.2f})")
        below.hist(turned, np.linspace(0, high, 40), color=BLUE, label=f"after {len(turned)} random rotations")
        below.axvline(toy.loss, color=ORANGE, lw=3, label="as trained")
        below.set(xlim=(-0.02 * high, high), yticks=[], xlabel="loss")
        open_frames(below)
    axes[0, 0].set_ylabel("feature")
    axes[1, 0].legend(loc="upper right")
    return figure


@for_a_room
def draw_one_neuron(result: OneNeuron) -> Figure:
    """The cross-entropies, by formula and trained, and what the trained models answer to each feature."""
    figure, at = new_figure(13, 4.8), np.arange(4)
    bars, *grids = figure.subplots(1, 4, width_ratios=[1.5, 1, 1, 1])
    bars.bar(at, result.table["formula"], 0.62, color="#9ECAE1", edgecolor=INK, label="formula")
    bars.plot(at, result.table["trained"], "D", color=ORANGE, ms=10, mec=INK, label="trained")
    for x, value in zip(at, result.table["trained"], strict=True):
        bars.text(x, value + 0.05, f"{value:.2f}", ha="center", fontsize=14, weight="bold")
    bars.set_xticks(at, ["one", "two", "three", "all, in\nlevels"])
    bars.set(ylim=(0, 1.2), yticks=[0, 0.5, 1], xlabel="features that the neuron fires for", title="cross-entropy in nats")  # fmt: skip
    bars.legend(ncols=2, loc="upper left")
    open_frames(bars)
    for ax, row, title in zip(grids, (0, 1, 3), ("fires for A", "fires for A and B", "a level for each"), strict=True):
        levels = [f"{x:.1f}" for x in result.levels] if row == 3 else ["1" if i <= row else "0" for i in at]
        _grid(ax, result.predicted[row], SEQUENTIAL, 0, 1, digits=2)
        ax.set_xticks(at, list("ABCD"))
        ax.set_yticks(at, [f"{name}: {level}" for name, level in zip("ABCD", levels, strict=True)])
        ax.set(xlabel="answer", title=title)
    grids[0].set_ylabel("feature: what the neuron says")
    return figure
