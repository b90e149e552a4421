"""The published interventions on Gemma-2-2B's Dallas → Austin circuit, to be run again on a model that has those features.

Features, supernodes and outcomes are those of circuit-tracer's tutorial (Gemma-2-2B, GemmaScope's per-layer transcoders, bfloat16, attention
frozen), read from its committed outputs. The published *graph* is for the prompt with "The", the interventions for the one with "the".
The tutorial runs no control; ``reproduce`` adds them. A feature ``× -2`` is set to minus twice its own activation ("off" in the
tutorial's pictures), the donor's features to twice theirs in the donor's prompt.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from mi_workshop.counterfactual import Change, Experiment, Report, Site, patch, scale, supernode
from mi_workshop.models import Model, ModelError

PROMPT = "Fact: the capital of the state containing Dallas is"
GRAPH_PROMPT = "Fact: The capital of the state containing Dallas is"
TOLERANCE = 0.05  # of a probability: bfloat16 keeps 8 bits, and kernels differ between GPUs
SCORES = {  # (replacement, completeness) of the graph of GRAPH_PROMPT
    "whole graph": (0.702, 0.919), "pruned to 0.7 and 0.9": (0.554, 0.855), "features picked by people": (0.296, 0.698),
    "as many by influence": (0.208, 0.606), "as many at random": (0.214, 0.614),
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One published intervention: supernodes times a factor, and the likeliest outputs with their probabilities."""

    name: str
    own: dict[str, float]
    top: list[tuple[str, float]]
    donor: str = ""
    factor: float = 2.0


@dataclass(frozen=True)
class Published:
    """``supernodes`` of the prompt, ``donors`` (prompt, features), and the ``rows``; features are ``layer_feature_position``."""

    supernodes: dict[str, list[str]]
    donors: dict[str, tuple[str, list[str]]]
    rows: list[Row] = field(repr=False)
    prompt: str = PROMPT

    def node_ids(self) -> Iterator[str]:
        for ids in [*self.supernodes.values(), *(ids for _, ids in self.donors.values())]:
            yield from ids


def _row(name: str, own: dict[str, float], top: str, donor: str = "") -> Row:
    pairs = (part.rsplit(" ", 1) for part in top.split(", "))
    return Row(name, own, [(word, int(p) / 100) for word, p in pairs], donor)


PUBLISHED = Published(
    {
        "capital": ["15_4494_4", "6_4662_4", "4_7671_4", "3_13984_4", "1_1000_4"],
        "state": ["6_4012_7", "0_13727_7"],
        "Texas": ["20_15589_9", "19_7477_9", "16_25_9", "4_13154_9", "14_2268_9", "7_6861_9"],
        "preposition + place": ["19_1445_10", "18_6101_10"],
        "say a capital": ["21_5943_10", "17_7178_10", "7_691_10", "16_4298_10"],
        "say Austin": ["23_12237_10"],
    },
    {
        "California": (
            "Fact: the capital of the state containing Oakland is",
            ["22_4367_10", "21_2464_10", "6_13909_9", "8_14641_9", "14_12562_9"],
        ),
        "China": (
            "Fact: the capital of the country containing Shanghai is",
            ["19_12274_9", "14_12274_9", "6_6811_9", "4_11570_9", "4_4257_9", "19_12274_10", "18_7639_10"],
        ),
        "British Columbia": ("Fact: the capital of the territory containing Vancouver is", ["18_1025_10"]),
    },
    [
        _row("none", {}, "Austin 42, not 6, the 6, Texas 5, Fort 4"),
        _row("say a capital × -2", {"say a capital": -2}, "Texas 45, the 8, called 5, not 5, known 3"),
        _row("capital × -2", {"capital": -2}, "Texas 28, the 9, called 7, not 4, Fort 3"),
        _row("Texas × -2", {"Texas": -2}, "the 8, Albany 7, Harrisburg 6, Hartford 5, not 5"),
        _row("state × -2", {"state": -2}, "Austin 36, Texas 7, the 6, not 6, Fort 3"),
        _row("Texas × -2, California × 2", {"Texas": -2}, "Sacramento 37, the 6, not 4", "California"),
        _row("Texas × -2, China × 2", {"Texas": -2}, "Beijing 21, not 8, the 7, Nanjing 5, Shanghai 4", "China"),
        _row(
            "Texas × -2, British Columbia × 2", {"Texas": -2}, "the 8, Albany 6, not 6, Harrisburg 5, Hartford 4",
            "British Columbia",
        ),
    ],
)  # fmt: skip


def check(model: Model, published: Published = PUBLISHED) -> None:
    """Raises ModelError for a model that cannot have these features."""
    if not model.transcoders or model.backend != "transformerlens":
        raise ModelError(f"{model.name} has no transcoders whose features could be set: load gemma-2-2b.")
    layers, width = model.replacement.cfg.n_layers, model.replacement.transcoders.d_transcoder
    known = [tuple(map(int, i.split("_")[:2])) for i in published.node_ids()]
    if any(layer >= layers or feature >= width for layer, feature in known):
        raise ModelError(
            f"The published features are of gemma-2-2b with {layers_of(known)} layers or more and GemmaScope's 16,384 features in each; "
            f"{model.name} has {layers} layers of {width:,} features: numbers would name other features."
        )


