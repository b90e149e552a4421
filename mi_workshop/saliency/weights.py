"""Attention weights of a ``Problem``: raw, times the length of what they pass on, times their gradient, and rolled out over layers.

Each is a list of tensors [head, query, key], first layer first. ``mi_workshop.attention`` shows them, ``attribute`` scores them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .inputs import Problem, SaliencyError

Weights = list[Float[Tensor, "head query key"]]


@contextmanager
def _hooks(modules: list[nn.Module], hook: Callable[[nn.Module, Any, Any], Any]) -> Iterator[None]:
    handles = [m.register_forward_hook(hook) for m in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _patterns(p: Problem) -> list[nn.Module]:
    if not p.patterns:
        raise SaliencyError(f"Attention weights need an attention layer, and {p.model} has none.")
    return p.patterns


def raw(p: Problem) -> Weights:
    """The attention weights themselves. Raises SaliencyError, as all of these do, where there are none."""
    kept: list[Tensor] = []
    with _hooks(_patterns(p), lambda module, args, out: kept.append(out[0].float())), torch.no_grad():
        p.forward(p.x)
    return kept


def gradient_weighted(p: Problem) -> Weights:
    """Attention times the gradient of the number by it, where positive (Chefer et al. 2021, their Ā before the mean over heads)."""
    kept: list[Tensor] = []
    with _hooks(_patterns(p), lambda module, args, out: kept.append(out)), torch.enable_grad():
        score = p.forward(p.x.detach().clone().requires_grad_()).sum()
    gradients = torch.autograd.grad(score, kept)
    return [(g * a).clamp(min=0)[0].detach().float() for g, a in zip(gradients, kept, strict=True)]


def norm_weighted(p: Problem) -> Weights:
    """Attention times the length of what it passes on, α · ‖v W_O‖ (Kobayashi et al. 2020). Heads that write nothing get 0.

    v W_O is read off the model: what an attention layer gives out is linear in its pattern, so that each head in turn is made to
    look at one key with weight 1 in a row of its own, and the layer passes on what it would have without that.
    """
    patterns = raw(p)
    parents = [next((m for m in p.forward.modules() if own in m.children()), None) for own in p.patterns]
    heads, queries, keys = patterns[0].shape
    probes = torch.zeros(heads, -(-keys // queries), heads, queries, keys).to(patterns[0])
    for head in range(heads):
        probes[head, :, head] = torch.eye(keys).reshape(-1, queries, keys)
    rows = torch.cat([probes.flatten(0, 1), torch.zeros_like(probes[0, :1])])  # the last without any head
    lengths: list[Tensor] = []

    def probe(module: nn.Module, args: Any, out: Tensor) -> Tensor:
        return torch.cat([out[:1], rows.to(out)])

    def measure(module: nn.Module, args: Any, out: Any) -> Any:
        first = out[0] if isinstance(out, tuple) else out
        written = (first[1:-1] - first[-1:]).float()  # [head and block of keys, query, width]
        lengths.append(written.reshape(heads, keys, -1).norm(dim=-1))
        plain = first[:1].expand_as(first)
        return (plain, *out[1:]) if isinstance(out, tuple) else plain

    if None in parents or len(set(map(id, parents))) < len(parents):
        raise SaliencyError(f"Which layers of {p.model} its attention weights belong to is not known.")
    with _hooks(p.patterns, probe), _hooks([m for m in parents if m], measure), torch.no_grad():
        p.forward(p.x.expand(len(rows) + 1, *p.x.shape[1:]))
    return [a * length[:, None] for a, length in zip(patterns, lengths, strict=True)]


def rollout(p: Problem) -> Weights:
    """Attention rollout (Abnar and Zuidema 2020): (I + A) / 2, A being a layer's mean over heads, times that of the layers before;
    one "head" per layer, each query's weights summing to 1. Raises SaliencyError for models without self-attention."""
    if p.one_query or not p.patterns:
        raise SaliencyError(f"rollout needs self-attention layers, and {p.model} has none.")
    whole, out = None, []
    for pattern in raw(p):
        mixed = (pattern.mean(0) + torch.eye(pattern.shape[-1]).to(pattern)) / 2
        whole = mixed if whole is None else mixed @ whole
        out.append(whole[None])
    return out


KINDS: dict[str, Callable[[Problem], Weights]] = {
    "attention": raw, "attention × value norm": norm_weighted, "attention × gradient": gradient_weighted, "rollout": rollout,
}  # fmt: skip
