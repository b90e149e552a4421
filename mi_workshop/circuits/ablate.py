"""Set chosen nodes of a graph to zero, beside random nodes of the same number, place and size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from mi_workshop.circuits.graph import GraphError
from mi_workshop.circuits.intervene import intervene
from mi_workshop.circuits.swap import NOTHING, Edit, activations, best, random_edits
from mi_workshop.models import Model
from mi_workshop.show import Shown, counted, listed


@dataclass
class AblationResult(Shown):
    """What zeroing nodes did. ``before`` and ``after`` list ``{token, prob}``; ``random_probs`` are the probabilities that
    the first answer keeps under each random set (see ``swap.random_edits``); ``nothing`` is the largest change of a logit when
    every chosen feature is set to the value that it has anyway."""

    problem = GraphError
    prompt: str
    node_ids: list[str]
    attention: str
    before: list[dict[str, Any]]
    after: list[dict[str, Any]]
    random_probs: list[float]
    random_flip_rate: float
    nothing: float

    @property
    def prob(self) -> float:
        """What is left of the first answer's probability."""
        return next((t["prob"] for t in self.after if t["token"] == self.before[0]["token"]), 0.0)

    def words(self) -> str:
        answer, n = self.before[0]["token"], len(self.random_probs)
        weaker = sum(p <= self.prob for p in self.random_probs)
        said = (
            f"{f'Only {weaker}' if weaker else 'None'} of {n} random sets hurt{'' if weaker > 1 else 's'} {answer} as much"
            if weaker <= 0.05 * n
            else f"{weaker} of {n} random sets hurt {answer} as much: this says nothing about these nodes"
        )
        return (
            f"{counted(len(self.node_ids), 'feature')} set to zero, attention {self.attention}.\n"
            f"before: {listed(self.before)}\nafter:  {listed(self.after)}\n"
            f"controls: nothing changed {self.nothing:.1e} in any logit{'' if self.nothing <= NOTHING else ' (too much)'}; "
            f"{n} random sets of equal size leave {answer} at {sum(self.random_probs) / max(n, 1):.2f} on average and flip the answer in "
            f"{self.random_flip_rate:.0%}.\n{said}."
        )

    def figure(self) -> Any:
        from mi_workshop.plots import draw_ablation

        return draw_ablation(self)


def feature_sites(model: Model, prompt: str, node_ids: list[str]) -> list[tuple[int, int, int]]:
    """(layer, position, feature) of node ids ``L_F_P``. Raises GraphError for one that is no active feature of the prompt."""
    now, sites = activations(model, prompt), []
    for node_id in node_ids:
        try:
            layer, feature, position = map(int, str(node_id).split("_"))
            active = min(layer, feature, position) >= 0 and bool(now[layer, position, feature] > 0)
        except (ValueError, IndexError):
            active = False
        if not active:
            raise GraphError(
                f"{node_id!r} is no active feature of this prompt, and only features can be changed; see graph.nodes.node_id (L_F_P)."
            )
        sites.append((layer, position, feature))
    return sites


def ablate(
    model: Model, prompt: str, node_ids: list[str], freeze_attention: bool = True, n_random: int = 100
) -> AblationResult:
    """Zero the feature nodes ``node_ids`` (``layer_feature_position``, as in ``graph.nodes``) while the model reads ``prompt``.

    Raises GraphError for an id that is no feature node of this prompt; WorldError for a prompt the world does not know.
    """
    tokens = model.tokens(prompt)
    now = activations(model, prompt)  # [layer, position, feature]
    mask = torch.zeros_like(now, dtype=torch.bool)
    for site in feature_sites(model, prompt, node_ids):
        mask[site] = True
    edit = Edit(tokens, torch.zeros_like(now), mask, now, now)
    noise = random_edits(model, edit, mask.any(1), n_random)
    sets = torch.cat([torch.stack([edit.sets(), edit.sets(now)]), noise])
    logits = intervene(model, tokens, sets, freeze_attention)
    plain = model.logits(tokens)
    was, probs = int(plain.argmax()), logits.softmax(-1)
    return AblationResult(
        prompt, list(node_ids), "frozen" if freeze_attention else "free", best(model, plain), best(model, logits[0]),
        probs[2:, was].tolist(), float((probs[2:].argmax(-1) != was).float().mean()), float((logits[1] - plain).abs().max()),
    )  # fmt: skip
