"""The exercises on toy models of notebook 04b_superposition."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

from .exercises import Exercise, add


def _number(value: Any) -> float:
    """A number between 0 and 1; ValueError for anything else."""
    if isinstance(value, bool) or not 0 <= value < 1:
        raise ValueError
    return float(value)


@cache
def _kept(sparsity: float) -> tuple[int, int]:
    """Of six equally important features in two dimensions at this sparsity: how many are represented, and how many are part of a pentagon."""
    from mi_workshop.superposition import train_toy

    toy = train_toy(6, 2, sparsity)[0]
    return int((toy.dimensions > 0).sum()), int((toy.table["shape"] == "pentagon").sum())


def _loss(fires: Any, n: int = 6) -> float:
    """The cross-entropy of one neuron that is on for ``fires`` of ``n`` features; ValueError for a number that no neuron could fire for."""
    if isinstance(fires, bool) or fires != int(fires) or not 0 <= fires <= n:
        raise ValueError
    return sum(k / n * math.log(k) for k in (fires, n - fires) if k)


add(
    Exercise(
        name="room for five",
        minutes=6,
        difficulty="easy",
        statement=(
            "Six equally important features, two dimensions: `train_toy(6, 2, sparsity)[0]`. Find a **sparsity** at which five of them form a pentagon and the sixth is left out, and put it into "
            "`sparsity`. Predict first: must they be rarer than for the two digons, or less rare?"
        ),
        expect='"5 × pentagon" and "1 × not represented" in one model.',
        hints=(
            "explore_toy(6, importance=1.0) has a slider. Begin at 0.5 and go up.",
            "At 0.7 there are two pairs, at 0.97 all six have a place: look between.",
        ),
        right=lambda value: _kept(_number(value)) == (5, 5),
        wrong=(
            (lambda value: isinstance(value, str) or value is True or value is False, "A number is asked for."),
            (lambda value: not 0 <= value < 1, "Sparsity is the chance that a feature is absent: from 0 to below 1."),
            (lambda value: _kept(_number(value))[0] < 5, "So common, they are in each other's way: fewer than five are represented."),
            (lambda value: _kept(_number(value))[0] > 5, "So rare, the sixth finds room as well."),
        ),
        why="The rarer the features, the less often two of them meet, and the more of them can share a plane. What decides is not how many dimensions there are, but how often it hurts.",
        solution="sparsity = 0.9",
    ),
    Exercise(
        name="six for one neuron",
        minutes=8,
        difficulty="takes some thought",
        statement=(
            "One of *six* features is present, each as often, and is to be named; the model sees one neuron that is on or off. For how many of the six must it be on for the lowest "
            "cross-entropy? Put the number into `fires`."
        ),
        expect="a number that nobody would call monosemantic.",
        hints=(
            "If it is on for k of them, what is the best that one can answer when it is on? And when it is off?",
            "k/6 ln k + (6-k)/6 ln(6-k), for k = 1, 2, 3 …",
        ),
        right=lambda value: _loss(value) == _loss(3),
        wrong=(
            (lambda value: isinstance(value, (str, bool)), "A whole number is asked for."),
            (lambda value: not 0 <= value <= 6, "There are six features."),
            (lambda value: value in (0, 6), "Then the neuron always says the same, and the cross-entropy is ln 6."),
            (lambda value: value == 1, "With one feature, five are left to guess between when the neuron is off: 5/6 ln 5 = 1.34. There is better."),
            (lambda value: value == 2, "Two was best of four. Of six it gives 2/6 ln 2 + 4/6 ln 4 = 1.16. There is better."),
            (lambda value: value > 3, "On and off can change their names: on for k is as good as on for 6 - k. There is better."),
        ),
        why="Half of them: on or off then says one whole bit, the most that it can say, and ln 3 = 1.10 is left. Cross-entropy pays for information, not for having one meaning.",
        solution="fires = 3",
    ),
    notebook="04b_superposition",
)  # fmt: skip
