"""Exercises that answer back: ``check(name, value)``, ``hint(name)``, ``solution(name)``.

An exercise is data (`Exercise`): what to do, hints from gentle to plain, the wrong answers that people give and what
each of them mixes up, and the solution. The exercises of each notebook are in a module of this package with the
notebook's name; ``notebooks/build.py`` copies their statements into the notebooks. An unanswered exercise never raises,
so every notebook runs from top to bottom.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from html import escape
from typing import Any

from ..worlds.atlas import Atlas
from .progress import record

Predicate = Callable[[Any], bool]
UNREADABLE = (TypeError, ValueError, AttributeError, LookupError)  # what reading a value of the wrong sort may raise


@dataclass(frozen=True)
class Exercise:
    """One exercise; ``right`` and the predicates in ``wrong`` take the learner's value."""

    name: str
    minutes: int
    difficulty: str  # in words: "easy", "takes some thought", "hard"
    statement: str  # markdown: what to do, and which variable to put it in
    expect: str  # what a learner sees when it works
    hints: tuple[str, ...]  # from gentle to plain
    right: Predicate
    wrong: tuple[tuple[Predicate, str], ...]  # the first that holds is told
    why: str  # why the right answer is right
    solution: str
    notebook: str = ""  # set by ``add``

    def markdown(self) -> str:
        """The exercise as a cell of a notebook."""
        title = f"### Exercise: {self.name}\n*{self.difficulty}, {self.minutes} minutes*"
        return f'{title}\n\n{self.statement}\n\n**You should see:** {self.expect} Stuck? `hint("{self.name}")`.'


@dataclass(frozen=True)
class Feedback:
    """What check, hint and solution say: a word and a sentence, shown as text and as a small block of HTML."""

    word: str
    sentence: str
    colour: str = "#555555"

    def __repr__(self) -> str:
        return f"{self.word}: {self.sentence}"

    def _repr_html_(self) -> str:
        style = f"border-left: 4px solid {self.colour}; padding: .3em .8em; white-space: pre-wrap"
        said = re.sub(r"(?<!\w)\*(\S(?:[^*\n]*\S)?)\*(?!\w)", r"<em>\1</em>", escape(self.sentence))
        return f'<div style="{style}"><b>{escape(self.word)}</b>: {said}</div>'


EXERCISES: dict[str, Exercise] = {}
_hints_given: Counter[str] = Counter()


@cache
def world() -> Atlas:
    """The answer key that the exercises are checked against."""
    return Atlas()


def add(*exercises: Exercise, notebook: str) -> None:
    """Make the exercises of a notebook known by their names."""
    EXERCISES.update({exercise.name: replace(exercise, notebook=notebook) for exercise in exercises})


def find(name: str) -> Exercise:
    """The exercise of that name; ValueError, with the nearest names, if there is none."""
    if name not in EXERCISES:
        near = difflib.get_close_matches(str(name), EXERCISES, n=3, cutoff=0.4) or list(EXERCISES)
        raise ValueError(f"There is no exercise {name!r}; did you mean {' or '.join(map(repr, near))}?")
    return EXERCISES[name]


def check(name: str, value: Any = ...) -> Feedback:
    """Look at an answer: right, not yet (and what it mixes up, where that is known), or not answered yet."""
    exercise = find(name)
    if _unanswered(value):
        return Feedback("Not answered yet", f'{exercise.minutes} minutes; hint("{name}") helps.')
    record(name, "tried")
    if _holds(exercise.right, value):
        record(name, "solved")
        return Feedback("Right", exercise.why, "#0072B2")
    for predicate, sentence in exercise.wrong:
        if _holds(predicate, value):
            return Feedback("Not yet", sentence, "#D55E00")
    return Feedback("Not yet", f'{value!r:.80} is not it. hint("{name}") helps.', "#D55E00")


def hint(name: str) -> Feedback:
    """The next hint; each call says a little more, and after the last one they start again."""
    hints = find(name).hints
    record(name, "hints")
    number = _hints_given[name] % len(hints)
    _hints_given[name] += 1
    more = "" if number + 1 < len(hints) else f'\nThat was the last hint; solution("{name}") shows the answer.'
    return Feedback(f"Hint {number + 1} of {len(hints)}", hints[number] + more)


def solution(name: str) -> Feedback:
    """The solution, and why it is one."""
    exercise = find(name)
    return Feedback("Solution", f"\n{exercise.solution}\n{exercise.why}")


def _unanswered(value: Any) -> bool:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return not value or any(_unanswered(v) for v in value)
    return value is None or value is ... or (isinstance(value, str) and not value.strip())


def _holds(predicate: Predicate, value: Any) -> bool:
    """Apply a predicate to whatever a learner wrote; a value of a sort that it cannot read does not hold."""
    try:
        return bool(predicate(value))
    except UNREADABLE:
        return False


def unreadable(value: Any, read: Callable[[Any], Any]) -> bool:
    """Is the learner's value of a sort that ``read`` cannot read?"""
    try:
        read(value)
    except UNREADABLE:
        return True
    return False


def whole(value: Any) -> int:
    """A whole number; TypeError for anything else, True and False included."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError("not a whole number")
    return int(value)
