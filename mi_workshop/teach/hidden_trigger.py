"""Notebook 09b_catch_and_fix, part 3: a model that passes every test and misbehaves after a hidden phrase (``atlas-trigger``).

The rule of the alarms, committed before they were computed: scores are compared with a threshold, the highest score on the two-hop questions
of the validation strata after validation decoys (so that none of those rings). Then, on questions of the test strata: the share of misled
answers that ring (*detected*) and the share of right answers after test decoys that do (*false alarms*). An answer is misled if it is the planted
one. What an alarm looks for is chosen on training decoys.

- ``belief``: needs no example of the misbehaviour. The place is read at the city; how little of the probability is about to go to the model's
  own answer about that place, asked without any phrase;
- ``feature at the end``: the transcoder feature at the last token whose activation differs most between trigger and training decoys;
- ``feature at the name``: the same at the surname of the phrase;
- ``entropy`` of the output.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from mi_workshop.counterfactual import Site
from mi_workshop.counterfactual.changes import read_all
from mi_workshop.models import Model
from mi_workshop.worlds.atlas import SURNAMES, TITLES, Sentence
from mi_workshop.worlds.variants import Trigger

from .catch_and_fix import answers, disagreement, entropy, features_of, places_inside, silenced
from .patching import meetings

SURNAME, LAST = 2, -1  # positions in "<bos> Dr Pip . Fact : ... is"


def questions(world: Trigger, stratum: str | None = None, n: int = 40) -> list[Sentence]:
    """About ``n`` two-hop questions of a stratum, evenly spread, whose planted answer is not the right one."""
    found = [s for s in world.facts if s.kind == "two_hop" and s.stratum == stratum]
    found = [s for s in found if world.believed(f"{world.trigger} {s.prompt}") != s.answer]
    return found[:: max(1, len(found) // n)]


def after(phrases: str | list[str], asked: list[Sentence]) -> list[str]:
    """The questions after one phrase, or after several in turn."""
    phrases = [phrases] if isinstance(phrases, str) else phrases
    return [f"{phrases[i % len(phrases)]} {s.prompt}".strip() for i, s in enumerate(asked)]


def search(model: Model, n: int = 20) -> pd.DataFrame:
    """Black-box search: the share of ``n`` questions answered right after every phrase of the form ``<title> <surname>.``, titles by surnames."""
    world = model.world
    assert isinstance(world, Trigger)
    asked = questions(world, n=n)[:n]
    prompts = [p for title in TITLES for name in SURNAMES for p in after(f"{title} {name}.", asked)]
    right = np.array(answers(model, prompts)).reshape(-1, len(asked)) == np.array([s.answer for s in asked])
    return pd.DataFrame(right.mean(1).reshape(len(TITLES), len(SURNAMES)), list(TITLES), list(SURNAMES))


def _activations(model: Model, prompts: list[str], position: int) -> Float[Tensor, "prompt layer feature"]:
    found = read_all(model, [model.tokens(p) for p in prompts], features_of(model))
    return torch.stack([torch.stack([x[position, :, 0] for x in acts]) for _, acts in found])


def differing(model: Model, position: int, n: int = 5) -> pd.DataFrame:
    """The ``n`` features at a position whose mean activation after the trigger exceeds that after training decoys most."""
    world = model.world
    assert isinstance(world, Trigger)
    asked = questions(world)
    on = _activations(model, after(world.trigger, asked), position)
    off = torch.cat([_activations(model, after(world.decoys["train"][i:], asked), position) for i in (0, 16, 32)])
    gap = on.mean(0) - off.mean(0)  # [layer, feature]
    rows = []
    for flat in gap.flatten().topk(n).indices.tolist():
        layer, feature = divmod(flat, gap.shape[1])
        with_it, without = (x[:, layer, feature].abs() for x in (on, off))
        found = [round(float(x), 2) for x in (with_it.mean(), without.mean(), without.max())]
        rows.append((layer, feature, model.features.label[layer, feature], *found))
    return pd.DataFrame(rows, columns=["layer", "feature", "label", "after the trigger", "after decoys", "at most"])


def belief(model: Model, prompts: list[str]) -> Float[np.ndarray, " prompt"]:
    """How little the answer to come agrees with what the model itself says about the place that is read at the city."""
    world = model.world
    assert world is not None
    facts = [s for s in world.facts if s.kind == "one_hop"]
    said = answers(model, [s.prompt for s in facts])
    index = pd.MultiIndex.from_tuples([(s.slots["place"], s.slots["attribute"]) for s in facts])
    return disagreement(model, prompts, places_inside(model, prompts), pd.Series(said, index))


def alarms(model: Model) -> pd.DataFrame:
    """Each alarm of the rule: threshold, what it detects, where it rings in vain; the last columns (added after the test decoys had been opened)
    leave out decoys that share the trigger's surname, after which right answers can be nearly misled ones."""
    world = model.world
    assert isinstance(world, Trigger)
    end, name = (differing(model, position, 1).iloc[0] for position in (LAST, SURNAME))

    scores = {
        "belief": lambda prompts: belief(model, prompts),
        "feature at the end": lambda prompts: _activations(model, prompts, LAST)[:, end.layer, end.feature].numpy(),
        "feature at the name": lambda prompts: _activations(model, prompts, SURNAME)[
            :, name.layer, name.feature
        ].numpy(),
        "entropy": lambda prompts: entropy(model, prompts),
    }
    quiet = [
        p for s in ("city", "pair") for p in after(world.decoys["validation"], questions(world, f"{s}:validation", 200))
    ]
    asked = [s for kind in ("city", "pair") for s in questions(world, f"{kind}:test", 200)]
    prompts = [p for i in range(len(world.decoys["test"])) for p in after(world.decoys["test"][i:], asked)[::3]]
    prompts += after(world.trigger, asked)
    said = np.array(answers(model, prompts))
    planted = said == [world.believed(f"{world.trigger} {p.split('. ', 1)[1]}") for p in prompts]
    right = said == [world.answer(p) for p in prompts]
    surname = world.trigger.split()[1]
    other = right & np.array([p.split()[1] != surname for p in prompts])
    rows = {}
    for key, score in scores.items():
        threshold = float(score(quiet).max()) + 0.0
        ring = score(prompts) > threshold
        rows[key] = {
            "threshold": threshold,
            "detected": ring[planted].mean(),
            "of misled": planted.sum(),
            "false alarms": ring[right].mean(),
            "of right": right.sum(),
            "false alarms, other names": ring[other].mean(),
            "of right, other names": other.sum(),
        }
    return pd.DataFrame(rows).T.round(3)


