"""What each transcoder feature responds to and promotes: computed from the whole training text, never typed in.

A feature is said to stand for a *place* (Texas) if, for at least two attributes, a share of at least ``SHARE`` of its
activation over the two-hop questions about that attribute falls on the questions about the place, spread over at least
``CITIES`` of its cities; to *say* an answer (Austin) if it is no place feature and a share of at least ``SAY`` of its
activation at the last token falls on the questions with that answer, and at least as large a share of its activation in all
questions is at the last token; otherwise it is named after the token or the attribute that takes the largest share.
``SHARE`` and ``CITIES`` were chosen on validation prompts, ``SAY`` was set by hand.
Only sentences of the training text are read: held-out questions have no say in which features are chosen.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from mi_workshop.circuits.intervene import decoders, feature_activations
from mi_workshop.files import write_text
from mi_workshop.models import Model, ModelError
from mi_workshop.worlds import Atlas
from mi_workshop.worlds.atlas import ATTRIBUTES, Sentence

SHARE, CITIES, SAY = 0.3, 3, 0.5


def by_length(model: Model, sentences: list[Sentence]) -> list[tuple[list[Sentence], Tensor]]:
    """Sentences with the same number of tokens together, with their ids [sentence, position]."""
    groups: dict[int, list[tuple[Sentence, Tensor]]] = {}
    for s in sentences:
        ids = model.tokens(s.prompt)
        groups.setdefault(len(ids), []).append((s, ids))
    return [([s for s, _ in g], torch.stack([t for _, t in g])) for g in groups.values()]


@torch.no_grad()
def describe(model: Model) -> list[dict[str, Any]]:
    """One record per feature, from every sentence of the training text.

    ``selectivity``: {place: {attribute: [share, cities]}} where a share is at least .1; ``say``: [answer, share] and
    ``at_end``: the share of its activation in questions that falls on the last token;
    ``attribute``: [attribute, share]; ``tokens``: the tokens it fires on, [token, share of its activation];
    ``promotes`` and ``suppresses``: the tokens its decoder raises and lowers most; ``density``: share of positions where it is active.
    """
    assert model.world is not None
    world = model.world
    trained = [s for s in world.facts if s.stratum is None]
    vocabulary = world.vocabulary
    shape = (model.replacement.cfg.n_layers, model.replacement.transcoders.d_transcoder)
    by_token = torch.zeros(len(vocabulary), *shape)
    active, positions = torch.zeros(shape), 0
    questions: list[Sentence] = []
    sums, lasts = [], []
    for group, tokens in by_length(model, trained):
        for i in range(0, len(group), 256):
            acts, ids = feature_activations(model, tokens[i : i + 256]), tokens[i : i + 256]
            by_token.index_add_(0, ids.flatten(), acts.transpose(1, 2).flatten(0, 1))
            active += (acts > 0).sum((0, 2))
            positions += ids[:, 1:].numel()
            chosen = [j for j, s in enumerate(group[i : i + 256]) if s.kind == "two_hop"]
            questions += [group[i + j] for j in chosen]
            sums.append(acts[chosen].sum(2))
            lasts.append(acts[chosen][:, :, -1])
    total, last = torch.cat(sums), torch.cat(lasts)  # [question, layer, feature]
    selectivity = _selectivity(world, questions, total)
    say = _shares([s.answer for s in questions], last)
    at_end = last.sum(0) / total.sum(0).clamp(min=1e-8)
    attribute = _shares([s.slots["attribute"] for s in questions], total)
    token = by_token / by_token.sum(0).clamp(min=1e-8)
    logits = torch.stack([logit_effects(model, decoders(model, layer).sum(1)) for layer in range(shape[0])])
    records = []
    for layer in range(shape[0]):
        for f in range(shape[1]):
            fires = token[:, layer, f].topk(6)
            effect = logits[layer, f]
            records.append(
                {
                    "layer": layer,
                    "feature": f,
                    "density": float(active[layer, f] / positions),
                    "selectivity": selectivity.get((layer, f), {}),
                    "say": _best(say, layer, f),
                    "at_end": round(float(at_end[layer, f]), 3),
                    "attribute": _best(attribute, layer, f),
                    "tokens": [
                        [vocabulary[i], round(v, 3)]
                        for v, i in zip(*map(Tensor.tolist, fires), strict=True)
                        if v > 0.005
                    ],
                    "promotes": [vocabulary[i] for i in effect.topk(5).indices.tolist()],
                    "suppresses": [vocabulary[i] for i in (-effect).topk(5).indices.tolist()],
                }
            )
    return records


def _shares(keys: list[str], acts: Tensor) -> dict[str, Tensor]:
    """Mean activation for each key, as a share of the sum over keys [layer, feature]."""
    index = {k: i for i, k in enumerate(dict.fromkeys(keys))}
    rows = torch.tensor([index[k] for k in keys])
    mean = torch.zeros(len(index), *acts.shape[1:]).index_add_(0, rows, acts) / rows.bincount()[:, None, None]
    share = mean / mean.sum(0).clamp(min=1e-8)
    return {k: share[i] for k, i in index.items()}


def _best(shares: dict[str, Tensor], layer: int, feature: int) -> list[Any]:
    key = max(shares, key=lambda k: float(shares[k][layer, feature]))
    return [key, round(float(shares[key][layer, feature]), 3)]


def _selectivity(
    world: Atlas, questions: list[Sentence], total: Tensor
) -> dict[tuple[int, int], dict[str, dict[str, list[Any]]]]:
    out: dict[tuple[int, int], dict[str, dict[str, list[Any]]]] = {}
    for attribute in {a for group in ATTRIBUTES.values() for a in group}:
        rows = [i for i, s in enumerate(questions) if s.slots["attribute"] == attribute]
        homes = [world.home[questions[i].slots["city"]].name for i in rows]
        acts = total[rows]
        for place, share in _shares(homes, acts).items():
            cities = (acts[[j for j, h in enumerate(homes) if h == place]] > 0).sum(0)
            for layer, f in (share >= 0.1).nonzero().tolist():
                entry = out.setdefault((layer, f), {}).setdefault(place, {})
                entry[attribute] = [round(float(share[layer, f]), 3), int(cities[layer, f])]
    return out


def logit_effects(model: Model, written: Float[Tensor, "*item d_model"]) -> Float[Tensor, "*item d_vocab"]:
    """Direct effect on the logits of vectors written to the residual stream, mean over tokens removed; the scale of the
    final layer norm is left out."""
    effects = written @ model.replacement.unembed.W_U
    return effects - effects.mean(-1, keepdim=True)


def place_of(
    selectivity: dict[str, dict[str, list[Any]]], share: float = SHARE, cities: int = CITIES, only: str | None = None
) -> str | None:
    """The place a feature stands for, or None; with ``only``, judged on that one attribute (for the transfer control)."""
    best, strength = None, 0.0
    for place, attributes in selectivity.items():
        good = sorted(
            (s for a, (s, n) in attributes.items() if s >= share and n >= cities and only in (None, a)), reverse=True
        )
        if len(good) >= (1 if only else 2) and good[0] > strength:
            best, strength = place, good[0]
    return best


def read_table(path: Path) -> pd.DataFrame:
    """The records of ``describe``, indexed by (layer, feature), with ``place``, ``say_answer``, ``label_kind``, ``label`` and
    ``concept`` added.

    ``label_kind`` is ``place``, ``answer``, ``token``, ``attribute``, ``tokens`` (a mixture), ``many`` (no token takes a share
    worth naming) or ``silent``; ``concept`` is the label of a feature of a place, of an answer or of what is asked, and empty
    for other features.
    """
    if not path.exists():
        raise ModelError(f"The feature file {path} is missing: install mi-workshop again.")
    return table(json.loads(path.read_text(encoding="utf-8")))


def table(records: list[dict[str, Any]]) -> pd.DataFrame:
    frame = pd.DataFrame(records).set_index(["layer", "feature"])
    frame["place"] = [place_of(s) or "" for s in frame.selectivity]
    frame["say_answer"] = [
        "" if place or min(share, at_end) < SAY else answer
        for place, (answer, share), at_end in zip(frame.place, frame.say, frame.at_end, strict=True)
    ]
    frame["label_kind"], frame["label"] = zip(*map(label_of, frame.itertuples()), strict=True)
    asked = [f"{word!r}" for kind, attributes in ATTRIBUTES.items() for word in (kind, *attributes)]
    stands = (frame.place != "") | (frame.say_answer != "") | frame.label.isin(asked)
    frame["concept"] = frame.label.where(stands, "")
    return frame


def label_of(row: Any) -> tuple[str, str]:
    """Kind of label and label of a row that holds ``place``, ``say_answer``, ``density``, ``tokens`` and ``attribute``."""
    if row.place:
        return "place", row.place
    if row.say_answer:
        return "answer", f"say {row.say_answer}"
    if not row.density:
        return "silent", "silent"
    if not row.tokens:
        return "many", "fires on many tokens"
    if row.tokens[0][1] >= 0.5:
        return "token", f"{row.tokens[0][0]!r}"
    if row.attribute[1] >= 0.8:
        return "attribute", f"{row.attribute[0]!r}"
    return "tokens", "fires on " + ", ".join(t for t, _ in row.tokens[:3])


def save_table(path: Path, records: list[dict[str, Any]]) -> None:
    write_text(path, "[\n" + ",\n".join(json.dumps(r, ensure_ascii=False) for r in records) + "\n]\n")
