"""Subspaces of a site: learned by interchange, found by a probe, and how much two of them overlap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cross_entropy

from .changes import read_all
from .run import differentiable
from .sites import InterventionError, Site, matched, path_of, tokens_of


def activations(model: Any, prompts: Sequence[Any], site: Site) -> Float[Tensor, "prompt d_model"]:
    """The vector at a site with one position in each prompt."""
    at = [matched(model, site.position, p, p, False)[0] for p in prompts]
    if any(len(a) != 1 for a in at):
        raise InterventionError("A subspace belongs to one position: name it, such as Site(..., position='{city}').")
    found = read_all(model, [tokens_of(model, p) for p in prompts], [Site(site.kind, site.layer)])
    return torch.stack([x[a[0], 0] for (_, (x,)), a in zip(found, at, strict=True)])


def learn_subspace(
    model: Any,
    prompts: Sequence[Any],
    donors: Sequence[Any],
    site: Site,
    dimensions: int,
    steps: int = 150,
    batch: int = 32,
    seed: int = 0,
) -> Float[Tensor, "direction d_model"]:
    """Orthonormal directions whose interchange makes the donors' answers appear (distributed alignment search; Geiger et al. 2024).

    The prompts must be of one length. What is learned is where a variable *can* be exchanged for these prompts: test it on others, and
    beside random subspaces (``Experiment`` with ``basis`` does).
    """
    tokens, others = (torch.stack([tokens_of(model, p) for p in side]) for side in (prompts, donors))
    at = torch.tensor([matched(model, site.position, p, p, False)[0][0] for p in prompts])
    source = activations(model, donors, site)
    want = torch.stack([logits for logits, _ in read_all(model, list(others), [])]).argmax(-1)
    g = torch.Generator().manual_seed(seed)
    raw = torch.randn(source.shape[1], dimensions, generator=g).requires_grad_()
    optimizer = torch.optim.Adam([raw], lr=0.05)
    path = path_of(model, site)
    for _ in range(steps):
        rows = torch.randint(len(tokens), (batch,), generator=g)
        q = torch.linalg.qr(raw).Q.T

        def interchange(x: Tensor, rows: Tensor = rows, q: Tensor = q) -> Tensor:
            i, p, basis = torch.arange(len(rows), device=x.device), at[rows].to(x.device), q.to(x)
            here = x[i, p]
            return x.index_put((i, p), here + (source[rows].to(x) - here) @ basis.T @ basis)

        with differentiable(model, [(path, interchange)]) as module:
            loss = cross_entropy(module(tokens[rows])[:, -1].float().cpu(), want[rows])
            (raw.grad,) = torch.autograd.grad(loss, [raw])
        optimizer.step()
    return torch.linalg.qr(raw).Q.T.detach()


class Probe:
    """A linear probe by ridge regression onto one-hot labels (Alain and Bengio 2016), in the precision of ``x``. ``direction`` [label, d_model]."""

    def __init__(self, x: Float[Tensor, "item d_model"], labels: Sequence[str], ridge: float = 1e-2) -> None:
        self.labels = sorted(set(labels))
        y = torch.nn.functional.one_hot(
            torch.tensor([self.labels.index(label) for label in labels]), len(self.labels)
        ).to(x)
        self.center, self.offset = x.mean(0), y.mean(0)
        x = x - self.center
        penalty = (ridge * float(x.square().sum(1).mean()) + 1e-6) * torch.eye(x.shape[1]).to(x)
        self.direction = torch.linalg.solve(x.T @ x / len(x) + penalty / x.shape[1], x.T @ (y - self.offset) / len(x)).T

    def scores(self, x: Float[Tensor, "item d_model"]) -> Float[Tensor, "item label"]:
        return (x - self.center) @ self.direction.T + self.offset

    def accuracy(self, x: Float[Tensor, "item d_model"], labels: Sequence[str]) -> float:
        found = self.scores(x).argmax(1).tolist()
        return sum(self.labels[i] == label for i, label in zip(found, labels, strict=True)) / len(labels)

    def subspace(self, dimensions: int) -> Float[Tensor, "direction d_model"]:
        """The strongest orthonormal directions that it reads."""
        return principal(self.direction, dimensions)


def principal(rows: Float[Tensor, "item d_model"], dimensions: int) -> Float[Tensor, "direction d_model"]:
    """The leading right singular vectors."""
    return torch.linalg.svd(rows, full_matrices=False).Vh[:dimensions]


def overlap(a: Float[Tensor, "direction d_model"], b: Float[Tensor, "direction d_model"]) -> float:
    """Mean squared cosine of the principal angles: 1 where the smaller lies in the larger, k / d_model for random subspaces of
    dimension k."""
    return float((a @ b.T).square().sum() / min(len(a), len(b)))
