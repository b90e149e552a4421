"""All units of a dictionary judged at once: interpretations with their controls, features beside neurons and random directions, and how far the
top misleads. The definitions of every number are in ``judge``."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import csc_array

from mi_workshop.circuits.feature_page import BINS, Example, _examples
from mi_workshop.concepts import Concepts, concepts
from mi_workshop.dictionary.core import DictionaryError, SparseDictionary
from mi_workshop.dictionary.judge import LIVE, STRONGEST, column, judged, predict, score, units
from mi_workshop.dictionary.rules import Rule, examples, halves, search
from mi_workshop.models import Model
from mi_workshop.show import Shown

CONTROLS = ("another", "token", "shuffled", "top")


def interval(values: np.ndarray, seed: int = 0) -> tuple[float, float, float]:
    """Mean and its 95 % interval, by bootstrap over ``values``."""
    drawn = np.random.default_rng(seed).integers(len(values), size=(2000, len(values)))
    low, high = np.quantile(values[drawn].mean(1), [0.025, 0.975])
    return float(values.mean()), float(low), float(high)


@dataclass(frozen=True, eq=False)
class Judged(Shown):
    """``table``: a row for each unit judged (``index``): ``rule``, ``literals``, ``fitted`` (its correlation in the examples), the five scores, and
    with controls a column for each, its simulation score. ``rules``: by index; ``levels``: what they predict [token, row of the table]. ``silent``: how many units fire too seldom to be judged."""

    name: str
    table: pd.DataFrame
    rules: dict[int, Rule] = field(repr=False)
    silent: int
    levels: np.ndarray = field(repr=False)

    def words(self) -> str:
        mean, low, high = interval(self.table.simulation.to_numpy())
        said = (
            f"{len(self.table)} {self.name}: mean simulation score {mean:.2f} ({low:.2f} to {high:.2f}), detection {self.table.detection.mean():.2f}, "
            f"F1 {self.table.f1.mean():.2f}"
        )
        if "another" in self.table:
            controls = {"another": "rule of another one", "token": "best single token", "shuffled": "fitted to shuffled activations"}  # fmt: skip
            said += "; " + ", ".join(f"{words} {self.table[name].mean():.2f}" for name, words in controls.items())
            mean, low, high = interval((self.table.simulation - self.table.top).to_numpy())
            said += f"; explained from the whole range it scores {mean:+.3f} ({low:+.3f} to {high:+.3f}) above explained from the top alone"  # fmt: skip
        return f"{said}. {self.silent} fire at fewer than {LIVE} tokens of either half."

    def figure(self) -> Any:
        from mi_workshop.dictionary.judge_plots import draw_judged

        return draw_judged(self)


def interpret_all(
    model: Model, source: SparseDictionary | str, layer: int = 1, sample: str = "range", controls: bool = True, seed: int = 0,
    like: SparseDictionary | None = None,
) -> Judged:  # fmt: skip
    """``interpret`` for every unit, by the rule search, and with ``controls`` their scores too. Remembered: asked again, it is the same object."""
    return _interpret_all(model, source, layer, sample, controls, seed, like)


@lru_cache(maxsize=12)
def _interpret_all(
    model: Model, source: SparseDictionary | str, layer: int, sample: str, controls: bool, seed: int, like: SparseDictionary | None
) -> Judged:  # fmt: skip
    found, given = concepts(model), units(model, source, layer, like)
    index = judged(found, given.acts)
    acts, looked = csc_array(given.acts[:, index]), halves(found)
    if controls:
        plain = _interpret_all(model, source, layer, sample, False, seed, like)
        held, table = ~looked, plain.table.copy()
        other = np.roll(plain.levels, 1, axis=1)[held]
        table["another"] = [score(other[:, i], column(acts, i)[held])["simulation"] for i in range(len(index))]
        only = (found.table.family == "token").to_numpy()
        for name, fit, kind, most in (
            ("token", acts, sample, 1),
            ("shuffled", _shuffled(acts, looked, seed), sample, 3),
            ("top", acts, "top", 3),
        ):
            scores = _explained(found, fit, looked, kind, seed, most, only if name == "token" else None, acts)[2]
            table[name] = [s["simulation"] for s in scores]
        return Judged(plain.name, table, plain.rules, plain.silent, plain.levels)
    if not len(index):
        raise DictionaryError(f"None of the {given.name} fires often enough to be judged.")
    rules, levels, scores, fitted = _explained(found, acts, looked, sample, seed)
    table = pd.DataFrame(scores)
    table.insert(0, "rule", [str(r) for r in rules])
    table.insert(1, "literals", [len(r.literals) for r in rules])
    table.insert(2, "fitted", fitted)
    table.index = pd.Index(index, name="index")
    rule_of = dict(zip(index.tolist(), rules, strict=True))
    return Judged(given.name, table, rule_of, given.acts.shape[1] - len(index), levels)


def _explained(
    found: Concepts, acts: csc_array, looked: np.ndarray, sample: str, seed: int, most: int = 3, only: np.ndarray | None = None,
    truth: csc_array | None = None,
) -> tuple[list[Rule], np.ndarray, list[dict[str, float]], np.ndarray]:  # fmt: skip
    """Rules fitted to ``acts``, their levels [token, unit], their scores on the held-out tokens of ``truth``, and their fit."""
    weights = examples(found, acts, looked, sample, seed)
    rules, fitted = search(found, acts, weights, most, only)
    levels = np.empty(acts.shape, np.uint8, order="F")
    scores, truth = [], acts if truth is None else truth
    for i, rule in enumerate(rules):
        levels[:, i] = predict(found, rule, column(acts, i), column(weights, i))
        scores.append(score(levels[~looked, i], column(truth, i)[~looked]))
    return rules, levels, scores, fitted


def _shuffled(acts: csc_array, looked: np.ndarray, seed: int) -> csc_array:
    """Activations of the tokens looked at, given to others of them by chance."""
    rng, out, rows, starts = np.random.default_rng(seed), [], [], [0]
    there = np.flatnonzero(looked)
    for i in range(acts.shape[1]):
        part = slice(acts.indptr[i], acts.indptr[i + 1])
        act = acts.data[part][looked[acts.indices[part]]]
        rows.append(np.sort(rng.choice(there, len(act), replace=False)))
        out.append(rng.permutation(act))
        starts.append(starts[-1] + len(act))
    return csc_array((np.concatenate(out), np.concatenate(rows), starts), shape=acts.shape)


# ------------------------------------------------------------------------------- features, neurons, random directions
@dataclass(frozen=True, eq=False)
class Sources(Shown):
    """``interpret_all`` of several sources: ``found`` by a short name, ``table`` with means, intervals and shares."""

    found: dict[str, Judged]
    table: pd.DataFrame

    def words(self) -> str:
        rows = "; ".join(
            f"{r.Index} ({r.units}): simulation {r.simulation:.2f} ({r.low:.2f} to {r.high:.2f}), detection {r.detection:.2f}"
            for r in self.table.itertuples()
        )
        return f"Mean scores of rules on held-out sentences, {rows}."

    def figure(self) -> Any:
        from mi_workshop.dictionary.judge_plots import draw_sources

        return draw_sources(self)


def compare_units(model: Model, dictionary: SparseDictionary, seed: int = 0) -> Sources:
    """Interpret the features of a dictionary, the MLP neurons of its layer, and random directions that fire as often as its features."""
    found = {
        "features": interpret_all(model, dictionary, controls=False, seed=seed),
        "neurons": interpret_all(model, "neuron", dictionary.layer, controls=False, seed=seed),
        "random directions": interpret_all(model, "random", controls=False, seed=seed, like=dictionary),
    }
    rows = {}
    for name, one in found.items():
        mean, low, high = interval(one.table.simulation.to_numpy(), seed)
        rest = one.table[["detection", "precision", "recall", "f1", "literals"]].mean()
        share = (one.table.simulation >= 0.8).mean()
        rows[name] = {"units": len(one.table), "simulation": mean, "low": low, "high": high, "share_above_0.8": share, **rest}  # fmt: skip
    return Sources(found, pd.DataFrame(rows).T.astype({"units": int}))


# ------------------------------------------------------------------------------------------ how the top misleads
@dataclass(frozen=True, eq=False)
class Misled(Shown):
    """``table``: a row for each unit judged (``index``), the largest gap first: ``hypothesis`` (of the top), ``top`` and ``range`` (purity there), ``gap``.
    ``examples``: of the unit ``shown``, with whether the hypothesis holds."""

    name: str
    one: str
    table: pd.DataFrame
    shown: int
    examples: list[Example]

    def words(self) -> str:
        t, worst = self.table, self.table.loc[self.shown]
        pure = t[t.top >= 0.9]
        kept = (pure["range"] >= 0.9).mean() if len(pure) else float("nan")
        return (
            f"{len(t)} {self.name}: the hypothesis of the top holds at {t.top.mean():.0%} of the {STRONGEST} strongest tokens and at {t['range'].mean():.0%} over the "
            f"range of activations. Of the {len(pure)} that are 90% pure at the top, {kept:.0%} are over the range. Shown is {self.one} {self.shown}, "
            f"“{worst.hypothesis}”: {worst.top:.0%} at the top, {worst['range']:.0%} over the range."
        )

    def figure(self) -> Any:
        from mi_workshop.dictionary.judge_plots import draw_misled

        return draw_misled(self)


def misleading_top(
    model: Model, source: SparseDictionary | str, layer: int = 1, index: int | None = None, like: SparseDictionary | None = None
) -> Misled:  # fmt: skip
    """For every unit, what its strongest examples suggest, and at what share of the whole range of activations that holds. Shows unit ``index``, or
    the one with the largest gap. Raises DictionaryError for a unit that is not judged."""
    found, given = concepts(model), units(model, source, layer, like)
    index_of = judged(found, given.acts)
    acts = csc_array(given.acts[:, index_of])
    if index is not None and index not in index_of:
        raise DictionaryError(f"{given.one} {index!r} of the {given.name} is not judged: choose one of {', '.join(map(str, index_of[:8]))} …")  # fmt: skip
    weights = examples(found, acts, np.ones(acts.shape[0], bool), "top")
    rules = search(found, acts, weights, most=1)[0]
    table = pd.DataFrame([(str(r), *purity(column(acts, i), r.holds(found))) for i, r in enumerate(rules)], columns=["hypothesis", "top", "range"])  # fmt: skip
    table["gap"] = table.top - table["range"]
    table.index = pd.Index(index_of, name="index")
    table = table.sort_values("gap", ascending=False, kind="stable")
    shown = int(table.index[0] if index is None else index)
    rule = rules[int(np.flatnonzero(index_of == shown)[0])]
    return Misled(given.name, given.one, table, shown, _examples(found.text, given.column(shown), rule.holds(found)))


def purity(acts: np.ndarray, holds: np.ndarray) -> tuple[float, float]:
    """Share of tokens at which ``holds``: among the strongest, and as a mean over the ranges of activation."""
    order = np.argsort(-acts, kind="stable")[: min(STRONGEST, int((acts > 0).sum()))]
    share = acts / max(acts.max(initial=0), 1e-8)
    ranges = [(share > 0) & (share >= low) & ((share < high) | (high == 1)) for low, high in zip(BINS, (1.0, *BINS), strict=False)]  # fmt: skip
    return float(holds[order].mean()), float(np.mean([holds[inside].mean() for inside in ranges if inside.any()]))
