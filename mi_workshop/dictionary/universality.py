"""Universality and variance between runs: has another model, or another run, the same features?

After Bricken et al. 2023, "Towards Monosemanticity". What is counted, fixed before it was measured; *live* as in ``families``:

- *match*: the live feature of the other dictionary with the highest correlation of activations, both models reading the same tokens;
  *mutual*, if each is the other's best.
- *recurs*: a mutual match with a correlation (two models) or a cosine of decoder directions (one model, two runs) of ``SAME`` or more.
- *within*: correlation of a matched pair after the mean over all occurrences of each token was taken off both: what they share beyond the word
  (NaN where the token alone explains all).
- *by the token*: share of a feature's variance that the token alone explains (1 minus the variance about each token's mean).
- Controls, by the same best-of-many rule: the other's tokens dealt anew (chance); random directions of the same activations, as many, each cut
  so that it fires as often as a live feature; the neurons of the same layer; dictionaries of ``untrained`` models (training/families.py).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.sparse import csc_array, csr_array

from mi_workshop.circuits.corpus import training_text
from mi_workshop.concepts import concepts
from mi_workshop.dictionary.activations import activations, firings
from mi_workshop.dictionary.alike import correlation, labels, spread, unit_directions
from mi_workshop.dictionary.core import DictionaryError, SparseDictionary
from mi_workshop.models import Model, mlp
from mi_workshop.show import Shown

SAME = 0.9
PUBLISHED = (
    0.7  # "about": features of two one-layer transformers trained on the same web text; other models, corpus, sizes
)


@dataclass(frozen=True, eq=False)
class Matched(Shown):
    """``table``, by live feature of ``a``: ``partner`` in ``b``, ``correlation, mutual, cosine`` (NaN for two models), ``within, by_token, concept, same_concept``.
    ``controls``: {name: correlation of each unit with its best match}."""

    a: str
    b: str
    table: pd.DataFrame
    controls: Mapping[str, np.ndarray]

    def summary(self) -> pd.DataFrame:
        """Median, quartiles, and share of at least ``PUBLISHED`` of the matches and of each control."""
        groups = {f"{self.a} ↔ {self.b}": self.table.correlation.to_numpy(), **self.controls}
        rows = {n: [len(r), *np.quantile(r, [0.25, 0.5, 0.75]), np.mean(r >= PUBLISHED)] for n, r in groups.items()}
        return pd.DataFrame.from_dict(rows, "index", columns=["units", "quartile", "median", "third_quartile", f"at least {PUBLISHED}"])  # fmt: skip

    @property
    def recurs(self) -> float:
        """Share of ``a``'s live features that recur in ``b``."""
        t = self.table
        return float((t.mutual & (t.cosine.fillna(t.correlation) >= SAME)).mean())

    def words(self) -> str:
        t = self.table
        beyond = (
            "nothing is left beyond it"
            if t.within.isna().all()
            else f"beyond it the pairs correlate by {t.within.median():.2f}"
        )
        against = ", ".join(f"{name} {np.median(r):.2f}" for name, r in self.controls.items())
        return (
            f"{len(t)} live features of {self.a}, each with its best match in {self.b}: median correlation {t.correlation.median():.2f} (published, on other models: about "
            f"{PUBLISHED}); {t.mutual.mean():.0%} are each other's best, {self.recurs:.0%} recur, {t.same_concept.mean():.0%} have the same label. The token alone explains "
            f"{t.by_token.median():.0%} of a feature's variance (median); {beyond}. Controls: {against}."
        )

    def figure(self) -> Any:
        from mi_workshop.dictionary.families_plots import draw_matched

        return draw_matched(self)


def matched(model_a: Model, dictionary_a: SparseDictionary, model_b: Model, dictionary_b: SparseDictionary) -> Matched:
    """Best match in ``dictionary_b`` of every live feature of ``dictionary_a``, over all tokens of the text that both models were trained on.

    Raises DictionaryError for models of different texts, and for a dictionary of another model.
    """
    word = training_text(model_a).ids
    if not np.array_equal(word, training_text(model_b).ids):
        raise DictionaryError(
            f"{model_a.name} and {model_b.name} were not trained on the same text: no token of the one answers to a token of the other."
        )
    ours, theirs = (labels(m, d, concepts(model_a)) for m, d in ((model_a, dictionary_a), (model_b, dictionary_b)))
    a = firings(model_a, dictionary_a)[:, ours.index.to_numpy()]
    b = firings(model_b, dictionary_b)[:, theirs.index.to_numpy()]
    r = correlation(a, b)
    best, row = r.argmax(1), np.arange(len(ours))
    partner = theirs.index.to_numpy()[best]
    near = np.full(len(ours), np.nan)
    if model_a.name == model_b.name and dictionary_a.reads == dictionary_b.reads:
        near = (unit_directions(dictionary_a, ours.index) * unit_directions(dictionary_b, partner)).sum(1)
    by_token = 1 - spread(a, word) / spread(a)
    within = np.where(by_token < 1 - 1e-5, correlation(a, b, word)[row, best], np.nan)
    table = ours[["concept", "tokens"]].assign(
        partner=partner, correlation=r[row, best], mutual=r.argmax(0)[best] == row, cosine=near, within=within, by_token=by_token, same_concept=ours.concept.to_numpy() == theirs.concept.to_numpy()[best],
    )  # fmt: skip
    rng = np.random.default_rng(0)
    controls = {"tokens dealt anew": correlation(a, b[rng.permutation(b.shape[0])]).max(1)}
    pair = [
        _cut(m, d, t.tokens.to_numpy(), rng)
        for m, d, t in ((model_a, dictionary_a, ours), (model_b, dictionary_b, theirs))
    ]
    controls["random directions"] = correlation(*pair).max(1)
    units = [
        activations(m, mlp(m, d.layer).hook_post.name).numpy()
        for m, d in ((model_a, dictionary_a), (model_b, dictionary_b))
    ]
    if model_a.name != model_b.name:
        controls["neurons"] = correlation(*units).max(1)
    return Matched(model_a.name, model_b.name, table, controls)


def _cut(model: Model, dictionary: SparseDictionary, tokens: np.ndarray, rng: np.random.Generator) -> csc_array:
    """What random directions read, each above the value that it passes as often as a live feature fires [token, direction]."""
    x = activations(model, dictionary.reads).numpy()
    read = rng.normal(size=(len(tokens), x.shape[1])).astype(np.float32) @ (x - x.mean(0)).T
    level = [np.partition(row, -n)[-n] for row, n in zip(read, tokens, strict=True)]
    return csr_array(np.maximum(read - np.array(level)[:, None], 0)).T.tocsc()


def untrained(model: Model, seed: int = 0) -> Model:
    """The same architecture with every weight drawn anew from a normal distribution of its tensor's mean and spread: it knows the words apart, and nothing
    of the world. Heap et al. 2025 ("Sparse Autoencoders Can Interpret Randomly Initialized Transformers") ask what dictionaries find in such models."""
    net, random = copy.deepcopy(model.replacement), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in net.named_parameters():
            if "transcoder" not in name:
                weight.copy_(torch.randn(weight.shape, generator=random) * weight.std(correction=0) + weight.mean())
    return replace(model, name=f"{model.name} untrained {seed}", replacement=net)
