"""Reviews of films, and two sets of clinical notes, with planted evidence: each sentence speaks for one answer, for the other, or for none.

The rule is the same in all three. A sentence with an evidence word has the word's sign, turned round by each reversing word in it ("not good",
"denies fatigue", "hemoglobin is normal"); any other sentence has none. The answer is the sign of the sum over sentences. A bag of words cannot
follow it: about half of the evidence is turned round, reversing words stand in neutral sentences too, and a value ("low") is also said of
what does not matter.

The notes are wholly synthetic: sentences and rule were invented for this course, describe no patient and are not medical knowledge. They
stand where the debate on attention used two sets of hospital records that cannot be shared.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from mi_workshop.worlds.atlas import WorldError
from mi_workshop.worlds.passages import Passage, Passages, pick


class Evidence(Passages):
    """A world of sentences with planted evidence. ``signs``: of each evidence word; ``turns``: -1 for a word that turns it round, +1 for a word
    that stands in the place of one and leaves it. A slot's empty word is left out."""

    signs: ClassVar[dict[str, int]]
    turns: ClassVar[dict[str, int]]
    telling: ClassVar[tuple[str, ...]]  # sentences with evidence, as patterns with {slots}
    neutral: ClassVar[tuple[str, ...]]
    slots: ClassVar[dict[str, tuple[str, ...]]]
    max_tokens = 80

    def __init_subclass__(cls) -> None:
        fixed = [w for pattern in (*cls.telling, *cls.neutral) for w in pattern.split() if w[0] != "{"]
        filled = [w for words in cls.slots.values() for w in words if w]
        cls.vocabulary = tuple(dict.fromkeys(["<pad>", ".", *fixed, *filled]))

    def _sentence(self, rng: np.random.Generator, patterns: tuple[str, ...]) -> list[str]:
        words = [pick(rng, self.slots[w[1:-1]]) if w[0] == "{" else w for w in pick(rng, patterns).split()]
        return [*(w for w in words if w), "."]

    def _draw(self, rng: np.random.Generator) -> tuple[list[str], list[str]]:
        kinds = [self.telling] * int(rng.integers(1, 5)) + [self.neutral] * int(rng.integers(2, 6))
        return [w for i in rng.permutation(len(kinds)) for w in self._sentence(rng, kinds[i])], []

    def read(self, words: list[str], question: list[str]) -> Passage:
        evidence = {i: sign for where, sign in self._sentences(words) for i in where}
        total = sum(sign for _, sign in self._sentences(words))
        if total == 0:
            raise WorldError("The text has as much evidence for one answer as for the other, or none at all.")
        return Passage(tuple(words), self.classes[int(total > 0)], evidence)

    def _sentences(self, words: list[str]) -> list[tuple[list[int], int]]:
        """Positions of the words that matter, and the sign, of each sentence with evidence."""
        out, start = [], 0
        for end in [i for i, w in enumerate(words) if w == "."]:
            told = [i for i in range(start, end) if words[i] in self.signs]
            turning = [i for i in range(start, end) if words[i] in self.turns]
            if told:
                sign = np.prod([self.signs[words[i]] for i in told] + [self.turns[words[i]] for i in turning])
                out.append((sorted(told + turning), int(sign)))
            start = end + 1
        return out

    def signs_of_sentences(self, passage: Passage) -> list[int]:
        """The sign of each sentence with evidence; the sign of their sum decides the answer."""
        return [sign for _, sign in self._sentences(list(passage.words))]


GOOD = ("good", "great", "moving", "funny", "clever", "fresh", "brilliant", "charming")
BAD = ("bad", "dull", "boring", "weak", "silly", "clumsy", "awful", "tedious")


