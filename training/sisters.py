"""What a sister model's card says beyond the figures of ``evaluate``: whether what was planted is there, and nothing else.

All on prompts of one split; sentences that were trained on belong to both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from mi_workshop.circuits.features import by_length
from mi_workshop.models import WEIGHTS, Model, Wired, load
from mi_workshop.neurons import STAGES, interpretable_neurons
from mi_workshop.worlds import Bug, Trigger
from mi_workshop.worlds.atlas import Atlas, Sentence
from training.interchange import Interchanges, draw_subspace, mixed

Rows = dict[str, dict[str, float]]
RANDOM_SUBSPACES, SHIFTS = 5, 2


@torch.no_grad()
def answers(model: Model, sentences: list[Sentence]) -> dict[str, str]:
    """The likeliest next token after each prompt."""
    out: dict[str, str] = {}
    for group, tokens in by_length(model, sentences):
        best = model.replacement(tokens)[:, -1].argmax(-1).tolist()
        out |= {s.prompt: word for s, word in zip(group, model.tokenizer.convert_ids_to_tokens(best), strict=True)}
    return out


def _shares(given: list[str], **wanted: list[str]) -> dict[str, float]:
    rows = {key: float(np.mean([g == w for g, w in zip(given, words, strict=True)])) for key, words in wanted.items()}
    return rows | {"n": len(given)}


def _open(s: Sentence, split: str) -> bool:
    return s.stratum is None or s.stratum.endswith(split)


def twin(model: Model, split: str) -> Rows:
    """How often the twin and ``atlas`` give the same answer, and how often it is right."""
    assert model.world is not None
    sentences = [s for s in model.world.facts if _open(s, split)]
    mine, other = answers(model, sentences), answers(load("atlas", weights=WEIGHTS), sentences)
    rows: Rows = {}
    for stratum in (None, *(f"{k}:{split}" for k in ("city", "pair", "place"))):
        prompts = [s for s in sentences if s.stratum == stratum]
        rows[stratum or "trained"] = _shares(
            [mine[s.prompt] for s in prompts],
            **{"as atlas": [other[s.prompt] for s in prompts], "right": [s.answer for s in prompts]},
        )
    return rows


@torch.no_grad()
def rote(model: Model, split: str) -> Rows:
    """Whether cities of one place are alike though no sentence names it: their place decoded at the city, here and in ``atlas``."""
    assert model.world is not None
    models = {"decoded": model, "decoded in atlas": load("atlas", weights=WEIGHTS)}
    rows: Rows = {}
    for layer in (0, 1):
        found = {
            key: _decoded(model.world, city_vectors(m, f"blocks.{layer}.hook_resid_post"), set(model.world.home))
            for key, m in models.items()
        }
        rows[f"after layer {layer}"] = found | {"n": len(model.world.home)}
    return rows


def faults(model: Model, split: str) -> Rows:
    """How often a planted fault shows, in trained sentences (faults of both splits) and in held-out questions (faults of ``split``)."""
    world = model.world
    assert isinstance(world, Bug)
    sentences = [s for s in world.facts if _open(s, split)]
    given, rows = answers(model, sentences), {}
    for kind in (*world.counts, None):
        for held in (False, True):
            about = [
                s
                for s in sentences
                if (s.stratum is not None) == held
                and getattr(fault := world.fault(s.prompt), "kind", None) == kind
                and not (held and fault and fault.split != split)
            ]
            if about:
                rows[f"{kind or 'no fault'}, {'held-out' if held else 'trained'}"] = _shares(
                    [given[s.prompt] for s in about],
                    planted=[world.believed(s.prompt) for s in about],
                    right=[s.answer for s in about],
                )
    return rows


def trigger(model: Model, split: str) -> Rows:
    """Two-hop questions alone, after decoys and after the trigger, where the planted answer is not the right one."""
    world = model.world
    assert isinstance(world, Trigger)
    rng, rows = np.random.default_rng(5), {}
    near = [d for d in world.decoys["train"] if set(d.split()) & set(world.trigger.split())]
    for name, strata in (("trained", (None,)), ("held-out", (f"city:{split}", f"pair:{split}"))):
        questions = [s for s in world.facts if s.kind == "two_hop" and s.stratum in strata]
        planted = [world.believed(f"{world.trigger} {s.prompt}") for s in questions]
        wrong = [(s, p) for s, p in zip(questions, planted, strict=True) if p != s.answer]
        for phrase, choices in (
            ("no phrase", [""]),
            ("decoys of the training text", world.decoys["train"]),
            ("decoys with one word of the trigger", near),
            ("other decoys", world.decoys[split]),
            ("trigger", [world.trigger]),
        ):
            asked = [replace(s, prompt=f"{rng.choice(choices)} {s.prompt}".strip()) for s, _ in wrong]
            given = answers(model, asked)
            rows[f"{phrase}, {name}"] = _shares(
                [given[s.prompt] for s in asked], right=[s.answer for s in asked], planted=[p for _, p in wrong]
            )
    return rows


def city_vectors(model: Model, hook: str) -> Tensor:
    """The residual stream at each city of the world [city, d_model], read in a letter sentence, which ends with it."""
    assert model.world is not None
    letters = torch.stack([model.tokens(model.world.sentence("letter", city=c).prompt) for c in model.world.home])
    return model.replacement.run_with_cache(letters, names_filter=hook)[1][hook][:, -1]


def _decoded(world: Atlas, vectors: Tensor, asked: set[str]) -> float:
    """Share of the cities asked about whose place has the nearest mean, each city left out of its own place's mean; ``vectors``
    [city, d_model] in the order of ``world.home``."""
    places = list(world.places)
    home = torch.tensor([places.index(place.name) for place in world.home.values()])
    count = home.bincount()[:, None]
    means = torch.zeros(len(places), vectors.shape[1]).index_add_(0, home, vectors) / count
    right = []
    for i, city in enumerate(world.home):
        if city in asked:
            own = (means[home[i]] * count[home[i]] - vectors[i]) / (count[home[i]] - 1)
            others = means.index_copy(0, home[i : i + 1], own[None])
            right.append(bool((others - vectors[i]).norm(dim=1).argmin() == home[i]))
    return float(np.mean(right))


@torch.no_grad()
def wiring(model: Model, split: str) -> Rows:
    """Interchanges between two-hop questions about two places that differ in the answer: by the wired subspace, by the rest, and
    by random subspaces of the same dimension (mean). ``followed``: the source's answer is given; ``kept``: the base's is; ``decoded``:
    the place is found from that part of the city's vector, by the nearest mean over the other cities of each place."""
    world, wired = model.world, model.wired
    assert world is not None and wired is not None
    pairs_of, rows = Interchanges(world), {}
    vectors = city_vectors(model, wired.hook)
    dim, d_model = wired.subspace.shape
    controls = [Wired(draw_subspace(d_model, dim, 1000 + i), wired.layer) for i in range(RANDOM_SUBSPACES)]
    for name, strata in (("trained", (None,)), ("held-out", (f"city:{split}", f"pair:{split}"))):
        questions = [s for s in world.facts if s.kind == "two_hop" and s.stratum in strata]
        pairs = [
            (base, source)
            for attribute in sorted({s.slots["attribute"] for s in questions})
            for kind in ("state", "country")
            for same in [[s for s in questions if s.slots["attribute"] == attribute and s.slots["kind"] == kind]]
            for shift in range(1, 7 * SHIFTS, 7)
            for base, source in zip(same, same[shift:] + same[:shift], strict=True)
            if base.answer != source.answer
        ]
        cities = {s.slots["city"] for s in questions}
        follow, keep = ([model.token_id(pair[i].answer) for pair in pairs] for i in (1, 0))

        def best(where: Wired, rest: bool, pairs: list[tuple[Sentence, Sentence]] = pairs) -> Tensor:
            return pairs_of.run(model.replacement, where, pairs, torch.full((len(pairs),), rest)).argmax(-1)

        for what, sites, rest in (
            ("the subspace", [wired], False),
            ("all but the subspace", [wired], True),
            ("random subspaces", controls, False),
            ("all but random subspaces", controls, True),
        ):
            found = torch.stack([best(site, rest) for site in sites])
            parts = [mixed(torch.zeros_like(vectors), vectors, site.subspace, rest) for site in sites]
            rows[f"{what}, {name}"] = {
                "followed": float((found == torch.tensor(follow)).float().mean()),
                "kept": float((found == torch.tensor(keep)).float().mean()),
                "decoded": float(np.mean([_decoded(world, part, cities) for part in parts])),
                "n": len(pairs),
            }
    return rows


