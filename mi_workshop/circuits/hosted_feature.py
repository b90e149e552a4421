"""The page of a feature that Neuronpedia holds: texts that fire it, explanations of it (by people or language models), logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mi_workshop.circuits import html_parts as parts
from mi_workshop.circuits.graph import GraphError
from mi_workshop.circuits.html_parts import FIRE, QUIET
from mi_workshop.circuits.repairs import UNSEEN, number
from mi_workshop.show import counted
from mi_workshop.web import HostedError

BEFORE, AFTER = 24, 8  # tokens shown on each side of the strongest
EXAMPLES, SHORT = 12, 4  # examples shown, and in the short form
TEXT = 300


@dataclass(frozen=True, eq=False)
class HostedFeature(parts.Page):
    """What Neuronpedia says of one feature. It shows itself in a notebook; ``save`` writes it to a file.

    ``examples``: (tokens, activations), the strongest first; these are the texts in which it is strongest, so it looks purer than it
    is. ``explanations``: (words, who wrote them). ``promotes`` and ``suppresses``: (token, effect on its logit). ``density`` is the share of
    tokens at which it is active (NaN: not said), ``note`` says how old the page is.
    """

    problem = GraphError
    model: str
    layer: int
    index: int
    source_set: str
    explanations: list[tuple[str, str]]
    density: float
    maximum: float
    examples: list[tuple[list[str], list[float]]]
    promotes: list[tuple[str, float]]
    suppresses: list[tuple[str, float]]
    note: str = ""

    @property
    def name(self) -> str:
        return f"feature {self.layer}/{self.index} of {self.model} ({self.source_set})"

    @property
    def label(self) -> str:
        return self.explanations[0][0] if self.explanations else f"feature {self.layer}/{self.index}, not explained"

    def words(self) -> str:
        """One sentence: what it is said to be, how often and how strongly it fires, what it promotes."""
        start = (
            f"{self.name[0].upper()}{self.name[1:]}, explained as {self.label!r}: "
            if self.explanations
            else f"{self.name}: "
        )
        often = "" if np.isnan(self.density) else f"active at {self.density:.2%} of the tokens, "
        ups = ", ".join(repr(t) for t, _ in self.promotes[:4]) or "nothing known"
        return f"{start}{often}maximum {self.maximum:.1f}, {counted(len(self.examples), 'example')}; it promotes {ups}."

    def html(self, compact: bool = False) -> str:
        """The page as an HTML fragment: inline styles, no script, every text escaped."""
        often = "" if np.isnan(self.density) else f" · active at {self.density:.2%} of the tokens"
        out = [
            f'<div style="font-size:140%;font-weight:bold;line-height:1.3">{parts.text(self.label)}</div>',
            f"<div>{parts.text(self.name)}{often} · maximum {self.maximum:.1f}</div>",
        ]
        by = [
            f"{parts.text(words)} <i>({parts.text(who)})</i>"
            for words, who in self.explanations[: 1 if compact else 6]
            if who
        ]
        out += [f'<div style="{QUIET}">explanation: {line}</div>' for line in by]
        out += [f'<div style="{QUIET}">{parts.text(self.note)}</div>'] if self.note else []
        fires = [parts.title("What fires it most", "the strongest examples make a feature look purer than it is")]
        fires += [_line(example, self.maximum) for example in self.examples[: SHORT if compact else EXAMPLES]]
        writes = parts.title("What it writes", "logits") + parts.effects(self, 5 if compact else 8)
        wide = "flex-basis:480px;flex-grow:1;min-width:0"
        return parts.boxes([*out, parts.row(f'<div style="{wide}">{"".join(fires)}</div><div>{writes}</div>')])

    def figure(self) -> Any:
        """What it promotes and suppresses, beside its strongest examples, as a matplotlib Figure."""
        from matplotlib.colors import to_rgba

        from mi_workshop.plots import ORANGE, new_figure, open_frames

        figure = new_figure(13, 4.2)
        figure.set_layout_engine("none")
        figure.text(0.02, 0.94, self.label[:90], fontsize=18, weight="bold", va="center", parse_math=False)
        figure.text(0.02, 0.87, self.name, fontsize=11, color="#444444", va="center", parse_math=False)
        bars = figure.add_axes((0.1, 0.13, 0.2, 0.67))
        parts.draw_effects(bars, self)
        bars.set_xlabel("logits", fontsize=12)
        open_frames(bars)
        renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
        for row, (tokens, acts) in enumerate(self.examples[:8]):
            x, peak = 0.34, int(np.argmax(acts)) if acts else 0
            for token, act in list(zip(tokens, acts, strict=True))[max(0, peak - 7) : peak + 4]:
                shade = {
                    "bbox": {
                        "boxstyle": "square,pad=.15",
                        "fc": to_rgba(ORANGE, 0.08 + 0.57 * min(1, act / self.maximum)),
                        "ec": "none",
                    }
                }
                drawn = figure.text(
                    x, 0.78 - 0.09 * row, token.strip() or "·", fontsize=12, va="center", parse_math=False, **(shade if act > 0 else {})
                )  # fmt: skip
                x += drawn.get_window_extent(renderer).width / figure.bbox.width + 0.008
        return figure


def _line(example: tuple[list[str], list[float]], maximum: float) -> str:
    """The tokens around the strongest one, shaded by activation; that one is bold and carries its number."""
    tokens, acts = example
    peak, out = int(np.argmax(acts)), []
    for i in range(max(0, peak - BEFORE), min(len(tokens), peak + AFTER + 1)):
        word, act = parts.text(tokens[i].replace("\n", "⏎").replace("▁", " ")), acts[i]
        style = f"background-color:rgba({FIRE},{0.08 + 0.57 * min(1, act / maximum):.2f})" if act > 0 else ""
        if i == peak:
            style += f";font-weight:bold;border-bottom:2px solid rgba({FIRE},1)"
            word += f'<span style="font-size:75%;margin-left:4px">{act:.1f}</span>'
        out.append(f'<span title="{act:.2f}" style="{style}">{word}</span>' if style else f"<span>{word}</span>")
    return f'<div style="line-height:1.7;white-space:pre-wrap;margin-bottom:4px">{"".join(out)}</div>'


def read_feature(value: Any, model: str, layer: int, index: int, source_set: str) -> HostedFeature:
    """The page in Neuronpedia's JSON; what is missing or no number is left out. Raises HostedError for what is no feature."""
    if not isinstance(value, dict) or not ({"activations", "pos_str", "explanations"} & set(value)):
        raise HostedError(f"Neuronpedia's answer is no feature {layer}/{index} of {model}.")
    examples = []
    for one in _dicts(value.get("activations")):
        tokens, acts = one.get("tokens"), one.get("values")
        if isinstance(tokens, list) and isinstance(acts, list) and len(tokens) == len(acts) > 0:
            examples.append(([_text(t) for t in tokens], [max(0.0, x) if (x := number(a)) == x else 0.0 for a in acts]))
    examples = sorted((e for e in examples if max(e[1]) > 0), key=lambda e: -max(e[1]))
    explanations = [
        (words, _text(e.get("explanationModelName") or e.get("typeName") or ""))
        for e in _dicts(value.get("explanations"))
        if (words := _text(e.get("description")).strip())
    ]
    given = number(value.get("maxActApprox"))
    maximum = max([given if given == given else 0.0, *(max(acts) for _, acts in examples[:1])])
    return HostedFeature(
        model, layer, index, source_set, explanations, number(value.get("frac_nonzero")), maximum, examples,
        _pairs(value.get("pos_str"), value.get("pos_values")), _pairs(value.get("neg_str"), value.get("neg_values")),
    )  # fmt: skip


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [v for v in value if isinstance(v, dict)] if isinstance(value, list) else []


def _text(value: Any) -> str:
    return UNSEEN.sub("", value)[:TEXT] if isinstance(value, str) else ""


def _pairs(words: Any, values: Any) -> list[tuple[str, float]]:
    if not isinstance(words, Sequence) or not isinstance(values, Sequence):
        return []
    return [(_text(w), x) for w, v in zip(words, values, strict=False) if (x := number(v)) == x][:10]
