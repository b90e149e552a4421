"""What could have happened anyway: random changes of the same number, layer, position and size.

Units (heads, neurons, features, coordinates) are compared with other units of the same site, a subspace with other subspaces of the
same dimension, and whole vectors, or units that have too few others beside them, with random directions. *Size* is the length of what
the change writes to the residual stream (of the change itself where a site does not write there: queries, keys, patterns).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mi_workshop.models import mlp, network

from .changes import Change, Plan, Values
from .sites import Site

OTHERS = 3  # so many others, for each unit that is changed, must be there to draw from


def written(model: Any, site: Site, unit: Tensor, change: Tensor) -> Float[Tensor, "n anything"]:
    """What changes [n, width] of units [n] write to the residual stream."""
    m, layer = network(model), int(site.layer or 0)
    if site.sparse:
        return change * site.basis.W_dec[unit].to(change)
    if site.kind == "z":
        return torch.einsum("nw,nwd->nd", change, m.blocks[layer].attn.W_O[unit].to(change))
    if site.kind == "neuron":
        return change * mlp(model, layer).W_out[unit].to(change)
    if site.kind == "feature":
        from mi_workshop.circuits.intervene import decoders

        return change * decoders(model, layer, unit).flatten(1).to(change)
    if change.shape[1] > 1:  # a whole vector
        return change
    return torch.diag_embed(change[:, 0])  # coordinates: each its own direction


def sizes(model: Any, v: Values) -> Float[Tensor, " n"]:
    """For each unit, the length of what all units at its position write together."""
    w = written(model, v.site, v.unit, v.new - v.now)
    total = torch.zeros(int(v.position.max()) + 1, w.shape[1]).to(w).index_add(0, v.position, w)
    return total.norm(dim=1)[v.position]


def same_size(model: Any, v: Values, size: Tensor) -> Values:
    """The change with another length at each position."""
    factor = size / sizes(model, v).clamp(min=1e-9)
    return replace(v, new=v.now + factor[:, None] * (v.new - v.now))


@torch.no_grad()
def random_values(model: Any, plan: Plan, change: Change, n: int, g: torch.Generator) -> tuple[list[Values], str]:
    """``n`` random changes that match the plan's, and in words what they are."""
    v = plan.values
    if v.site.kind == "pattern":
        return [replace(v, new=_shuffled(v, g)) for _ in range(n)], "the same attention on shuffled keys"
    size = sizes(model, v)
    if isinstance(v.site.basis, Tensor):
        others = [_other_subspace(plan, change, g) for _ in range(n)]
        return [same_size(model, o, size) for o in others], "other subspaces of the same dimension"
    pools = [_pool(plan, change, i) for i in range(len(plan.at))]
    wanted = [int((v.position == p).sum()) for p in plan.at]
    if all(len(unit) >= OTHERS * k for (unit, _), k in zip(pools, wanted, strict=True)):
        return [same_size(model, _drawn(plan, pools, wanted, g), size) for _ in range(n)], "other units"
    drawn = [replace(v, new=v.now + torch.randn(v.now.shape, generator=g).to(v.now)) for _ in range(n)]
    return [same_size(model, d, size) for d in drawn], "random directions in the same units"


def _pool(plan: Plan, change: Change, i: int) -> tuple[Tensor, Tensor]:
    """Other units that the change would move at position ``i``, and to where; one that is silent here goes to where it is elsewhere."""
    own, other, v = plan.own[i], plan.other[i], plan.values
    new = change.make(own[None], other[None], torch.Generator().manual_seed(0)).expand_as(own[None])[0].clone()
    still = ((new - own).abs() < 1e-6).all(-1)
    new[still] = plan.most[still]
    keep = ((new - own).abs() > 1e-6).any(-1)
    keep[v.unit] = False
    return keep.nonzero()[:, 0], new


def _drawn(plan: Plan, pools: Any, wanted: list[int], g: torch.Generator) -> Values:
    parts = []
    for i, ((unit, new), k) in enumerate(zip(pools, wanted, strict=True)):
        chosen = unit[torch.randperm(len(unit), generator=g)[:k]]
        parts.append((torch.full_like(chosen, plan.at[i]), chosen, plan.own[i, chosen], new[chosen]))
    position, unit, now, new = (torch.cat(x) for x in zip(*parts, strict=True))
    return Values(plan.values.site, position, unit, now, new)


def _other_subspace(plan: Plan, change: Change, g: torch.Generator) -> Values:
    """The same change in the coordinates of a random subspace."""
    basis = plan.values.site.basis
    q = torch.linalg.qr(torch.randn(basis.shape[::-1], generator=g).to(basis)).Q.T  # [k, d_model]
    assert plan.whole is not None
    now, other = (x @ q.T for x in plan.whole)  # [position, k]
    new = change.make(now[:, None], other[:, None], g).expand_as(now[:, None])[:, 0]
    v = plan.values
    return Values(replace(v.site, basis=q), v.position, v.unit, now, new)


def _shuffled(v: Values, g: torch.Generator) -> Tensor:
    out = v.new.clone()
    for i, query in enumerate(v.position.tolist()):
        out[i, : query + 1] = v.new[i, : query + 1][torch.randperm(query + 1, generator=g)]
    return out