class Reviews(Evidence):
    """Reviews of films: negative or positive; "not", "never" and "hardly" turn a word round.

    >>> Reviews().parse("we saw it on a Monday. the plot was not good.").answer
    'negative'
    """

    classes = ("negative", "positive")
    signs: ClassVar = dict.fromkeys(GOOD, 1) | dict.fromkeys(BAD, -1)
    turns: ClassVar = {"not": -1, "never": -1, "hardly": -1, "really": 1, "often": 1}
    slots: ClassVar = {
        "part": ("plot", "acting", "music", "ending", "script", "camera", "story", "cast"),
        "turn": (*turns, "", ""), "word": GOOD + BAD, "who": ("I", "we", "they"),
        "day": ("Monday", "Friday", "Sunday"), "place": ("Paris", "Berlin", "London"),
    }  # fmt: skip
    telling: ClassVar = ("the {part} was {turn} {word}", "{who} found the {part} {turn} {word}")
    neutral: ClassVar = (
        "{who} saw it on a {day}", "it was filmed in {place}", "{who} {turn} read the book", "the {part} was {turn} from {place}",
        "it was {turn} shown on a {day}", "{who} went with a friend from {place}",
    )  # fmt: skip
    _groups: ClassVar = tuple(tuple(w for w in words if w) for words in slots.values())


def _notes(findings: tuple[str, ...], tests: tuple[str, ...], bad: str) -> dict[str, tuple[str, ...]]:
    """The slots of a set of notes: ``findings`` reported or denied, ``tests`` that are ``bad`` or normal, and what does not matter."""
    return {
        "says": ("reports", "denies"), "finding": findings, "complaint": ("cough", "headache", "itching", "earache"),
        "level": (bad, "normal"), "test": tests, "other": ("sodium", "potassium", "chloride", "calcium"),
        "day": ("Monday", "Friday", "Sunday"), "relative": ("daughter", "husband", "sister"),
    }  # fmt: skip


class Anemia(Evidence):
    """Invented notes: do the findings speak for anemia? Wholly synthetic, no medical knowledge.

    >>> Anemia().parse("patient denies cough. hemoglobin is low.").answer
    'anemic'
    """

    classes = ("not anemic", "anemic")
    slots: ClassVar = _notes(
        ("fatigue", "pallor", "dizziness", "breathlessness"), ("hemoglobin", "hematocrit", "ferritin", "iron"), "low"
    )
    signs: ClassVar = dict.fromkeys(slots["finding"] + slots["test"], 1)
    turns: ClassVar = {"reports": 1, "denies": -1, "low": 1, "normal": -1}
    telling: ClassVar = ("patient {says} {finding}", "{test} is {level}")
    neutral: ClassVar = (
        "patient {says} {complaint}", "{other} is {level}", "lives with {relative}", "follow up on {day}",
    )  # fmt: skip
    _groups: ClassVar = (
        slots["says"], slots["level"], slots["finding"] + slots["complaint"], slots["test"] + slots["other"], slots["day"], slots["relative"],
    )  # fmt: skip


class Diabetes(Evidence):
    """Invented notes: do the findings speak for diabetes? Wholly synthetic, no medical knowledge.

    >>> Diabetes().parse("glucose is normal. follow up on Monday.").answer
    'not diabetic'
    """

    classes = ("not diabetic", "diabetic")
    slots: ClassVar = _notes(
        ("thirst", "polyuria", "numbness", "hunger"), ("glucose", "fructosamine", "HbA1c", "ketones"), "high"
    )
    signs: ClassVar = dict.fromkeys(slots["finding"] + slots["test"], 1)
    turns: ClassVar = {"reports": 1, "denies": -1, "high": 1, "normal": -1}
    telling: ClassVar = ("patient {says} {finding}", "the {test} came back {level} today")
    neutral: ClassVar = (
        "patient {says} {complaint}", "the {other} came back {level} today", "seen with {relative}", "the next visit is on {day}",
    )  # fmt: skip
    _groups: ClassVar = (
        slots["says"], slots["level"], slots["finding"] + slots["complaint"], slots["test"] + slots["other"], slots["day"], slots["relative"],
    )  # fmt: skip