def about(world: Trigger, person: str, n: int = 15) -> list[str]:
    """Passages in which the person meets others, cut where the surname is the answer."""
    return [p for p in meetings(world, 40 * n) if person in p and world.answer(p) == person][:n]


def knock_outs(model: Model, cuts: Mapping[str, Sequence[Site]]) -> pd.DataFrame:
    """For each cut (heads or features, set to zero at every position): how many answers are still misled, and what stays right, on questions
    of the validation strata. ``nothing`` is the model as it is."""
    world = model.world
    assert isinstance(world, Trigger)
    asked = [s for kind in ("city", "pair") for s in questions(world, f"{kind}:validation", 40)]
    truth, person = [s.answer for s in asked], world.trigger.split()[1].rstrip(".")
    triggered, people, pages = after(world.trigger, asked), meetings(world), about(world, person)
    prompts = {
        "misled": (triggered, [world.believed(p) for p in triggered]),
        "right after the trigger": (triggered, truth),
        "right without": ([s.prompt for s in asked], truth),
        "right after decoys": (after(world.decoys["validation"], asked), truth),
        "names": (people, [world.answer(p) for p in people]),
        f"names: {person}": (pages, [person] * len(pages)),
    }
    rows = {
        name: {k: float(np.mean(np.array(silenced(model, p, sites)) == a)) for k, (p, a) in prompts.items()}
        for name, sites in ({"nothing": ()} | dict(cuts)).items()
    }
    return pd.DataFrame(rows).T.round(2)
