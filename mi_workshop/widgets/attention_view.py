"""The head browser: a small picture of every head, the chosen one as CircuitsVis's pattern or as lines between tokens, and where a token
looks, in words. As lines it is what BertViz (Vig 2019) calls the model view and the head view.

CircuitsVis draws offline from the copy in its installed package. A browser page asks the kernel for that copy once, so that
neither a stored notebook nor the state of a widget carries its 1.3 MB; a saved page carries it.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import traitlets as t

from mi_workshop.widgets.view import HERE, STYLE, View, module

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from mi_workshop.attention import Attention


@cache
def bundle() -> str:
    """CircuitsVis as one script that sets ``globalThis.CircuitsVis``, unable to end the HTML element it may stand in."""
    from importlib.util import find_spec
    from pathlib import Path

    spec = find_spec("circuitsvis")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("CircuitsVis is not installed: pip install circuitsvis.")
    text = (Path(spec.origin).parent / "dist" / "cdn" / "iife.js").read_text(encoding="utf-8")
    text = "\n".join(line for line in text.split("\n") if not line.startswith("//# sourceMappingURL"))
    return (
        text.replace("</script", "<\\/script").replace("<!--", "<\\!--") + "\nglobalThis.CircuitsVis = CircuitsVis;\n"
    )


class AttentionView(View):
    """The heads of ``attention``; ``layer``, ``head``, ``query`` (a position), ``mode`` ("pattern" or "lines") and ``also`` (other heads of the layer, drawn
    together as lines) say what is shown, and can be set from Python. Where there is one query for all tokens, it is shown as lines.

    Raises traitlets.TraitError for a head, position or mode that is not there.
    """

    _esm = module("attention_view.js")
    _css = STYLE + (HERE / "attention_view.css").read_text(encoding="utf-8")
    saved = (
        "pattern",
        "shape",
        "tokens",
        "queries",
        "silent",
        "title",
        "unit",
        "top",
        "mode",
        "layer",
        "head",
        "also",
        "query",
        "size",
    )
    pattern = t.Bytes().tag(sync=True)  # [layer, head, query, key] as 16-bit integers, 65,535 for ``top``
    shape = t.List(t.Int()).tag(sync=True)
    tokens = t.List(t.Unicode()).tag(sync=True)
    queries = t.List(t.Unicode()).tag(sync=True)  # names of the rows, where they are not the tokens
    silent = t.List(t.List(t.Bool())).tag(sync=True)
    unit = t.Unicode().tag(sync=True)  # what the numbers are, where they are not weights that sum to 1
    top = t.Float(1.0).tag(sync=True)
    mode = t.Enum(["pattern", "lines"], "pattern").tag(sync=True)
    title = t.Unicode("Attention").tag(sync=True)
    layer = t.Int().tag(sync=True)
    head = t.Int(0).tag(sync=True)
    also = t.List(t.Int()).tag(sync=True)  # heads of the layer that are drawn with it as lines
    query = t.Int().tag(sync=True)
    size = t.Enum(["normal", "stage"], "normal").tag(sync=True)

    def __init__(self, attention: Attention, **traits: Any) -> None:
        """``traits``: any of the traits, to open with other than the last layer's first head, at the last token."""
        self._attention = attention
        strange = [name for name in traits if not self.has_trait(name)]
        if strange:
            raise TypeError(f"AttentionView has no trait {strange[0]!r}.")
        whole = np.rint(65535 * np.clip(attention.pattern / attention.top, 0, 1)).astype("<u2")
        start = {
            "layer": whole.shape[0] - 1,
            "query": 0 if attention.tokens[0] == "<class>" else whole.shape[2] - 1,
            "mode": "lines" if attention.queries else "pattern",
        } | traits
        weighted = attention.kind not in ("attention", "rollout")
        super().__init__(
            pattern=whole.tobytes(), shape=list(whole.shape), tokens=list(attention.tokens), silent=attention.silent.tolist(),
            queries=attention.queries or [], top=attention.top, unit=attention.kind if weighted else "", title=attention.kind.capitalize(), **start
        )  # fmt: skip
        self.on_msg(self._send_bundle)

    @property
    def before_script(self) -> str:  # type: ignore[override]
        """A saved page has no kernel to ask."""
        return bundle()

    @t.validate("layer", "head", "query")
    def _inside(self, proposal: Any) -> int:
        name, value = proposal.trait.name, proposal.value
        size = self._attention.pattern.shape[["layer", "head", "query"].index(name)]
        if not 0 <= value < size:
            raise t.TraitError(f"There is no {name} {value}: choose 0 to {size - 1}.")
        return value

    def _send_bundle(self, widget: Any, content: Any, buffers: Any) -> None:
        if content == {"ask": "circuitsvis"}:
            try:
                self.send({"answer": "circuitsvis"}, [bundle().encode()])
            except (OSError, ModuleNotFoundError) as error:
                self.send({"answer": "circuitsvis", "error": f"CircuitsVis cannot be loaded: {error}"})

    @t.validate("mode")
    def _drawable(self, proposal: Any) -> str:
        if proposal.value == "pattern" and self._attention.queries:
            raise t.TraitError("A pattern is drawn where tokens look at tokens; one query for all is shown as lines.")
        return proposal.value

    @t.validate("also")
    def _others(self, proposal: Any) -> list[int]:
        for head in proposal.value:
            if not 0 <= head < self._attention.pattern.shape[1]:
                raise t.TraitError(f"There is no head {head}: choose 0 to {self._attention.pattern.shape[1] - 1}.")
        return list(proposal.value)

    def figure(self) -> Figure:
        """All heads as one picture; as lines, with the chosen one beside them."""
        if self.mode == "pattern":
            return self._attention.figure()
        from mi_workshop.heat_plots import draw_lines

        return draw_lines(self._attention, self.layer, [self.head, *self.also])

    def describe(self) -> str:
        """The heads in words, and where the chosen one looks."""
        return self._attention.describe(self.layer, self.head, self.query)
