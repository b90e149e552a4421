"""The figures on a model card: what was learned, what was not, how faithful the transcoders are, what swaps do."""

from __future__ import annotations

import itertools
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mi_workshop.circuits.features import by_length
from mi_workshop.circuits.intervene import decoders, intervene
from mi_workshop.circuits.swap import FORMS, Edit, feature_sets, make_edit, mention, random_edits
from mi_workshop.counterfactual import sweep
from mi_workshop.models import Model
from mi_workshop.worlds.atlas import HELD_OUT, Atlas, Sentence
from training.sisters import SPECIAL

PROMPTS_PER_FIDELITY = 400  # held-out two-hop questions for the transcoder figures
RANDOM_PER_PAIR = 20
ATLAS = Atlas()


@torch.no_grad()
def last_logits(model: Model, sentences: list[Sentence], hooks: Any = ()) -> tuple[list[Sentence], Tensor]:
    """Logits after the last token [sentence, d_vocab], in the order of the returned sentences."""
    order, logits = [], []
    for group, tokens in by_length(model, sentences):
        order += group
        logits.append(model.replacement.run_with_hooks(tokens, fwd_hooks=list(hooks))[:, -1])
    return order, torch.cat(logits)


def right(model: Model, sentences: list[Sentence], logits: Tensor) -> Tensor:
    return logits.argmax(-1) == torch.tensor([model.token_id(s.answer) for s in sentences])


def atlas_stratum(s: Sentence) -> str | None:
    """The stratum that Atlas puts a sentence in; a sister world may train on it."""
    return ATLAS._stratum(s.kind, s.slots)


def accuracies(model: Model, split: str) -> dict[str, dict[str, float]]:
    """Share of right answers by kind of sentence and, for two-hop questions, by stratum of ``split`` (of Atlas's strata, also
    where a sister world trains on them)."""
    assert model.world is not None
    groups: dict[str, list[Sentence]] = {}
    for s in model.world.facts:
        stratum = atlas_stratum(s)
        if s.stratum == "kind":
            groups.setdefault(f"{s.kind}, never seen", []).append(s)
        elif s.stratum is None or s.stratum.endswith(split):
            here = " (trained here)" if stratum != s.stratum else ""
            groups.setdefault(f"{s.kind}, {stratum or 'trained'}{here}", []).append(s)
    out = {}
    for name, sentences in groups.items():
        order, logits = last_logits(model, sentences)
        out[name] = {"accuracy": float(right(model, order, logits).float().mean()), "n": len(sentences)}
    return out


@torch.no_grad()
def induction(model: Model, half: int = 16) -> dict[str, float]:
    """Mean loss in nats on the first and on the second pass over random passages (seed 99, never used in training)."""
    assert model.world is not None
    tokens = torch.tensor(model.world.repeats(np.random.default_rng(99), 128, half))
    logp = model.replacement(tokens)[:, :-1].log_softmax(-1)
    loss = -logp.gather(-1, tokens[:, 1:, None])[..., 0]
    return {"first": float(loss[:, :half].mean()), "second": float(loss[:, half + 1 :].mean())}


def held_out(model: Model, split: str) -> list[Sentence]:
    assert model.world is not None
    return [s for s in model.world.facts if atlas_stratum(s) in (f"city:{split}", f"pair:{split}")][
        :PROMPTS_PER_FIDELITY
    ]


