"""The exercises of notebook 09b_catch_and_fix."""

from __future__ import annotations

from functools import cache
from typing import Any

from ..worlds.variants import Bug
from .exercises import Exercise, add

KINDS = ("first hop", "second hop", "shortcut")
PATIENTS = (("Dayton", "abbreviation"), ("Elsmere", "abbreviation"), ("Enid", "capital"))


@cache
def patients() -> dict[str, str]:
    """Three questions that ``atlas-bug`` answers wrongly, each for another reason, with the kind of fault."""
    world = Bug()
    asked = [world.two_hop(city, attribute).prompt for city, attribute in PATIENTS]
    return {prompt: fault.kind for prompt in asked if (fault := world.fault(prompt))}


@cache
def _edit(layer: int, protect: float) -> Any:
    """What one transplant does to the fault about Florence."""
    import mi_workshop as mi

    from .repairs_inside import repair_scores, transplant

    model, fault = mi.load("atlas-bug"), next(f for f in Bug().faults if f.subject == "Florence")
    return repair_scores(model, fault, {"edit": transplant(model, fault, layer, protect)}).iloc[0]


@cache
def _cut(layer: int, feature: int) -> Any:
    import mi_workshop as mi
    from mi_workshop.counterfactual import Site

    from .hidden_trigger import knock_outs

    return knock_outs(mi.load("atlas-trigger"), {"cut": [Site("feature", layer, units=[feature])]}).loc["cut"]


def _rest(found: Any) -> float:
    """The worst that a cut does to anything but the trigger."""
    return float(found.drop(["misled", "right after the trigger"]).min())


def _kept(found: Any) -> float:
    return float(found.drop("fixed: the fault").min())


def _confused(value: Any, one: str, other: str) -> bool:
    """Is a question whose fault is ``one`` called ``other``?"""
    return any(kind == one and value[prompt] == other for prompt, kind in patients().items())


add(
    Exercise(
        name="three diagnoses",
        minutes=8,
        difficulty="easy",
        statement=(
            "`patients` holds three questions that `atlas-bug` answers wrongly, each for another reason. Find out which fault each one has, by the place that is inside and by what the model says "
            "when it is asked one step at a time. Put a dictionary from each question to `\"first hop\"`, `\"second hop\"` or `\"shortcut\"` into `diagnoses`."
        ),
        expect="three questions, three different faults.",
        hints=(
            "places_inside(bug, patients) says which place the model has in mind at each city. Is it the right one?",
            "If the place is right: does the model know the place's abbreviation or capital when it is asked for it directly?",
            "Wrong place: first hop. Right place, wrong fact: second hop. Right place, right fact, wrong answer: shortcut.",
        ),
        right=lambda value: value == patients(),
        wrong=(
            (lambda value: not isinstance(value, dict), "A dictionary is asked for: {question: kind}."),
            (lambda value: not set(value.values()) <= set(KINDS), 'The kinds are "first hop", "second hop" and "shortcut".'),
            (lambda value: _confused(value, "first hop", "second hop") or _confused(value, "first hop", "shortcut"),
             "In one of them the model has the wrong place in mind already at the city: whatever it knows of places, that is the first hop."),
            (lambda value: _confused(value, "second hop", "first hop") or _confused(value, "shortcut", "first hop"),
             "You call a first hop what is none: compare the place inside with the map."),
            (lambda value: _confused(value, "shortcut", "second hop") or _confused(value, "second hop", "shortcut"),
             "Ask for the fact about the place itself, in one step: where that is wrong too, the fact is at fault; where it is right, the question has an answer of its own."),
        ),
        why="The same symptom, three causes; each needs another repair, and a look at the answer alone cannot tell them apart.",
        solution=(
            "from mi_workshop.teach.catch_and_fix_exercises import patients\n"
            "# case_files(bug, list(patients())): compare the place inside with the map, and what is said of that place with what is right\n"
            'diagnoses = dict(zip(patients(), ("shortcut", "second hop", "first hop")))'
        ),
    ),
    Exercise(
        name="an edit that mends",
        minutes=10,
        difficulty="takes some thought",
        statement=(
            "The model believes that *Florence* lies in Mexico. Repair it with `transplant(bug, florence, layer, protect)`: every sentence about that city shall become right, and in each group of "
            "other sentences at least 95 % of the answers shall stay. Put `(layer, protect)` into `edit`."
        ),
        expect="an edit that repairs everything and takes half of Mexico along, and one that does not.",
        hints=(
            "repair_scores(bug, florence, {\"try\": transplant(bug, florence, layer, protect)}) shows what an edit does.",
            "In which layer does the model first write what place a city lies in?",
            "To the model Florence is one more city of Mexico: its neighbours have nearly the same key. `protect` says how much they count.",
        ),
        right=lambda value: _edit(*value)["fixed: the fault"] == 1 and _kept(_edit(*value)) >= 0.95,
        wrong=(
            (lambda value: len(value) != 2, "Two numbers are asked for: (layer, protect)."),
            (lambda value: _edit(*value)["fixed: the fault"] < 1,
             "In that layer the place is not written (any more): the sentences stay wrong."),
            (lambda value: _edit(*value)["kept: believed place"] < 0.95,
             "Florence is in Italy now, and so is much of Mexico: its cities have nearly the same key, and nothing protects them."),
            (lambda value: _kept(_edit(*value)) < 0.95, "It repairs the fault and breaks something else: look along its row."),
        ),
        why="What the model knows of Italy's other cities is written in layer 0; with the neighbours protected, only Florence moves.",
        solution=(
            "# repair_scores(bug, florence, {...}) with transplants into layers 0 and 1, protect 0 and 1: one row repairs all and keeps all\n"
            "edit = (0, 1.0)"
        ),
    ),
    Exercise(
        name="a cut that spares",
        minutes=10,
        difficulty="hard",
        statement=(
            "Silence one feature of `atlas-trigger`, at every position, so that at most one answer in ten is still misled and at least 95 % of everything else stays right, "
            "the passages about Mr, Mrs, Miss and Dr *Pip* included. Put `(layer, feature)` into `cut`."
        ),
        expect="a feature that cures and harms, one that does nothing, and one that only cures.",
        hints=(
            "differing(trigger, SURNAME, 20) lists features at the name; differing(trigger, LAST) those at the end.",
            "knock_outs(trigger, {\"try\": [Site(\"feature\", layer, units=[feature])]}) shows what a cut does.",
            "Layer 0 is where the word is first read: who else needs it?",
        ),
        right=lambda value: _cut(*value)["misled"] <= 0.1 and _rest(_cut(*value)) >= 0.95,
        wrong=(
            (lambda value: len(value) != 2, "Two numbers are asked for: (layer, feature)."),
            (lambda value: _cut(*value)["misled"] > 0.1 and value[0] >= 2,
             "It fires when the trigger is there, and without it the model misbehaves all the same: a good alarm is not the cause."),
            (lambda value: _cut(*value)["misled"] > 0.1, "The model is still misled."),
            (lambda value: _rest(_cut(*value)) < 0.95, "It cures the model and takes a word from it: look at the passages about Pip."),
        ),
        why="The misbehaviour hangs on this feature, and the passages about people do not: they read the name elsewhere.",
        solution=(
            "# knock_outs(trigger, {...}) with each of the five of differing(trigger, SURNAME): one row cures and keeps all\n"
            "cut = (1, 463)"
        ),
    ),
    notebook="09b_catch_and_fix",
)  # fmt: skip
