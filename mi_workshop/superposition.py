"""Toy models of superposition: more features than dimensions, trained in seconds (Elhage et al. 2022, Toy Models of Superposition).

An input has ``n_features`` numbers, each zero with the chance ``sparsity`` and otherwise uniform in [0, 1]. The model squeezes them through ``n_hidden``
dimensions, h = W x, and reads them back, x' = ReLU(Wᵀ h + b); its loss is the mean of importance × (x - x')². Many such models are trained at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from mi_workshop.show import Shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHAPES = {
    1.0: "an axis of its own",
    2 / 3: "triangle",
    1 / 2: "digon",
    2 / 5: "pentagon",
}  # by the dimensions per feature
SNAPSHOTS = 40  # of the weights, while they are trained


@dataclass(eq=False)
class Toy(Shown):
    """One trained model. ``W`` [feature, hidden], ``b`` [feature]; ``history`` [snapshot, feature, hidden]; ``loss`` at the end."""

    W: Float[np.ndarray, "feature hidden"] = field(repr=False)
    b: Float[np.ndarray, " feature"] = field(repr=False)
    history: Float[np.ndarray, "snapshot feature hidden"] = field(repr=False)
    importance: Float[np.ndarray, " feature"] = field(repr=False)
    names: list[str]
    sparsity: float
    loss: float
    hidden: str = "linear"

    @property
    def dimensions(self) -> Float[np.ndarray, " feature"]:
        """How much of a dimension each feature has to itself: ‖W_i‖² / Σ_j (Ŵ_i · W_j)², 1 for an axis of its own, 0 if it is not represented."""
        length = np.linalg.norm(self.W, axis=1)
        unit = self.W / np.maximum(length, 1e-8)[:, None]
        return np.where(length > 0.1, length**2 / np.maximum(((unit @ self.W.T) ** 2).sum(1), 1e-8), 0)

    @property
    def table(self) -> pd.DataFrame:
        """By feature: ``importance``, ``length`` of its direction, ``dimensions``, and the ``shape`` that has about as many of them (within .06)."""
        shapes = [
            next((s for d, s in SHAPES.items() if abs(d - x) < 0.06), "other" if x else "not represented")
            for x in self.dimensions
        ]
        return pd.DataFrame(
            {"importance": self.importance, "length": np.linalg.norm(self.W, axis=1), "dimensions": self.dimensions, "shape": shapes},
            pd.Index(self.names, name="feature"),
        )  # fmt: skip

    def words(self) -> str:
        kept = int((self.dimensions > 0).sum())
        shapes = self.table["shape"].value_counts()
        said = ", ".join(f"{n} × {shape}" for shape, n in shapes.items())
        return f"{kept} of {len(self.W)} features in {self.W.shape[1]} dimensions at sparsity {self.sparsity:g}: {said}. Loss {self.loss:.4f}."

    def read(self, x: Float[np.ndarray, "row feature"]) -> Float[np.ndarray, "row feature"]:
        """What comes out for inputs ``x``."""
        h = np.asarray(x, float) @ self.W
        return np.maximum((np.maximum(h, 0) if self.hidden == "relu" else h) @ self.W.T + self.b, 0)

    def rotated(self, n: int = 100, rows: int = 4096, seed: int = 0) -> Float[np.ndarray, " rotation"]:
        """Losses after ``n`` random rotations of the hidden space (W is read and written in turned coordinates): where a basis is not privileged
        they all equal the loss without."""
        rng = np.random.default_rng(seed)
        x = rng.random((rows, len(self.W))) * (rng.random((rows, len(self.W))) > self.sparsity)
        out = []
        for turn in np.linalg.qr(rng.normal(size=(n, self.W.shape[1], self.W.shape[1])))[0]:
            h = x @ self.W @ turn
            y = np.maximum((np.maximum(h, 0) if self.hidden == "relu" else h) @ (self.W @ turn).T + self.b, 0)
            out.append(float((self.importance * (x - y) ** 2).mean()))
        return np.array(out)

    def figure(self) -> Figure:
        from mi_workshop.superposition_plots import draw_toys

        return draw_toys([self])

    def animate(self) -> Any:
        """The training as a plotly figure with a slider: directions of the features in the first two dimensions."""
        from mi_workshop.superposition_plots import animate

        return animate(self)


@dataclass(eq=False)
class Toys(Shown):
    """Several models trained side by side, ``toys[i]`` each of them."""

    models: list[Toy]

    def __getitem__(self, i: int) -> Toy:
        return self.models[i]

    def __len__(self) -> int:
        return len(self.models)

    def words(self) -> str:
        return " ".join(toy.words() for toy in self.models)

    def figure(self) -> Figure:
        from mi_workshop.superposition_plots import draw_toys

        return draw_toys(self.models)


def train_toy(
    n_features: int = 5, n_hidden: int = 2, sparsity: float | Sequence[float] = 0.9, importance: float | Sequence[float] = 1.0,
    hidden: str = "linear", names: Sequence[str] | None = None, steps: int = 2000, batch: int = 512, restarts: int = 4, seed: int = 0, progress: bool = True,
) -> Toys:  # fmt: skip
    """Train one model for each ``sparsity`` (0 to below 1), all at once. ``importance``: the factor from one feature to the next, or one number for each feature.

    Of ``restarts`` random starts the one with the lowest loss is kept: single ones get stuck. ``hidden``: "linear", or "relu" for a nonlinearity in the hidden layer, which makes its basis a privileged one.
    Raises ValueError for numbers that make no model.
    """
    sparsities = np.atleast_1d(np.asarray(sparsity, float))
    weight = np.asarray(importance, float)
    weight = weight ** np.arange(n_features) if weight.ndim == 0 else weight
    if n_features < 1 or n_hidden < 1 or steps < 1:
        raise ValueError("A toy model needs at least one feature, one hidden dimension and one step.")
    if not ((sparsities >= 0) & (sparsities < 1)).all():
        raise ValueError(f"Sparsity is the chance that a feature is absent: from 0 to below 1, not {sparsity}.")
    if weight.shape != (n_features,) or not (weight > 0).all():
        raise ValueError(
            f"Give importance as one factor above 0, or as {n_features} numbers above 0, not {importance}."
        )
    if hidden not in ("linear", "relu"):
        raise ValueError(f"There is no hidden layer {hidden!r}: choose 'linear' or 'relu'.")
    named = list(names or (f"feature {i + 1}" for i in range(n_features)))
    if len(named) != n_features:
        raise ValueError(f"{n_features} features need as many names, not {len(named)}.")
    share = torch.from_numpy(sparsities).float().repeat(restarts)
    factors = torch.from_numpy(weight).float().expand(len(share), -1)
    W, b, history, _ = _train(share, factors, n_hidden, hidden, steps, batch, seed, progress)
    loss = _loss(W, b, share, factors, hidden)
    best = loss.reshape(restarts, -1).argmin(0) * len(sparsities) + torch.arange(len(sparsities))
    return Toys([
        Toy(W[i].numpy(), b[i].numpy(), history[:, i].numpy(), weight, named, float(share[i]), float(loss[i]), hidden) for i in best.tolist()
    ])  # fmt: skip


def _train(
    sparsity: Float[Tensor, " model"], importance: Float[Tensor, "model feature"], n_hidden: int, hidden: str, steps: int, batch: int, seed: int, progress: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """W [model, feature, hidden], b [model, feature], W's snapshots [snapshot, model, feature, hidden] and the last loss [model]."""
    draw = torch.Generator().manual_seed(seed)
    models, features = importance.shape
    W = (torch.randn(models, features, n_hidden, generator=draw) / n_hidden**0.5 * 0.5).requires_grad_()
    b = torch.zeros(models, features, requires_grad=True)
    optimizer = torch.optim.Adam([W, b], lr=1e-2)
    kept, every = [W.detach().clone()], max(1, steps // SNAPSHOTS)
    loss = torch.zeros(models)
    for step in tqdm(range(steps), desc=f"{models} toy models", disable=not progress, mininterval=0.5):
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * (1 - step / steps) + 1e-4
        value, chance = torch.rand(2, models, batch, features, generator=draw)
        x = value * (chance >= sparsity[:, None, None])
        h = x @ W
        y = ((h.relu() if hidden == "relu" else h) @ W.transpose(1, 2) + b[:, None]).relu()
        loss = (importance[:, None] * (x - y) ** 2).mean((1, 2))
        # rare features make small losses: each model is scaled by its own, so that one learning rate serves all
        scaled = (loss / (1 - sparsity)).sum()
        optimizer.zero_grad()
        scaled.backward()
        optimizer.step()
        if (step + 1) % every == 0:
            kept.append(W.detach().clone())
    return W.detach(), b.detach(), torch.stack(kept), loss.detach()


def phase_diagram(
    n: int = 12, restarts: int = 4, steps: int = 600, seed: int = 0, progress: bool = True
) -> pd.DataFrame:
    """Two features in one dimension: what becomes of the second? Rows: its importance, in units of the first's (0.1 to 10); columns: the chance of each
    feature to be present (0.01 to 1). Values: 0 where the second is left out, 1 where it has the dimension to itself, 0.5 where both share it, in opposite
    directions. Of ``restarts`` random starts the one with the lowest loss counts: single ones get stuck.
    """
    density, relative = np.geomspace(0.01, 1, n), np.geomspace(0.1, 10, n)
    rows = torch.tensor([[1.0, r] for r in relative]).float().repeat_interleave(n, 0).repeat(restarts, 1)
    sparsity = torch.tensor(1 - density).float().repeat(n * restarts)
    W, b, _, _ = _train(sparsity, rows, 1, "linear", steps, 256, seed, progress)
    lengths = W[..., 0].abs().reshape(restarts, n * n, 2)
    best = _loss(W, b, sparsity, rows).reshape(restarts, n * n).argmin(0)
    first, second = lengths[best, torch.arange(n * n)].T > 0.5
    value = np.where(first & second, 0.5, np.where(second, 1.0, 0.0)).reshape(n, n)
    return pd.DataFrame(value, pd.Index(relative, name="relative importance"), pd.Index(density, name="density"))


def _loss(
    W: Tensor, b: Tensor, sparsity: Tensor, importance: Tensor, hidden: str = "linear", rows: int = 16_384
) -> Float[Tensor, " model"]:
    """On the same draws for all models of equal sparsity, so that restarts can be compared."""
    value, chance = torch.rand(2, rows, W.shape[1], generator=torch.Generator().manual_seed(1))
    x = value * (chance >= sparsity[:, None, None])
    h = x @ W
    y = ((h.relu() if hidden == "relu" else h) @ W.transpose(1, 2) + b[:, None]).relu()
    return (importance[:, None] * (x - y) ** 2).mean((1, 2))


def one_neuron() -> pd.DataFrame:
    """When a neuron had better answer to two things: one of four features is present, each as often, and decides the next token; a model sees one bit, whether its only
    neuron fires. Cross-entropy in nats of the best prediction from that bit, for a neuron that fires for one, two or three of the features."""
    rows = {}
    for fires in (1, 2, 3):
        share = fires / 4
        rows[fires] = {"cross-entropy": share * np.log(fires) + (1 - share) * np.log(4 - fires)}
    return pd.DataFrame(rows).T.rename_axis("features that the neuron fires for")
