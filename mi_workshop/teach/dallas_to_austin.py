"""Notebook 07_dallas_to_austin: the published interventions on Gemma asked of Atlas too, and the exercises."""

from __future__ import annotations

from functools import cache
from typing import Any

from .exercises import Exercise, add, world

DALLAS = "Fact: the capital of the state containing Dallas is"
ABBREVIATION = "Fact: the abbreviation of the state containing Dallas is"


def on_atlas(model: Any) -> Any:
    """The published experiment (``circuits.published``) with the supernodes of an Atlas model in place of Gemma's: the features whose
    computed label names the concept, at the word itself or, for places, wherever they are active. Atlas knows no territories, and only
    the rows whose supernodes it has remain."""
    import mi_workshop as mi
    from mi_workshop.circuits.published import PROMPT, PUBLISHED, Published

    def nodes(prompt: str, concept: str) -> list[str]:
        place, found = concept in model.world.places, []
        for label, ids in mi.trace(model, prompt).supernodes.items():
            what, word = label.split(" @")
            if concept in what.strip("'").split(" / ") and (place or word == concept):
                found += ids
        return found

    own = {label: nodes(PROMPT, label) for label in PUBLISHED.supernodes}
    donors = {
        label: (prompt, nodes(prompt, label))
        for label, (prompt, _) in PUBLISHED.donors.items()
        if label in model.world.places
    }
    rows = [r for r in PUBLISHED.rows if all(own[k] for k in r.own) and (not r.donor or r.donor in donors)]
    return Published({k: ids for k, ids in own.items() if ids}, donors, rows)


def published_beside(model: Any, gemma: Any = None, n_random: int = 100) -> Any:
    """The published interventions on Gemma-2-2B beside the same on an Atlas model, and on ``gemma`` where that has the features; a
    DataFrame. ``random`` is how often a random change of the same number, place and size loses as much of the own answer: the column
    that the publication lacks."""
    import pandas as pd

    from mi_workshop.circuits.published import PUBLISHED, reproduce, words
    from mi_workshop.models import ModelError

    columns = {"Gemma, published": pd.Series({row.name: words(row.top, 3) for row in PUBLISHED.rows})}
    here = {"Atlas": reproduce(model, on_atlas(model), n_random)}
    if gemma is not None and gemma.world is None:
        try:
            here["Gemma, here"] = reproduce(gemma, n_random=n_random)
        except ModelError as error:
            print(error)
    for name, table in here.items():
        columns[name] = table.own.map(lambda said: ", ".join(said.split(", ")[:3]))
        columns[f"random ({name})"] = table.p_random.round(2)
    return pd.DataFrame(columns).reindex(columns["Gemma, published"].index).fillna("")


@cache
def _texas_features() -> dict[str, int]:
    """How many of the Texas features of ``atlas-global`` are active at each word of the Dallas prompt."""
    import mi_workshop as mi

    out: dict[str, int] = {}
    for label, ids in mi.trace(mi.load("atlas-global"), DALLAS).supernodes.items():
        meaning, word = label.split(" @")
        if "Texas" in meaning.split(" / "):
            out[word] = out.get(word, 0) + len(ids)
    return out


def _has_most(word: str) -> bool:
    return _texas_features()[word] == max(_texas_features().values())


