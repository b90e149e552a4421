"""Are features what they are said to be? Top examples against the whole range, and interpretations that are scored by what they predict.

Definitions, fixed before anything was measured:

- A unit *fires* at a token where its activation is above 0. It is judged if it fires at ``LIVE`` tokens at least in each half of the sentences
  (``rules.halves``): one half is looked at, the other is held out. Held-out sentences share words, and often their beginnings, with the others.
- *Purity at the top*: the share of the ``STRONGEST`` strongest tokens at which the hypothesis holds; *over the range*: the mean of that share over
  the five ranges of activation of a feature's page (``feature_page.BINS``; empty ones left out), as in a sample uniform over
  the range (Bricken et al. 2023, "Towards Monosemanticity"). The hypothesis is the single concept that explains the top best.
- An *interpretation* predicts a level from 0 to 10 (Bills et al. 2023) for each token. That of a rule: for each combination of its literals, the
  mean activation there in the examples, in tenths of the maximum, at least 1 where it holds and 0 where it does not.
- *Simulation score*: Pearson correlation of predicted levels and true activations over all held-out tokens (0 where either does not vary).
  *Detection score*: balanced accuracy of "above 0" on the same tokens; chance is 0.5 (Paulo et al. 2024, "Automatically Interpreting Millions of Features in Large
  Language Models", ask it of sentences, and of single tokens as *fuzzing*). Precision, recall and F1 are those of firing too.
- Controls, scored the same way: the rule of ``another`` unit (shifted by one among those judged); the best single ``token``; a rule fitted to activations ``shuffled``
  over the tokens; a rule fitted to the ``top`` alone. 95 % intervals: bootstrap over units.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from scipy.sparse import csc_array

from mi_workshop.circuits.corpus import KINDS, text_activations
from mi_workshop.circuits.feature_page import BINS
from mi_workshop.concepts import Concepts, concepts
from mi_workshop.dictionary.activations import activations, firings
from mi_workshop.dictionary.core import DictionaryError, SparseDictionary
from mi_workshop.dictionary.rules import Rule, examples, halves, search
from mi_workshop.models import Model
from mi_workshop.show import Shown

LIVE, STRONGEST = 5, 20
SCORES = ("simulation", "detection", "precision", "recall", "f1")


@dataclass(frozen=True, eq=False)
class Units:
    """Activations of the units of one place at every token of the training text [token, unit]. ``one`` is what one of them is called."""

    name: str
    one: str
    acts: csc_array

    def column(self, index: int) -> np.ndarray:
        """Activations of one unit [token]. Raises DictionaryError for one that there is not."""
        if not (isinstance(index, int | np.integer) and 0 <= index < self.acts.shape[1]):
            raise DictionaryError(f"There is no {self.one} {index!r} among the {self.name}: choose 0 to {self.acts.shape[1] - 1}.")  # fmt: skip
        return column(self.acts, int(index))


def column(matrix: csc_array, i: int) -> np.ndarray:
    """One column, dense."""
    out, part = np.zeros(matrix.shape[0]), slice(matrix.indptr[i], matrix.indptr[i + 1])
    out[matrix.indices[part]] = matrix.data[part]
    return out


@lru_cache(maxsize=16)
def units(model: Model, source: SparseDictionary | str, layer: int = 1, like: SparseDictionary | None = None) -> Units:
    """What is judged: the features of a dictionary; the MLP neurons (``"neuron"``) or transcoder features (``"feature"``) of ``layer``; or ``"random"`` directions
    at the place of the dictionary ``like``, as many, each cut off so that it fires as often as one of its features. Raises DictionaryError."""
    if isinstance(source, SparseDictionary):
        return Units(f"features of {source}", "feature", firings(model, source))
    if source in KINDS:
        if not 0 <= layer < (n_layers := model.replacement.cfg.n_layers):
            raise DictionaryError(f"{model.name} has no layer {layer!r}: choose 0 to {n_layers - 1}.")
        acts = text_activations(model, source)
        width = acts.shape[1] // n_layers
        acts = csc_array(acts[:, layer * width : (layer + 1) * width])
        return Units(f"{source}s of layer {layer} of {model.name}", source, acts)
    if source != "random" or like is None:
        known = ", ".join(map(repr, KINDS))
        raise DictionaryError(f"Units are a dictionary's, {known}, or 'random' with like=dictionary, not {source!r}.")
    often = np.diff(firings(model, like).indptr)
    often = often[often > 0]
    x = activations(model, like.reads).numpy()
    rng = np.random.default_rng(0)
    along = (x - x.mean(0)) @ rng.standard_normal((x.shape[1], len(often))).astype(x.dtype)
    floor = [np.partition(column, -n - 1)[-n - 1] if n < len(column) else -np.inf for column, n in zip(along.T, often, strict=True)]  # fmt: skip
    return Units(f"random directions at {like.reads} of {model.name}", "direction", csc_array((along - np.array(floor)).clip(0)))  # fmt: skip


def judged(found: Concepts, acts: csc_array) -> np.ndarray:
    """Indices of the units that fire often enough in both halves."""
    unit = np.repeat(np.arange(acts.shape[1]), np.diff(acts.indptr))
    looked = halves(found)[acts.indices[acts.data > 0]]
    often = [np.bincount(unit[acts.data > 0][side], minlength=acts.shape[1]) for side in (looked, ~looked)]
    return np.flatnonzero(np.minimum(*often) >= LIVE)


# ---------------------------------------------------------------------------------- predictions and their scores
def predict(found: Concepts, rule: Rule, acts: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Levels from 0 to 10 that a rule predicts [token], fitted where ``weights`` [token] are above 0."""
    cell = np.zeros(len(acts), int)
    for i, (_, _, name) in enumerate(rule.literals):
        cell += found.where(name).astype(int) << i
    size = 1 << len(rule.literals)
    shown = np.flatnonzero(weights)
    holds, peak = rule.holds(found), max(acts[shown].max(initial=0), 1e-8)
    overall = np.average(acts[shown], weights=weights[shown] * holds[shown]) if holds[shown].any() else 0
    total = np.bincount(cell[shown], weights[shown], size)
    mean = np.bincount(cell[shown], (weights * acts)[shown], size) / np.maximum(total, 1e-8)
    levels = np.round(10 * np.where(total > 0, mean, overall) / peak).clip(1, 10)
    return np.where(holds, levels[cell], 0)


