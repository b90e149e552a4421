"""Rooms: stories of who went where, and "Where is Sandra?", in the manner of bAbI's first task (Weston et al. 2015).

The answer is where the person asked for went last; the sentence that says so is known. Other people's sentences, and earlier ones of the
same person, are distractors. In pairs of a person and a place that are held out (``HELD_OUT``) no sentence of a training story is
about that person in that place; with ``held_out=True`` the answer is such a pair.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from mi_workshop.worlds.atlas import WorldError
from mi_workshop.worlds.passages import Passage, Passages, pick

PEOPLE = ("Sandra", "John", "Mary", "Daniel", "Julie", "Fred")
PLACES = ("garden", "office", "kitchen", "bathroom", "hallway", "bedroom")
VERBS = ("went", "moved", "travelled", "journeyed")
HELD_OUT = {
    split: frozenset(zip(PEOPLE, PLACES[shift:] + PLACES[:shift], strict=True))
    for split, shift in (("validation", 1), ("test", 3))
}
UNSEEN = frozenset().union(*HELD_OUT.values())  # what no training story says


class Rooms(Passages):
    """The world of the stories.

    >>> story = Rooms().parse("Sandra went to the garden. John moved to the office. Where is Sandra?")
    >>> story.answer, story.evidence
    ('garden', {0: 1, 4: 1})
    """

    classes = PLACES
    vocabulary = ("<pad>", *PEOPLE, *PLACES, *VERBS, "to", "the", ".", "Where", "is", "?")
    max_tokens = 40
    sentences = (2, 5)  # how many a story has, at least and at most
    holds_out = True
    _groups: ClassVar = (PEOPLE, PLACES, VERBS)

    def _draw(self, rng: np.random.Generator) -> tuple[list[str], list[str]]:
        present = [PEOPLE[i] for i in rng.permutation(len(PEOPLE))[: rng.integers(2, 6)]]
        words: list[str] = []
        for _ in range(rng.integers(self.sentences[0], self.sentences[1] + 1)):
            words += [pick(rng, present), pick(rng, VERBS), "to", "the", pick(rng, PLACES), "."]
        return words, ["Where", "is", pick(rng, sorted(set(words) & set(PEOPLE))), "?"]

    def _split_question(self, words: list[str]) -> tuple[list[str], list[str]]:
        return words[:-4], words[-4:]

    def _moves(self, words: list[str]) -> list[tuple[str, str]]:
        """(person, place) of each sentence."""
        moves = []
        for i in range(0, len(words), 6):
            match words[i : i + 6]:
                case [person, verb, "to", "the", place, "."] if person in PEOPLE and verb in VERBS and place in PLACES:
                    moves.append((person, place))
                case other:
                    raise WorldError(f"Rooms has no sentence {' '.join(other)!r}; it has 'Sandra went to the garden.'")
        return moves

    def read(self, words: list[str], question: list[str]) -> Passage:
        match question:
            case ["Where", "is", person, "?"] if person in PEOPLE:
                moves = self._moves(words)
            case _:
                raise WorldError(f"Rooms asks 'Where is Sandra?' at the end, not {' '.join(question)!r}.")
        places = [place for who, place in moves if who == person]
        if not places:
            raise WorldError(f"The story does not say where {person} is.")
        at = 6 * max(i for i, (who, _) in enumerate(moves) if who == person)
        return Passage(tuple(words), places[-1], {at: 1, at + 4: 1}, tuple(question))

    def alternatives(self, passage: Passage, position: int) -> tuple[str, ...]:
        """As elsewhere, without those that would put a person in a place held out for them."""
        person, place = passage.words[position - position % 6], passage.words[position - position % 6 + 4]
        others = super().alternatives(passage, position)
        spoken = {0: lambda w: (w, place), 4: lambda w: (person, w)}.get(position % 6)
        return tuple(w for w in others if not spoken or spoken(w) not in UNSEEN)

    def supporting(self, story: Passage) -> range:
        """Positions of the sentence that the answer follows from."""
        first = min(story.evidence)
        return range(first, first + 6)

    def stratum(self, story: Passage) -> str | None:
        """``"pair:validation"`` or ``"pair:test"`` where the person asked for is, at last, in a place held out for them."""
        pair = (story.question[2], story.answer)
        return next((f"pair:{split}" for split, pairs in HELD_OUT.items() if pair in pairs), None)

    def _wanted(self, passage: Passage, split: str, held_out: bool) -> bool:
        if held_out:
            return self.stratum(passage) == f"pair:{split}"
        return UNSEEN.isdisjoint(self._moves(list(passage.words))) and super()._wanted(passage, split, held_out)
