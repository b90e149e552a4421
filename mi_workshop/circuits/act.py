"""Act on nodes of a graph: several interventions at once, the new answers first, their controls in small portions.

An intervention is ``{"nodes": [ids], "kind": "zero" | "scale" | "swap", "factor": float, "to": str}``: the features are set to
zero, to ``factor`` times their activation, or the place that they stand for is swapped for the place ``to`` at their token
(``circuits.swap.make_edit``). What is unusual in the answers means something only beside the controls.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mi_workshop.circuits.ablate import feature_sites
from mi_workshop.circuits.graph import GraphError
from mi_workshop.circuits.intervene import intervene
from mi_workshop.circuits.swap import (
    N_RANDOM,
    Edit,
    activations,
    best,
    feature_sets,
    make_edit,
    place_of,
    random_edits,
    same_place,
)
from mi_workshop.models import Model
from mi_workshop.worlds import WorldError

CHUNK = 20  # random sets computed between two looks at whether somebody has asked for something else
Answers = list[dict[str, Any]]


@dataclass
class Action:
    """All interventions as one edit. ``barred`` [layer, feature] are the features that no random set may touch; ``expected``
    is the answer that the world's key gives after the swaps, if there are any; ``same`` puts the old place in again, taken
    from the prompt about another of its cities (``same_city``)."""

    edit: Edit
    barred: Tensor
    expected: str | None = None
    same: Edit | None = None
    same_city: str = ""


def _chosen(model: Model, prompt: str, node_ids: list[str]) -> list[tuple[int, int, int]]:
    if not node_ids:
        raise GraphError("Nothing is selected that could be changed.")
    return feature_sites(model, prompt, node_ids)


def place_at(model: Model, prompt: str, node_ids: list[str]) -> tuple[str, list[int]]:
    """The place that most of these features stand for ("" if most stand for none) and the positions where they are."""
    sites = _chosen(model, prompt, node_ids)
    places = [model.features.places[layer, feature] or [""] for layer, _, feature in sites]
    all_places = [place for several in places for place in several]
    common = max(sorted(set(all_places)), key=all_places.count)
    return common, sorted({p for (_, p, _), several in zip(sites, places, strict=True) if common in several})


def choices(model: Model, prompt: str, supernodes: dict[str, list[str]]) -> dict[str, list[str]]:
    """For each supernode of the place that the prompt speaks of: the places that it can be swapped for."""
    world = model.world
    try:
        assert world is not None
        here = place_of(model, world.parse(prompt))
    except (AssertionError, KeyError, WorldError):
        return {}
    others = [p.name for p in world.places.values() if p.kind == here.kind and p.name != here.name]
    out = {}
    for label, ids in supernodes.items():
        try:
            if place_at(model, prompt, ids)[0] == here.name:
                out[label] = others
        except GraphError:
            continue
    return out


def combine(model: Model, prompt: str, interventions: list[dict[str, Any]]) -> Action:
    """One edit from all interventions; a later one wins where two touch the same feature.

    Raises GraphError for what is no intervention, or names no active feature; WorldError for an unknown place.
    """
    now = activations(model, prompt)
    edit = Edit(model.tokens(prompt), now.clone(), torch.zeros_like(now, dtype=torch.bool), now, now)
    action = Action(edit, torch.zeros(now.shape[0], now.shape[2], dtype=torch.bool))
    for one in interventions:
        try:
            kind, ids, factor, to = (
                one["kind"], list(one["nodes"]), float(one.get("factor") or 0), str(one.get("to") or ""),
            )  # fmt: skip
        except (KeyError, TypeError, ValueError, AttributeError):
            raise GraphError(f"This is no intervention: {str(one)[:80]}.") from None
        if kind == "swap":
            _swap(model, prompt, ids, to, action)
        elif kind in ("zero", "scale"):
            for layer, position, feature in _chosen(model, prompt, ids):
                new = 0.0 if kind == "zero" else factor * now[layer, position, feature]
                edit.values[layer, position, feature], edit.mask[layer, position, feature] = new, True
        else:
            raise GraphError(f"There is no intervention {str(kind)[:40]!r}: choose zero, scale or swap.")
    action.barred |= edit.mask.any(1)
    return action


def _swap(model: Model, prompt: str, ids: list[str], to: str, action: Action) -> None:
    world = model.world
    old, positions = place_at(model, prompt, ids)
    if world is None or not old:
        raise GraphError("These features stand for no place that could be swapped for another.")
    asked, donor = world.parse(prompt), world.parse(world.swap(prompt, old, to)[0])
    same = same_place(model, asked)
    site = torch.zeros_like(action.edit.mask)
    site[:, positions] = True
    for edit, source in ((action.edit, donor), (None, same)):
        made = make_edit(model, asked, source, "state")
        made.mask &= site
        if edit is None:
            action.same, action.same_city = made, same.slots.get("city", old)
        else:
            edit.values = torch.where(made.mask, made.values, edit.values)
            edit.mask |= made.mask
            edit.donor = made.donor
    action.expected = donor.answer
    action.barred |= feature_sets(model, old, asked.answer) | feature_sets(model, to, donor.answer)


def answers(model: Model, action: Action) -> tuple[Answers, Answers]:
    """The five likeliest answers before and after, then what is likely on the other side only (or expected)."""
    edit = action.edit
    plain = model.logits(edit.tokens)
    new = intervene(model, edit.tokens, edit.sets()[None])[0]
    ids = [*plain.topk(5).indices.tolist(), *new.topk(5).indices.tolist()]  # by number: two tokens can look the same
    ids += [model.token_id(action.expected)] if action.expected else []
    sides = []
    for logits in (plain, new):
        top, probs = logits.topk(5).indices.tolist(), logits.softmax(-1)
        more = [i for i in dict.fromkeys(ids) if i not in top]
        rest = [{"token": w, "prob": float(probs[i])} for i, w in zip(more, model.words(more), strict=True)]
        sides.append(best(model, logits) + rest)
    return sides[0], sides[1]


def controls(model: Model, action: Action, n: int = N_RANDOM) -> Iterator[list[dict[str, Any]]]:
    """The controls so far, ``{name, token, prob, note}``, again and again while more of them are done.

    *values put back*: every changed feature set to the value that it has anyway; *same place*: for a swap, the old place
    taken from another of its cities; *random sets*: up to ``n`` different sets matched in number, layer, position and size
    (``swap.random_edits``).
    """
    edit = action.edit
    plain = model.logits(edit.tokens)
    was = int(plain.argmax())
    back = intervene(model, edit.tokens, edit.sets(edit.now)[None])[0]
    moved = float((back - plain).abs().max())
    note = f"no logit moves by more than {moved:.0e}" if moved else "no logit moves"
    done = [{"name": "values put back", **best(model, back, 1)[0], "note": note}]
    if action.same is not None:
        same = best(model, intervene(model, edit.tokens, action.same.sets()[None])[0], 1)[0]
        done.append({"name": "same place", **same, "note": f"its features as in the prompt about {action.same_city}"})
    yield done
    noise = random_edits(model, edit, action.barred, n)
    n = len(noise)
    want = model.token_id(action.expected) if action.expected else None
    kept = flipped = expected = 0.0
    for i in range(0, n, CHUNK):
        rows = noise.index_select(0, torch.arange(i, min(i + CHUNK, n)))
        probs = intervene(model, edit.tokens, rows).softmax(-1)
        kept, flipped = kept + float(probs[:, was].sum()), flipped + float((probs.argmax(-1) != was).sum())
        expected += float((probs.argmax(-1) == want).sum()) if want is not None else 0
        count = i + len(rows)
        note = f"mean of {count} of {n}; the answer changes in {flipped / count:.0%}"
        note += f" and becomes {action.expected} in {expected / count:.0%}" if action.expected else ""
        yield [
            *done,
            {"name": "random sets", "token": best(model, plain, 1)[0]["token"], "prob": kept / count, "note": note},
        ]
