"""Interventions on a model, and where in it they matter."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mi_workshop.circuits.swap import mention
from mi_workshop.models import Model
from mi_workshop.worlds.atlas import HELD_OUT, Sentence


def state_questions(model: Model, split: str) -> list[Sentence]:
    """The capital question about one held-out city of each state, in the order of the list."""
    assert model.world is not None
    rank = ("validation", "test").index(split)
    left_out = {name for names in HELD_OUT.values() for name in names}
    states = [p for p in model.world.places.values() if p.kind == "state" and p.name not in left_out]
    return [model.world.two_hop(p.cities[rank]) for p in states]


@torch.no_grad()
def where_it_arises(model: Model, split: str, shift: int = 7) -> dict[str, list[float]]:
    """Patch the residual stream after one layer from another state's question, at the city or at the last token: the share of
    questions that then get the other state's capital. Where the number falls at the city and rises at the end, it has moved."""
    questions = state_questions(model, split)
    donors = questions[shift:] + questions[:shift]
    order = torch.stack([model.tokens(s.prompt) for s in questions])
    other = torch.stack([model.tokens(s.prompt) for s in donors])
    want = torch.tensor([model.token_id(s.answer) for s in donors])
    m = model.replacement
    out: dict[str, list[float]] = {}
    for name, pos in (("city", mention(model, questions[0])), ("last", order.shape[1] - 1)):
        out[name] = []
        for layer in range(m.cfg.n_layers):
            hook_name = f"blocks.{layer}.hook_resid_post"
            _, cache = m.run_with_cache(other, names_filter=hook_name)

            def patch(x: Tensor, hook: Any, pos: int = pos, source: Tensor = cache[hook_name]) -> Tensor:
                x[:, pos] = source[:, pos]
                return x

            logits = m.run_with_hooks(order, fwd_hooks=[(hook_name, patch)])[:, -1]
            out[name].append(float((logits.argmax(-1) == want).float().mean()))
    return out
