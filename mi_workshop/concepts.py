"""What Atlas is about, token by token: every concept that could be meant by a feature, and where in the training text it holds.

A concept may be read off the token and what stands before it, or (``next token``) be what has to be said next. Concepts
that hold at the same tokens are one: no activation could tell them apart; the first one's name stands, the others are in ``also``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd
from scipy.sparse import csc_array, lil_array

from mi_workshop.circuits.corpus import Text, training_text
from mi_workshop.models import Model
from mi_workshop.worlds.atlas import GREETINGS, PATTERNS, SURNAMES, TITLES, VERBS, Atlas

FEW = 3  # tokens at which a concept holds, at least


@dataclass(frozen=True, eq=False)
class Concepts:
    """``table``: one row per concept, ``name, family, tokens`` (at how many it holds) and ``also``; ``holds`` [token, concept] says where,
    token by token of ``text``."""

    table: pd.DataFrame
    holds: csc_array
    text: Text

    def __len__(self) -> int:
        return len(self.table)

    def where(self, name: str) -> np.ndarray:
        """At which tokens a concept holds, booleans [token]. Raises ValueError for a name that there is not."""
        found = np.flatnonzero((self.table.name == name) | self.table.also.str.split("; ").map(lambda a: name in a))
        if not len(found):
            near = [n for n in self.table.name if name.lower() in n.lower()][:3] or self.table.name[:3].tolist()
            raise ValueError(f"There is no concept {name!r}; there are, for example, {', '.join(map(repr, near))}.")
        return self.holds[:, [found[0]]].toarray()[:, 0].astype(bool)


@lru_cache(maxsize=4)
def concepts(model: Model) -> Concepts:
    """The concepts of an Atlas model's world. Raises ``FeatureError`` (a ModelError) for a model whose training text is not known."""
    text = training_text(model)
    assert model.world is not None
    token = {word: i for i, word in enumerate(model.world.vocabulary)}
    names: list[str] = []
    families: list[str] = []
    rows: list[np.ndarray] = []
    also: list[list[str]] = []
    seen: dict[bytes, int] = {}
    for family, name, holds in _all(model.world, text, token):
        where = np.flatnonzero(holds)
        if not FEW <= len(where) < len(holds):
            continue
        if (key := where.tobytes()) in seen:
            also[seen[key]].append(name)
            continue
        seen[key] = len(names)
        names.append(name)
        families.append(family)
        rows.append(where)
        also.append([])
    starts = np.concatenate([[0], np.cumsum([len(r) for r in rows])])
    holds = csc_array((np.ones(starts[-1], np.float32), np.concatenate(rows), starts), shape=(len(text.ids), len(rows)))
    table = pd.DataFrame(
        {"name": names, "family": families, "tokens": np.diff(starts), "also": ["; ".join(a) for a in also]}
    )
    return Concepts(table, holds, text)


def holds_in(model: Model, text: Text) -> csc_array:
    """Where the concepts of ``concepts(model)`` hold in another text [token, concept]. A concept that is several (``also``) is its first name."""
    known = {name: i for i, name in enumerate(concepts(model).table.name)}
    assert model.world is not None
    token = {word: i for i, word in enumerate(model.world.vocabulary)}
    out = lil_array((len(text.ids), len(known)), dtype=np.float32)
    for _, name, holds in _all(model.world, text, token):
        if name in known:
            out[np.flatnonzero(holds), known[name]] = 1
    return out.tocsc()


def _all(world: Atlas, text: Text, token: dict[str, int]) -> Iterator[tuple[str, str, np.ndarray]]:
    """Family, name and booleans [token], the plainest first."""

    def among(words: object, ids: np.ndarray = text.ids) -> np.ndarray:
        return np.isin(ids, [token[str(w)] for w in words])  # type: ignore[attr-defined]

    def since(holds: np.ndarray) -> np.ndarray:
        """From a token at which it holds to the end of its sentence."""
        so_far = np.cumsum(holds)
        return np.asarray(so_far - (so_far - holds)[text.start][text.sentence] > 0)

    for i in np.unique(text.ids):
        yield "token", f"the token {world.vocabulary[i]!r}", text.ids == i
    kinds = {
        "a state": [p.name for p in world.places.values() if p.kind == "state"],
        "a country": [p.name for p in world.places.values() if p.kind == "country"],
        "a capital": [p.attributes["capital"] for p in world.places.values()],
        "a city": list(world.home),
        "a place": [*world.places, *world.home],
        "a title": TITLES, "a surname": SURNAMES, "a verb": VERBS, "a language": GREETINGS,
        "what is asked": {a for p in world.places.values() for a in p.attributes} | {"opposite", "contrario", "contraire"},
    }  # fmt: skip
    for language, table in world.opposites.items():
        kinds[f"an adjective in {language}"] = table
    for name, words in kinds.items():
        yield "kind of token", name, among(words)
    groups: dict[str, list[str]] = {}
    for place in world.places.values():
        yield "place", f"{place.name} or a city of it", among([place.name, *place.all_cities])
        for attribute in ("region", "continent"):
            if attribute in place.attributes:
                groups.setdefault(place.attributes[attribute], []).extend([place.name, *place.all_cities])
    for name, words in groups.items():
        yield "region", f"a place in {name}", among(words)
    us = [w for p in world.places.values() if p.kind == "state" for w in (p.name, *p.all_cities)]
    yield "region", "a place in the United States", among(us)
    for place in world.places.values():
        yield "place read", f"{place.name} or a city of it has been read", since(among([place.name, *place.all_cities]))
    for word in sorted(kinds["what is asked"]):
        yield "asked", f"{word!r} has been read", since(among([word]))
    words = np.array(world.vocabulary)[text.ids]
    at = np.arange(len(words)) - text.start[text.sentence]
    form = np.array([s.kind for s in text.sentences])[text.sentence]
    for kind, pattern in PATTERNS.items():
        known = _known_from(kind, pattern)
        yield "form", f"a sentence of the form {pattern!r}, known by now", (form == kind) & (at >= known)
    yield "form", "a passage about people", form == "passage"
    for i in range(12):
        yield "position", f"the token at position {i + 1}", at == i
    last = np.append(np.diff(text.sentence) > 0, True)
    yield "position", "the last token before the answer", last
    before: list[bool] = []
    for sentence in text.words:
        read: set[str] = set()
        for word in sentence:
            before.append(word in read)
            read.add(word)
    yield "seen", "a token that stood in the sentence before", np.array(before)
    for i in np.unique(text.following[last]):
        yield "next token", f"the answer is {world.vocabulary[i]!r}", last & (text.following == i)
    for name, answers in kinds.items():
        yield "kind of next token", f"the answer is {name}", last & among(answers, text.following)
    for attribute in sorted({a for p in world.places.values() for a in p.attributes} - {"capital"}):
        values = {p.attributes[attribute] for p in world.places.values() if attribute in p.attributes}
        yield "kind of next token", f"the answer is the {attribute} of a place", last & among(values, text.following)


def _known_from(kind: str, pattern: str) -> int:
    """The first position at which no other pattern is possible."""
    words = pattern.split()
    others = [p.split() for k, p in PATTERNS.items() if k != kind]
    return next((i for i in range(len(words)) if all(o[: i + 1] != words[: i + 1] for o in others)), len(words))
