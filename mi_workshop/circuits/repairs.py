"""Values from a stranger's JSON, made safe to use, and the notes that say what was repaired on the way."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from typing import Any

# Control characters (but tab and newline, which are tokens), direction marks, lone surrogates, what XML forbids.
UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)
TEXT, LARGEST = 200, 3.4e38  # characters of a label, token or id; the largest number that a 32-bit float holds


def integer(value: Any) -> int | None:
    """A whole number given as int, float or decimal string; None for anything else."""
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,18}", value):
        return int(value)
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    return value if type(value) is int and abs(value) < 2**127 else None


def number(value: Any) -> float:
    """A finite number as float, NaN for anything else."""
    return float(value) if type(value) in (int, float) and abs(value) <= LARGEST else math.nan


def shown(value: Any) -> str:
    """A stranger's value in a message: short, on one line, without characters that cannot be seen."""
    text = repr(value) if isinstance(value, str | float | bool | None) else type(value).__name__
    return (str(value) if type(value) is int and abs(value) < 2**127 else text)[:80]


class Notes:
    """Counts what was repaired; ``say`` gives one sentence for each kind of repair."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self.first: list[str] = []

    def count(self, what: str, done: str, n: int = 1) -> None:
        self.counts[what, done] += n

    def tell(self, sentence: str) -> None:
        self.first.append(sentence)

    def say(self) -> tuple[str, ...]:
        counted = [f"{what}: {n} ({done})." for (what, done), n in self.counts.items() if n]
        return tuple(dict.fromkeys([*self.first, *counted]))

    def text(self, value: Any, length: int = TEXT) -> str:
        """``value`` without unseen characters, cut at ``length``; a number as text; nothing for what is no text."""
        if type(value) is float or (type(value) is int and abs(value) < 2**127):
            value = str(value)
        if not isinstance(value, str):
            self.count("Texts that are no text", "left empty", value is not None)
            return ""
        out = UNSEEN.sub("", value)
        self.count("Texts with control or direction characters", "these were removed", out != value)
        if len(out) > length:
            self.count(f"Texts of more than {length} characters", "cut")
            out = out[: length - 1] + "…"
        return out

    def items(self, value: Any, name: str) -> list[Any]:
        """A list, given as such, as an object, as JSON in a string, or as a string with commas."""
        if isinstance(value, str):
            try:
                value = json.loads(value) if value.lstrip()[:1] in ("[", "{") else value.split(",")
            except (ValueError, RecursionError):
                value = 0
        if isinstance(value, dict):
            value = [[k, *v] if isinstance(v, list) else [k, v] for k, v in value.items()]
        if not isinstance(value, list):
            if value is not None:
                self.tell(f"The file's {name} could not be read: left out.")
            return []
        return [v for v in value if v != ""]
