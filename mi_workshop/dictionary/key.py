"""The answer key for features: which concept of the world does each unit stand for, how well, and which concepts are found at all?

Decided before the tables were made:

- The sentences of the training text are cut into two halves at random. A unit's concept is the one with the highest F1 on the first half;
  **every score is from the second**, so that choosing the best of a thousand concepts is not rewarded. (Beginnings of sentences recur in both.)
- A unit counts as firing wherever its activation is above 0: **as it fires**, F1 is 2 · precision · recall / (precision + recall) over tokens.
- Left out is what could be chosen by luck alone: concepts that hold, and units that fire, at fewer than ``FEW`` tokens of
  either half (such units are not *live*).
- **Monosemanticity** of a set of units: the mean F1 of its live units, with a 95 % bootstrap interval over units.
- A concept is **found** if the unit that is best for it on the first half has an F1 of at least ``FOUND`` on the second.
- **Chance**: the same with the tokens of the concepts shuffled.

``tuned`` is the measure that was decided upon first: each unit may also choose a threshold (one of ``THRESHOLDS``, shares of its strongest
activation). With it random directions that fire at half of all tokens score nearly like features: the strongest few activations of *any*
direction share a token. It is shown beside the other because looking at the strongest activations alone is what people do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import csc_array

from mi_workshop.circuits.corpus import Text
from mi_workshop.concepts import Concepts, concepts
from mi_workshop.counterfactual.experiment import interval
from mi_workshop.dictionary.core import DictionaryError, SparseDictionary
from mi_workshop.dictionary.units import Units, units_of
from mi_workshop.models import Model
from mi_workshop.show import Shown

THRESHOLDS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8)
FEW = 2
FOUND = 0.8


@dataclass(eq=False)
class FeatureKey(Shown):
    """``table``: one row per live unit: ``concept, family, f1, precision, recall``, ``weighted`` (precision with each token counted by its
    activation), ``density`` (share of tokens at which it fires), ``chosen`` (the F1 on the half on which the concept was chosen), and
    ``tuned`` with its ``threshold`` and ``tuned_concept``. ``concepts``: one row per concept in reach: ``family, tokens, unit, f1, found``. ``chance``: monosemanticity
    with shuffled tokens."""

    of: Units = field(repr=False)
    table: pd.DataFrame
    concepts: pd.DataFrame
    chance: float

    @property
    def monosemanticity(self) -> tuple[float, float, float]:
        """Mean F1 of live units, and its 95 % interval over units."""
        return interval(self.table.f1.to_numpy())

    @property
    def found(self) -> float:
        """Share of concepts found."""
        return float(self.concepts.found.mean())

    @property
    def families(self) -> pd.DataFrame:
        """By family of concepts: how many there are, the share found, how many units stand for one, and these units' mean F1."""
        there, own = self.concepts.groupby("family", sort=False), self.table.groupby("family")
        return pd.DataFrame({"concepts": there.size(), "found": there.found.mean(), "units": own.size(), "f1": own.f1.mean()}).reindex(list(there.groups)).fillna({"units": 0}).astype({"units": int})  # fmt: skip

    def label(self, unit: int) -> str:
        """The concept of a unit with its scores, in words."""
        if unit not in self.table.index:
            return "hardly ever fires"
        row = self.table.loc[unit]
        return f"{row.concept}: precision {row.precision:.2f}, recall {row.recall:.2f}, F1 {row.f1:.2f}"

    def words(self) -> str:
        mean, low, high = self.monosemanticity
        pure = (self.table.precision >= FOUND).mean()
        return (
            f"{len(self.table)} of {len(self.of)} units ({self.of.kind}, layer {self.of.layer} of {self.of.model.name}) are live. Monosemanticity (mean F1 "
            f"of a unit and its best concept, on sentences on which it was not chosen): {mean:.2f} [{low:.2f}, {high:.2f}], by chance "
            f"{self.chance:.2f}; precision is at least {FOUND} for {pure:.0%}. Of {len(self.concepts)} concepts {self.found:.0%} are found (F1 at least {FOUND})."
        )

    def figure(self) -> Any:
        from mi_workshop.dictionary.key_plots import draw_key

        return draw_key(self)


