"""HTML that the pages of features are made of; JupyterLab keeps it as it is in an untrusted notebook. Every text is escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from mi_workshop.show import Shown

LINE = "border-bottom:1px solid rgba(128,128,128,0.35)"
QUIET, FIRE, CALM = "opacity:0.75", "213,94,0", "0,114,178"  # vermilion for what fires, blue for what holds


class Page(Shown):
    """The page of a feature, of an embedded model or a hosted one: HTML in a notebook, a file, or a picture."""

    formats = (".html", ".svg", ".png")
    promotes: list[tuple[str, float]]
    suppresses: list[tuple[str, float]]

    @property
    def name(self) -> str:
        raise NotImplementedError

    def html(self, compact: bool = False) -> str:
        """The page as an HTML fragment: inline styles, no script, every text escaped."""
        raise NotImplementedError

    def show(self) -> None:
        """Display the page in a notebook."""
        from IPython.display import display

        display(self)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        data, metadata = super()._repr_mimebundle_(include, exclude)
        return data | {"text/html": self.html()}, metadata

    def _write(self, path: Path) -> None:
        if path.suffix == ".html":
            path.write_text(document(self), encoding="utf-8")
        else:
            super()._write(path)


def text(value: Any) -> str:
    return html.escape(str(value), quote=True)


def percent(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.0%}" if value >= 0.995 or value == 0 else f"{value:.1%}"


def title(text: str, note: str = "") -> str:
    return f'<div style="margin:14px 0 4px 0"><b>{text}</b> <span style="{QUIET}">{note}</span></div>'


def table(head: Iterable[str], rows: Iterable[Iterable[str]], align: str = "lrrrrrr") -> str:
    """Cells are HTML already; ``align`` holds l or r for each column."""
    cell = "padding:2px 12px 2px 0;white-space:nowrap;background-color:transparent;text-align:"
    sides = ["left" if a == "l" else "right" for a in align]
    top = "".join(
        f'<{tag} style="{cell}{side};font-weight:normal;{QUIET}">{h}</{tag}>'
        for side, h in zip(sides, head, strict=False)
        for tag in ("th" if h else "td",)
    )
    body = "".join(
        f'<tr style="{LINE};background-color:transparent">'
        + "".join(f'<td style="{cell}{side}">{c}</td>' for side, c in zip(sides, row, strict=False))
        + "</tr>"
        for row in rows
    )
    style = "border-collapse:collapse;margin:0;font-size:100%;table-layout:auto"
    return f'<table style="{style}"><tr style="{LINE}">{top}</tr>{body}</table>'


def bar(share: float, colour: str, width: int = 90) -> str:
    size = round(width * min(1, max(0, share)))
    return f'<span style="display:inline-block;width:{size}px;height:11px;background-color:rgba({colour},0.75)"></span>'


def effects(page: Page, count: int) -> str:
    largest = max((abs(v) for _, v in (*page.promotes, *page.suppresses)), default=1) or 1
    sides = zip(page.promotes[:count], page.suppresses[:count], strict=False)
    rows = (
        [text(a), f"{x:+.2f}", bar(x / largest, FIRE, 40), text(b), f"{y:+.2f}", bar(-y / largest, CALM, 40)]
        for (a, x), (b, y) in sides
    )
    return table(["promotes", "", "", "suppresses", "", ""], rows, "lrllrl")


def draw_effects(axes: Any, page: Page) -> None:
    """The five strongest each way, as bars of matplotlib."""
    from mi_workshop.plots import GREY, INK, ORANGE

    both = [*page.promotes[:5], *page.suppresses[:5][::-1]][::-1]
    axes.barh(
        range(len(both)), [v for _, v in both], color=[ORANGE if v > 0 else GREY for _, v in both], ec=INK, lw=0.6
    )
    axes.set_yticks(range(len(both)), [t for t, _ in both], fontsize=10.5, parse_math=False)
    axes.axvline(0, color=INK, lw=0.8)


def row(boxes: str) -> str:
    """Side by side where there is room."""
    return f'<div style="display:flex;flex-wrap:wrap;gap:4px 40px">{boxes}</div>'


def boxes(parts: list[str]) -> str:
    return f'<div style="text-align:left;line-height:1.45;overflow-x:auto">{"".join(parts)}</div>'


def document(page: Any) -> str:
    """One self-contained file, light or dark as the reader's system is."""
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{text(page.name)}: {text(page.label)}</title>'
        '<meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        "<style>body{font:17px/1.5 system-ui,sans-serif;max-width:76rem;margin:1.5rem auto;padding:0 1rem}</style>"
        f"<main>{page.html()}</main></html>\n"
    )
