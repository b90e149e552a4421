"""Notebook 09b_catch_and_fix: predict a wrong answer, before it is said (part 1; repairs are in ``repairs_inside``, the
hidden trigger in ``hidden_trigger``).

The rule of the headline figure, committed before it was computed. *Known*: which one-step sentences (one_hop, located, address, letter) the
model answers wrongly, marked with a book (``marks``). *Asked*: two-hop questions, trained and held out, about the places with a fault of the
split and every second of the sound places; those of the ten places that no two-hop sentence of the training text names are left out (the
features of a place are found on such sentences). *Metric*: area under the ROC curve, wrong against right answers, in all and wrong by one kind
of fault against all right ones; 95 % intervals by bootstrap over places. *Predictors*, all the wrong-is-higher way:

- ``circuit``: the place P whose features are strongest at the city; the largest of: the share of the city's one-step sentences marked wrong, 1
  if the one-hop sentence about P and the attribute is marked wrong, and 1 minus the probability that the model is about to give to its own
  one-hop answer about P (1 where no place is read);
- ``asked step by step``: the same without a look inside: P is what the model says in the city's located sentence;
- ridge classifiers learned on the marked one-step sentences: on ``active features`` (summed over the prompt), on the ``residual stream``
  (layer 3, last token) and on the ``words`` of the prompt; the ridge is the best of 0.001, 0.01, ..., 10 for each on the validation split;
- ``entropy`` of the output.

Chosen on the validation split; the test split is opened once, by the notebook.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from mi_workshop.answer_key import area
from mi_workshop.circuits.swap import feature_sets
from mi_workshop.counterfactual import Edit, Site, run
from mi_workshop.counterfactual.changes import by_shape, read_all
from mi_workshop.counterfactual.subspace import Probe
from mi_workshop.models import Model
from mi_workshop.show import Shown
from mi_workshop.worlds.atlas import Sentence
from mi_workshop.worlds.variants import Bug, Fault

ONE_STEP = ("one_hop", "located", "address", "letter")
PREDICTORS = ("circuit", "asked step by step", "active features", "residual stream", "words", "entropy")
RIDGES = (1.0, 1.0, 0.001)  # of the three classifiers
FAULTS = ("first hop", "second hop", "shortcut")


# ------------------------------------------------------------------------------------------------ reading a model
def features_of(model: Model) -> list[Site]:
    return [Site("feature", layer) for layer in range(model.replacement.cfg.n_layers)]


def outputs(model: Model, prompts: Sequence[str]) -> Float[Tensor, "prompt d_vocab"]:
    """Logits after the last token of each prompt."""
    return torch.stack([logits for logits, _ in read_all(model, [model.tokens(p) for p in prompts], [])])


def answers(model: Model, prompts: Sequence[str]) -> list[str]:
    """The likeliest next token after each prompt."""
    return list(model.tokenizer.convert_ids_to_tokens(outputs(model, prompts).argmax(-1).tolist()))


def entropy(model: Model, prompts: Sequence[str]) -> Float[np.ndarray, " prompt"]:
    """Of the output after each prompt, in nats."""
    logp = outputs(model, prompts).log_softmax(-1)
    return -(logp.exp() * logp).sum(-1).numpy()


def silenced(model: Model, prompts: list[str], sites: Sequence[Site]) -> list[str]:
    """The answers while everything at the sites (heads or features) is zero, at every position."""
    tokens = [model.tokens(p) for p in prompts]
    said: list[str] = [""] * len(tokens)
    for members in by_shape(tokens):
        batch = torch.stack([tokens[i] for i in members])
        edits = []
        for site in sites:
            axes = (torch.arange(n) for n in batch.shape)
            row, position, unit = torch.cartesian_prod(*axes, torch.tensor(site.unit_list(0))).T
            width = model.replacement.cfg.d_head if site.kind == "z" else 1
            edits.append(Edit(site, row, position, unit, torch.zeros(len(row), width)))
        best = run(model, batch, edits)[0].argmax(-1).tolist()
        for i, word in zip(members, model.tokenizer.convert_ids_to_tokens(best), strict=True):
            said[i] = word
    return said


def place_features(model: Model) -> Float[Tensor, "layer feature place"]:
    """1 where a feature stands for a place (``model.features.places``), in the order of the world's places."""
    assert model.world is not None
    return torch.stack([feature_sets(model, name) for name in model.world.places], -1).float()


