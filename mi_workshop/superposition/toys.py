"""Toy models of superposition: more features than dimensions, trained in a second (Elhage et al. 2022, Toy Models of Superposition).

An input has ``n_features`` numbers, each zero with the chance ``sparsity`` and otherwise uniform in [0, 1]. The model squeezes them through ``n_hidden``
dimensions, h = Wᵀ x, and reads them back, x' = ReLU(W h + b); its loss is the mean of importance × (x - x')². Many such models are trained at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from mi_workshop.show import Shown, counted

from . import plots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from mi_workshop.widgets.toy_controls import ToyExplorer

SHAPES = {1.0: "alone", 2 / 3: "triangle", 1 / 2: "digon", 2 / 5: "pentagon", 1 / 3: "hexagon"}  # by dimensions
SNAPSHOTS = 40  # of the weights, while they are trained


@dataclass(eq=False)
class Toy(Shown):
    """One trained model. ``W`` [feature, hidden], ``b`` [feature]; ``history`` [snapshot, feature, hidden]; ``loss`` over inputs that are the same for all models."""

    W: Float[np.ndarray, "feature hidden"] = field(repr=False)
    b: Float[np.ndarray, " feature"] = field(repr=False)
    history: Float[np.ndarray, "snapshot feature hidden"] = field(repr=False)
    importance: Float[np.ndarray, " feature"] = field(repr=False)
    names: list[str]
    sparsity: float
    loss: float
    hidden: str = "linear"

    @property
    def lengths(self) -> Float[np.ndarray, " feature"]:
        return np.linalg.norm(self.W, axis=1)

    @property
    def dimensions(self) -> Float[np.ndarray, " feature"]:
        """How much of a dimension each feature has to itself: ‖W_i‖² / Σ_j (Ŵ_i · W_j)², 1 for one of its own, 0 if it is not represented (shorter than 0.3)."""
        unit = self.W / self.lengths.clip(1e-8)[:, None]
        return np.where(self.lengths > 0.3, self.lengths**2 / ((unit @ self.W.T) ** 2).sum(1).clip(1e-8), 0)

    @property
    def alignment(self) -> float:
        """|largest| / length of what a feature writes when it is there alone, mean of the features represented: 1 where each writes to one hidden number only."""
        h = (self.W.clip(0) if self.hidden == "relu" else self.W)[self.dimensions > 0]
        return float((np.abs(h).max(1) / np.linalg.norm(h, axis=1).clip(1e-8)).mean())

    @property
    def table(self) -> pd.DataFrame:
        """By feature: ``importance``, ``length`` of its direction, ``dimensions``, and the ``shape`` whose features have about as much (within 0.04)."""
        near = [next((s for d, s in SHAPES.items() if abs(d - x) < 0.04), "no shape" if x else "not represented") for x in self.dimensions]  # fmt: skip
        columns = {"importance": self.importance, "length": self.lengths, "dimensions": self.dimensions, "shape": near}
        return pd.DataFrame(columns, pd.Index(self.names, name="feature"))

    def words(self) -> str:
        said = ", ".join(f"{n} × {shape}" for shape, n in self.table["shape"].value_counts().items())
        kept = f"{(self.dimensions > 0).sum()} of {counted(len(self.W), 'feature')} in {counted(self.W.shape[1], 'dimension')}"
        return f"{kept} at sparsity {self.sparsity:g}: {said}. Loss {self.loss:.4f}."

    def read(self, x: Float[np.ndarray, "row feature"]) -> Float[np.ndarray, "row feature"]:
        """What comes out for inputs ``x``."""
        W, b = torch.from_numpy(self.W)[None], torch.from_numpy(self.b)[None]
        return _read(torch.tensor(np.asarray(x).T[None]).float(), W, b, self.hidden)[0].T.numpy()

    def rotated(self, n: int = 100, seed: int = 0) -> Float[np.ndarray, " rotation"]:
        """Losses after ``n`` random rotations of the hidden space (W is written and read in turned coordinates): where no basis is privileged they all equal ``loss``."""
        turns = np.linalg.qr(np.random.default_rng(seed).normal(size=(n, *self.W.shape[1:] * 2)))[0]
        W, b = torch.from_numpy(self.W @ turns).float(), torch.from_numpy(self.b).expand(n, -1)
        return _loss(W, b, torch.tensor([self.sparsity]), torch.from_numpy(self.importance).float()[None], self.hidden).numpy()  # fmt: skip

    def figure(self) -> Figure:
        return plots.draw_toys([self])

    def animate(self) -> plots.Animation:
        """The training as a plotly figure with a play button and a slider, in the first two hidden dimensions; a strip of pictures where plotly cannot run."""
        return plots.Animation(self)


@dataclass(eq=False)
class Toys(Shown):
    """Several models side by side, ``toys[i]`` each of them."""

    models: list[Toy]

    def __getitem__(self, i: int) -> Toy:
        return self.models[i]

    @property
    def table(self) -> pd.DataFrame:
        """By model: ``sparsity``, ``loss``, and how many features have each shape."""
        shapes = pd.DataFrame([toy.table["shape"].value_counts() for toy in self.models]).fillna(0).astype(int)
        numbers = pd.DataFrame({"sparsity": [t.sparsity for t in self.models], "loss": [t.loss for t in self.models]})
        return numbers.join(shapes.reset_index(drop=True))

    def words(self) -> str:
        return " ".join(toy.words() for toy in self.models)

    def figure(self) -> Figure:
        return plots.draw_toys(self.models)


def train_toy(
    n_features: int = 5, n_hidden: int = 2, sparsity: float | Sequence[float] = 0.9, importance: float | Sequence[float] = 1.0, hidden: str = "linear",
    names: Sequence[str] | None = None, steps: int = 600, batch: int = 256, restarts: int = 4, best: bool = True, seed: int = 0,
) -> Toys:  # fmt: skip
    """Train one model for each ``sparsity`` (0 to below 1), all at once. ``importance``: the factor from one feature to the next, or one number for each feature.

    Of ``restarts`` random starts the one with the lowest loss is kept, for single ones get stuck; with ``best=False`` all are, from the lowest loss up.
    ``hidden``: "linear", or "relu" for a nonlinearity in the hidden layer, which makes its basis a privileged one. Raises ValueError for numbers that make no model.
    """
    sparsities, weight = np.atleast_1d(np.asarray(sparsity, float)), np.asarray(importance, float)
    if min(n_features, n_hidden, steps, batch, restarts) < 1:
        raise ValueError("A toy model needs at least one feature, one hidden dimension, one step, one input and one start.")  # fmt: skip
    weight = weight ** np.arange(n_features) if weight.ndim == 0 else weight
    if not ((sparsities >= 0) & (sparsities < 1)).all():
        raise ValueError(f"Sparsity is the chance that a feature is absent: from 0 to below 1, not {sparsity}.")
    if weight.shape != (n_features,) or not (weight > 0).all():
        raise ValueError(f"Give importance as one factor above 0, or as {n_features} numbers above 0, not {importance}.")  # fmt: skip
    if hidden not in ("linear", "relu"):
        raise ValueError(f"There is no hidden layer {hidden!r}: choose 'linear' or 'relu'.")
    named = list(names or (f"feature {i + 1}" for i in range(n_features)))
    if len(named) != n_features:
        raise ValueError(f"{n_features} features need as many names, not {len(named)}.")
    share, factors = torch.from_numpy(sparsities).float().repeat(restarts), torch.from_numpy(weight).float()[None]
    generator = torch.Generator().manual_seed(seed)
    start = 0.5 * torch.randn(len(share), n_features, n_hidden, generator=generator) / n_hidden**0.5

    def draw() -> tuple[Tensor, Tensor]:
        return _sparse(torch.rand(len(share), n_features, batch, generator=generator), share), torch.tensor(1 / batch)

    W, b, history = _train(draw, start, factors, hidden, steps)
    loss = _loss(W, b, share, factors, hidden)
    order = loss.reshape(restarts, -1).argsort(0)[: 1 if best else None]
    chosen = (order * len(sparsities) + torch.arange(len(sparsities))).T.flatten().tolist()
    return Toys([Toy(W[i].numpy(), b[i].numpy(), history[:, i].numpy(), weight, named, round(float(share[i]), 6), float(loss[i]), hidden) for i in chosen])  # fmt: skip


def explore_toy(n_features: int = 5, sparsity: float = 0.9, importance: float = 0.9, hidden: str = "linear") -> ToyExplorer:  # fmt: skip
    """A model in two hidden dimensions with controls: number of features, sparsity, importance (the factor from one feature to the next), hidden layer. It is trained anew when a
    slider is let go. From Python: ``explore_toy().sparsity.value = 0.5``, then ``.toy`` is the new model. Raises ValueError for what no slider can be set to."""
    from mi_workshop.widgets.toy_controls import ToyExplorer

    return ToyExplorer(n_features, sparsity, importance, hidden)


def _sparse(uniform: Tensor, sparsity: Float[Tensor, " model"]) -> Float[Tensor, "model feature row"]:
    """From numbers in [0, 1]: zero with the chance ``sparsity``, otherwise uniform again."""
    s = sparsity[:, None, None]
    return ((uniform - s) / (1 - s)).relu()


def _read(x: Tensor, W: Tensor, b: Tensor, hidden: str) -> Float[Tensor, "model feature row"]:
    h = W.mT @ x  # [model, hidden, row]
    return (W @ (h.relu() if hidden == "relu" else h) + b[..., None]).relu()


def _loss(W: Tensor, b: Tensor, sparsity: Tensor, importance: Tensor, hidden: str) -> Float[Tensor, " model"]:
    """On the same draws for all models, so that they can be compared."""
    x = _sparse(torch.rand(1, W.shape[1], 16_384, generator=torch.Generator().manual_seed(1)), sparsity)
    return (importance[..., None] * (x - _read(x, W, b, hidden)) ** 2).mean((1, 2))


def _train(draw: Callable[[], tuple[Tensor, Tensor]], start: Tensor, importance: Tensor, hidden: str, steps: int) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """From W = ``start``; inputs [model, feature, row] and what each row counts come from ``draw``. W [model, feature, hidden], b [model, feature], and W's snapshots."""
    W, b = start.clone().requires_grad_(), torch.zeros(start.shape[:2], requires_grad=True)
    optimizer = torch.optim.Adam([W, b], fused=True)
    kept, moments = [start.clone()], np.linspace(0, steps, SNAPSHOTS + 1).astype(int)[1:]
    for step in range(1, steps + 1):
        optimizer.param_groups[0]["lr"] = 3e-2 * (1 - step / steps) + 1e-4
        x, counts = draw()
        error = importance[..., None] * (x - _read(x, W, b, hidden)) ** 2
        optimizer.zero_grad()
        (error.mean(1) * counts).sum().backward()
        optimizer.step()
        kept += [W.detach().clone()] * int((moments == step).sum())
    return W.detach(), b.detach(), torch.stack(kept)
