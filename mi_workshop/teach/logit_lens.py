"""Notebook 03_logit_lens: patching one token, how the lens fares over many cities, and the exercises."""

from __future__ import annotations

from functools import cache
from typing import Any

from .exercises import Exercise, add, world

DALLAS = "Fact: the capital of the state containing Dallas is"


def patched(model: Any, prompt: str, donor: str, layer: int, at: str) -> list[tuple[str, float]]:
    """The three likeliest answers to ``prompt`` when the residual stream at token ``at``, after ``layer``, comes from ``donor``.

    Raises ValueError if the prompts differ in length or the token does not occur in ``prompt``.
    """
    from mi_workshop.counterfactual import Experiment, Site

    lengths = len(model.tokens(prompt)), len(model.tokens(donor))
    if lengths[0] != lengths[1]:
        raise ValueError(f"The prompts have {lengths[0]} and {lengths[1]} tokens: patching needs the same number.")
    if at not in (words := model.world.words(prompt)):
        raise ValueError(f"{at!r} is no token of {prompt!r}.")
    site = Site("resid_post", layer, words.index(at) + 1)
    report = Experiment(site).run(model, prompt, donor, controls=False)
    return [(answer["token"], round(answer["prob"], 2)) for answer in report.after[:3]]


def home_ranks(model: Any) -> Any:
    """Over the capital questions about held-out cities (validation): the rank that the logit lens gives, at the city, to the state or
    country that the city is in. A DataFrame [point] with the ``median`` and the share of questions in which it leads (``first``)."""
    import pandas as pd

    from mi_workshop.lens import logit_lens

    asked = [s for s in model.world.facts if s.stratum == "city:validation" and s.slots["attribute"] == "capital"]
    ranks = [
        logit_lens(model, s.prompt).rank(model.world.home[s.slots["city"]].name)[s.slots["city"]] for s in asked
    ]  # [question][point]
    table = pd.concat(ranks, axis=1)
    return pd.DataFrame({"median": table.median(axis=1), "first": (table == 1).mean(axis=1).round(2)})


@cache
def _lens(prompt: str, mid: bool = False) -> Any:
    import mi_workshop as mi

    return mi.logit_lens(mi.load("atlas"), prompt, mid=mid)


@cache
def _parts() -> dict[str, float]:
    import mi_workshop as mi

    return (
        mi.direct_logit_attribution(mi.load("atlas"), DALLAS, "Austin", "Texas")
        .table.set_index("component")
        .value.to_dict()
    )


def _austin() -> dict[str, int]:
    return _lens(DALLAS, mid=True).rank("Austin")["is"].to_dict()


def _home_leads(prompt: str) -> bool:
    city = world().parse(prompt).slots["city"]
    return world().parse(prompt).kind == "two_hop" and _lens(prompt).top(1, city, 1)[0][0] == world().home[city].name


add(
    Exercise(
        name="where Austin takes the lead",
        minutes=4,
        difficulty="easy",
        statement=(
            "`mi.logit_lens(model, prompt, mid=True)` also reads between the attention and the MLP of every layer. From which point on "
            "is *Austin* the likeliest token at *is*? Put the point's name into `point`."
        ),
        expect="whether attention or an MLP put Austin first.",
        hints=(
            "The points of a lens are in lens.points; rank 1 is the likeliest.",
            'mi.logit_lens(model, prompt, mid=True).rank("Austin")["is"]',
        ),
        right=lambda value: value == min((p for p, rank in _austin().items() if rank == 1), key=list(_austin()).index),
        wrong=(
            (lambda value: _austin()[value] == 1, "Austin leads there, but it leads at an earlier point too."),
            (lambda value: _austin()[value] > 1, "There another token still leads."),
            (lambda value: isinstance(value, int), "A layer has two points: give the name, as it stands in lens.points."),
        ),
        why="Between this point and the one before lies a single part of one layer: what it wrote put Austin first.",
        solution='point = mi.logit_lens(model, prompt, mid=True).rank("Austin")["is"].eq(1).idxmax()',
    ),
    Exercise(
        name="what speaks against it",
        minutes=6,
        difficulty="takes some thought",
        statement=(
            "*Texas* ends up among the likeliest tokens at *is*. Which component speaks most **for Texas and against Austin**? Use the "
            "difference of the two logits, and put the component's name into `component`."
        ),
        expect="a component that you have met before, on the other side.",
        hints=(
            "direct_logit_attribution takes a second token, versus.",
            "In Austin minus Texas, look for the lowest value: its table has one row for each component.",
        ),
        right=lambda value: value == min(_parts(), key=_parts().__getitem__),
        wrong=(
            (lambda value: value == max(_parts(), key=_parts().__getitem__), "That one speaks most *for* Austin."),
            (lambda value: _parts()[value] < 0, "It speaks against Austin, but another does so more."),
            (lambda value: _parts()[value] >= 0, "In this difference it speaks for Austin, or not at all."),
            (lambda value: isinstance(value, str), "Components are named as in the table: L2H1 is head 1 of layer 2, MLP 2 an MLP."),
        ),
        why=(
            "Asked about Austin alone, this component was the strongest *for* it. It raises Texas even more: what one logit "
            "gets and what decides between two answers are different questions."
        ),
        solution=(
            'parts = mi.direct_logit_attribution(model, prompt, "Austin", "Texas").table.set_index("component").value\n'
            "component = parts.idxmin()"
        ),
    ),
    Exercise(
        name="a city that the lens can read",
        minutes=10,
        difficulty="hard",
        statement=(
            "At *Dallas* the plain lens never puts Texas first. Find a two-step question in which, **in `atlas`, after layer 1**, the lens "
            "does put the state or country first at the city. Put the prompt into `question`; then patch it as Dallas was patched."
        ),
        expect="a grid in which the missing step stands at the city, and a patched answer.",
        hints=(
            "model.world.facts holds every sentence; those with stratum 'city:validation' are two-step questions kept out of training.",
            "lens.top(1, city, 1) is the likeliest token after layer 1 at the city; model.world.home[city].name is where the city is.",
            "Go through the questions until the two agree.",
        ),
        right=_home_leads,
        wrong=(
            (lambda value: not isinstance(value, str), "A prompt is asked for, as text."),
            (lambda value: value in world().home, "That is a city; give the whole question."),
            (lambda value: world().parse(value).kind == "two_hop", "At the city of this question, after layer 1, another token leads."),
            (lambda value: True, "That is no two-step question of this world."),
        ),
        why=(
            "What stands at this city decides the answer, as at Dallas. That the state can be read here and not there is about the "
            "direction in which it is written, not about whether it is there."
        ),
        solution=(
            'asked = [s for s in model.world.facts if s.stratum == "city:validation"]\n'
            'pairs = [(s.prompt, s.slots["city"]) for s in asked]\n'
            "question = next(p for p, city in pairs if mi.logit_lens(model, p).top(1, city, 1)[0][0] == model.world.home[city].name)"
        ),
    ),
    notebook="03_logit_lens",
)  # fmt: skip