def score(levels: np.ndarray, acts: np.ndarray) -> dict[str, float]:
    """``SCORES`` of predicted levels against activations, token by token; NaN where there is nothing to be right about."""
    fires, says = acts > 0, levels > 0
    varies = levels.std() > 0 and acts.std() > 0
    right = float((fires & says).sum())
    recall, quiet = (float(a[b].mean()) if b.any() else float("nan") for a, b in ((says, fires), (~says, ~fires)))
    precision = right / int(says.sum()) if says.any() else float("nan")
    f1 = 2 * right / max(int(fires.sum() + says.sum()), 1)
    simulation = float(np.corrcoef(levels, acts)[0, 1]) if varies else 0.0
    return dict(zip(SCORES, (simulation, (recall + quiet) / 2, precision, recall, f1), strict=True))


@dataclass(frozen=True)
class Case:
    """A held-out sentence: true and predicted levels (0 to 10) of its tokens; ``at`` is the token for which it was chosen, ``group`` says why."""

    words: list[str]
    true: list[int]
    predicted: list[int]
    at: int
    group: str


@dataclass(frozen=True, eq=False)
class Interpretation(Shown):
    """What a unit is said to be, ``said`` by ``by``; ``rule`` is None where a large model said it. ``scores``: see ``SCORES``, over ``tokens`` held-out
    tokens; ``rule_scores``: those of the rule search on the same tokens, where somebody else explained. ``note``: what went wrong, if anything."""

    name: str
    said: str
    by: str
    rule: Rule | None
    scores: dict[str, float]
    tokens: int
    cases: list[Case]
    rule_scores: dict[str, float] | None = None
    note: str = ""

    def words(self) -> str:
        s = self.scores
        rule = f" The rule search reaches {self.rule_scores['simulation']:.2f} on the same tokens." if self.rule_scores else ""  # fmt: skip
        return (
            f"{self.name}, explained by {self.by}: {self.said}. On {self.tokens} held-out tokens: simulation score {s['simulation']:.2f}, "
            f"detection {s['detection']:.2f}, precision {s['precision']:.2f}, recall {s['recall']:.2f}.{rule} {self.note}".rstrip()
        )

    def figure(self) -> Any:
        from mi_workshop.dictionary.judge_plots import draw_interpretation

        return draw_interpretation(self)


