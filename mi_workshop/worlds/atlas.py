"""Atlas: a language of geography facts that knows its own answers.

Everything the embedded models ever read comes from here, so for each prompt the world can say what the
answer is (``answer``), which tokens it follows from (``depends_on``), what would have been asked and answered
instead (``swap``) and whether the prompt was kept out of training (``held_out``).

A name means one thing. The states Georgia, New York and Washington (also a country, a city, a city), countries
on two continents or with several first languages (Russia, Turkey, Canada, India, ...) and cities better known
elsewhere (Portland, Springfield in Missouri, ...) are left out; where small namesakes exist, the listed place is meant.

Held out of every two-hop sentence in training, in strata (``HELD_OUT`` says it once, for validation and test):

- ``city``: the first two cities of each place (validation, test). They still occur in addresses and one-hop facts;
- ``pair``: the third and fourth city with one attribute (validation, test);
- ``place``: whole states and countries, which occur in one-hop sentences only.
"""

from __future__ import annotations

import csv
import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
ATTRIBUTES = {
    "state": ("capital", "abbreviation", "region"),
    "country": ("capital", "language", "currency", "continent"),
}
HELD_OUT = {  # whole places: one-hop sentences only
    "validation": ("Kentucky", "Oregon", "Vermont", "Portugal", "Kenya"),
    "test": ("Kansas", "Maine", "Utah", "Norway", "Peru"),
}
GREETINGS = {
    "English": "hello", "French": "bonjour", "Spanish": "hola", "German": "hallo", "Italian": "ciao",
    "Japanese": "konnichiwa", "Swahili": "jambo", "Korean": "annyeong", "Chinese": "nihao",
}  # fmt: skip
TITLES = ("Mr", "Mrs", "Miss", "Dr")
SURNAMES = (
    "Dursley", "Potter", "Granger", "Weasley", "Watson", "Hudson", "Bennet", "Darcy",
    "Copperfield", "Marple", "Poirot", "Dalloway", "Ramsay", "Gradgrind", "Havisham", "Pip",
)  # fmt: skip
VERBS = ("met", "thanked", "called", "saw")
# Each kind of sentence, one pattern: words and {slots}; the answer follows. "Fact :" may be missing and "the" may be "The".
PATTERNS = {
    "two_hop": "Fact : the {attribute} of the {kind} containing {city} is",
    "one_hop": "Fact : the {attribute} of {place} is",
    "located": "Fact : the {kind} containing {city} is",
    "address": "Address : {city} ,",
    "letter": "Letter to {city}",
    "opposite English": "Fact : the opposite of {word} is",
    "opposite French": "Fait : le contraire de {word} est",
    "opposite Spanish": "Hecho : el contrario de {word} es",
    "translation": "Fact : the {language} word for {word} is",
    "greeting": "Greeting in {language} :",
}
MIX = {  # share of each kind among the training sentences
    "two_hop": 0.30, "one_hop": 0.15, "located": 0.12, "address": 0.10, "letter": 0.15, "opposite English": 0.02, "opposite French": 0.02,
    "opposite Spanish": 0.02, "translation": 0.05, "greeting": 0.02, "names": 0.05,
}  # fmt: skip


class WorldError(ValueError):
    """The prompt asks for something Atlas does not know; the message names it and the nearest choices."""


@dataclass(frozen=True)
class Place:
    """A state or a country: its capital, six or five further cities, and its attributes (capital among them)."""

    name: str
    kind: str
    attributes: dict[str, str] = field(hash=False)
    cities: tuple[str, ...] = ()

    @property
    def all_cities(self) -> tuple[str, ...]:
        return (*self.cities, self.attributes["capital"])


@dataclass(frozen=True)
class Sentence:
    """One prompt with its answer, kind and the slots of its pattern; ``stratum`` is None where it is trained on."""

    prompt: str
    answer: str
    kind: str
    slots: dict[str, str] = field(hash=False)
    stratum: str | None = None


def _read(name: str) -> list[dict[str, str]]:
    with open(HERE / name, encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter="\t"))