def places_inside(model: Model, prompts: Sequence[str]) -> list[str]:
    """The place whose features are strongest, summed, at the token that names the city; "" where none is active."""
    assert model.world is not None
    names, stands = list(model.world.places), place_features(model)
    found = read_all(model, [model.tokens(p) for p in prompts], features_of(model))
    out = []
    for prompt, (_, acts) in zip(prompts, found, strict=True):
        at = model.world.words(prompt).index(model.world.parse(prompt).slots["city"]) + 1
        strength = torch.stack([x[at, :, 0] @ stands[layer] for layer, x in enumerate(acts)]).sum(0)
        out.append(names[int(strength.argmax())] if strength.max() > 0 else "")
    return out


def case_files(model: Model, prompts: Sequence[str]) -> pd.DataFrame:
    """For each two-hop question: the right answer, what the model says, the place inside, and what the model says of that place in one step."""
    world = model.world
    assert world is not None
    rows = {}
    for prompt, place, said in zip(prompts, places_inside(model, prompts), answers(model, prompts), strict=True):
        s = world.parse(prompt)
        attribute = s.slots["attribute"]
        fact = world.sentence("one_hop", attribute=attribute, place=place).prompt if place else ""
        of_place = answers(model, [fact])[0] if fact else ""
        rows[f"{attribute}, {s.slots['city']}"] = {
            "right": s.answer, "says": said, "place inside": place, "says of that place": of_place,
        }  # fmt: skip
    return pd.DataFrame(rows).T


# --------------------------------------------------------------------------------------------- part 1: catch it
def questions(world: Bug, split: str) -> list[Sentence]:
    """The two-hop questions of a split, as the rule of this module says."""
    faulty = {place_about(world, f): f.split for f in world.faults}
    sound = [name for name in world.places if name not in faulty]
    mine = {name for name, s in faulty.items() if s == split} | set(sound[split == "test" :: 2])
    strata = (None, f"city:{split}", f"pair:{split}")
    return [
        s
        for s in world.facts
        if s.kind == "two_hop" and s.stratum in strata and world.home[s.slots["city"]].name in mine
    ]


def place_about(world: Bug, fault: Fault) -> str:
    """The place that a fault is about."""
    return (
        fault.right
        if fault.kind == "first hop"
        else world.home[fault.subject].name
        if fault.kind == "shortcut"
        else fault.subject
    )


def marks(model: Model) -> pd.DataFrame:
    """What the checker with a book knows: every one-step sentence, what the model says, and whether that is ``wrong``."""
    assert model.world is not None
    known = [s for s in model.world.facts if s.kind in ONE_STEP]
    said = answers(model, [s.prompt for s in known])
    rows = [(s.prompt, s.slots.get("city") or s.slots["place"], s.slots.get("attribute", ""), s.kind) for s in known]
    table = pd.DataFrame(rows, columns=["prompt", "subject", "attribute", "kind"])
    return table.assign(said=said, wrong=[a != s.answer for a, s in zip(said, known, strict=True)])


def disagreement(
    model: Model, prompts: Sequence[str], places: Sequence[str], facts: pd.Series
) -> Float[np.ndarray, " prompt"]:
    """1 minus the probability that the model is about to give to its own one-hop answer (``facts`` by place and attribute) about the place
    in which the prompt's city is taken to lie; 1 where there is no such answer."""
    assert model.world is not None
    steps = [(place, model.world.parse(p).slots["attribute"]) for p, place in zip(prompts, places, strict=True)]
    probs = outputs(model, prompts).softmax(-1)
    return np.array(
        [1 - float(p[model.token_id(facts[s])]) if s in facts.index else 1.0 for s, p in zip(steps, probs, strict=True)]
    )


def doubts(
    model: Model, asked: Sequence[Sentence], places: Sequence[str], book: pd.DataFrame
) -> Float[np.ndarray, " question"]:
    """The score of the circuit's predictor for questions whose city is taken to lie in ``places``."""
    of_city = book[book.kind != "one_hop"].groupby("subject").wrong.mean()
    facts = book[book.kind == "one_hop"].set_index(["subject", "attribute"])
    marked = [
        max(of_city[s.slots["city"]], facts.wrong.get((place, s.slots["attribute"]), False))
        for s, place in zip(asked, places, strict=True)
    ]
    return np.maximum(np.array(marked, float), disagreement(model, [s.prompt for s in asked], places, facts.said))


