"""Passages: short texts with one label, whose words that matter are known. ``Rooms``, ``Reviews`` and the clinical notes are of this form."""

from __future__ import annotations

import difflib
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import ClassVar

import numpy as np

from mi_workshop.worlds.atlas import WorldError, detokenize

SPLITS = ("train", "validation", "test")


def pick(rng: np.random.Generator, words: Sequence[str]) -> str:
    """One of the words, each as likely (as ``rng.choice``, ten times as fast)."""
    return words[int(rng.integers(len(words)))]


@dataclass(frozen=True)
class Passage:
    """One text: ``words``, the ``question`` about it (empty where all texts are asked the same), its ``answer`` and the world key,
    ``evidence``: {position: sign} of the words that the answer follows from. The sign is +1 where a word speaks for the answer given
    by the *last* of the world's two classes, -1 where it speaks against it, and +1 throughout where there are more classes."""

    words: tuple[str, ...]
    answer: str
    evidence: dict[int, int] = field(hash=False, compare=False)
    question: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The words as text, with the question."""
        return detokenize([*self.words, *self.question])


class Passages:
    """What the worlds of passages have in common. A world says how to ``_draw`` one and how to ``read`` one."""

    classes: ClassVar[tuple[str, ...]]
    vocabulary: ClassVar[tuple[str, ...]]  # <pad> first
    max_tokens: ClassVar[int]

    def _draw(self, rng: np.random.Generator) -> tuple[list[str], list[str]]:
        """Words and question of one passage."""
        raise NotImplementedError

    def read(self, words: list[str], question: list[str]) -> Passage:
        """The passage with its answer and evidence, from its words alone. Raises WorldError where it has no answer."""
        raise NotImplementedError

    def _wanted(self, passage: Passage, split: str, held_out: bool) -> bool:
        """Whether a passage may stand in this split: by a checksum of its words eight of ten are for training, one each for
        validation and test, so that no passage is in two splits whatever the seed."""
        return ("validation", "test", *["train"] * 8)[zlib.crc32(passage.text.encode()) % 10] == split

    def sample(self, n: int, split: str = "train", seed: int = 0, held_out: bool = False) -> list[Passage]:
        """Draw n different passages of a split; the same arguments give the same passages, and more of them begin with the same.

        ``held_out``: only what the world holds out of training. Raises WorldError for a split that does not exist.
        """
        if split not in SPLITS:
            raise WorldError(f"There is no split {split!r}; choose {', '.join(SPLITS)}.")
        if held_out and (split == "train" or not self.holds_out):
            raise WorldError(f"{type(self).__name__} holds nothing out in the split {split!r}.")
        return list(_sampled(self, n, split, seed, held_out))

    holds_out: ClassVar[bool] = False

    def parse(self, text: str) -> Passage:
        """The passage of a text, with its answer and evidence.

        Raises WorldError for an empty text, an unknown word, one that is too long, or one without an answer.
        """
        words = re.findall(r"\w+|[^\w\s]", text)
        if not words:
            raise WorldError("The text is empty.")
        for word in words:
            if word not in self.vocabulary:
                close = difflib.get_close_matches(word, self.vocabulary, n=1)
                hint = f"did you mean {close[0]!r}?" if close else "its words are in world.vocabulary."
                raise WorldError(f"{type(self).__name__} does not know the word {word!r}; {hint}")
        if len(words) > self.max_tokens:
            raise WorldError(f"The text has {len(words)} words, {type(self).__name__} reads at most {self.max_tokens}.")
        return self.read(*self._split_question(words))

    def _split_question(self, words: list[str]) -> tuple[list[str], list[str]]:
        return words, []

    def answer(self, text: str) -> str:
        """The right answer; raises as ``parse`` does."""
        return self.parse(text).answer

    def depends_on(self, text: str) -> dict[int, str]:
        """The words that the answer follows from, ``{position: word}``, the first word being 0; raises as ``parse`` does."""
        passage = self.parse(text)
        return {i: passage.words[i] for i in sorted(passage.evidence)}

    def alternatives(self, passage: Passage, position: int) -> tuple[str, ...]:
        """The other words that the world might have written at this place, all else the same."""
        return tuple(
            w
            for group in self._groups
            if passage.words[position] in group
            for w in group
            if w != passage.words[position]
        )

    _groups: ClassVar[tuple[tuple[str, ...], ...]]  # words that stand in for each other

    def substitutions(self, passage: Passage, position: int) -> Iterator[Passage]:
        """Every passage in which the word at this place is another one that the world might have written, with its answer.

        Those that have no answer (as much evidence for as against, nobody asked for) are left out.
        """
        for word in self.alternatives(passage, position):
            try:
                yield self.read(
                    [*passage.words[:position], word, *passage.words[position + 1 :]], list(passage.question)
                )
            except WorldError:
                continue


@lru_cache(4)
def _sampled(world: Passages, n: int, split: str, seed: int, held_out: bool) -> tuple[Passage, ...]:
    """Kept: models are trained on the same thousands again and again."""
    rng = np.random.default_rng([seed, SPLITS.index(split), int(held_out)])
    out: dict[Passage, None] = {}
    while len(out) < n:
        try:
            passage = world.read(*world._draw(rng))
        except WorldError:  # as much evidence for one answer as for the other
            continue
        if world._wanted(passage, split, held_out):
            out[passage] = None
    return tuple(out)
