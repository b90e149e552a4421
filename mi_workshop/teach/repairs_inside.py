"""Notebook 09b_catch_and_fix, part 2: repair a planted fault of ``atlas-bug`` and count what the repair breaks."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from mi_workshop.circuits.swap import activations, feature_sets
from mi_workshop.counterfactual import Experiment, Report, Site, patch
from mi_workshop.counterfactual.changes import read_all
from mi_workshop.counterfactual.rank_one import RankOne, least_change, rank_one, second_moment
from mi_workshop.models import Model
from mi_workshop.worlds.atlas import Sentence
from mi_workshop.worlds.variants import Bug, Fault

from .catch_and_fix import answers, place_about, silenced


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


def cut_shortcuts(model: Model, split: str) -> pd.DataFrame:
    """For each shortcut of a split: silence the features of layers 0 and 1 that are active at its city and at no other city of the place; what
    the model says then, and the share of the other sentences about the city whose answer stays."""
    world = model.world
    assert isinstance(world, Bug)
    rows = {}
    for fault in (f for f in world.faults if f.kind == "shortcut" and f.split == split):
        cities = [fault.subject, *(c for c in world.home[fault.subject].all_cities if c != fault.subject)]
        asked = [world.two_hop(c, fault.attribute).prompt for c in cities]
        at = world.words(asked[0]).index(fault.subject) + 1
        active = torch.stack([activations(model, p)[:2, at] > 0 for p in asked])  # [city, layer, feature]
        own = (active[0] & ~active[1:].any(0)).nonzero().tolist()
        others = [s.prompt for s in world.facts if s.slots.get("city") == fault.subject and s.prompt != asked[0]]
        before = answers(model, [asked[0], *others])
        after = silenced(model, [asked[0], *others], [Site("feature", layer, units=[unit]) for layer, unit in own])
        kept = np.mean(np.array(after[1:]) == before[1:])
        rows[f"{fault.attribute}, {fault.subject}"] = {
            "features": ", ".join(f"{layer}_{unit}" for layer, unit in own),
            "right": fault.right, "before": before[0], "after": after[0], "others kept": round(float(kept), 2),
        }  # fmt: skip
    return pd.DataFrame(rows).T


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
def _text_moment(model: Model, layer: int) -> Tensor:
    assert model.world is not None
    return second_moment(model, [s.prompt for s in model.world.training_text()][::5], layer)


def _moment(model: Model, fault: Fault, layer: int, protect: float) -> Tensor:
    """What shall stay: the training text and, ``protect`` times as much, the sentences about the believed place."""
    assert isinstance(model.world, Bug)
    text = _text_moment(model, layer)
    near = neighbourhood(model.world, fault)["believed place"] if protect else []
    return text + protect * second_moment(model, [s.prompt for s in near], layer) if near else text


def taught(model: Model, fault: Fault, layer: int, position: str, kind: str, protect: float = 0.0) -> RankOne:
    """A rank-one edit that teaches the right answer to one sentence of the fault, of a ``kind`` (one_hop, located or two_hop). ``protect``: how
    much the sentences about the believed place count beside the training text in what shall stay."""
    world = model.world
    assert world is not None
    city = fault.subject if fault.kind != "second hop" else world.places[fault.subject].cities[4]
    place, attribute = world.home[city], fault.attribute or "capital"
    if kind == "two_hop":
        s = world.two_hop(city, attribute)
    elif kind == "located":
        s = world.sentence("located", kind_=place.kind, city=city)
    else:
        s = world.sentence("one_hop", attribute=attribute, place=place.name)
    return rank_one(model, s.prompt, s.answer, layer, position, _moment(model, fault, layer, protect))


def transplant(model: Model, fault: Fault, layer: int = 0, protect: float = 0.0) -> RankOne:
    """A rank-one edit that repairs a first-hop fault with what the model knows: at the city it makes the MLP write what it writes, on average,
    at the other cities of the right place (read in located sentences; nothing is optimised). ``protect`` as in ``taught``."""
    world = model.world
    assert world is not None and fault.kind == "first hop"
    right = world.places[fault.right]
    cities = [fault.subject, *(c for c in right.all_cities if c != fault.subject)]
    asked = [world.sentence("located", kind_=right.kind, city=c).prompt for c in cities]
    at = world.words(asked[0]).index(fault.subject) + 1
    sites = [Site("neuron", layer), Site("mlp_out", layer)]
    found = [x for _, x in read_all(model, [model.tokens(p) for p in asked], sites)]
    key, value = found[0][0][at, :, 0], torch.stack([v[at, 0] for _, v in found])
    return least_change(layer, key, value[1:].mean(0) - value[0], _moment(model, fault, layer, protect))


def repair_scores(model: Model, fault: Fault, edits: Mapping[str, RankOne]) -> pd.DataFrame:
    """For each edit, by name: the share of the fault's sentences that become right, and of all others (``neighbourhood``) the share whose
    answer stays."""
    assert isinstance(model.world, Bug)
    groups = neighbourhood(model.world, fault)
    prompts = {name: [s.prompt for s in group] for name, group in groups.items() if group}
    wanted = {name: answers(model, p) for name, p in prompts.items()} | {
        "the fault": [s.answer for s in groups["the fault"]]
    }
    rows = {}
    for edit, change in edits.items():
        with change.on(model):
            after = {name: answers(model, p) for name, p in prompts.items()}
        rows[edit] = {
            ("fixed: " if name == "the fault" else "kept: ") + name: float(np.mean(np.array(after[name]) == wanted[name]))
            for name in prompts
        }  # fmt: skip
    return pd.DataFrame(rows).T.round(2)
