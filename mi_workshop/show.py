"""What all results have in common: they show themselves in a notebook, print as words and save their picture."""

from __future__ import annotations

import html
from collections.abc import Iterable
from pathlib import Path
from textwrap import fill
from typing import Any, ClassVar

from mi_workshop.files import write

VIEW = "application/vnd.jupyter.widget-view+json"  # the type under which an output names its widget


class Shown:
    """A result with ``words()`` and ``figure()`` (a matplotlib Figure): the picture in a notebook, the words as its alt text and in print."""

    formats: ClassVar[tuple[str, ...]] = (".svg", ".png")
    problem: ClassVar[type[ValueError]] = ValueError  # what ``save`` raises

    def words(self) -> str:
        raise NotImplementedError

    def figure(self) -> Any:
        raise NotImplementedError

    def describe(self) -> str:
        """What the picture shows (also its alt text)."""
        return self.words()

    def __str__(self) -> str:
        """The words, a paragraph broken into lines that fit beside a figure."""
        said = self.words()
        return said if "\n" in said else fill(said, 88, break_long_words=False, break_on_hyphens=False)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        from mi_workshop.plots import mimebundle

        return mimebundle(self.figure(), self.describe())

    def save(self, path: str | Path) -> Path:
        """Write one of ``formats``, by the suffix of ``path``; returns the path. Raises ValueError for another suffix."""
        path, formats = Path(path), self.formats
        if path.suffix not in formats:
            raise self.problem(f"This is saved as {either(formats)}, not {path.suffix or 'without a suffix'!r}.")
        return write(path, self._write)

    def _write(self, path: Path) -> None:
        self.figure().savefig(path, dpi=160)


def either(names: Iterable[str]) -> str:
    """ "a, b or c", of two or more."""
    *first, last = names
    return f"{', '.join(first)} or {last}"


def counted(n: int, thing: str) -> str:
    return f"{n} {thing}{'' if n == 1 else 's'}"


def listed(top: list[dict[str, Any]]) -> str:
    """The four likeliest of ``{token, prob}``."""
    return ", ".join(f"{t['token']} {t['prob']:.2f}" for t in top[:4])


def image(data: str, sentence: str, width: int) -> str:
    """An HTML image of a PNG in base64, with alt text."""
    alt, wide, png = (html.escape(str(text), quote=True) for text in (sentence, width, data))
    return f'<img alt="{alt}" width="{wide}" src="data:image/png;base64,{png}">'
