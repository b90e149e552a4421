"""A view as one HTML file that opens from disk, offline: data, style and script inline, nothing fetched."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from typing import TYPE_CHECKING, Any

from mi_workshop.circuits.graph import AttributionGraph
from mi_workshop.plots import png
from mi_workshop.widgets.graph_view import state
from mi_workshop.widgets.view import HERE, module

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FILE = "A saved page has no model to act on: open the notebook to change what the model thinks of."
START: dict[str, Any] = {"selected": [], "clicked": "", "details": {}, "size": "normal"}
PAGE = """\
<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'sha256-{sha}'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'">
<style>{css}</style></head>
<body class="mi-page"><main><h1>{title}</h1><div id="mi-graph"></div>
<noscript><img alt="{sentence}" src="data:image/png;base64,{picture}"></noscript>
<p>{sentence}</p>{more}</main>
<script type="application/json" id="mi-graph-state">{state}</script>
<script type="module">{script}</script></body></html>
"""
SCRIPT = """
const saved = JSON.parse(document.getElementById("mi-graph-state").textContent);
window.graphModel = standIn(saved);
render({ model: window.graphModel, el: document.getElementById("mi-graph") });
"""


def page(graph: AttributionGraph, traits: dict[str, Any] | None = None) -> str:
    """The page; ``traits`` of a view replace those that ``graph`` starts with."""
    shown = START | state(graph) | (traits or {}) | {"interventions": [], "can_act": False, "swaps": {}}
    shown |= {"meta": shown["meta"] | {"why": FILE}}
    css = (HERE / "graph_view.css").read_text(encoding="utf-8")
    words = f"<h2>The circuit in words</h2><pre>{html.escape(graph.words())}</pre>"
    return document(
        graph.figure(), graph.describe(), shown, module("graph_view.js"), css, title=graph.prompt, more=words
    )


def document(
    figure: Figure, sentence: str, traits: dict[str, Any], script: str, css: str, title: str = "", more: str = ""
) -> str:
    """The page of any view: ``script`` is its module, with ``render`` and ``standIn`` in it; ``traits`` may hold bytes.

    ``figure`` stands in where scripts are off. ``sentence`` and ``title`` (by default the trait of that name) are text; ``more``
    is HTML, escaped already.
    """
    sent = {k: {"base64": base64.b64encode(v).decode()} if isinstance(v, bytes) else v for k, v in traits.items()}
    script += SCRIPT
    return PAGE.format(
        title=html.escape(title or traits.get("title") or "mi-workshop"), sentence=html.escape(sentence, quote=True), more=more, css=css,
        picture=base64.b64encode(png(figure, dpi=160)).decode(), state=embed(sent), script=script,
        sha=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )  # fmt: skip


def embed(value: Any) -> str:
    """JSON that cannot end the script element it stands in, nor open a comment there."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