def interpret(
    model: Model, source: SparseDictionary | str, index: int, layer: int = 1, sample: str = "range", explainer: Any = None, seed: int = 0,
    like: SparseDictionary | None = None,
) -> Interpretation:  # fmt: skip
    """Explain one unit from examples of half of the sentences, and score what that predicts for the other half.

    ``source``, ``layer``, ``like``: see ``units``. ``sample``: ``"range"`` or ``"top"`` (``rules.examples``). ``explainer``: a large model
    (``dictionary.endpoint``) instead of the rule search; if it fails, the sentence that says why becomes the ``note`` and the rule search goes on.
    Raises DictionaryError for a unit that there is not or that fires too seldom.
    """
    found, given = concepts(model), units(model, source, layer, like)
    acts, looked = given.column(index), halves(found)
    name = f"{given.one} {index} of the {given.name}"
    if not len(judged(found, one := csc_array(acts[:, None]))):
        raise DictionaryError(f"{name} fires at fewer than {LIVE} tokens of either half of the sentences: there is nothing to explain.")  # fmt: skip
    weights = examples(found, one, looked, sample, seed)
    rule = search(found, one, weights)[0][0]
    levels, note = predict(found, rule, acts, weights.toarray()[:, 0]), ""
    if explainer is not None:
        from mi_workshop.dictionary.endpoint import explained

        try:
            return explained(explainer, name, found, acts, looked, weights, levels, seed)
        except ValueError as error:
            note = f"{error} The rule search goes on."
    return Interpretation(
        name, str(rule), "rule search", rule, score(levels[~looked], acts[~looked]), int((~looked).sum()),
        cases(found, acts, levels, ~looked, seed), note=note,
    )  # fmt: skip


def cases(found: Concepts, acts: np.ndarray, levels: np.ndarray, where: np.ndarray, seed: int = 0) -> list[Case]:
    """Sentences to look at: the two strongest, one of each range below, the two tokens where truth and prediction differ most, one silent."""
    text, rng = found.text, np.random.default_rng(seed)
    true = np.ceil(10 * acts / max(acts.max(), 1e-8)).astype(int)
    mixed = rng.permutation(np.flatnonzero(where))
    strongest = mixed[np.argsort(-acts[mixed], kind="stable")]
    fires = np.zeros(len(text.sentences), bool)
    fires[text.sentence[acts > 0]] = True
    miss = np.abs(true - levels)
    groups: list[tuple[str, np.ndarray, int]] = [("strongest", strongest[acts[strongest] > 0], 2)]
    for low, high in zip(BINS[1:], BINS, strict=False):
        share = acts[mixed] / max(acts.max(), 1e-8)
        groups.append((f"{low:.0%} to {high:.0%}", mixed[(share > 0) & (share >= low) & (share < high)], 1))
    groups.append(("worst error", mixed[np.argsort(-miss[mixed], kind="stable")][: int((miss[where] > 0).sum())], 2))
    groups.append(("silent", mixed[~fires[text.sentence[mixed]]], 1))
    out: list[Case] = []
    seen: set[int] = set()
    for group, tokens, count in groups:
        for t in tokens.tolist():
            if (s := int(text.sentence[t])) in seen or not count:
                continue
            seen.add(s)
            count -= 1
            span = slice(text.start[s], text.start[s] + len(text.words[s]))
            predicted = levels[span].astype(int).tolist()
            out.append(Case(text.words[s], true[span].tolist(), predicted, t - int(text.start[s]), group))
    return out
