"""Four experiments: the phase change, two features on one axis, a basis that is privileged beside one that is not, and one neuron for four features."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from mi_workshop.show import Shown

from . import plots
from .toys import Toy, Toys, _read, _train, train_toy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEFT_OUT, SHARED, ALONE = 0.0, 0.5, 1.0


@dataclass(eq=False)
class PhaseDiagram(Shown):
    """What becomes of a second feature in one dimension. ``importance``: that of the second in units of the first's, by row; ``density``: the chance of each to be present, by
    column; ``lengths`` [importance, density, feature] of the trained arrows."""

    importance: Float[np.ndarray, " importance"] = field(repr=False)
    density: Float[np.ndarray, " density"] = field(repr=False)
    lengths: Float[np.ndarray, "importance density feature"] = field(repr=False)

    @property
    def table(self) -> pd.DataFrame:
        """0 where the second feature is left out (shorter than 0.5), 1 where it has the dimension to itself, 0.5 where both share it."""
        first, second = np.moveaxis(self.lengths, 2, 0) > 0.5
        value = np.where(first & second, SHARED, np.where(second, ALONE, LEFT_OUT))
        return pd.DataFrame(value, pd.Index(self.importance, name="relative importance"), pd.Index(self.density, name="density"))  # fmt: skip

    @property
    def theory(self) -> pd.DataFrame:
        """The same on paper: the lowest of three losses, with weights 0, 1 and -1. With density p a feature that is left out (its mean is read instead) costs its variance,
        p/3 - p²/4; two that share cost p²/6 each, the mean square of the smaller one where both are present."""
        r, p = np.meshgrid(self.importance, self.density, indexing="ij")
        variance = p / 3 - p**2 / 4
        best = np.argmin([r * variance, p**2 / 6 * (1 + r), variance], 0)
        return pd.DataFrame(np.array([LEFT_OUT, SHARED, ALONE])[best], self.table.index, self.table.columns)

    def words(self) -> str:
        value = self.table.to_numpy()
        out, both, alone = (f"{(value == phase).mean():.0%}" for phase in (LEFT_OUT, SHARED, ALONE))
        return (
            f"{value.size} models of two features in one dimension. The second is left out in {out} of them (both are common and it matters less), shares the dimension in {both} (both "
            f"are rare), and has it to itself in {alone} (both are common and it matters more). On paper two that matter equally share it below the density 4/7 = 0.57; the calculation "
            f"names the phase of {(value == self.theory.to_numpy()).sum()} of the {value.size} trained models."
        )

    def figure(self) -> Figure:
        return plots.draw_phases(self)


def phase_diagram(n: int = 15, steps: int = 200) -> PhaseDiagram:
    """Train ``n`` × ``n`` models of two features in one dimension, for relative importances from 0.1 to 10 and densities from 0.03 to 1 (Elhage et al. 2022).

    They are trained on the exact mean loss (by quadrature), not on samples: rare events would need many. Each starts twice, from short arrows in the same direction and in opposite
    ones, and the lower loss counts. Raises ValueError for n below 2."""
    if n < 2 or steps < 1:
        raise ValueError("A phase diagram needs at least two values on each axis, and one step.")
    density, relative = np.geomspace(0.03, 1, n), np.geomspace(0.1, 10, n)
    node, weight = np.polynomial.legendre.leggauss(8)
    values = np.concatenate([[0], (node + 1) / 2])  # of one feature: absent, or one of eight
    chance = np.concatenate([1 - density[:, None], density[:, None] * weight / 2], 1)  # [density, value]
    x = torch.from_numpy(np.stack(np.meshgrid(values, values, indexing="ij")).reshape(1, 2, -1)).float()
    count = torch.from_numpy((chance[:, :, None] * chance[:, None]).reshape(n, -1)).float().repeat(2 * n, 1)
    importance = torch.tensor([[1.0, r] for r in relative]).repeat_interleave(n, 0).repeat(2, 1)
    start = torch.tensor([[[0.5], [0.45]], [[0.5], [-0.45]]]).repeat_interleave(n * n, 0)
    W, b, _ = _train(lambda: (x, count), start, importance, "linear", steps)
    loss = ((importance[..., None] * (x - _read(x, W, b, "linear")) ** 2).mean(1) * count).sum(1)
    lengths = W[..., 0].abs().reshape(2, n * n, 2)[loss.reshape(2, -1).argmin(0), torch.arange(n * n)]
    return PhaseDiagram(relative, density, lengths.reshape(n, n, 2).numpy())


@dataclass(eq=False)
class OneAxis(Shown):
    """Two features that have one dimension: ``toys``, a model for each sparsity."""

    toys: Toys

    @property
    def table(self) -> pd.DataFrame:
        """What each model reads (columns) when one of the features is fully there, or both are (rows)."""
        names = self.toys[0].names
        rows = [*(f"{name} only" for name in names), "both"]
        return pd.concat({f"sparsity {t.sparsity:g}": pd.DataFrame(t.read(plots.CASES), rows, names) for t in self.toys.models}, axis=1)  # fmt: skip

    def words(self) -> str:
        out = []
        for toy in self.toys.models:
            kept = [name for name, length in zip(toy.names, toy.lengths, strict=True) if length > 0.5]
            read, chance = toy.read(plots.CASES)[2], (1 - toy.sparsity) ** 2
            side = "opposite ends" if toy.W[0, 0] * toy.W[1, 0] < 0 else "the same end"
            shared = f"both take {side} of the axis; together, in {chance:.2%} of the inputs, they are read as {read[0]:.2f} and {read[1]:.2f}"
            alone = f"the axis is for {' and '.join(kept) or 'neither'} alone"
            out.append(f"At sparsity {toy.sparsity:g} {shared if len(kept) == 2 else alone}.")
        return f"{' and '.join(self.toys[0].names)} in one dimension. {' '.join(out)}"

    def figure(self) -> Figure:
        return plots.draw_one_axis(self)


def one_axis(names: tuple[str, str] = ("height", "happiness"), sparsity: tuple[float, ...] = (0.0, 0.95), seed: int = 0) -> OneAxis:  # fmt: skip
    """Two features in one dimension, the second a little less important (0.9): one model for each ``sparsity``. Raises ValueError as ``train_toy`` does."""
    return OneAxis(train_toy(2, 1, sparsity, importance=0.9, names=names, restarts=16, seed=seed))


@dataclass(eq=False)
class Bases(Shown):
    """The same toy with a linear hidden layer and with ReLUs there; ``rotated`` [model, rotation]: the losses after random rotations of the hidden space."""

    models: tuple[Toy, Toy]
    rotated: Float[np.ndarray, "model rotation"] = field(repr=False)

    @property
    def table(self) -> pd.DataFrame:
        """By hidden layer: ``loss``, its mean after rotations, ``alignment`` (see ``Toy``), and that of random directions (which a ReLU makes half empty)."""
        draws = np.random.default_rng(0).normal(size=(10_000, self.models[0].W.shape[1]))
        columns = {"loss": [toy.loss for toy in self.models], "loss rotated": self.rotated.mean(1), "alignment": [toy.alignment for toy in self.models]}  # fmt: skip
        table = pd.DataFrame(columns, pd.Index([toy.hidden for toy in self.models], name="hidden layer"))
        at_random = (np.abs(draws), draws[draws.max(1) > 0].clip(0))
        chance = [(d.max(1) / np.linalg.norm(d, axis=1)).mean() for d in at_random]
        return table.assign(by_chance=chance)

    def words(self) -> str:
        said = [
            f"{name}: loss {row['loss']:.4f}, after {self.rotated.shape[1]} random rotations {row['loss rotated']:.4f} on average; alignment of the features with the axes {row.alignment:.2f} (by chance {row.by_chance:.2f})"
            for name, row in self.table.iterrows()
        ]
        return f"Hidden layer {'; '.join(said)}."

    def figure(self) -> Figure:
        return plots.draw_bases(self)


def bases(n_features: int = 4, n_hidden: int = 4, sparsity: float = 0.7, importance: float = 1.0, rotations: int = 100, seed: int = 0) -> Bases:  # fmt: skip
    """Train the same toy with ``hidden`` "linear" and "relu", and rotate the hidden space of both at random: only where the basis is privileged does it matter.

    By default there is a dimension for each feature, so that nothing but the basis differs. Raises ValueError as ``train_toy`` does."""
    linear, relu = (train_toy(n_features, n_hidden, sparsity, importance, hidden, restarts=8, seed=seed)[0] for hidden in ("linear", "relu"))  # fmt: skip
    return Bases((linear, relu), np.stack([toy.rotated(rotations, seed) for toy in (linear, relu)]))


@dataclass(eq=False)
class OneNeuron(Shown):
    """One neuron for four features. ``table``: by what the neuron fires for, cross-entropy by the formula and as trained, in nats, and squared error by the formula;
    ``predicted`` [row of the table, feature, answer]: the trained probabilities; ``levels``: what the free neuron says for each feature."""

    table: pd.DataFrame
    predicted: Float[np.ndarray, "row feature answer"] = field(repr=False)
    levels: Float[np.ndarray, " feature"] = field(repr=False)

    def words(self) -> str:
        one, two, _, free = (row for _, row in self.table.iterrows())
        return (
            f"One of four features is present and is to be named from one neuron. Cross-entropy if the neuron fires for one of them: {one['formula']:.3f} (¾ ln 3; trained "
            f"{one['trained']:.3f}); for two of them: {two['formula']:.3f} (ln 2; trained {two['trained']:.3f}). The squared error is {one['squared error']:.2f} and "
            f"{two['squared error']:.2f}. A neuron free to choose its strength for each feature reaches {free['trained']:.3f}, with the levels {', '.join(f'{x:.1f}' for x in sorted(self.levels))}."
        )

    def figure(self) -> Figure:
        return plots.draw_one_neuron(self)


def one_neuron(steps: int = 600, seed: int = 0) -> OneNeuron:
    """When it pays for one neuron to respond to two things (after Bricken et al. 2023, Towards Monosemanticity): one of four features is present, each as often, and is the answer; a
    model sees one ReLU neuron and ends in a softmax. By the formula, for a neuron that is on for k of the four: k/4 ln k + (4-k)/4 ln(4-k); the squared error is (k-1)/4 + (3-k)/4, the same
    for each k. Trained: what follows the neuron, for k = 1, 2, 3; and a model whose neuron is trained too (the best of 8 random starts)."""
    generator = torch.Generator().manual_seed(seed)
    given = torch.tril(torch.ones(3, 4))  # on for A; A and B; A, B and C
    into = torch.cat([given, torch.randn(8, 4, generator=generator)]).requires_grad_()  # [model, feature]
    bias, base = torch.zeros(11, 1, requires_grad=True), torch.zeros(11, 1, 4, requires_grad=True)
    out = (0.1 * torch.randn(11, 1, 4, generator=generator)).requires_grad_()
    for weight in (into, bias):
        weight.register_hook(lambda gradient: gradient * (torch.arange(11) > 2)[:, None])
    optimizer = torch.optim.Adam([into, bias, out, base], lr=0.2, fused=True)
    for _ in range(steps):
        h = (into + bias).relu()
        log_p = torch.log_softmax(h[..., None] * out + base, -1)  # [model, feature, answer]
        loss = -log_p.diagonal(dim1=1, dim2=2).mean(1)
        optimizer.zero_grad()
        loss.sum().backward()
        optimizer.step()
    shown = [0, 1, 2, 3 + int(loss[3:].argmin())]
    k = np.array([1, 2, 3, np.nan])
    columns = {"formula": (k * np.log(k) + (4 - k) * np.log(4 - k)) / 4, "trained": loss.detach()[shown], "squared error": [0.5, 0.5, 0.5, np.nan]}  # fmt: skip
    rows = pd.Index(["one feature", "two features", "three features", "all, each at a level of its own"], name="the neuron fires for")  # fmt: skip
    return OneNeuron(pd.DataFrame(columns, rows), log_p.exp().detach()[shown].numpy(), h.detach()[shown[-1]].numpy())