def layers_of(known: list[Any]) -> int:
    return 1 + max(layer for layer, _ in known)


def experiment(row: Row, published: Published = PUBLISHED, n_random: int = 100) -> tuple[Experiment, str | None]:
    """The intervention of a row as an ``Experiment``, and the donor's prompt where it has one."""
    sites: list[Site] = []
    changes: list[Change] = []
    for label, factor in row.own.items():
        some = supernode(published.supernodes[label])
        sites, changes = sites + some, changes + [scale(factor)] * len(some)
    if not row.donor:
        return Experiment(sites, changes, freeze_attention=True, n_random=n_random), None
    prompt, ids = published.donors[row.donor]
    some = supernode(ids)
    return Experiment(
        sites + some, changes + [patch(row.factor)] * len(some), freeze_attention=True, n_random=n_random
    ), prompt


def run(model: Model, row: Row, published: Published = PUBLISHED, n_random: int = 100) -> Report:
    """One row with its controls (``n_random`` random changes, identity, doses). Raises ModelError for a model without these features."""
    check(model, published)
    todo, donor = experiment(row, published, n_random)
    return todo.run(model, published.prompt, donor, controls=n_random > 0)


def reproduce(model: Model, published: Published = PUBLISHED, n_random: int = 100) -> pd.DataFrame:
    """Every published row beside one's own run, one line each.

    ``published`` and ``own``: the likeliest outputs; ``token``: the first published one, ``p_published`` and ``p_own`` its probability, ``agrees``
    whether they differ by at most ``TOLERANCE``; ``identity``: the largest change of a logit when every feature is set to the value that it has;
    ``p_random``: how often a random change of the same number, place and size loses as much of the own answer.
    """
    check(model, published)
    lines = []
    for row in published.rows:
        if row.own or row.donor:
            report = run(model, row, published, n_random)
            after = report.after
            identity, chance = report.identity, report.p("lost") if n_random else np.nan
        else:
            after = [{"token": t, "prob": p} for t, p in model.top(published.prompt, 5)]
            identity, chance = 0.0, np.nan
        token, probability = row.top[0]
        own = next((a["prob"] for a in after if a["token"].strip() == token), 0.0)
        lines.append(
            {
                "intervention": row.name, "published": words(row.top), "own": words([(a["token"].strip(), a["prob"]) for a in after]),
                "token": token, "p_published": probability, "p_own": own, "agrees": abs(own - probability) <= TOLERANCE,
                "identity": identity, "p_random": chance,
            }
        )  # fmt: skip
    return pd.DataFrame(lines).set_index("intervention")


def words(top: list[tuple[str, float]], n: int = 5) -> str:
    """The n likeliest outputs."""
    return ", ".join(f"{token} {p:.0%}" for token, p in top[:n])


def wrong_entities(model: Model, published: Published = PUBLISHED) -> pd.DataFrame:
    """Does each donor bring its own answer and no other? Probability of each donor's answer (column) after each donor's swap (row)."""
    answers = {label: model.logits(model.tokens(prompt)).argmax() for label, (prompt, _) in published.donors.items()}
    lines = {}
    for row in published.rows:
        if row.donor:
            todo, donor = experiment(row, published)
            probs = {}
            for label, answer in answers.items():
                report = todo.run(model, published.prompt, donor, answers=[int(answer)], controls=False)
                probs[label] = float(report.table.prob[0])
            lines[row.donor] = probs
    return pd.DataFrame(lines).T


def doses(
    model: Model, row: Row, published: Published = PUBLISHED, factors: tuple[float, ...] = (0, 0.5, 1, 2, 3)
) -> pd.DataFrame:
    """The same row with the donor's features at other multiples: probability of the own and of the donor's answer."""
    lines = {}
    for factor in factors:
        report = run(model, replace(row, factor=factor), published, n_random=0)
        lines[factor] = report.table.loc[0, ["prob", "donor_prob"]]
    return pd.DataFrame(lines).T.rename_axis("donor's features ×")


def between_states(model: Model, prompts: list[str], n_random: int = 2) -> pd.DataFrame:
    """At scale: every feature that is active at the last word but one (the city) taken from the next prompt, attention frozen.

    Prompts of equal length, one for each state, that end in the city and one more token. One line per pair: does the answer become the
    donor's, and in what share of ``n_random`` random changes of the same size does it? Raises InterventionError for unequal lengths.
    """
    from mi_workshop.circuits.swap import activations

    lines = []
    for prompt, donor in zip(prompts, prompts[1:] + prompts[:1], strict=True):
        active = (activations(model, prompt)[:, -2] > 0) | (activations(model, donor)[:, -2] > 0)  # [layer, feature]
        sites = [
            Site("feature", layer, -2, units.nonzero()[:, 0].tolist())
            for layer, units in enumerate(active)
            if units.any()
        ]
        report = Experiment(sites, freeze_attention=True, n_random=n_random).run(model, prompt, donor)
        first = report.table.iloc[0]
        lines.append(
            {
                "prompt": prompt, "answer": first.answer, "donor_answer": first.donor_answer, "says_donor": first.says_donor,
                "gained": first.gained, "random_gained": report.random.gained.mean(), "features": int(active.sum()),
            }
        )  # fmt: skip
    return pd.DataFrame(lines)