def predictions(model: Model, split: str) -> pd.DataFrame:
    """One row for each question of the split: place, kind of fault ("" where the text is right), ``wrong`` (is the model's answer?) and the
    score of every predictor."""
    world = model.world
    assert isinstance(world, Bug)
    book, asked = marks(model), questions(world, split)
    prompts = [s.prompt for s in asked]
    located = book[book.kind == "located"].set_index("subject").said
    faults = [world.fault(p) for p in prompts]
    said = answers(model, prompts)
    table = pd.DataFrame(
        {
            "prompt": prompts,
            "place": [world.home[s.slots["city"]].name for s in asked],
            "fault": [f.kind if f else "" for f in faults],
            "wrong": [a != s.answer for a, s in zip(said, asked, strict=True)],
            "circuit": doubts(model, asked, places_inside(model, prompts), book),
            "asked step by step": doubts(model, asked, [located[s.slots["city"]] for s in asked], book),
        }
    )
    labels = ["wrong" if wrong else "right" for wrong in book.wrong]
    inputs = zip(_inputs(model, list(book.prompt)), _inputs(model, prompts), strict=True)
    for name, ridge, (known, new) in zip(PREDICTORS[2:5], RIDGES, inputs, strict=True):
        scores = Probe(known.double(), labels, ridge).scores(new.double())
        table[name] = scores[:, 1].numpy().round(8)  # questions of the same words tie, on every machine
    return table.assign(entropy=entropy(model, prompts))


def _inputs(model: Model, prompts: list[str]) -> list[Float[Tensor, "prompt anything"]]:
    """What the three classifiers see: active features, residual stream, words."""
    tokens = [model.tokens(p) for p in prompts]
    found = read_all(model, tokens, [*features_of(model), Site("resid_post", model.replacement.cfg.n_layers - 1)])
    features = torch.stack([torch.cat([x[1:, :, 0].sum(0) for x in acts[:-1]]) for _, acts in found])
    words = torch.zeros(len(tokens), len(model.tokenizer))
    for row, t in zip(words, tokens, strict=True):
        row[t] = 1
    return [features, torch.stack([acts[-1][-1, 0] for _, acts in found]), words]


@dataclass
class Areas(Shown):
    """``table``: predictor, kind of fault, ``area``, the bounds ``low`` and ``high`` of its interval, and how many answers are ``wrong``."""

    table: pd.DataFrame

    def words(self) -> str:
        lines = [
            f"{kind} ({rows.wrong.iloc[0]} wrong answers): " + ", ".join(f"{r.predictor} {r.area:.2f} [{r.low:.2f}, {r.high:.2f}]" for r in rows.itertuples())
            for kind, rows in self.table.groupby("kind", sort=False)
        ]  # fmt: skip
        return "Area under the ROC curve, 95 % intervals over places.\n" + "\n".join(lines)

    def figure(self) -> Any:
        from mi_workshop.plots import BLUE, INK, new_figure, open_frames

        kinds = list(dict.fromkeys(self.table.kind))
        figure = new_figure(13, 3.6)
        for ax, kind in zip(np.atleast_1d(figure.subplots(1, len(kinds), sharey=True)), kinds, strict=True):
            rows = self.table[self.table.kind == kind][::-1]
            y = np.arange(len(rows))
            ax.hlines(y, rows.low, rows.high, color=INK, lw=1.5)
            ax.plot(rows.area, y, "o", color=BLUE, ms=9)
            ax.axvline(0.5, color="#8A8A8A", ls=":", lw=1)
            ax.set_yticks(y, rows.predictor, fontsize=12)
            ax.set_xlim(-0.03, 1.03)
            ax.set_title(f"{kind} ({rows.wrong.iloc[0]})", fontsize=13)
            open_frames(ax)
        figure.supxlabel("area under the ROC curve (½: a coin)", fontsize=12)
        return figure


def areas(table: pd.DataFrame, draws: int = 300) -> Areas:
    """The figure of the rule, from ``predictions``."""
    rng, rows = np.random.default_rng(0), []
    members = [np.flatnonzero(table.place == place) for place in dict.fromkeys(table.place)]
    samples = [
        np.concatenate([members[i] for i in rng.integers(len(members), size=len(members))]) for _ in range(draws)
    ]
    wrong, fault = table.wrong.to_numpy(), table.fault.to_numpy()
    for kind in ("all", *FAULTS):
        keep = ~wrong | (fault == kind) if kind != "all" else np.ones(len(table), bool)
        for name in PREDICTORS:
            score = table[name].to_numpy()
            drawn = [area(wrong[i], score[i]) for s in samples if len(i := s[keep[s]])]
            low, high = np.nanquantile(drawn, (0.025, 0.975))
            rows.append((name, kind, area(wrong[keep], score[keep]), low, high, int(wrong[keep].sum())))
    return Areas(pd.DataFrame(rows, columns=["predictor", "kind", "area", "low", "high", "wrong"]))
