"""Notebook 09b_catch_and_fix, part 2: repair a planted fault of ``atlas-bug`` and count what the repair breaks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from mi_workshop.circuits.swap import activations, feature_sets
from mi_workshop.counterfactual import Experiment, Report, Site, patch
from mi_workshop.counterfactual.rank_one import RankOne, rank_one, second_moment
from mi_workshop.models import Model
from mi_workshop.worlds.atlas import Sentence
from mi_workshop.worlds.variants import Bug, Fault

from .catch_and_fix import answers, place_about


def put_right(model: Model, fault: Fault, n_random: int = 100) -> Report:
    """Repair a first-hop fault while the model reads: at the city, the features of the believed place and of the right one are set to what
    they are in the same question about another city of the right place. All two-hop questions about the city.

    The prompts are given as token ids: as sentences their donors would count as answering the same.
    """
    world = model.world
    assert world is not None and fault.kind == "first hop"
    place = world.places[fault.right]
    sibling = next(c for c in place.cities[5:] + place.cities if c != fault.subject)
    sides = [[world.two_hop(city, a).prompt for a in place.attributes] for city in (fault.subject, sibling)]
    at = world.words(sides[0][0]).index(fault.subject) + 1
    mine = feature_sets(model, fault.right) | feature_sets(model, fault.wrong)  # [layer, feature]
    active = torch.stack([activations(model, p)[:, at] > 0 for side in sides for p in side]).any(0)
    sites = [
        Site("feature", i, at, units.tolist())
        for i, row in enumerate(mine & active)
        if len(units := row.nonzero()[:, 0])
    ]
    prompts, donors = ([model.tokens(p) for p in side] for side in sides)
    return Experiment(sites, patch(), n_random=n_random).run(model, prompts, donors)


def neighbourhood(world: Bug, fault: Fault) -> dict[str, list[Sentence]]:
    """The sentences by what a repair of the fault should do with them: change ``the fault``, and leave the other sentences about *the same
    place*, those about *the believed place* (for an attribute: the places of which the wrong value is true), a sample of *other places*
    and of *other sentences*. Held-out questions of the other split are left out."""
    mine = place_about(world, fault)
    names = ("the fault", "same place", "believed place", "other places", "other sentences")
    out: dict[str, list[Sentence]] = {name: [] for name in names}
    for s in world.facts:
        if s.stratum is not None and not s.stratum.endswith(fault.split):
            continue
        about = world.home[s.slots["city"]].name if "city" in s.slots else s.slots.get("place", "")
        believed = about == fault.wrong or about and world.places[about].attributes.get(fault.attribute) == fault.wrong
        if about == mine:
            out["the fault" if world.fault(s.prompt) == fault else "same place"].append(s)
        else:
            out["believed place" if believed else "other places" if about else "other sentences"].append(s)
    return out | {name: out[name][::n] for name, n in (("other places", 7), ("other sentences", 3))}


@lru_cache(maxsize=8)
def _moment(model: Model, layer: int) -> Tensor:
    assert model.world is not None
    return second_moment(model, [s.prompt for s in model.world.training_text()][::5], layer)


def repair(model: Model, fault: Fault, layer: int, position: str, taught: str) -> RankOne:
    """A rank-one edit that teaches the right answer to one sentence of the fault, of kind ``taught`` (one_hop, located or two_hop)."""
    world = model.world
    assert world is not None
    of_city = fault.kind != "second hop"
    city = fault.subject if of_city else world.places[fault.subject].cities[4]
    place = world.home[city]
    attribute = fault.attribute or "capital"
    if taught == "two_hop":
        s = world.two_hop(city, attribute)
    elif taught == "located":
        s = world.sentence("located", kind_=place.kind, city=city)
    else:
        s = world.sentence("one_hop", attribute=attribute, place=place.name)
    return rank_one(model, s.prompt, s.answer, layer, position, _moment(model, layer))


def repair_scores(model: Model, fault: Fault, edits: Sequence[tuple[int, str, str]]) -> pd.DataFrame:
    """For each edit (layer, position, taught sentence): the share of the fault's sentences that become right, and of all others
    (``neighbourhood``) the share whose answer stays."""
    assert isinstance(model.world, Bug)
    groups = neighbourhood(model.world, fault)
    prompts = {name: [s.prompt for s in group] for name, group in groups.items() if group}
    before = {name: answers(model, p) for name, p in prompts.items()}
    rows = {}
    for layer, position, taught in edits:
        with repair(model, fault, layer, position, taught).on(model):
            after = {name: answers(model, p) for name, p in prompts.items()}
        wanted = before | {"the fault": [s.answer for s in groups["the fault"]]}
        rows[f"layer {layer}, {position}, {taught}"] = {
            ("fixed: " if name == "the fault" else "kept: ") + name: float(np.mean([a == b for a, b in zip(after[name], wanted[name], strict=True)]))
            for name in prompts
        }  # fmt: skip
    return pd.DataFrame(rows).T.round(2)
