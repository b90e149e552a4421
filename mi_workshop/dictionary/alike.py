"""What two sets of units have in common: correlation of activations, joint firing, directions, labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import csc_array, csr_array

from mi_workshop.concepts import Concepts, concepts
from mi_workshop.dictionary.activations import firings
from mi_workshop.dictionary.core import SparseDictionary
from mi_workshop.dictionary.key import halves, match
from mi_workshop.models import Model


def labels(model: Model, dictionary: SparseDictionary, known: Concepts | None = None) -> pd.DataFrame:
    """The live features by index: ``concept, family, f1, precision, recall`` as in ``key`` (chosen on one half of the sentences, scored on the other), and
    ``tokens``, at how many it fires in all. ``known``: the concepts of the text, where they are at hand."""
    known, fires = known or concepts(model), firings(model, dictionary)
    table = match(fires, known, halves(known.text, np.random.default_rng(0)))[0][
        ["concept", "family", "f1", "precision", "recall"]
    ]
    return table.assign(tokens=np.diff(fires.indptr)[table.index]).rename_axis("feature")


def both_fire(a: csc_array, b: csc_array) -> np.ndarray:
    """At how many tokens both fire [a, b]."""
    fires = [csc_array((np.ones_like(m.data), m.indices, m.indptr), shape=m.shape) for m in (a, b)]
    return np.asarray((fires[0].T @ fires[1]).todense())


def correlation(a: csc_array | np.ndarray, b: csc_array | np.ndarray, group: np.ndarray | None = None) -> np.ndarray:
    """Pearson correlation of the columns of two matrices [token, unit] as [unit of a, unit of b]; 0 where one does not vary.

    ``group`` [token]: a number for each token; the means of the groups are taken off, not the mean of all.
    """
    member, weight = _groups(a, group)
    sums = [_dense(member @ m) for m in (a, b)]
    scale = [_inverse_root(spread(m, group), _dense((m**2).sum(0)).ravel()) for m in (a, b)]
    return (_dense(a.T @ b) - sums[0].T @ (weight * sums[1])) * scale[0][:, None] * scale[1]


def spread(a: csc_array | np.ndarray, group: np.ndarray | None = None) -> np.ndarray:
    """Sum of squares about the mean (the means of the groups) [unit]."""
    member, weight = _groups(a, group)
    about = _dense((a**2).sum(0)).ravel() - (weight * _dense(member @ a) ** 2).sum(0)
    return np.asarray(np.maximum(about, 0))


def _groups(a: csc_array | np.ndarray, group: np.ndarray | None) -> tuple[csr_array, np.ndarray]:
    n = a.shape[0]
    group = np.zeros(n, int) if group is None else group
    size = np.bincount(group)
    return csr_array((np.ones(n), (group, np.arange(n))), shape=(len(size), n)), 1 / np.maximum(size, 1)[:, None]


def _inverse_root(about: np.ndarray, total: np.ndarray) -> np.ndarray:
    """1 / root; 0 for what varies by no more than rounding."""
    return np.divide(1, np.sqrt(about), where=about > 1e-5 * total, out=np.zeros(len(about)))


def _dense(x: Any) -> np.ndarray:
    return np.asarray(x.todense() if hasattr(x, "todense") else x, dtype=np.float64)


def unit_directions(dictionary: SparseDictionary, live: pd.Index | np.ndarray) -> np.ndarray:
    written = dictionary.W_dec.detach().numpy()[np.asarray(live)]
    return written / np.linalg.norm(written, axis=1, keepdims=True).clip(1e-8)


def shuffled(directions: np.ndarray, seed: int = 0) -> np.ndarray:
    """Directions that keep the spread along every principal axis and nothing else: each principal coordinate is dealt anew among the rows."""
    rng, mean = np.random.default_rng(seed), directions.mean(0)
    u, s, axes = np.linalg.svd(directions - mean, full_matrices=False)
    dealt = rng.permuted(u * s, axis=0) @ axes + mean
    return dealt / np.linalg.norm(dealt, axis=1, keepdims=True).clip(1e-8)