@torch.no_grad()
def unexplained(model: Model, split: str) -> dict[str, list[dict[str, float | None]]]:
    """Per layer, at the city, the relation (attribute) and the answer (last) token of held-out questions: the share of MLP
    output variance that the transcoders leave unexplained (``fvu``), and how many distinct inputs there are."""
    m, sentences = model.replacement, held_out(model, split)
    layers = range(m.cfg.n_layers)
    seen: dict[str, list[list[tuple[Tensor, Tensor, Tensor]]]] = {
        k: [[] for _ in layers] for k in ("city", "relation", "answer")
    }
    for group, tokens in by_length(model, sentences):
        names = [
            f"blocks.{i}.{hook}" for i in layers for hook in (m.feature_input_hook, m.original_feature_output_hook)
        ]
        _, cache = m.run_with_cache(tokens, names_filter=names)
        inputs = [cache[f"blocks.{i}.{m.feature_input_hook}"] for i in layers]
        outputs = [cache[f"blocks.{i}.{m.original_feature_output_hook}"] for i in layers]
        guess = reconstruct(model, inputs)
        rows = torch.arange(len(group))
        places = {
            "city": torch.tensor([mention(model, s) for s in group]),
            "relation": (tokens == torch.tensor([model.token_id(s.slots["attribute"]) for s in group])[:, None])
            .int()
            .argmax(1),
            "answer": torch.full((len(group),), tokens.shape[1] - 1),
        }
        for name, pos in places.items():
            for i in layers:
                seen[name][i].append((inputs[i][rows, pos], outputs[i][rows, pos], guess[i][rows, pos]))
    out: dict[str, list[dict[str, float | None]]] = {}
    for name, per_layer in seen.items():
        out[name] = []
        for parts in per_layer:
            x, y, g = (torch.cat(t) for t in zip(*parts, strict=True))
            spread = (y - y.mean(0)).square().sum()
            distinct = len(torch.unique((x * 1e3).round(), dim=0))
            fvu = float((y - g).square().sum() / spread) if distinct > 1 else None
            out[name].append({"fvu": fvu, "distinct_inputs": distinct})
    return out


def reconstruct(model: Model, inputs: list[Tensor]) -> list[Tensor]:
    """What the transcoders say the MLP outputs are, from the MLP inputs [row, position, d_model] of the first layers
    (all of them, or as many as have run)."""
    t = model.replacement.transcoders
    out = [torch.zeros_like(inputs[0]) for _ in range(t.n_layers)]
    for layer, x in enumerate(inputs):
        acts = t.encode_layer(x, layer)
        decoder = decoders(model, layer)
        for i in range(decoder.shape[1]):
            out[layer + i] += acts @ decoder[:, i]
        out[layer] += t.b_dec[layer] if model.transcoders == "clt" else t[layer].b_dec
    return out


@torch.no_grad()
def all_replaced(model: Model, split: str) -> dict[str, dict[str, float]]:
    """Held-out questions answered by the intact model, with all MLPs replaced by transcoders (no error terms, attention
    recomputed) and with all MLPs mean-ablated: accuracy and KL divergence from the intact model in nats."""
    assert model.world is not None
    m, sentences = model.replacement, held_out(model, split)
    layers = range(m.cfg.n_layers)
    inputs: list[Tensor] = []

    def read(x: Tensor, hook: Any) -> None:
        if hook.layer() == 0:
            inputs.clear()
        inputs.append(x)

    def replace(y: Tensor, hook: Any) -> Tensor:
        new = reconstruct(model, inputs)[hook.layer()]
        new[:, 0] = y[:, 0]  # <bos> is never explained
        return new

    trained = [s for s in model.world.facts if s.stratum is None]
    total = [torch.zeros(m.cfg.d_model) for _ in layers]
    count = 0
    for _, tokens in by_length(model, trained):
        _, cache = m.run_with_cache(tokens, names_filter=lambda n: n.endswith(m.original_feature_output_hook))
        count += tokens[:, 1:].numel()
        for i in layers:
            total[i] += cache[f"blocks.{i}.{m.original_feature_output_hook}"][:, 1:].sum((0, 1))
    ins = [f"blocks.{i}.{m.feature_input_hook}" for i in layers]
    outs = [f"blocks.{i}.{m.original_feature_output_hook}" for i in layers]
    variants: dict[str, list[tuple[str, Any]]] = {
        "intact": [],
        "replaced": [(n, read) for n in ins] + [(n, replace) for n in outs],
        "mean-ablated": [(n, lambda y, hook: (total[hook.layer()] / count).expand_as(y)) for n in outs],
    }
    out, reference = {}, torch.empty(0)
    for name, hooks in variants.items():
        order, logits = last_logits(model, sentences, hooks)
        logp = logits.log_softmax(-1)
        reference = logp if name == "intact" else reference
        kl = (reference.exp() * (reference - logp)).sum(-1).mean()
        out[name] = {"accuracy": float(right(model, order, logits).float().mean()), "kl": float(kl)}
    return out


def state_questions(model: Model, split: str) -> list[Sentence]:
    """The capital question about one held-out city of each state, in the order of the list."""
    assert model.world is not None
    rank = ("validation", "test").index(split)
    left_out = {name for names in HELD_OUT.values() for name in names}
    states = [p for p in model.world.places.values() if p.kind == "state" and p.name not in left_out]
    return [model.world.two_hop(p.cities[rank]) for p in states]


