"""Families across sizes, matches between models and variance between runs, stored as ``mi_workshop/results/families.json``:
``python -m training.families`` (one core, about five minutes; every measure is defined in mi_workshop/dictionary/families.py and universality.py).

Trained here beside the dictionaries that ship: ``RUNS`` other seeds for ``atlas``, and dictionaries of two untrained models, all of ``WIDTH`` features. Tables, by layer:
``splitting`` (families of the sizes that ship, and the same with the middle one of another seed, so that no two neighbours share their start), ``becomes``
(what stands for ``CHOSEN`` concepts), ``universality`` (summary and controls of each pair), ``histogram`` (its correlations in bins of .05), ``runs``.
"""

from __future__ import annotations

import time
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import torch

import mi_workshop as mi
from mi_workshop import dictionary, results
from mi_workshop.dictionary.families import families
from mi_workshop.dictionary.universality import Matched, matched, untrained
from mi_workshop.models import Model
from training.dictionaries import SITES

WIDTHS, WIDTH = SITES["atlas"], 512
RUNS = (1, 2, 3)
CHOSEN = ("a language", "a place", "a place in the United States", "Arizona", "Greece", "a surname", "the answer is a capital", "the answer is 'Austin'")  # fmt: skip
BINS = np.linspace(0, 1, 21)


def main() -> None:
    torch.set_num_threads(1)
    start = time.perf_counter()
    atlas, twin = mi.load("atlas"), mi.load("atlas-twin")
    nothing = [untrained(atlas, seed) for seed in (0, 1)]
    tables: dict[str, list[pd.DataFrame]] = {
        k: [] for k in ("splitting", "becomes", "universality", "histogram", "runs")
    }

    recipes: dict[str, dict[str, Any]] = {}
    for layer, widths in WIDTHS.items():
        ours = {w: dictionary.load("atlas", layer=layer, width=w) for w in widths}
        theirs = dictionary.load("atlas-twin", layer=layer, width=WIDTH)
        as_shipped = {key: ours[WIDTH].provenance[key] for key in ("k", "steps", "learning_rate")}

        def fit(
            model: Model, seed: int, layer: int = layer, recipe: dict[str, Any] = as_shipped
        ) -> dictionary.SparseDictionary:
            return dictionary.train(model, layer, WIDTH, seed=seed, progress=False, **recipe)

        def keep(key: str, table: pd.DataFrame, layer: int = layer) -> None:
            tables[key].append(pd.concat({layer: table}, names=["layer"]))

        runs = [ours[WIDTH], *(fit(atlas, seed) for seed in RUNS)]
        for name, sizes in (("shipped", ours), ("other starts", ours | {WIDTH: runs[1]})):
            found = families(atlas, list(sizes.values()))
            live = found.table.groupby("width").agg(live=("f1", "size"), f1=("f1", "median"))
            keep("splitting", pd.concat({name: live.join(found.controls)}, names=["start"]))
            if name == "shipped":
                keep("becomes", found.becomes(CHOSEN))
        pairs = {"atlas and twin": matched(atlas, ours[WIDTH], twin, theirs)}
        empty = [fit(model, seed + 10) for seed, model in enumerate(nothing)]
        pairs["two untrained models"] = matched(nothing[0], empty[0], nothing[1], empty[1])
        pairs["atlas and untrained"] = matched(atlas, ours[WIDTH], nothing[0], empty[0])
        pairs |= {
            f"run {i} and run {j}": matched(atlas, runs[i], atlas, runs[j])
            for i, j in combinations(range(len(runs)), 2)
        }
        for name, pair in pairs.items():
            keep("universality", pd.concat({name: describe(pair)}, names=["pair", "what"]))
            keep("histogram", pd.concat({name: histogram(pair)}, names=["pair", "what"]))
        keep("runs", pd.DataFrame({n: recurrence(p) for n, p in pairs.items()}).T.rename_axis("pair"))
        stored = {key: pd.concat(parts) for key, parts in tables.items()}
        took = time.perf_counter() - start
        recipes |= {f"layer {layer}": as_shipped}
        results.store("families", stored, "python -m training.families", took, seeds=list(RUNS), recipe=recipes)
        print(f"layer {layer}: {took:.0f} s", flush=True)


def describe(pair: Matched) -> pd.DataFrame:
    """The summary, the first row called ``features``."""
    table = pair.summary()
    return table.set_axis(["features", *table.index[1:]])


def histogram(pair: Matched) -> pd.DataFrame:
    """Counts in ``BINS``; correlations below 0 stand in the first."""
    groups = {"features": pair.table.correlation.to_numpy(), **pair.controls}
    rows = {n: np.histogram(np.clip(r, 0, 1), BINS)[0] for n, r in groups.items()}
    return pd.DataFrame.from_dict(rows, "index", columns=[f"{b:.2f}" for b in BINS[:-1]])


def recurrence(pair: Matched) -> dict[str, float]:
    """Shares of the live features, and medians, of one pair."""
    t = pair.table
    strong = t.mutual & (t.correlation >= 0.9)
    return {
        "live": len(t), "mutual": t.mutual.mean(), "recur_by_correlation": strong.mean(), "recur_by_cosine": (t.mutual & (t.cosine >= 0.9)).mean() if t.cosine.notna().any() else np.nan,
        "same_concept": t.same_concept.mean(), "by_token": t.by_token.median(), "within": t.within.median(),
    }  # fmt: skip


if __name__ == "__main__":
    main()