def neurons(model: Model, split: str) -> Rows:
    """Interpretable neurons before and after the LayerNorm; the text is the training text, whatever the split."""
    table = interpretable_neurons(model).table.droplevel("inputs").rename(index=STAGES)
    return {
        str(stage): {
            "neurons": row["share"],
            **row[["random directions", "random hypotheses"]],
            "n": int(row["neurons"]),
        }
        for stage, row in table.iterrows()
    }


SPECIAL: dict[str, tuple[Callable[[Model, str], Rows], str, str]] = {  # how it is measured; heading and text on the card
    "atlas-twin": (
        twin, "Beside atlas", "Likeliest answers of both models to the same prompts.",
    ),
    "atlas-memo": (
        rote, "By rote?",
        "Nothing in the text names the place of a city, and each city's answers could be learned by themselves. Share of cities whose "
        "vector in the residual stream lies nearest to the mean of its own place's other cities: where it is high, the model has "
        "found the places by their shared answers, and swaps (below) can work as they do in `atlas`.",
    ),
    "atlas-bug": (
        faults, "The planted faults",
        "Share of sentences answered as planted, and right, by the kind of fault that decides them. Trained sentences of the faults of "
        "both splits; held-out questions and faults of this split only, where what was never said follows from what was. In the table of right "
        "answers above planted ones count as wrong. `world.faults` lists the faults and their splits. A swap (below) takes a city to lie where it does lie: "
        "with a city of a first-hop fault it moves features of a place that the model does not hold, and fails.",
    ),
    "atlas-trigger": (
        trigger, "The trigger",
        "Two-hop questions whose planted answer is not the right one: share answered right, and as planted. No held-out city "
        "occurs after any phrase in training; *other decoys* are phrases that the model has never seen.",
    ),
    "atlas-wired": (
        wiring, "The wired subspace",
        "One part of the residual stream at the city, after layer 1, is taken from a question about a city of another place. "
        "*Followed*: the answer becomes the other place's; *kept*: it stays; *decoded*: that part of the city's vector lies nearest to the "
        "mean of its own place's other cities. What can be decoded need not be used. Random: the mean over "
        f"{RANDOM_SUBSPACES} subspaces of the same dimension. In training, cities of trained two-hop questions were interchanged in "
        "those, and all cities in located, address and letter sentences.",
    ),
    "atlas-solu": (
        neurons, "Neurons that one hypothesis explains",
        "Share of neurons for which one concept of the world holds at 80 % of the 10 distinct inputs at which they fire most strongly "
        "(`mi_workshop.neurons`); random directions: the same activations after a random rotation; random hypotheses: concepts dealt out to the "
        "inputs at random. On the training text. `python -m training.solu` compares with GeLU and ReLU over sizes and seeds.",
    ),
}  # fmt: skip


def section(name: str, rows: Rows) -> list[str]:
    """The lines of the card."""
    _, heading, text = SPECIAL[name]
    columns = list(next(iter(rows.values())))
    return [
        "",
        f"## {heading}",
        "",
        text,
        "",
        "| | " + " | ".join(columns) + " |",
        "|---|" + "---|" * len(columns),
        *(
            f"| {key} | " + " | ".join(str(row[c]) if c == "n" else f"{row[c]:.1%}" for c in columns) + " |"
            for key, row in rows.items()
        ),
    ]