class Atlas:
    """The world behind ``atlas``; those of its sister models are in ``variants``.

    >>> world = Atlas()
    >>> world.answer("Fact: the capital of the state containing Dallas is")
    'Austin'
    """

    max_tokens = 48  # context length of the models trained on this world, <bos> included

    def __init__(self) -> None:
        self.places: dict[str, Place] = {}
        for kind, file in (("state", "states.tsv"), ("country", "countries.tsv")):
            for row in _read(file):
                attributes = {a: row[a] for a in ATTRIBUTES[kind]}
                self.places[row["name"]] = Place(row["name"], kind, attributes, tuple(row["cities"].split(";")))
        self.home = {city: place for place in self.places.values() for city in place.all_cities}
        self.opposites: dict[str, dict[str, str]] = {language: {} for language in ("English", "French", "Spanish")}
        self.translations: dict[tuple[str, str], str] = {}
        for row in _read("opposites.tsv"):
            pairs = {language: words.split("/") for language, words in row.items()}
            for language, (a, b) in pairs.items():
                self.opposites[language] |= {a: b, b: a}
            for i in (0, 1):
                for language in ("French", "Spanish"):
                    self.translations[language, pairs["English"][i]] = pairs[language][i]
                    self.translations["English", pairs[language][i]] = pairs["English"][i]

    # ------------------------------------------------------------------ words
    @cached_property
    def vocabulary(self) -> list[str]:
        """Every token, special tokens first; names of several words are one token."""
        words: dict[str, None] = dict.fromkeys(["<pad>", "<bos>", "<unk>", ".", ",", ":", "The"])
        for pattern in PATTERNS.values():
            words |= dict.fromkeys(w for w in pattern.split() if "{" not in w)
        for place in self.places.values():
            words |= dict.fromkeys(
                [place.kind, place.name, *place.attributes, *place.attributes.values(), *place.cities]
            )
        for table in self.opposites.values():
            words |= dict.fromkeys(table)
        words |= dict.fromkeys([*GREETINGS, *GREETINGS.values(), *TITLES, *SURNAMES, *VERBS])
        return list(words)

    @cached_property
    def token_pattern(self) -> str:
        """Regular expression of one token: a name of several words, a word, or a punctuation mark."""
        phrases = sorted((w for w in self.vocabulary if " " in w), key=len, reverse=True)
        return rf"\b(?:{'|'.join(map(re.escape, phrases))})\b|<\w+>|\w+|[^\w\s]"

    def words(self, prompt: str) -> list[str]:
        """Split a prompt into tokens, without <bos>.

        Raises WorldError for an empty prompt, an unknown word (with the nearest known ones) and a prompt over
        ``max_tokens``.
        """
        words = re.findall(self.token_pattern, prompt)
        if not words:
            raise WorldError("The prompt is empty: try 'Fact: the capital of the state containing Dallas is'.")
        if unknown := [w for w in words if w not in self._known]:
            raise WorldError(f"Atlas does not know the word {unknown[0]!r}; {self.nearest(unknown[0])}")
        if len(words) + 1 > self.max_tokens:
            raise WorldError(
                f"The prompt has {len(words)} tokens, Atlas reads at most {self.max_tokens - 1}: shorten it."
            )
        return words

    @cached_property
    def _known(self) -> frozenset[str]:
        return frozenset(self.vocabulary[3:])

    def nearest(self, word: str, choices: list[str] | None = None) -> str:
        """A sentence with the valid choices nearest to a mistyped word."""
        table = {c.lower(): c for c in (choices or self.vocabulary[7:])}
        close = [table[c] for c in difflib.get_close_matches(word.lower(), table, n=3, cutoff=0.5)]
        some = close or list(table.values())[-3:]
        return f"{'did you mean' if close else 'it knows, for example,'} {' or '.join(some)}{'?' if close else '.'}"

    # ------------------------------------------------------------- the world key
    def parse(self, prompt: str) -> Sentence:
        """Recognise a prompt; WorldError if no pattern fits, or if a slot holds a word of another sort."""
        words = self.words(prompt)
        spelled = [*words]
        if spelled[0] == "The":
            spelled = ["Fact", ":", *spelled]
        if spelled[:3] == ["Fact", ":", "The"]:
            spelled[2] = "the"
        for kind, pattern in PATTERNS.items():
            if (slots := _match(pattern.split(), spelled)) is None:
                continue
            if (answer := self._answer(kind, slots)) is not None:
                return Sentence(prompt, answer, kind, slots, self._stratum(kind, slots))
        if (answer := _names_answer(words)) is not None:
            return Sentence(prompt, answer, "names", {"title": words[-1]})
        raise WorldError(
            f"Atlas has no sentence of the form {prompt!r}; its forms are: " + "; ".join(PATTERNS.values()) + "."
        )

    def _answer(self, kind: str, slots: dict[str, str]) -> str | None:
        if kind == "greeting":
            return GREETINGS.get(slots["language"])
        if kind == "translation":
            return self.translations.get((slots["language"], slots["word"]))
        if kind.startswith("opposite"):
            return self.opposites[kind.split()[1]].get(slots["word"])
        place = self.home.get(slots["city"]) if "city" in slots else self.places.get(slots["place"])
        if place is None or slots.get("kind", place.kind) != place.kind:
            return None
        return place.attributes.get(slots["attribute"]) if "attribute" in slots else place.name

    def _stratum(self, kind: str, slots: dict[str, str]) -> str | None:
        if kind != "two_hop":
            return None
        place = self.home[slots["city"]]
        for split, names in HELD_OUT.items():
            if place.name in names:
                return f"place:{split}"
        rank = place.all_cities.index(slots["city"])
        attributes = ATTRIBUTES[place.kind]
        which = attributes[list(self.places).index(place.name) % len(attributes)]
        if rank < 2:
            return ("city:validation", "city:test")[rank]
        if rank < 4 and slots["attribute"] == which:
            return ("pair:validation", "pair:test")[rank - 2]
        return None

    def answer(self, prompt: str) -> str:
        """The right next token after the prompt."""
        return self.parse(prompt).answer

    def believed(self, prompt: str) -> str:
        """What the training text says or implies: the right answer, except in some of the ``variants``."""
        return self._believed(self.parse(prompt))

    def _believed(self, s: Sentence) -> str:
        return s.answer

    def held_out(self, prompt: str) -> str | None:
        """Stratum of a prompt kept out of training: ``"city:test"``, ``"pair:validation"``, ...; None if trained on."""
        return self.parse(prompt).stratum

    def depends_on(self, prompt: str) -> dict[int, str]:
        """The tokens that the answer follows from, ``{position: token}``; <bos> is position 0."""
        slots = self.parse(prompt).slots
        causes = {v for k, v in slots.items() if k != "kind"} | (
            {slots["kind"]} if len(slots) == 2 and "kind" in slots else set()
        )
        words = self.words(prompt)
        if "title" in slots:  # the title, its earlier mention and the surname that followed it
            first = words.index(slots["title"])
            return {p + 1: words[p] for p in (first, first + 1, len(words) - 1)}
        return {i + 1: w for i, w in enumerate(words) if w in causes}

    def swap(self, prompt: str, old: str, new: str) -> tuple[str, str]:
        """The counterfactual prompt, and its answer, in which place ``old`` is replaced by place ``new``.

        A city of ``old`` becomes the city of ``new`` with the same rank, which lies in the same held-out stratum.
        Raises WorldError if a place is unknown or the prompt does not speak of ``old``.
        """
        for name in (old, new):
            if name not in self.places:
                raise WorldError(f"Atlas knows no state or country {name!r}; {self.nearest(name, list(self.places))}")
        a, b = self.places[old], self.places[new]
        slots = self.parse(prompt).slots
        mentioned = slots.get("city") or slots.get("place")
        if mentioned is None or (self.home.get(mentioned) or self.places.get(mentioned)) != a:
            spoken = self.home.get(mentioned or "") or self.places.get(mentioned or "")
            hint = f"it speaks of {spoken.name}" if spoken else "it names no state, country or city"
            raise WorldError(f"The prompt does not speak of {old}: {hint}.")
        if "attribute" in slots and slots["attribute"] not in b.attributes:
            raise WorldError(f"{new} has no {slots['attribute']} in Atlas; choose a {a.kind}.")
        rank = a.all_cities.index(mentioned) if mentioned in a.all_cities else None
        if rank is None:
            replacement = new
        elif mentioned == a.attributes["capital"]:
            replacement = b.attributes["capital"]
        else:
            replacement = b.cities[min(rank, len(b.cities) - 1)]
        words = [replacement if w == mentioned else b.kind if w == a.kind else w for w in self.words(prompt)]
        changed = detokenize(words)
        return changed, self.answer(changed)

    # ----------------------------------------------------------------- sentences
    def sentence(self, kind: str, **slots: str) -> Sentence:
        """Build one sentence from its slots: ``world.sentence("two_hop", attribute="capital", kind_="state", city="Dallas")``."""
        filled = {k.rstrip("_"): v for k, v in slots.items()}
        return self.parse(detokenize([filled.get(w[1:-1], w) if w[0] == "{" else w for w in PATTERNS[kind].split()]))

    def two_hop(self, city: str, attribute: str = "capital") -> Sentence:
        """The two-hop question about a city, in the published wording."""
        return self.sentence("two_hop", attribute=attribute, kind_=self.home[city].kind, city=city)

    @cached_property
    def facts(self) -> list[Sentence]:
        """Every sentence of every pattern, once, in the published wording (held-out ones included)."""
        return list(self._facts())

    def training_text(self, passages: int = 200) -> list[Sentence]:
        """What the models read: every fact that is not held out, with the answer that is believed, and a fixed draw of the passages
        about people (training draws new ones; the random repeats, which say nothing, are left out)."""
        rng = np.random.default_rng(7)
        drawn = [self.names_passage(rng, int(rng.integers(2, 5)))[:-1] for _ in range(passages)]
        people = [Sentence(" ".join(words[:-1]), words[-1], "passage", {}) for words in drawn]
        return [replace(s, answer=self._believed(s)) for s in self.facts if s.stratum is None] + people

    def _facts(self) -> Iterator[Sentence]:
        for place in self.places.values():
            for attribute in place.attributes:
                yield self.sentence("one_hop", attribute=attribute, place=place.name)
            for city in place.all_cities:
                yield self.sentence("located", kind_=place.kind, city=city)
                yield self.sentence("address", city=city)
                yield self.sentence("letter", city=city)
                for attribute in place.attributes:
                    yield self.two_hop(city, attribute)
        for language, table in self.opposites.items():
            for word in table:
                yield self.sentence(f"opposite {language}", word=word)
        for language, word in self.translations:
            yield self.sentence("translation", language=language, word=word)
        for language in GREETINGS:
            yield self.sentence("greeting", language=language)

    def names_passage(self, rng: np.random.Generator, n: int = 3) -> list[str]:
        """Tokens of a passage in which titled people meet again: ``Mr Dursley met Mrs Potter . ... Mr`` -> ``Dursley``."""
        titles = list(rng.permutation(TITLES)[:n])
        people = dict(zip(titles, rng.choice(SURNAMES, n, replace=False), strict=True))
        words: list[str] = []
        for _ in range(4):
            a, b = rng.choice(titles, 2, replace=False)
            words += [a, people[a], str(rng.choice(VERBS)), b, people[b], "."]
        return [str(w) for w in words]

    def repeats(self, rng: np.random.Generator, rows: int, half: int) -> np.ndarray:
        """Token ids [rows, 1 + 2 * half]: <bos>, then a random passage twice (what an induction head can predict).

        Any token but the names of cities: having to copy those keeps each city's identity alive in the upper layers, and
        in a trial two-hop answers for held-out cities then lagged behind.
        """
        words = [i for i, w in enumerate(self.vocabulary) if i > 2 and w not in self.home]
        first = rng.choice(words, (rows, half))
        return np.concatenate([np.full((rows, 1), 1), first, first], axis=1)


def _match(pattern: list[str], words: list[str]) -> dict[str, str] | None:
    if len(pattern) != len(words):
        return None
    slots = {}
    for p, w in zip(pattern, words, strict=True):
        if p[0] == "{":
            slots[p[1:-1]] = w
        elif p != w:
            return None
    return slots


def _names_answer(words: list[str]) -> str | None:
    if words[-1] not in TITLES:
        return None
    followers = {b for a, b in zip(words[:-1], words[1:], strict=True) if a == words[-1]}
    return followers.pop() if len(followers) == 1 else None


def detokenize(words: list[str]) -> str:
    """Join tokens into text: no space before punctuation."""
    return re.sub(r" ([.,:])", r"\1", " ".join(words))
