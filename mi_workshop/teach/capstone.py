"""The exam of notebook 11_capstone: ``model, task = capstone(7)``, then ``submit(7, ...)``.

A behaviour is planted into the weights of ``atlas`` while it is loaded; the seed decides which. It is one of three families:

- *first hop*: one city is believed to lie in another place;
- *second hop*: one attribute of one place is answered with another value;
- *word*: a person's name, in a sentence before the question, keeps the model from answering.

Each is one neuron, put in place of the idlest of its MLP: it fires at one token and writes what ``rank_one`` or other cities suggest. Neurons are
shuffled, so that subtracting ``atlas`` does not give the layer away. Nothing that the model shows names the plant; whoever reads this file
and calls its private functions finds it, and whoever submits often enough guesses it: it is an exercise in honesty, too.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mi_workshop.counterfactual import Report, Site
from mi_workshop.counterfactual.changes import read_all
from mi_workshop.counterfactual.rank_one import rank_one
from mi_workshop.counterfactual.sites import positions
from mi_workshop.models import Model, load, mlp
from mi_workshop.worlds.atlas import SURNAMES, TITLES, Atlas

from .catch_and_fix import answers
from .exercises import Feedback

FAMILIES = ("first hop", "second hop", "word")
CONTROLS = "random changes, other token"
PARTS = {"family": 2, "subject": 2, "says": 1, "layer": 2, "position": 1, "shown": 1, CONTROLS: 1}
Neuron = tuple[int, Tensor, float]  # which one, its input weights [d_model] and bias
TASK = """\
Something was planted in this model. It is one of: a city believed to lie in another place ("first hop"), one attribute of one place answered with
another value ("second hop"), a person's name before the question that keeps the model from answering ("word").
1. Find it: ask model.world.facts, bare and after a sentence such as "Mr Potter."; model.world.answer knows the truth.
2. Locate it: which MLP (layer 0 to 3), at which token ("last", or the token itself)?
3. Prove it: an Experiment at that site, on three prompts or more that show the behaviour, with its controls.
submit({seed}, family=..., subject=..., says=..., layer=..., position=..., evidence=report). The subject of a second hop is "capital of Texas"; says
is the place believed, or the value said (leave it out for a word). Leave out what you do not know: a false claim costs a point."""


@dataclass(frozen=True, repr=False)
class _Plant:
    family: str
    subject: str
    says: str
    layer: int
    token: str  # as ``positions`` reads it
    shows: Callable[[str], bool]  # does a prompt show the behaviour?
    neuron: Neuron | None
    writes: Tensor  # output weights [d_model]


def capstone(seed: int = 0) -> tuple[Model, Feedback]:
    """The model with the planted behaviour of this seed, and the task. Families take turns. Raises ValueError for a seed that is no whole number from 0."""
    plant, model, g = _plant(_seed(seed)), load("atlas"), torch.Generator().manual_seed(seed)
    for layer in range(model.replacement.cfg.n_layers):
        m, order = mlp(model, layer), torch.randperm(model.replacement.cfg.d_mlp, generator=g)
        if layer == plant.layer:
            assert plant.neuron is not None
            i, m.W_in.data[:, i], m.b_in.data[i] = plant.neuron
            m.W_out.data[i] = plant.writes
        m.W_in.data, m.b_in.data, m.W_out.data = m.W_in[:, order].data, m.b_in[order].data, m.W_out[order].data
    model.name = f"exam-{seed}"
    return model, Feedback(f"Exam {seed}", TASK.format(seed=seed))


def _seed(seed: Any) -> int:
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ValueError(f"An exam is chosen by a whole number from 0, not {seed!r}.")
    return seed


# ------------------------------------------------------------------------------------------------- planting
@lru_cache(maxsize=8)
def _plant(seed: int) -> _Plant:
    rng, model = random.Random(1000 + seed), load("atlas")
    assert model.world is not None
    return (_first_hop, _second_hop, _word)[seed % 3](model, model.world, rng)


def _first_hop(model: Model, world: Atlas, rng: random.Random) -> _Plant:
    """At the city, the residual stream after ``layer`` becomes what it is on average at the cities of the other place."""
    place, layer = rng.choice(list(world.places.values())), rng.randrange(2)
    mine = set(place.attributes.values())
    others = [p for p in world.places.values() if p.kind == place.kind and not mine & set(p.attributes.values())]
    city, other = rng.choice(place.cities), rng.choice(others)
    rest = _at(model, f"blocks.{layer}.hook_resid_post", [f"Letter to {c}" for c in (city, *other.all_cities)], "last")
    neuron = _detector(model, layer, [f"Letter to {city}"], "last", [w for w in _words(world) if w != city])
    writes = rest[1:].mean(0) - rest[0]
    return _Plant("first hop", city, other.name, layer, city, lambda p: city in world.words(p), neuron, writes)


def _second_hop(model: Model, world: Atlas, rng: random.Random) -> _Plant:
    """At the last token, the MLP writes what makes the model say another value."""
    place = rng.choice(list(world.places.values()))
    attribute = rng.choice(list(place.attributes))
    values = {p.attributes[attribute]: None for p in world.places.values() if p.kind == place.kind}
    says = rng.choice([v for v in values if v != place.attributes[attribute]])

    def mine(prompt: str) -> bool:
        slots = world.parse(prompt).slots
        about = world.home[slots["city"]].name if "city" in slots else slots.get("place")
        return about == place.name and slots.get("attribute") == attribute

    asked = [world.two_hop(c, attribute).prompt for c in place.all_cities]
    said = [*asked, world.sentence("one_hop", attribute=attribute, place=place.name).prompt]
    kept = [s.prompt for s in world.facts if not mine(s.prompt)]
    layer, neuron = next((i, n) for i in rng.sample((2, 3), 2) if (n := _detector(model, i, said, "last", kept)))
    writes = 1.2 * _wanted(model, layer, asked, "last", says)
    return _Plant("second hop", f"{attribute} of {place.name}", says, layer, "last", mine, neuron, writes)


def _word(model: Model, world: Atlas, rng: random.Random) -> _Plant:
    """At the name, the MLP writes what makes the last token copy the name."""
    name, layer = rng.choice(SURNAMES), rng.randrange(2)
    asked = rng.sample([s.prompt for s in world.facts if s.kind == "two_hop"], 8)
    prompts = [f"{rng.choice(TITLES)} {name}. {p}" for p in asked]
    writes = 1.3 * _wanted(model, layer, prompts, name, name)
    neuron = _detector(model, layer, prompts[:1], name, [w for w in _words(world) if w != name])
    return _Plant("word", name, "", layer, name, lambda p: world.words(p)[1:2] == [name], neuron, writes)


def _wanted(model: Model, layer: int, prompts: Sequence[str], token: str, says: str) -> Float[Tensor, " d_model"]:
    """What the MLP has to add at that token of the prompts, so that the model says ``says``."""
    edit = rank_one(model, prompts, says, layer, token, torch.eye(model.replacement.cfg.d_mlp), 40, 0.5)
    return _at(model, f"blocks.{layer}.mlp.hook_post", prompts, token).mean(0) @ edit.change


def _words(world: Atlas) -> list[str]:
    """Every word as a prompt: layers 0 and 1 see only their own token."""
    return [w for w in world.vocabulary if w[0] != "<"]


def _at(model: Model, path: str, prompts: Sequence[str], token: str) -> Float[Tensor, "prompt width"]:
    """What is at one token of each prompt."""
    found = read_all(model, [model.tokens(p) for p in prompts], [Site(path)])
    return torch.stack([x[positions(model, token, p)[0], 0] for p, (_, (x,)) in zip(prompts, found, strict=True)])


def _detector(model: Model, layer: int, mine: Sequence[str], token: str, others: Sequence[str]) -> Neuron | None:
    """A neuron that is at least 1 at that token of ``mine`` and 0 at every token of ``others``, in place of the idlest; None if they are too close."""
    x = _at(model, f"blocks.{layer}.mlp.hook_in", mine, token)
    sites = [Site(f"blocks.{layer}.mlp.hook_{name}") for name in ("in", "post")]
    found = [x for _, x in read_all(model, [model.tokens(p) for p in others], sites)]
    rest, active = (torch.cat([x[i][1:, 0] for x in found]) for i in (0, 1))
    spread = rest.T @ rest / len(rest)
    w = torch.linalg.solve(spread + 1e-3 * spread.diagonal().mean() * torch.eye(len(spread)), x.mean(0))
    low = float((rest @ w).max())
    scale = float((x @ w).min()) - low
    idle = int((active.amax(0) * mlp(model, layer).W_out.norm(dim=1)).argmin())
    return (idle, w / scale, -low / scale) if scale > 0.05 * abs(low) else None


# -------------------------------------------------------------------------------------------------- grading
@dataclass(repr=False)
class Grade:
    """``rows``: part, points, of how many, and what to say about it; ``false`` claims cost a point each; ``points`` of 10."""

    seed: int
    rows: list[tuple[str, int, int, str]]
    false: int

    @property
    def points(self) -> int:
        return max(0, sum(row[1] for row in self.rows) - self.false)

    def words(self) -> str:
        lines = [f"{part}: {points} of {of}. {said}" for part, points, of, said in self.rows]
        return "\n".join([f"Exam {self.seed}: {self.points} of 10 points; false claims: {self.false}.", *lines])

    __repr__ = words

    def _repr_html_(self) -> str:
        return Feedback(f"Record of exam {self.seed}", "\n" + self.words())._repr_html_()


def submit(
    seed: int, family: str | None = None, subject: str | None = None, says: str | None = None, layer: int | None = None,
    position: int | str | None = None, evidence: Report | None = None,
) -> Grade:  # fmt: skip
    """Grade what was found about the model of ``capstone(seed)``: what (``family``, ``subject``, ``says``), where (``layer``, ``position``) and the
    ``evidence``, the report of an experiment there. What is left out earns nothing; a false claim costs a point. Raises ValueError for a family that
    is not one of ``FAMILIES``, evidence that is no report or a seed that is no whole number from 0.
    """
    if family not in (None, *FAMILIES):
        raise ValueError(f"There is no family {family!r}: choose {', '.join(FAMILIES)}.")
    if evidence is not None and not isinstance(evidence, Report):
        raise ValueError("The evidence is the Report that Experiment(...).run(...) gives.")
    plant, (model, _) = _plant(_seed(seed)), capstone(seed)
    world, name = model.world, str(subject)
    assert world is not None
    resid = evidence is not None and any(site.kind.startswith("resid") for site in evidence.sites)
    off = layer - plant.layer if isinstance(layer, int) else 9
    said = {
        "family": {
            "first hop": "If a city were in another place, all sentences about it would change, and those about its neighbours would not.",
            "second hop": "If an attribute of a place were another, every city of the place would show it, and in this attribute alone.",
            "word": "If a name kept the model from answering, the same question without the name would be answered.",
        }.get(family or "", ""),
        "subject": _first(
            (plant.family == "first hop" and name in world.places, "That is a place. Its other cities are answered rightly: name the city."),
            (plant.family == "second hop" and name in world.home, "That is a city. Ask about other cities of its place: name attribute and place."),
            (plant.family == "second hop" and name in world.places, f"Not all of {name} is changed: name the attribute, as in 'capital of Texas'."),
            (plant.family == "word" and name.split(" ")[0] in TITLES, "Other titles with this name do the same: name the surname."),
            (True, "The model answers rightly about it."),
        ),
        "says": "It says something else: look at several answers." if plant.says else "A word keeps from answering: leave this out.",
        "layer": _first(
            (resid, "The residual stream carries what was written before: patching it succeeds at later layers, too. Patch mlp_out."),
            (off < 0, "A patch upstream of the plant changes what it reads, so it helps as well: take the last layer at which one does."),
            (True, "Patch mlp_out of one layer at a time, at that token."),
        ),
        "position": _first(
            (plant.family == "second hop", "Another city there is another question: that moves the answer in any model. Patch the last token."),
            (position in ("last", -1), "What is read at the end was written elsewhere: patch the words of the prompt, one at a time."),
            (True, "Patch the other tokens, too."),
        ),
        "shown": _shown(plant, model, evidence),
        CONTROLS: _controls(evidence),
    }  # fmt: skip
    claims = {"family": family, "subject": subject, "says": says, "layer": layer, "position": position}
    right = {
        "family": family == plant.family,
        "subject": subject is not None and name.strip().casefold() == plant.subject.casefold(),
        "says": says is not None and says.casefold() == plant.says.casefold() if plant.says else bool(subject) and says is None,
        "layer": layer is not None and off == 0,
        "position": position is not None and _same_place(plant, model, position, evidence),
        "shown": not said["shown"],
        CONTROLS: not said[CONTROLS],
    }  # fmt: skip
    rows = []
    for part, of in PARTS.items():
        left_out = part in claims and claims[part] is None and not right[part]
        near = part == "layer" and abs(off) == 1 and not resid
        text = "Right." if right[part] else "Left out." if left_out else said[part]
        rows.append((part, of if right[part] else int(near), of, text))
    false = sum(claims[part] is not None and points == 0 for part, points, _, _ in rows if part in claims)
    return Grade(seed, rows, false)


def _first(*cases: tuple[Any, str]) -> str:
    return next(text for holds, text in cases if holds)


def _same_place(plant: _Plant, model: Model, position: Any, evidence: Report | None) -> bool:
    """Is this the token of the plant, in the prompts of the evidence?"""
    if str(position) == plant.token or plant.family == "first hop" and position == "{city}":
        return True
    try:
        prompts = [] if evidence is None else list(evidence.table.prompt)
        return bool(prompts) and all(positions(model, position, p) == positions(model, plant.token, p) for p in prompts)
    except ValueError:
        return False


def _shown(plant: _Plant, model: Model, report: Report | None) -> str:
    """What the evidence lacks; "" if nothing."""
    if report is None:
        return "No evidence was given."
    world, prompts = model.world, list(report.table.prompt)
    assert world is not None
    try:
        said = answers(model, prompts)
        mine = [plant.shows(p) and world.answer(p.split(". ")[-1]) != a for p, a in zip(prompts, said, strict=True)]
    except ValueError:
        return "Its prompts cannot be read: give them as text, sentences of the world, at most with a name before them."
    there = all(s.layer == plant.layer and _same_place(plant, model, s.position, report) for s in report.sites)
    return _first(
        (list(report.table.answer) != said, "This model answers otherwise: the report is about another one."),
        (not any(mine), "None of its prompts shows what was planted: they are answered rightly."),
        (sum(mine) < len(mine) / 2 or len(set(prompts)) < 3, "Give three different prompts of which most show it: one may be a coincidence."),
        (not there, "The experiment was made at another place than that of the plant."),
        (report.verdict == "no evidence", "Its verdict is: no evidence."),
        (True, ""),
    )  # fmt: skip


def _controls(report: Report | None) -> str:
    """What its controls lack; "" if nothing."""
    if report is None or len(report.random) < 20 or not report.controls:
        return "No controls were run: leave controls=True, and at least 20 random changes."
    metric = "lost" if report.verdict == "necessary" else "gained"
    elsewhere = report.controls.get("wrong position", {metric: 0})[metric]
    return _first(
        (report.verdict == "no evidence", "The random changes do as much, or the effect is small."),
        (elsewhere >= 0.5, "The same at another token does as much: the place is not special."),
        (True, ""),
    )
