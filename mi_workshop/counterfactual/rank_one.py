"""Change one fact in the weights: a rank-one edit of an MLP's output matrix (ROME; Meng et al., "Locating and Editing Factual
Associations in GPT", 2022)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mi_workshop.models import mlp, network

from .changes import by_shape, read_all
from .run import differentiable, run
from .sites import InterventionError, Position, Site, matched, path_of, token_id, tokens_of


@dataclass
class RankOne:
    """``change`` [d_mlp, d_model], to be added to the output matrix of the MLP of ``layer``. ``with edit.on(model): ...`` makes it and
    takes it back, to the bit."""

    layer: int
    change: Float[Tensor, "d_mlp d_model"]
    prob: float  # what the optimised value alone gives the new answer

    @contextmanager
    def on(self, model: Any) -> Iterator[Any]:
        weight = mlp(model, self.layer).W_out
        before = weight.detach().clone()
        try:
            weight.data += self.change.to(weight)
            yield model
        finally:
            weight.data.copy_(before)


def second_moment(model: Any, prompts: Sequence[Any], layer: int) -> Float[Tensor, "d_mlp d_mlp"]:
    """Mean of k kᵀ over the MLP's hidden activations k at every position but the first of ``prompts``."""
    tokens, total, count = [tokens_of(model, p) for p in prompts], torch.zeros(()), 0
    for members in by_shape(tokens):
        _, (k,) = run(model, torch.stack([tokens[i] for i in members]), read=[Site("neuron", layer)])
        k = k[:, 1:, :, 0].flatten(0, 1)
        total, count = total + k.T @ k, count + len(k)
    return total / count


def least_change(
    layer: int,
    key: Float[Tensor, " d_mlp"],
    delta: Float[Tensor, " d_model"],
    moment: Tensor,
    prob: float = float("nan"),
) -> RankOne:
    """The smallest change of the matrix, measured by ``moment``, that adds ``delta`` to what is written for ``key``."""
    direction = torch.linalg.solve(moment + 1e-3 * moment.diagonal().mean() * torch.eye(len(moment)), key)
    return RankOne(layer, torch.outer(direction / (direction @ key), delta), prob)


def rank_one(
    model: Any, prompts: str | Sequence[str], answer: str | int, layer: int, position: Position, moment: Tensor, steps: int = 60, learning_rate: float = 0.2
) -> RankOne:  # fmt: skip
    """The edit of layer ``layer`` after which the model answers ``answer`` to ``prompts`` (of one length: several phrasings or cities).

    First the MLP's output at ``position`` that gives the answer is found by gradient descent (as small a change as does it), then the smallest
    change of the matrix, measured by ``moment`` (``second_moment`` of the text that shall stay), that writes it for the prompts' mean key.
    Raises InterventionError for a position that is not one token of each prompt, or an answer that is not one.
    """
    prompts = [prompts] if isinstance(prompts, str) else list(prompts)
    tokens = torch.stack([tokens_of(model, p) for p in prompts])
    where = [matched(model, position, p, p, False)[0] for p in prompts]
    if any(len(w) != 1 for w in where):
        raise InterventionError(
            "An edit is made at one token of each prompt: name it, such as position='{city}' or 'last'."
        )
    at, rows, want = torch.tensor(where)[:, 0], torch.arange(len(prompts)), token_id(model, answer)
    key = torch.stack(
        [
            k[w[0], :, 0]
            for (_, (k,)), w in zip(read_all(model, list(tokens), [Site("neuron", layer)]), where, strict=True)
        ]
    ).mean(0)
    delta = torch.zeros(network(model).cfg.d_model, requires_grad=True)
    optimizer = torch.optim.Adam([delta], lr=learning_rate)
    path = path_of(model, Site("mlp_out", layer))
    prob = 0.0
    for _ in range(steps):

        def add(x: Tensor) -> Tensor:
            return x.index_put((rows.to(x.device), at.to(x.device)), delta.to(x).expand(len(rows), -1), accumulate=True)

        with differentiable(model, [(path, add)]) as module:
            logp = module(tokens)[:, -1].float().cpu().log_softmax(-1)[:, want]
            (delta.grad,) = torch.autograd.grad(-logp.mean() + 1e-3 * delta.square().sum(), [delta])
        prob = float(logp.detach().exp().mean())
        if prob > 0.95:
            break
        optimizer.step()
    return least_change(layer, key, delta.detach(), moment, prob)
