"""The answer key for features: which concept of the world does each unit stand for, how well, and which concepts are found at all?

Decided before any of it was measured:

- The sentences of the training text are cut into two halves at random. A unit's concept, and the threshold above which it counts as firing
  (one of ``THRESHOLDS``, shares of its strongest activation), are those with the highest F1 on the first half; **every score is from the
  second**. So choosing the best of a thousand concepts is not rewarded. Beginnings of sentences recur in both halves.
- Concepts and units that could be chosen by luck alone are left out: concepts that hold at fewer than ``FEW`` tokens of either half, units that
  fire at fewer than ``FEW`` tokens of the first (they are not *live*).
- **Monosemanticity** of a set of units: the mean of that F1 over its live units, with a 95 % bootstrap interval over units.
- A concept is **found** if the unit and threshold that are best for it on the first half have an F1 of at least ``FOUND`` on the second.
- **Chance**: the same with the tokens of the concepts shuffled.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import csc_array

from mi_workshop.concepts import Concepts, concepts
from mi_workshop.counterfactual.experiment import interval
from mi_workshop.dictionary.core import SparseDictionary
from mi_workshop.dictionary.units import Units, units
from mi_workshop.models import Model
from mi_workshop.show import Shown

THRESHOLDS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8)
FEW = 2
FOUND = 0.8
SEED = 0


@dataclass(eq=False)
class FeatureKey(Shown):
    """``table``: one row per live unit: ``concept, family, f1, precision, recall`` (above ``threshold``, a share of the strongest activation),
    ``plain`` (F1 with the threshold 0: as it fires), ``weighted`` (share of the unit's whole activation at tokens where the concept holds),
    ``density`` (share of tokens at which it fires), ``chosen`` (the F1 on the half on which the concept was chosen).
    ``concepts``: one row per concept in reach: ``family, tokens, unit, f1, found``. ``chance``: monosemanticity with shuffled tokens."""

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
        return f"{row.concept} (precision {row.precision:.2f}, recall {row.recall:.2f}, F1 {row.f1:.2f})"

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


def key(model: Model, of: SparseDictionary | Units, chance: bool = True, seed: int = SEED) -> FeatureKey:
    """Score a dictionary's features, or other ``units``, against the concepts of the model's world; the module says how.

    Raises DictionaryError for a dictionary of another model, FeatureError for a model whose training text is not known.
    """
    scored = units(model, of) if isinstance(of, SparseDictionary) else of
    known = concepts(model)
    rng = np.random.default_rng(seed)
    first = halves(known, rng)
    table, found = match(scored.acts, known, first)
    luck = float("nan")
    if chance:
        order = rng.permutation(len(first))
        luck = float(match(scored.acts, known, first, order)[0].f1.mean())
    return FeatureKey(scored, table, found, luck)


def halves(known: Concepts, rng: np.random.Generator) -> np.ndarray:
    """Which tokens belong to the first half, booleans [token]; all tokens of a sentence to the same."""
    n = len(known.text.sentences)
    side = np.zeros(n, bool)
    side[rng.permutation(n)[: n // 2]] = True
    return side[known.text.sentence]


def match(
    acts: csc_array, known: Concepts, first: np.ndarray, order: np.ndarray | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The tables of a ``FeatureKey``: of units and of concepts. ``order``: the tokens of the concepts in another order."""
    holds = known.holds if order is None else known.holds[order]
    sides = [(acts[side], holds[side]) for side in (first, ~first)]
    reach = np.flatnonzero(np.minimum(*(np.diff(h.indptr) for _, h in sides)) >= FEW)
    live = np.flatnonzero(np.diff(sides[0][0].indptr) >= FEW)
    (a, h), (b, g) = ((x[:, live], y[:, reach]) for x, y in sides)
    peak = np.maximum(a.max(0).toarray().ravel(), 1e-12) if len(live) else np.zeros(0)
    unit_best, unit_concept, unit_at = np.full(len(live), -1.0), np.zeros(len(live), int), np.zeros(len(live))
    best, best_unit, best_at = np.full(len(reach), -1.0), np.zeros(len(reach), int), np.zeros(len(reach))
    rows = h.tocsr()
    for at in THRESHOLDS if len(live) and len(reach) else ():
        fires = above(a, at * peak)
        both = (fires.T @ rows).toarray()
        f1 = 2 * both / np.maximum(np.diff(fires.indptr)[:, None] + np.diff(h.indptr), 1)
        for axis, (score, which, where) in enumerate(((best, best_unit, best_at), (unit_best, unit_concept, unit_at))):
            top, value = f1.argmax(axis), f1.max(axis)
            better = value > score
            score[better], which[better], where[better] = value[better], top[better], at
    hits, fired, held = _counts(b, g, np.arange(len(live)), unit_concept, unit_at * peak)
    plain, plain_fired, _ = _counts(b, g, np.arange(len(live)), unit_concept, 0 * peak)
    total = b.sum(0)
    inside = np.asarray(b.multiply(g[:, unit_concept]).sum(0)).ravel()
    chosen = known.table.iloc[reach[unit_concept]]
    table = pd.DataFrame(
        {
            "concept": chosen.name.to_numpy(), "family": chosen.family.to_numpy(), "f1": 2 * hits / np.maximum(fired + held, 1),
            "precision": hits / np.maximum(fired, 1), "recall": hits / np.maximum(held, 1), "plain": 2 * plain / np.maximum(plain_fired + held, 1),
            "weighted": inside / np.maximum(total, 1e-12), "threshold": unit_at,
            "density": np.diff(acts.indptr)[live] / acts.shape[0], "chosen": unit_best,
        },
        pd.Index(live, name="unit"),
    )  # fmt: skip
    peaks = peak[best_unit] if len(live) else 0 * best_at
    hits, fired, held = _counts(b, g, best_unit, np.arange(len(reach)), best_at * peaks) if len(live) else (best_at, best_at, best_at)  # fmt: skip
    score = 2 * hits / np.maximum(fired + held, 1)
    rows_of = known.table.iloc[reach]
    found = pd.DataFrame(
        {"family": rows_of.family.to_numpy(), "tokens": rows_of.tokens.to_numpy(), "unit": live[best_unit] if len(live) else -1, "f1": score, "found": score >= FOUND},
        pd.Index(rows_of.name, name="concept"),
    )  # fmt: skip
    return table, found


def above(acts: csc_array, floor: np.ndarray) -> csc_array:
    """1 where a unit's activation is over its ``floor`` [unit]."""
    keep = acts.data > np.repeat(floor, np.diff(acts.indptr))
    starts = np.concatenate([[0], np.cumsum(keep)])[acts.indptr]
    return csc_array((np.ones(keep.sum(), np.float32), acts.indices[keep], starts), shape=acts.shape)


def _counts(
    acts: csc_array, holds: csc_array, unit: np.ndarray, concept: np.ndarray, floor: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For pairs of a unit and a concept: tokens at which both, the unit, and the concept are there."""
    fires, there = above(acts[:, unit], floor), holds[:, concept]
    return np.asarray(fires.multiply(there).sum(0)).ravel(), np.diff(fires.indptr), np.diff(there.indptr)
