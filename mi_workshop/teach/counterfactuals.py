"""The exercises of notebook 09_counterfactuals."""

from __future__ import annotations

from functools import cache
from typing import Any

from .exercises import Exercise, add


@cache
def _kind_read(layer: int) -> float:
    import mi_workshop as mi
    from mi_workshop.answer_key import questions
    from mi_workshop.counterfactual import Site
    from mi_workshop.counterfactual.subspace import Probe, activations

    model = mi.load("atlas")
    learn, test = (questions(model.world, rank)[0] for rank in (4, 0))
    site = Site("resid_post", layer, "last")
    sides = [activations(model, side + [p.replace("state", "country") for p in side], site) for side in (learn, test)]
    labels = ["state"] * len(learn) + ["country"] * len(learn)
    return Probe(sides[0], labels).accuracy(sides[1], labels)


@cache
def _pca_gain(n: int) -> float:
    import mi_workshop as mi
    from mi_workshop.answer_key import AT_CITY, questions
    from mi_workshop.counterfactual import Experiment, Site
    from mi_workshop.counterfactual.subspace import activations, principal

    model = mi.load("atlas")
    asked, donors, _ = questions(model.world, 0)
    x = activations(model, questions(model.world, 4)[0] + questions(model.world, 5)[0], AT_CITY)
    basis = principal(x - x.mean(0), n)
    experiment = Experiment(Site("resid_post", 1, "{city}", basis=basis))
    return float(experiment.run(model, asked, donors, controls=False).table.gained.mean())


@cache
def _edit(layer: int, position: str) -> Any:
    import mi_workshop as mi
    from mi_workshop.answer_key import edit_scores

    return edit_scores(mi.load("atlas"), layer, position, ("Texas",))


def _clean(layer: int, position: str) -> bool:
    found = _edit(layer, position)
    return bool(found["edited question"] == 1 and found["attributes kept"] >= 0.5 and found["other states kept"] >= 0.9)


add(
    Exercise(
        name="readable",
        minutes=6,
        difficulty="easy",
        statement=(
            "From which layer on can a probe at the **last** token tell questions that say *state* from the same questions with *country* in at least 90 % "
            "of held-out cases? Put its number into `layer`. Then look at the model key above: does the answer depend on that word?"
        ),
        expect="an accuracy that is near chance low in the model and near 1 at the top.",
        hints=(
            "activations(model, prompts, Site('resid_post', layer, 'last')) gives what the probe reads.",
            "Learn on one city of each state, test on another; a probe that is tested on what it learned proves nothing.",
        ),
        right=lambda value: _kind_read(int(value)) >= 0.9 and all(_kind_read(i) < 0.9 for i in range(int(value))),
        wrong=(
            (lambda value: not isinstance(value, int), "The number of a layer is asked for, 0 to 3."),
            (lambda value: _kind_read(value) < 0.9, "After that layer the word cannot be read that well yet."),
            (lambda value: _kind_read(value) >= 0.9, "It can be read there, but after an earlier layer too."),
        ),
        why="It can be read, and no answer changes when the word does: the information is there and nothing uses it.",
        solution=(
            "from mi_workshop.answer_key import questions\n"
            "from mi_workshop.counterfactual import Site\n"
            "from mi_workshop.counterfactual.subspace import Probe, activations\n"
            "sides = [questions(model.world, rank)[0] for rank in (4, 0)]  # one city of each state to learn from, another for the test\n"
            "labels = ['state'] * len(sides[0]) + ['country'] * len(sides[0])\n"
            "def read(k):\n"
            "    x, y = (activations(model, s + [p.replace('state', 'country') for p in s], Site('resid_post', k, 'last')) for s in sides)\n"
            "    return Probe(x, labels).accuracy(y, labels)\n"
            "layer = next(k for k in range(4) if read(k) >= 0.9)"
        ),
    ),
    Exercise(
        name="how many dimensions",
        minutes=8,
        difficulty="takes some thought",
        statement=(
            "`AT_CITY` has 128 dimensions. How many **principal components** of what is there in trained cities must be interchanged so that at least half of the "
            "donor's answer comes, on held-out cities? Put the smallest number into `n`."
        ),
        expect="a number far below 128.",
        hints=(
            "principal(x - x.mean(0), n) gives the n strongest directions.",
            "Experiment(Site('resid_post', 1, '{city}', basis=...)).run(model, asked, donors, controls=False).table.gained.mean()",
        ),
        right=lambda value: _pca_gain(int(value)) >= 0.5 > _pca_gain(int(value) - 1),
        wrong=(
            (lambda value: not isinstance(value, int), "A whole number is asked for."),
            (lambda value: _pca_gain(value) < 0.5, "That many bring less than half."),
            (lambda value: _pca_gain(value) >= 0.5, "That is enough, but fewer are too."),
        ),
        why="The place is written in few of the directions that vary most. That they vary most did not have to mean that they are used.",
        solution=(
            "from mi_workshop.counterfactual import Experiment, Site\n"
            "from mi_workshop.counterfactual.subspace import activations, principal\n"
            "from mi_workshop.answer_key import AT_CITY, questions\n"
            "x = activations(model, questions(model.world, 4)[0] + questions(model.world, 5)[0], AT_CITY)\n"
            "asked, donors, states = questions(model.world, 0)\n"
            "def gain(n):\n"
            "    site = Site('resid_post', 1, '{city}', basis=principal(x - x.mean(0), n))\n"
            "    return Experiment(site).run(model, asked, donors, controls=False).table.gained.mean()\n"
            "n = next(n for n in range(1, 128) if gain(n) >= 0.5)"
        ),
    ),
    Exercise(
        name="an edit that stays put",
        minutes=11,
        difficulty="hard",
        statement=(
            "A rank-one edit shall change the capital of *Texas* and as little else as possible: the question about its city gives the new capital, at least one of its two "
            "other attributes stays right, and at least nine in ten of the other states keep their answers. At which layer, at `\"{city}\"` or `\"last\"`? Put `(layer, position)` into `site`."
        ),
        expect="places where the edit works and yet spoils the region or the abbreviation.",
        hints=(
            "edit_scores(model, layer, position, ('Texas',)) says what an edit there does.",
            "At the city there is which place it is; where is which *capital* it is?",
        ),
        right=lambda value: _clean(*value),
        wrong=(
            (lambda value: value[1] not in ("{city}", "last"), 'The position is "{city}" or "last".'),
            (lambda value: _edit(*value)["edited question"] < 1, "There the edit does not even change its own question."),
            (lambda value: _edit(*value)["attributes kept"] < 0.5, "There Texas loses all its attributes: the city has become another state's."),
            (lambda value: _edit(*value)["other states kept"] < 0.9, "There other states lose their capitals."),
        ),
        why="Where the edit is made decides what it means: at the city it changes which state that is, at the end what its capital is. Nowhere is it clean: say what an edit broke.",
        solution=(
            "# edit_scores(model, k, at, ('Texas',)) at all eight places: one row changes its question, keeps an attribute and the other states\n"
            'site = (3, "last")'
        ),
    ),
    notebook="09_counterfactuals",
)  # fmt: skip
