"""What each transcoder feature responds to and promotes: computed from the training text (``world.training_text``), never typed in.

A feature stands for a *place* (Texas) if for at least two attributes a share of at least ``SHARE`` of its activation over the
two-hop questions about that attribute falls on the questions about the place, spread over at least ``CITIES`` of its cities. Some
features stand for two or three places: these are their ``places``, which a swap uses. A feature is *labelled* with its places if a
share of at least ``WHOLE`` of its activation over all training sentences falls on sentences about them. It *says* an answer
(Austin) if it has no places, a share of at least ``SAY`` of its activation at last tokens falls on the sentences with that answer,
and as large a share of all its activation is at last tokens. Otherwise it is named after the token or the attribute that takes
the largest share. ``SHARE`` and ``CITIES`` were chosen on validation prompts, ``WHOLE`` and ``SAY`` (a half) were set by hand.
Only sentences of the training text are read: held-out questions have no say in which features are chosen.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from scipy.sparse import csr_array
from torch import Tensor

from mi_workshop.circuits.corpus import text_activations, training_text
from mi_workshop.circuits.intervene import decoders
from mi_workshop.files import write_text
from mi_workshop.models import Model, ModelError
from mi_workshop.worlds import Atlas
from mi_workshop.worlds.atlas import ATTRIBUTES, Sentence

SHARE, CITIES, WHOLE, SAY = 0.3, 3, 0.5, 0.5


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

    ``selectivity``: {place: {attribute: [share, cities]}} where a share is at least .1; ``about``: {place: share}, shares of
    its activation that fall on sentences about a place, from .05; ``say``: [answer, share] and ``at_end``: the share of its activation that
    falls on last tokens; ``attribute``: [attribute, share]; ``tokens``: the tokens it fires on, [token, share of its activation];
    ``promotes`` and ``suppresses``: the tokens its decoder raises and lowers most; ``density``: share of positions where it is active.
    """
    assert model.world is not None
    world = model.world
    vocabulary = world.vocabulary
    shape = (model.replacement.cfg.n_layers, model.replacement.transcoders.d_transcoder)
    text, acts = training_text(model), text_activations(model)  # acts [token, layer * feature]
    sentences, positions = text.sentences, acts.shape[0]

    def summed(keys: np.ndarray, count: int) -> Tensor:
        """Activations added up over the tokens of one key [key, layer, feature]."""
        rows = csr_array((np.ones(positions, "f4"), (keys, np.arange(positions))), shape=(count, positions))
        return torch.from_numpy((rows @ acts).toarray()).reshape(count, *shape)

    active = torch.from_numpy(np.diff(acts.indptr)).reshape(shape)
    by_token, total = summed(text.ids, len(vocabulary)), summed(text.sentence, len(sentences))
    ends = np.append(text.start[1:], positions) - 1
    last = torch.from_numpy(acts.tocsr()[ends].toarray()).reshape(total.shape)
    asked = [i for i, s in enumerate(sentences) if s.kind == "two_hop"]
    selectivity = _selectivity(world, [sentences[i] for i in asked], total[asked])
    about = _shares([_about(world, s) for s in sentences], total, mean=False)
    say = _shares([s.answer for s in sentences], last)
    at_end = last.sum(0) / total.sum(0).clamp(min=1e-8)
    attribute = _shares([s.slots.get("attribute", "") for s in sentences], total)
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
                    "about": {k: round(v, 3) for k in about if k and (v := float(about[k][layer, f])) >= 0.05},
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


def _about(world: Atlas, s: Sentence) -> str:
    """The place that a sentence is about, empty if there is none."""
    city = s.slots.get("city")
    return world.home[city].name if city in world.home else s.slots.get("place", "")


def _shares(keys: list[str], acts: Tensor, mean: bool = True) -> dict[str, Tensor]:
    """Mean (or summed) activation for each key, as a share of the total over keys [layer, feature]."""
    index = {k: i for i, k in enumerate(dict.fromkeys(keys))}
    rows = torch.tensor([index[k] for k in keys])
    value = torch.zeros(len(index), *acts.shape[1:]).index_add_(0, rows, acts)
    value = value / rows.bincount()[:, None, None] if mean else value
    share = value / value.sum(0).clamp(min=1e-8)
    return {k: share[i] for k, i in index.items()}


def _best(shares: dict[str, Tensor], layer: int, feature: int) -> list[Any]:
    key = max(shares, key=lambda k: float(shares[k][layer, feature]))
    return [key, round(float(shares[key][layer, feature]), 3)]


def _selectivity(
    world: Atlas, questions: list[Sentence], total: Tensor
) -> dict[tuple[int, int], dict[str, dict[str, list[Any]]]]:
    out: dict[tuple[int, int], dict[str, dict[str, list[Any]]]] = {}
    for attribute in sorted({a for group in ATTRIBUTES.values() for a in group}):
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


def places_of(
    selectivity: dict[str, dict[str, list[Any]]], share: float = SHARE, cities: int = CITIES, only: str | None = None
) -> list[str]:
    """The places a feature stands for, strongest first; with ``only``, judged on that one attribute (for the transfer control)."""
    found: dict[str, float] = {}
    for place, attributes in selectivity.items():
        good = [s for a, (s, n) in attributes.items() if s >= share and n >= cities and only in (None, a)]
        if len(good) >= (1 if only else 2):
            found[place] = max(good)
    return sorted(found, key=lambda place: (-found[place], place))


def read_table(path: Path) -> pd.DataFrame:
    """The records of ``describe``, indexed by (layer, feature), with ``places``, ``say_answer``, ``label_kind``, ``label`` and
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
    frame["places"] = [places_of(s) for s in frame.selectivity]
    frame["say_answer"] = [
        "" if places or min(share, at_end) < SAY else answer
        for places, (answer, share), at_end in zip(frame.places, frame.say, frame.at_end, strict=True)
    ]
    frame["label_kind"], frame["label"] = zip(*map(label_of, frame.itertuples()), strict=True)
    asked = [f"{word!r}" for kind, attributes in ATTRIBUTES.items() for word in (kind, *attributes)]
    stands = frame.label_kind.isin(["place", "answer"]) | frame.label.isin(asked)
    frame["concept"] = frame.label.where(stands, "")
    return frame


def label_of(row: Any) -> tuple[str, str]:
    """Kind of label and label of a row that holds ``places``, ``about``, ``say_answer``, ``density``, ``tokens`` and ``attribute``."""
    if row.places and sum(row.about.get(place, 0) for place in row.places) >= WHOLE:
        return "place", " / ".join(row.places)
    if row.say_answer:
        return "answer", f"say {row.say_answer}"
    if not row.density:
        return "silent", "silent"
    if not row.tokens:
        return "many", "fires on many tokens"
    if row.tokens[0][1] >= 0.5:
        return "token", f"{row.tokens[0][0]!r}"
    if row.attribute[0] and row.attribute[1] >= 0.8:
        return "attribute", f"{row.attribute[0]!r}"
    return "tokens", "fires on " + ", ".join(t for t, _ in row.tokens[:3])


def save_table(path: Path, records: list[dict[str, Any]]) -> None:
    write_text(path, "[\n" + ",\n".join(json.dumps(r, ensure_ascii=False) for r in records) + "\n]\n")
