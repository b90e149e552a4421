"""Softmax linear units (Elhage et al. 2022, "Softmax Linear Units", Transformer Circuits): x · softmax(x) over the neurons of a layer, beside
other activation functions. What they do to the neurons of trained models is measured in ``neurons``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import gelu, layer_norm

from mi_workshop import results
from mi_workshop.plots import BLUE, GREEN, GREY, INK, ORANGE, new_figure, open_frames
from mi_workshop.show import Shown


def solu(x: Float[Tensor, "*item neuron"] | Sequence[float]) -> Float[Tensor, "*item neuron"]:
    """x · softmax(x), over the last dimension; no LayerNorm."""
    x = torch.as_tensor(x, dtype=torch.get_default_dtype()) if not isinstance(x, Tensor) else x
    return x * x.softmax(-1)


FUNCTIONS = {
    "ReLU": torch.relu, "GeLU": gelu, "SoLU": solu,
    "SoLU + LayerNorm": lambda x: layer_norm(solu(x), x.shape[-1:]),
}  # fmt: skip
LOOKS = {"ReLU": (GREY, ":"), "GeLU": (ORANGE, "--"), "SoLU": (BLUE, "-"), "SoLU + LayerNorm": (GREEN, "-.")}


@dataclass(frozen=True, eq=False)
class Units(Shown):
    """What each activation function makes of one vector of pre-activations: ``table`` [neuron, function]."""

    x: tuple[float, ...]

    @property
    def table(self) -> pd.DataFrame:
        x = torch.tensor(self.x, dtype=torch.float32)
        columns = {"before": x} | {name: f(x) for name, f in FUNCTIONS.items()}
        return pd.DataFrame({k: v.tolist() for k, v in columns.items()}, [f"neuron {i + 1}" for i in range(len(x))])

    def words(self) -> str:
        said = ", ".join(f"{v:.2f}" for v in self.table["SoLU"])
        rest = ", ".join(f"{v:.2f}" for v in self.table["GeLU"])
        return f"({', '.join(f'{v:g}' for v in self.x)}): SoLU makes ({said}) of it, GeLU ({rest})."

    def figure(self) -> Any:
        """Bars of the vector; neuron 1 while neuron 2 grows (lateral inhibition); the whole vector scaled (superlinearity)."""
        figure = new_figure(13, 4)
        bars, beside, scaled = figure.subplots(1, 3)
        x, grown = torch.tensor(self.x, dtype=torch.float32), torch.linspace(0, 8, 81)
        table = self.table.drop(columns="SoLU + LayerNorm")
        for i, name in enumerate(table):
            colour = LOOKS.get(name, (INK, ""))[0]
            bars.bar(np.arange(len(x)) + 0.2 * i, table[name], 0.18, color=colour, label=name, hatch=("", "..", "//", "xx")[i])  # fmt: skip
        bars.set_xticks(np.arange(len(x)) + 0.3, table.index, fontsize=11)
        others = x.repeat(len(grown), 1)
        others[:, 1] = grown
        times = torch.linspace(0, 2, 81)
        for name, f in FUNCTIONS.items():
            colour, line = LOOKS[name]
            beside.plot(grown, f(others)[:, 0], line, color=colour, lw=2.4, label=name)
            scaled.plot(times, f(times[:, None] * x).max(1).values, line, color=colour, lw=2.4, label=name)
        beside.axvline(float(x[1]), color=INK, lw=0.8)
        scaled.axvline(1, color=INK, lw=0.8)
        beside.set(xlabel="neuron 2 before", ylabel="neuron 1 after")
        scaled.set(xlabel="vector times", ylabel="strongest neuron after")
        for ax, title in ((bars, "each neuron"), (beside, "lateral inhibition"), (scaled, "the whole vector scaled")):
            ax.set_title(title, fontsize=13, loc="left")
            ax.xaxis.label.set_fontsize(12)
            ax.yaxis.label.set_fontsize(12)
        bars.legend(fontsize=11, frameon=False)
        beside.legend(fontsize=11, frameon=False)
        open_frames(bars, beside, scaled)
        return figure


def explore(x: Sequence[float] = (4, 1, 4, 1)) -> Any:
    """Sliders for the pre-activations of a layer of 2 to 6 neurons, and what the activation functions make of them (``Units``).

    Raises ValueError for another number of neurons.
    """
    from mi_workshop.widgets.solu_controls import SoluExplorer

    return SoluExplorer(x)


@dataclass(frozen=True, eq=False)
class Sizes(Shown):
    """The recipe of ``atlas`` in several sizes, with SoLU and with GeLU (ReLU at full size): ``loss`` and ``shares`` of
    ``results.read("solu")``, the latter after the LayerNorm, on distinct inputs; and what follows by the rule decided beforehand."""

    loss: pd.DataFrame
    shares: pd.DataFrame
    verdict: str

    def words(self) -> str:
        def both(column: pd.Series[float], how: str) -> str:
            means = column.groupby(level=[0, 1]).mean().unstack()[["solu_ln", "gelu"]].dropna()
            said = [f"at d_model {d} SoLU {a:{how}}, GeLU {b:{how}}" for d, (a, b) in zip(means.index, means.to_numpy(), strict=True)]  # fmt: skip
            return "; ".join(said)

        return (
            f"Loss of the text in nats: {both(self.loss['text'], '.3f')}. Interpretable neurons: {both(self.shares['share'], '.0%')}; random "
            f"directions: {both(self.shares['random directions'], '.0%')}. By the rule decided beforehand: {self.verdict}."
        )

    def figure(self) -> Any:
        """Every model a mark, the means of a size joined."""
        figure = new_figure(12, 4.2)
        axes = figure.subplots(1, 3)
        columns = (self.loss["text"], self.shares["share"], self.shares["random directions"])
        titles = ("loss of the text (nats)", "interpretable neurons", "random directions that pass")
        marks = {"solu_ln": ("SoLU", "o", 0.97), "gelu": ("GeLU", "s", 1.0), "relu": ("ReLU", "^", 1.03)}
        for ax, column, title in zip(axes, columns, titles, strict=True):
            for act, (name, mark, nudge) in marks.items():
                rows, (colour, line) = column.xs(act, level="activation"), LOOKS[name]
                ax.plot(rows.index.get_level_values(0) * nudge, rows, mark, color=colour, mec=INK, ms=9, label=name)
                mean = rows.groupby(level=0).mean()
                ax.plot(mean.index * nudge, mean, line, color=colour, lw=1.6)
            ax.set_xscale("log")
            ax.set_xticks(ticks := sorted(self.loss.index.unique(0)), ticks, fontsize=12)
            ax.minorticks_off()
            ax.set_xlabel("d_model", fontsize=12)
            ax.set_title(title, fontsize=13, loc="left")
        axes[0].legend(fontsize=12, frameon=False)
        axes[1].sharey(axes[2])
        axes[1].set_ylim(0, 1)
        open_frames(*axes)
        return figure


def sizes() -> Sizes:
    """Does SoLU cost anything, and can its neurons be explained better? The stored comparison; ``python -m training.solu`` makes it again."""
    stored = results.read("solu")
    shares = stored["shares"].xs(("post", "distinct inputs"), level=("stage", "inputs"))
    return Sizes(stored["loss"], shares, str(stored.provenance["verdict"]))
