"""The exercises of notebook 11_capstone: the three steps of the exam, on seed 3."""

from __future__ import annotations

from typing import Any

from .exercises import Exercise, add

SEED = 3


def _points(value: Any, *parts: str) -> dict[str, int]:
    """Points of a submission by part."""
    from .capstone import submit

    return {row[0]: row[1] for row in submit(SEED, **value).rows if row[0] in parts}


def _what(value: Any) -> dict[str, int]:
    family, subject, says = value
    return _points({"family": family, "subject": subject, "says": says}, "family", "subject", "says")


def _where(value: Any) -> dict[str, int]:
    layer, token = value
    return _points({"layer": layer, "position": token}, "layer", "position")


def _evidence(value: Any) -> dict[str, int]:
    from .capstone import CONTROLS

    return _points({"layer": value.sites[0].layer, "evidence": value}, "shown", CONTROLS)


def _report(value: Any) -> bool:
    from mi_workshop.counterfactual import Report

    return isinstance(value, Report)


add(
    Exercise(
        name="find it",
        minutes=10,
        difficulty="easy",
        statement=(
            "Ask the model every fact of its world and look at what is wrong: put `(family, subject, says)` into `found`, such as "
            '`("second hop", "capital of Texas", "Dover")`, `("first hop", "Dallas", "Ohio")` or `("word", "Pip", "nothing")`.'
        ),
        expect="a short table of wrong answers that have one thing in common.",
        hints=(
            "Compare answers(exam, prompts) with the answers of exam.world.facts.",
            "Is it one city with all that is said of it, or one attribute with all the cities of a place?",
            "A first hop: what do the sentences that ask for the country itself say?",
        ),
        right=lambda value: sum(_what(value).values()) == 5,
        wrong=(
            (lambda value: _what(value)["family"] == 0, "Another family: what do the wrong answers have in common, and which neighbours of theirs are right?"),
            (lambda value: _what(value)["subject"] == 0, "The right family, but not the subject: of a first hop it is the city."),
            (lambda value: _what(value)["says"] == 0, "What is said is the place that the city is believed to lie in."),
        ),
        why="Everything said of this city belongs to another place, consistently, and its neighbours are as they were.",
        solution='found = ("first hop", "Bandung", "Peru")',
    ),
    Exercise(
        name="locate it",
        minutes=10,
        difficulty="takes some thought",
        statement=(
            "Patch the output of one MLP at a time (`mlp_out`), at the city and at the last token, from the same questions about a sound city of the same place. Which layer was changed? "
            "Put `(layer, token)` into `place`; the token as text."
        ),
        expect="a heat map in which two layers give the right answer back, and only one of them was changed.",
        hints=(
            'sweep(exam, prompts, donors, kind="mlp_out", positions=["{city}", "last"], metric="gained")',
            "A patch upstream changes what the planted part reads. Which is the last layer at which patching helps?",
        ),
        right=lambda value: sum(_where(value).values()) == 3,
        wrong=(
            (lambda value: _where(value)["position"] == 0, "The token is another: what is read at the end was written elsewhere."),
            (lambda value: value[0] == 0, "What is upstream of the plant changes what it reads, so patching there helps as well: take the last layer at which it does."),
            (lambda value: _where(value)["layer"] < 2, "Another layer: patch mlp_out, not the residual stream, which carries what was written before."),
        ),
        why="At layer 0 a patch changes what layer 1 reads; at layer 1 it replaces what was planted; later ones find the wrong place already written.",
        solution=(
            "# sweep(exam, prompts, donors, kind='mlp_out', positions=['{city}', 'last'], metric='gained'): the last layer that gives the answer back\n"
            'place = (1, "{city}")'
        ),
    ),
    Exercise(
        name="prove it",
        minutes=10,
        difficulty="hard",
        statement="Run an `Experiment` at that site, on three questions or more that show the behaviour, with its controls. Put the report into `proof`.",
        expect="a verdict, *gained* far above that of random changes, and a patch at another token that does nothing.",
        hints=("Site(kind, layer, position), patch(), n_random=50.", "Its donors are the same questions about a sound city of the same place."),
        right=lambda value: _report(value) and sum(_evidence(value).values()) == 2,
        wrong=(
            (lambda value: not _report(value), "A report is what Experiment(...).run(...) gives."),
            (lambda value: len(value.random) < 20, "No controls were run: leave controls=True, and at least 20 random changes."),
            (lambda value: len(set(value.table.prompt)) < 3, "One prompt may be a coincidence: three or more."),
            (lambda value: value.sites[0].layer != 1, "That is another layer than the one that was changed."),
            (lambda value: value.verdict == "no evidence", "Its verdict is: no evidence."),
        ),
        why="The right place comes back when this one output is replaced, and not with random changes of the same size.",
        solution='proof = Experiment(Site("mlp_out", 1, "{city}"), patch(), n_random=50).run(exam, prompts, donors)',
    ),
    notebook="11_capstone",
)  # fmt: skip