@lru_cache(maxsize=8)
def feature_key(model: Model, of: SparseDictionary | Units, seed: int = 0) -> FeatureKey:
    """Score a dictionary's features, or other units (``units_of``), against the concepts of the model's world; the module says how. Remembered.

    Raises DictionaryError for a dictionary of another model and for units that never fire, FeatureError for a model whose training text is
    not known.
    """
    scored = units_of(model, of) if isinstance(of, SparseDictionary) else of
    known, rng = concepts(model), np.random.default_rng(seed)
    first = halves(known.text, rng)
    table, found = match(scored.acts, known, first)
    table[["tuned", "threshold", "tuned_concept"]] = match(scored.acts, known, first, THRESHOLDS)[0][
        ["f1", "threshold", "concept"]
    ]
    shuffled = replace(known, holds=known.holds[rng.permutation(len(first))])
    return FeatureKey(scored, table, found, float(match(scored.acts, shuffled, first)[0].f1.mean()))


def halves(text: Text, rng: np.random.Generator) -> np.ndarray:
    """Which tokens belong to the sentences on which concepts are chosen, booleans [token]; the others are for scores."""
    side = np.zeros(len(text.sentences), bool)
    side[rng.permutation(len(side))[::2]] = True
    return side[text.sentence]


def match(
    acts: csc_array, known: Concepts, first: np.ndarray, thresholds: Sequence[float] = (0.0,)
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The tables of a ``FeatureKey``, of units and of concepts. ``acts`` [token, unit]; ``first`` [token]: the half on which is chosen."""
    (a, b), (h, g) = ((x[first], x[~first]) for x in (acts, known.holds))
    reach = np.flatnonzero(np.minimum(np.diff(h.indptr), np.diff(g.indptr)) >= FEW)
    live = np.flatnonzero(np.minimum(np.diff(a.indptr), np.diff(b.indptr)) >= FEW)
    if not len(live):
        raise DictionaryError(
            f"None of these units fires at {FEW} tokens of both halves of the text: there is nothing to score."
        )
    a, b, h, g = a[:, live], b[:, live], h[:, reach], g[:, reach]
    peak, rows = a.max(0).toarray().ravel(), h.tocsr()
    best = [{"f1": np.full(n, -1.0), "of": np.zeros(n, int), "at": np.zeros(n)} for n in (len(reach), len(live))]
    for at in thresholds:
        fires = above(a, at * peak)
        both = (fires.T @ rows).toarray()
        f1 = 2 * both / np.maximum(np.diff(fires.indptr)[:, None] + np.diff(h.indptr), 1)
        for axis, so_far in enumerate(best):
            better = f1.max(axis) > so_far["f1"]
            so_far["f1"][better], so_far["of"][better], so_far["at"][better] = (
                f1.max(axis)[better],
                f1.argmax(axis)[better],
                at,
            )
    by_concept, by_unit = best
    chosen, there = known.table.iloc[reach[by_unit["of"]]], known.table.iloc[reach]
    scores = _scores(above(b, by_unit["at"] * peak), g[:, by_unit["of"]])
    inside = np.asarray(b.multiply(g[:, by_unit["of"]]).sum(0)).ravel()
    table = pd.DataFrame(
        {"concept": chosen.name.to_numpy(), "family": chosen.family.to_numpy(), **scores,
         "weighted": inside / np.maximum(np.asarray(b.sum(0)).ravel(), 1e-12), "density": np.diff(acts.indptr)[live] / acts.shape[0],
         "chosen": by_unit["f1"], "threshold": by_unit["at"]},
        pd.Index(live, name="unit"),
    )  # fmt: skip
    unit = by_concept["of"]
    f1 = _scores(above(b[:, unit], by_concept["at"] * peak[unit]), g)["f1"]
    found = {
        "family": there.family.to_numpy(),
        "tokens": there.tokens.to_numpy(),
        "unit": live[unit],
        "f1": f1,
        "found": f1 >= FOUND,
    }
    return table, pd.DataFrame(found, pd.Index(there.name, name="concept"))


def above(acts: csc_array, floor: np.ndarray) -> csc_array:
    """1 where a unit's activation is over its ``floor`` [unit]."""
    keep = acts.data > np.repeat(floor, np.diff(acts.indptr))
    starts = np.concatenate([[0], np.cumsum(keep)])[acts.indptr]
    return csc_array((np.ones(keep.sum(), np.float32), acts.indices[keep], starts), shape=acts.shape)


def _scores(fires: csc_array, holds: csc_array) -> dict[str, np.ndarray]:
    """Column by column, of booleans [token, pair]."""
    hits, fired, held = np.asarray(fires.multiply(holds).sum(0)).ravel(), np.diff(fires.indptr), np.diff(holds.indptr)
    return {
        "f1": 2 * hits / np.maximum(fired + held, 1),
        "precision": hits / np.maximum(fired, 1),
        "recall": hits / np.maximum(held, 1),
    }
