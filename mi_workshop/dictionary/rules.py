"""Rules made of a world's concepts: what a person, or a search, says of when a unit fires; searched for all units at once.

A rule has at most three literals (a concept or its negation), joined by *and* or *or* and read from the left:
``(“Texas or a city of it” or a capital) and not a title``. The search replaces the large model of automated interpretation (Bills et al. 2023,
"Language models can explain neurons in language models"): it sees examples of half of the sentences, and nothing else.

What it maximises, over the tokens of the example sentences: the correlation of "the rule holds" (0 or 1) with the activation, less ``PRICE`` for
each literal after the first. A beam of ``BEAM`` rules is kept for each unit. Each example token stands for as many tokens as it was drawn from:
for those of its range of activation (``range``), or, where only the top is looked at, for all that fire (``top``).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.sparse import csc_array, csr_array

from mi_workshop.circuits.feature_page import BINS
from mi_workshop.concepts import Concepts
from mi_workshop.dictionary.core import DictionaryError

MOST, PRICE, BEAM = 3, 0.01, 6
TOP, EACH, SILENT = (
    10,
    6,
    40,
)  # example sentences: of the strongest tokens, of tokens from each of five ranges, and silent ones
SAMPLES = ("range", "top")
JOINS = (("and", False), ("and", True), ("or", False), ("or", True))
OPEN, CLOSE = "( “", ") ”"  # skipped before and after a name
Literal = tuple[str, bool, str]


@dataclass(frozen=True)
class Rule:
    """``literals``: (how it is joined to those before, ``and`` or ``or``, whether it is negated, the concept's name)."""

    literals: tuple[Literal, ...]

    def __str__(self) -> str:
        joined: set[str] = set()
        said = ""
        for join, negated, name in self.literals:
            if said:
                said = f"({said})" if joined - {join} else said
                joined.add(join)
                said += f" {join} "
            quoted = len(self.literals) > 1 and any(f" {word} " in name for word in ("or", "and"))
            said += "not " * negated + (f"“{name}”" if quoted else name)
        return said

    def holds(self, found: Concepts) -> np.ndarray:
        """At which tokens of the text, booleans [token]. Raises ValueError for a concept that there is not."""
        out = np.zeros(len(found.text.ids), bool)
        for i, (join, negated, name) in enumerate(self.literals):
            here = found.where(name) ^ negated
            out = here if i == 0 else out & here if join == "and" else out | here
        return out

    @staticmethod
    def parse(said: str, found: Concepts) -> Rule:
        """A rule from words such as "Texas or a city of it and not a capital", the longest names first; brackets and “” are skipped, and it is read
        from the left. Raises ValueError with concepts that are alike where it is none."""
        names = {n.lower(): n for n in found.index}
        rest, literals, join = said.strip(), [], "and"
        while True:
            rest = rest.lstrip(OPEN)
            if negated := rest.lower().startswith("not "):
                rest = rest[4:].lstrip(OPEN)
            low = rest.lower()
            ends = {n: low[len(n) :].lstrip(CLOSE) for n in names if low.startswith(n)}
            fits = [n for n, end in ends.items() if not end or end.startswith(("and ", "or "))]
            if not fits:
                raise ValueError(_unknown(rest, found))
            name = max(fits, key=len)
            literals.append((join, negated, names[name]))
            if len(literals) > MOST:
                raise ValueError(f"A rule has at most {MOST} concepts.")
            if not (rest := rest[len(name) :].lstrip(CLOSE)):
                return Rule(tuple(literals))
            join, _, rest = rest.partition(" ")
            join = join.lower()


def _unknown(said: str, found: Concepts) -> str:
    words = [w.strip(",.'\"()").lower() for w in said.split()[:12]]
    match = [sum(w in n.lower() for w in words if len(w) > 2) for n in found.table.name]
    near = [found.table.name[i] for i in np.argsort(match, kind="stable")[::-1][:4] if match[i]]
    alike = f"; there are {', '.join(map(repr, near))}" if near else ""
    return f"{said[:60]!r} is no concept, nor concepts joined by and, or, not{alike}."


def halves(found: Concepts, seed: int = 0) -> np.ndarray:
    """Which tokens belong to the sentences that are looked at; the others are held out. Booleans [token]."""
    chosen = np.random.default_rng(seed).permutation(len(found.text.sentences)) % 2 == 0
    return chosen[found.text.sentence]


def examples(found: Concepts, acts: csc_array, looked: np.ndarray, sample: str = "range", seed: int = 0) -> csc_array:
    """How many tokens each example token stands for [token, unit]; 0 where it is no example.

    ``range``: the sentences of the ``TOP`` strongest tokens and of ``EACH`` tokens drawn from each fifth of the range; ``top``: as many, all of the
    strongest; with both, ``SILENT`` sentences in which the unit is silent.
    """
    if sample not in SAMPLES:
        raise DictionaryError(f"There is no sample {sample!r}; choose {' or '.join(map(repr, SAMPLES))}.")
    text, rng = found.text, np.random.default_rng(seed)
    of, n = text.sentence, len(text.sentences)
    length = np.diff(np.append(text.start, len(of)))
    open_to = np.flatnonzero(looked[text.start])
    total, rows, data, starts = int(looked.sum()), [], [], [0]
    for unit in range(acts.shape[1]):
        part = slice(acts.indptr[unit], acts.indptr[unit + 1])
        token, act = acts.indices[part], acts.data[part]
        keep = looked[token] & (act > 0)
        token, act = token[keep], act[keep]
        peak = act.max(initial=0)
        stratum = np.searchsorted(np.array(BINS[:-1][::-1]) * peak, act, side="right")  # 0 the weakest, 4 the strongest
        order = np.argsort(-act, kind="stable")
        if sample == "top":
            drawn, stratum = order[: TOP + EACH * len(BINS)], np.zeros(len(act), int)
        else:
            mixed = rng.permutation(len(act))
            drawn = np.concatenate([order[:TOP], *(mixed[stratum[mixed] == s][:EACH] for s in range(len(BINS)))])
        fires = np.zeros(n, bool)
        fires[of[token]] = True
        silent = open_to[~fires[open_to]]
        silent = rng.choice(silent, min(SILENT, len(silent)), replace=False)
        sentences = np.concatenate([np.unique(of[token[drawn]]), np.sort(silent)])
        size = length[sentences]
        row = np.repeat(text.start[sentences] - np.cumsum(size) + size, size) + np.arange(size.sum())
        kind = np.where(fires[of[row]], 5, 6)
        lit = np.full(len(of), -1, np.int8)
        lit[token] = stratum
        kind = np.where(lit[row] >= 0, lit[row], kind)
        there = np.zeros(7)
        there[:5] = np.bincount(stratum, minlength=5)
        there[5] = length[fires].sum() - len(token)
        there[6] = total - there[:6].sum()
        each = there / np.maximum(np.bincount(kind, minlength=7), 1)
        sort = np.argsort(row)
        rows.append(row[sort])
        data.append(each[kind][sort])
        starts.append(starts[-1] + len(row))
    return csc_array((np.concatenate(data), np.concatenate(rows), starts), shape=acts.shape)


@lru_cache(maxsize=2)
def _truth(found: Concepts) -> np.ndarray:
    """Which concept holds where [token, concept], as one byte each."""
    return np.asfortranarray(found.holds.astype(bool).toarray(order="F"))


def search(
    found: Concepts, acts: csc_array, weights: csc_array, most: int = MOST, only: np.ndarray | None = None
) -> tuple[list[Rule], np.ndarray]:
    """The best rule for each unit, and its correlation with the activation over the weighted tokens [unit] (0 for a unit that never varies there).

    ``acts`` and ``weights`` [token, unit]; ``only``: which concepts may be used, booleans.
    """
    concept = np.arange(len(found)) if only is None else np.flatnonzero(only)
    holds, truth = found.holds, _truth(found)
    if only is not None:
        holds, truth = csc_array(holds[:, concept]), truth[:, concept]
    rules, reached = [], []
    for start in range(0, acts.shape[1], 256):
        block = slice(start, start + 256)
        for literals, value in _search(
            truth, csr_array(holds), csc_array(acts[:, block]), csc_array(weights[:, block]), most
        ):
            rules.append(Rule(tuple((*JOINS[j], found.table.name[concept[c]]) for j, c in literals)))
            reached.append(value)
    return rules, np.array(reached)


def _search(
    truth: np.ndarray, holds: csr_array, acts: csc_array, weights: csc_array, most: int
) -> list[tuple[list[tuple[int, int]], float]]:
    """For each unit the literals, as (which of ``JOINS``, concept), and the correlation. Units that no literal more could pay for drop out."""
    n_units = weights.shape[1]
    unit = np.repeat(np.arange(n_units), np.diff(weights.indptr))  # of each entry
    token, w = weights.indices, weights.data
    a = np.asarray(acts[token, unit]).ravel()

    def per_unit(values: np.ndarray) -> np.ndarray:
        return np.bincount(unit, values, n_units)[:, None]

    def per_concept(values: np.ndarray) -> np.ndarray:  # [unit, concept]
        kept = values != 0
        ends = np.concatenate([[0], np.cumsum(np.bincount(unit[kept], minlength=n_units))])
        return (csr_array((values[kept], token[kept], ends), shape=(n_units, len(truth))) @ holds).toarray()

    def totals() -> tuple[np.ndarray, ...]:
        tw, ta = per_unit(w), per_unit(w * a)
        return tw, ta, tw * per_unit(w * a * a) - ta**2

    def correlation(sw: np.ndarray, sa: np.ndarray) -> np.ndarray:
        base = spread * sw * (tw - sw)
        return np.where(base > 1e-9, (tw * sa - ta * sw) / np.sqrt(np.maximum(base, 1e-9)), 0)

    def strongest(offers: np.ndarray) -> np.ndarray:  # [unit, beam], best first
        best = np.argpartition(-offers, min(BEAM, offers.shape[1]) - 1, axis=1)[:, :BEAM]
        order = np.argsort(-np.take_along_axis(offers, best, 1), axis=1, kind="stable")
        return np.take_along_axis(best, order, 1)

    tw, ta, spread = totals()
    sw, sa = per_concept(w), per_concept(w * a)
    offers = correlation(sw, sa)
    offers = np.concatenate([offers, -offers], 1)
    best = strongest(offers)
    chain = np.stack([best // sw.shape[1], best % sw.shape[1]], -1)[
        :, :, None
    ]  # [unit, beam, literal, (join, concept)]
    values = truth[token[:, None], chain[unit, :, 0, 1]] ^ (chain[unit, :, 0, 0] == 1)  # [entry, beam]
    top = np.take_along_axis(offers, best, 1)[:, 0]
    kept, left = [[tuple(beam[0][0])] for beam in chain.tolist()], np.arange(n_units)
    for n in range(1, most):
        go = (top[left] > 0) & (top[left] < 1 - n * PRICE)
        if not go.any():
            break
        here = go[unit]
        left, chain, values, sw, sa = left[go], chain[go], values[here], sw[go], sa[go]
        unit, token, w, a, n_units = (np.cumsum(go) - 1)[unit[here]], token[here], w[here], a[here], int(go.sum())
        tw, ta, spread = totals()
        found = []
        for b, value in enumerate(values.T):
            bw, ba = per_concept(w * value), per_concept(w * a * value)
            rw, ra = per_unit(w * value), per_unit(w * a * value)
            for how, (x, y) in enumerate(((bw, ba), (rw - bw, ra - ba), (rw + sw - bw, ra + sa - ba), (tw - sw + bw, ta - sa + ba))):  # fmt: skip
                c = strongest(score := correlation(x, y))
                found.append((np.take_along_axis(score, c, 1), np.full_like(c, b), np.full_like(c, how), c))
        offers, before, j, c = (np.concatenate(part, 1) for part in zip(*found, strict=True))
        best = strongest(offers)
        offers, before, j, c = (np.take_along_axis(part, best, 1) for part in (offers, before, j, c))
        so_far = np.take_along_axis(chain, before[:, :, None, None], 1)
        chain = np.concatenate([so_far, np.stack([j, c], -1)[:, :, None]], 2)
        old = np.take_along_axis(values, before[unit], 1)
        new = truth[token[:, None], c[unit]] ^ (j[unit] % 2 == 1)
        values = np.where(j[unit] < 2, old & new, old | new)
        for i in np.flatnonzero(offers[:, 0] - PRICE * n > top[left] + 1e-9):
            top[left[i]] = offers[i, 0] - PRICE * n
            kept[left[i]] = [tuple(literal) for literal in chain[i, 0].tolist()]
    return [(rule, float(top[u] + PRICE * (len(rule) - 1))) for u, rule in enumerate(kept)]
