"""How a feature's page looks: an HTML fragment that JupyterLab keeps as it is in an untrusted notebook, and a picture.

Only inline styles that its sanitizer lets through, colours half transparent so that they work on light and dark, and everything that
colour says is also said by a number, a mark or a weight. Words are text, never markup.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from mi_workshop.circuits import html_parts as parts
from mi_workshop.circuits.features import SAY, SHARE, WHOLE
from mi_workshop.circuits.html_parts import CALM, FIRE, QUIET
from mi_workshop.plots import BLUE, INK, ORANGE, new_figure, open_frames

if TYPE_CHECKING:
    from mi_workshop.circuits.feature_page import Example, FeaturePage

KINDS = {
    "place": f"a place: of its activation over the two-hop questions at least {SHARE:.0%} falls on it, for two attributes, "
    f"and {WHOLE:.0%} over the whole text",
    "answer": f"an answer: at least {SAY:.0%} of its activation is at last tokens, and as much of that before this answer",
    "token": "a token: it takes at least half of the activation",
    "attribute": "what is asked: this attribute takes most of its activation",
    "tokens": "a mixture: the tokens that take most of its activation",
    "many": "a mixture: no token takes a share of its activation worth naming",
    "concept": "a concept: of all that the world knows, the one that fits best where it fires (F1 on half of the sentences)",
    "silent": "silent: it never fires in the training text",
}
GROUPS = {"strongest": "the strongest", "missed": "missed: the label holds, it is silent", "silent": "silent"}


def _sentence(example: Example, peak: float) -> str:
    """The words, shaded by their activation; the one that the example was chosen for is bold and carries its number."""
    out = []
    for i, (word, act) in enumerate(zip(example.words, example.activations, strict=True)):
        shade = f"background-color:rgba({FIRE},{0.08 + 0.57 * act / peak:.2f})" if act > 0 and peak else ""
        style, inner = f"padding:1px 3px;border-radius:3px;{shade}" if shade else "", parts.text(word)
        if i == example.at and act > 0:
            style += f";font-weight:bold;border-bottom:2px solid rgba({FIRE},1)"
            inner += f'<span style="font-size:75%;margin-left:4px">{act:.2f}</span>'
        out.append(f'<span title="{act:.3f}" style="{style}">{inner}</span>')
    mark = {True: "✓", False: "✗", None: "·"}[example.holds]
    return (
        f'<div style="line-height:1.7"><span style="display:inline-block;width:20px">{mark}</span>{" ".join(out)}'
        f' <span style="white-space:nowrap;{QUIET}">→ {parts.text(example.answer)}</span></div>'
    )


def _histogram(page: FeaturePage) -> str:
    """Columns as high as the logarithm of their count; the blue part is the share of these tokens at which the label holds."""
    every, right = page.histogram
    size = 80 * np.log10(1 + every) / max(np.log10(1 + every.max(initial=0)), 1e-8)
    columns = "".join(
        f'<div title="{n} tokens, label holds at {r}" style="width:11px;margin-right:2px;height:{h:.0f}px;'
        f'background-color:rgba(128,128,128,0.3)"><div style="height:{h * (1 - r / max(n, 1)):.0f}px"></div>'
        f'<div style="height:{h * r / max(n, 1):.0f}px;background-color:rgba({CALM},0.9)"></div></div>'
        for n, r, h in zip(every.tolist(), right.tolist(), size, strict=True)
    )
    note = "; lower, blue part: label holds" if page.concept else ""
    return (
        f'<div style="display:flex;align-items:flex-end;height:80px;width:262px;border-bottom:1px solid rgba(128,128,128,0.8)">{columns}</div>'
        f'<div style="width:262px;display:flex;justify-content:space-between;font-size:85%;{QUIET}">'
        f"<span>0</span><span>activation</span><span>{page.maximum:.2f}</span></div>"
        f'<div style="width:262px;font-size:85%;{QUIET}">height: log of up to {every.max(initial=0)} tokens{note}</div>'
    )


def _neighbours(page: FeaturePage, count: int) -> str:
    table = page.neighbours
    own = table.layer == page.layer
    rows = [
        [parts.text(n.label), f"{n.layer}/{n.index}", f"{n.cosine:+.2f}"]
        for side in (own, ~own)
        for n in table[side].head(count).itertuples()
    ]
    return parts.table(["label", page.kind, "cosine"], rows)


def _selectivity(page: FeaturePage) -> str:
    places = sorted(page.selectivity.items(), key=lambda p: -max(share for share, _ in p[1].values()))[:4]
    attributes = list(dict.fromkeys(a for _, found in places for a in found))
    rows = (
        [parts.text(place), *(f"{found[a][0]:.0%} ({found[a][1]})" if a in found else "–" for a in attributes)]
        for place, found in places
    )
    note = "share of its activation over two-hop questions (cities)"
    return parts.title("Selectivity", note) + parts.table(["place", *map(parts.text, attributes)], rows)


def _scores(page: FeaturePage) -> str:
    rows = [
        [f"{b.low:.0%} to {b.high:.0%}", str(b.tokens), parts.percent(b.share), parts.bar(b.share if b.tokens else 0, CALM, 60),
         parts.percent(b.precision), parts.percent(b.recall)]
        for b in page.bins.itertuples()
    ]  # fmt: skip
    head = ["of the maximum", "tokens", "label holds at", "", "precision", "recall"]
    return parts.table(head, rows, "lrrlrr")


def _chosen(page: FeaturePage, compact: bool) -> list[Example]:
    """All examples; in the short form two of the strongest and one of each other group."""
    kept = [
        list(e)[: (2 if g == "strongest" else 1) if compact else None]
        for g, e in groupby(page.examples, lambda e: e.group)
    ]
    return [e for group in kept for e in group]


def fragment(page: FeaturePage, compact: bool = False) -> str:
    """The page in HTML (see ``FeaturePage.html``)."""
    facts = f"{parts.text(page.name)} · active at {page.density:.2%} of {page.n_tokens:,} tokens · maximum {page.maximum:.2f}"
    out = [
        f'<div style="font-size:140%;font-weight:bold;line-height:1.3">{parts.text(page.label)}</div>'
        f"<div>{facts}</div>"
        f'<div style="{QUIET}">labelled as {KINDS[page.label_kind]}</div>'
    ]
    if page.concept:
        purity = page.purity()
        out.append(f'<div style="margin:8px 0">{parts.text(purity[0].upper() + purity[1:])}</div>')
    count = 5 if compact else 8
    writes = [parts.title("What it writes", "logits per unit of activation") + parts.effects(page, count)]
    if len(page.neighbours):
        writes.append(parts.title("Neighbours", "by what they write") + _neighbours(page, 2 if compact else 4))
    if page.selectivity and not compact:
        writes.append(_selectivity(page))
    if page.maximum == 0:
        return parts.boxes([*out, *writes])
    scores = [parts.title("How strongly it fires") + _histogram(page)]
    if page.concept and not compact:
        scores.append(
            parts.title("How well the label fits", "precision and recall: of this range and all above") + _scores(page)
        )
    fires = [
        parts.title(
            "What fires it", "drawn from the whole range" + "; ✓ the label holds, ✗ it does not" * bool(page.concept)
        )
    ]
    for group, examples in groupby(_chosen(page, compact), lambda e: e.group):
        fires.append(f'<div style="{QUIET};margin-top:6px;font-size:90%">{parts.text(GROUPS.get(group, group))}</div>')
        fires += [_sentence(e, page.maximum) for e in examples]
    wide = "flex-basis:480px;flex-grow:1;min-width:0"
    sides = f'<div style="{wide}">{"".join(fires)}</div><div>{"".join(writes)}</div>'
    return parts.boxes([*out, parts.row("".join(f"<div>{box}</div>" for box in scores)), parts.row(sides)])


# ------------------------------------------------------------------------- picture
def draw(page: FeaturePage) -> Figure:
    """Histogram (blue: the label holds), what it promotes and suppresses, and examples from the whole range."""
    examples = _chosen(page, compact=True) if page.maximum > 0 else []
    height = 3.6 + 0.36 * len(examples)
    figure = new_figure(11, height)
    figure.set_layout_engine("none")
    figure.text(0.02, 1 - 0.3 / height, page.label, fontsize=20, weight="bold", va="center", parse_math=False)
    facts = f"{page.name}  ·  active at {page.density:.2%} of {page.n_tokens:,} tokens  ·  {KINDS[page.label_kind].split(':')[0]}"
    figure.text(0.02, 1 - 0.62 / height, facts, fontsize=11, color="#444444", va="center", parse_math=False)
    counts, effects = (figure.add_axes((x, 1 - 3.05 / height, w, 2.1 / height)) for x, w in ((0.06, 0.4), (0.62, 0.34)))
    steps = np.linspace(0, page.maximum or 1, page.histogram.shape[1] + 1)
    for n, colour, hatch, label in (
        (page.histogram[0], "#DDDDDD", "", "all tokens"), (page.histogram[1], BLUE, "///", "label holds")
    ):  # fmt: skip
        counts.stairs(n + 0.5, steps, fill=True, fc=colour, ec=INK, lw=0.6, hatch=hatch, label=label, baseline=0.5)
    counts.set_yscale("log")
    counts.set_xlabel("activation", fontsize=12)
    counts.set_ylabel("tokens (log)", fontsize=12)
    counts.legend(fontsize=11, frameon=False)
    parts.draw_effects(effects, page)
    effects.set_xlabel("logits per unit of activation", fontsize=12)
    open_frames(counts, effects)
    for i, example in enumerate(examples):
        _draw_sentence(figure, example, page.maximum, (len(examples) - i - 0.5) * 0.36 / height)
    return figure


def _draw_sentence(figure: Figure, example: Example, peak: float, y: float) -> None:
    renderer: Any = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    mark = {True: "✓ holds", False: "✗ fails", None: ""}[example.holds]
    figure.text(0.02, y, f"{example.group}", fontsize=10, color="#444444", va="center", parse_math=False)
    figure.text(0.125, y, mark, fontsize=10, color="#444444", va="center")
    x = 0.19
    for i, (word, act) in enumerate(zip(example.words, example.activations, strict=True)):
        chosen = i == example.at and act > 0
        shade = {"bbox": {"boxstyle": "square,pad=.15", "fc": to_rgba(ORANGE, 0.08 + 0.57 * act / peak), "ec": "none"}}
        text = figure.text(
            x, y, f"{word} {act:.2f}" if chosen else word, fontsize=12, va="center", parse_math=False,
            weight="bold" if chosen else "normal", **(shade if act > 0 else {}),
        )  # fmt: skip
        x += text.get_window_extent(renderer).width / figure.bbox.width + 0.009