add(
    Exercise(
        name="another state",
        minutes=3,
        difficulty="easy",
        statement=(
            "Into which state must Texas be swapped for the model to answer **Denver**? Put its name into `new_state`, "
            "then run the swap."
        ),
        expect="the name that you aimed at in the column *expected*; whether the model follows is for you to read.",
        hints=("Denver is a capital. Of what?", "model.world.home['Denver'].name"),
        right=lambda value: value == world().home["Denver"].name,
        wrong=(
            (lambda value: value == "Denver", "That is the answer you want; a swap exchanges states."),
            (lambda value: value in world().home, "That is a city; a swap exchanges states."),
            (lambda value: value in world().places, "That place has another capital."),
        ),
        why="The swap puts in the features of a state; the capital then has to follow from them.",
        solution='new_state = model.world.home["Denver"].name',
    ),
    Exercise(
        name="move the state, not the answer",
        minutes=5,
        difficulty="takes some thought",
        statement=(
            f"`{ABBREVIATION}`: Texas is swapped for California, with features that were found on questions about "
            "*capitals*. If these features stand for the state, what should the model answer now? Put the word into "
            "`prediction` before you run the swap."
        ),
        expect="your word in the column *expected*.",
        hints=(
            "Had the features stood for the answer of the question they were found on, you would get a city.",
            "The state changes, the question does not: it still asks for an abbreviation.",
            f"world.swap({ABBREVIATION!r}, 'Texas', 'California')",
        ),
        right=lambda value: value == world().swap(ABBREVIATION, "Texas", "California")[1],
        wrong=(
            (
                lambda value: value == world().swap(DALLAS, "Texas", "California")[1],
                "That follows if the features stand for the answer about capitals; asked for is an abbreviation.",
            ),
            (lambda value: value == world().answer(ABBREVIATION), "That is the answer before the swap."),
            (
                lambda value: value == "California",
                "The state in the middle changes; asked for is its abbreviation.",
            ),
        ),
        why=(
            "Features of a state should change every answer that depends on the state. That makes the claim stronger "
            "than a swap on the question that the features were found on."
        ),
        solution='prediction = model.world.swap(abbreviation, "Texas", "California")[1]',
    ),
    Exercise(
        name="the form that copies",
        minutes=4,
        difficulty="takes some thought",
        statement=(
            "Suppose that the model had no notion of a state at all, only features that say *Austin* or *Sacramento*. "
            "One of the forms `city`, `state` and `all` could still turn the answer over. Put it into `form`."
        ),
        expect="why that form, however well it does, says least about two steps.",
        hints=(
            "Which form touches features that speak up for the answer itself?",
            "What does a swap show if it brings the features along that say Sacramento?",
        ),
        right=lambda value: value == "all",
        wrong=(
            (lambda value: value == "city", "This form touches the city token only: the answer is not said there."),
            (lambda value: value == "state", "This form leaves the features alone that are active on one answer only."),
        ),
        why=(
            "It also moves the features that say the answer, so part of the answer is copied in. Its success is the "
            "weakest evidence of the three."
        ),
        solution='form = "all"',
    ),
    Exercise(
        name="where nothing imposes it",
        minutes=8,
        difficulty="hard",
        statement=(
            "In `atlas` the early layers see only their own token, so a state that arises early has to arise at the "
            "city. In `atlas-global` nothing of the kind is imposed. At which **word** of the Dallas prompt is its Texas "
            "feature active? Put it into `word`."
        ),
        expect="the word above which *Texas* stands in the figure of `atlas-global`, alone or together with another place.",
        hints=(
            "open_graph = mi.trace(mi.load('atlas-global'), prompt), and then open_graph.supernodes.",
            "A suggested group is called after what it stands for and the word where it is active: Texas @Dallas. A feature may stand for two "
            "places: Ohio / Texas @the.",
            "{label: len(ids) for label, ids in open_graph.supernodes.items()}",
        ),
        right=_has_most,
        wrong=(
            (lambda value: value not in DALLAS.replace(":", " :").split(), "That is not a word of the prompt."),
            (lambda value: isinstance(value, str), "It is not active there."),
        ),
        why="That is where it is in this model, on this prompt. Compare it with atlas before you call it a rule.",
        solution=(
            "groups = mi.trace(mi.load('atlas-global'), prompt).supernodes\n"
            "texas = {label: len(ids) for label, ids in groups.items() if 'Texas' in label}\n"
            "word = max(texas, key=texas.get).split(' @')[1]"
        ),
    ),
    notebook="07_dallas_to_austin",
)