def swaps(model: Model, split: str, n_random: int = RANDOM_PER_PAIR, every: int = 1) -> dict[str, dict[str, float]]:
    """All ordered pairs of states (or each ``every``-th), held-out cities on both sides: rates for the three forms.

    ``exact``: the swap gives exactly the expected capital (the one that is believed), attention frozen (``exact_free``: not frozen). Controls:
    ``nothing`` (largest change of any logit), ``random_flips``, ``same_place_kept``, ``third_place`` (gives its own capital).
    """
    assert model.world is not None
    questions = state_questions(model, split)
    pairs = list(itertools.permutations(range(len(questions)), 2))[::every]
    out: dict[str, dict[str, float]] = {}
    for at in FORMS:
        rows: list[dict[str, float]] = []
        for a, b in pairs:
            asked, donor = questions[a], questions[b]
            third = next(q for i, q in enumerate(questions) if i not in (a, b))
            place = model.world.home[asked.slots["city"]]
            same = model.world.two_hop(place.cities[4])
            edits = [make_edit(model, asked, other, at) for other in (donor, same, third)]
            rows.append(
                _one_swap(
                    model,
                    edits,
                    [model.world.believed(s.prompt) for s in (donor, asked, third)],
                    at,
                    asked,
                    donor,
                    n_random,
                    seed=a * 100 + b,
                )
            )
        out[at] = {key: float(np.mean([r[key] for r in rows])) for key in rows[0]} | {"pairs": len(rows)}
        out[at]["nothing"] = max(r["nothing"] for r in rows)
    return out


@lru_cache(maxsize=256)
def _plain(model: Model, prompt: str) -> Tensor:
    return model.logits(model.tokens(prompt))


def _one_swap(
    model: Model, edits: list[Edit], expected: list[str], at: str, asked: Sentence, donor: Sentence, n_random: int, seed: int
) -> dict[str, float]:  # fmt: skip
    edit = edits[0]
    assert model.world is not None
    old, new = (model.world.home[s.slots["city"]].name for s in (asked, donor))
    barred = feature_sets(model, old, asked.answer) | feature_sets(model, new, donor.answer)
    noise = random_edits(model, edit, barred, n_random, seed)
    sets = torch.stack([*(e.sets() for e in edits), edit.sets(edit.now)])
    frozen = intervene(model, edit.tokens, torch.cat([sets, noise]))
    free = intervene(model, edit.tokens, edit.sets()[None], freeze_attention=False)
    plain = _plain(model, asked.prompt)
    want = [model.token_id(t) for t in expected]
    best = frozen.argmax(-1)
    return {
        "exact": float(best[0] == want[0]),
        "exact_free": float(free[0].argmax() == want[0]),
        "same_place_kept": float(best[1] == plain.argmax()),
        "third_place": float(best[2] == want[2]),
        "nothing": float((frozen[3] - plain).abs().max()),
        "random_flips": float((best[4:] != plain.argmax()).float().mean()),
        "random_expected": float((best[4:] == want[0]).float().mean()),
        "features": float(edit.mask.sum()),
    }


def where_it_arises(model: Model, split: str, shift: int = 7) -> dict[str, list[float]]:
    """Patch the residual stream after one layer from another state's question, at the city or at the last token: the share of
    questions that then get the other state's capital. Where the number falls at the city and rises at the end, it has moved."""
    asked = [s.prompt for s in state_questions(model, split)]
    found = sweep(
        model, asked, asked[shift:] + asked[:shift], positions=["{city}", "last"], metric="says_donor", progress=False
    )
    return {"city": found.mean[:, 0, 0].tolist(), "last": found.mean[:, 1, 0].tolist()}


def figures(model: Model, split: str, swap_every: int = 1) -> dict[str, Any]:
    out: dict[str, Any] = {"accuracy": accuracies(model, split), "induction": induction(model)}
    if model.transcoders:
        out["unexplained"] = unexplained(model, split)
        out["all_replaced"] = all_replaced(model, split)
        out["swaps"] = swaps(model, split, every=swap_every)
    out["where"] = where_it_arises(model, split)
    if model.name in SPECIAL:
        out["special"] = SPECIAL[model.name][0](model, split)
    return out
