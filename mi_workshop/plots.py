"""Figures, drawn with matplotlib so that a notebook shows them live, stored, untrusted and offline alike.

Every figure is readable in grey: position and shape carry the meaning, colour (Okabe and Ito's colour-blind-safe palette)
only repeats it. Text from models and files is drawn as text, never as markup.
"""

from __future__ import annotations

import base64
import io
import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from mi_workshop.circuits.graph import CODED, LOGIT, TOKEN, end_name
from mi_workshop.show import counted, image

if TYPE_CHECKING:
    from mi_workshop.circuits.ablate import AblationResult
    from mi_workshop.circuits.compare import Comparison
    from mi_workshop.circuits.graph import AttributionGraph
    from mi_workshop.circuits.swap import SwapResult
    from mi_workshop.counterfactual import Report

BLUE, ORANGE, GREEN, GREY, INK = "#0072B2", "#D55E00", "#009E73", "#8A8A8A", "#1A1A1A"
RUST = "#B34F00"  # ORANGE so dark that white can be read on it (5.2 to 1)


def new_figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def ink_on(colour: Any) -> str:
    """Black or white, whichever is read better on ``colour`` (red, green, blue from 0 to 1): 4.58 to 1 or more by WCAG's measure."""
    c = np.asarray(colour)[:3]
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    return "black" if linear @ [0.2126, 0.7152, 0.0722] > 0.179 else "white"


def open_frames(*axes: Any) -> None:
    """Left and bottom line alone."""
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)


def draw_graph(graph: AttributionGraph, max_links: int = 150) -> Figure:
    """Tokens across, layers up, answers on top; supernodes as boxes, the strongest links between them as arrows.

    Single features are dots, error nodes diamonds; thin grey lines are the ``max_links`` strongest single links. What is
    not drawn is counted in the caption.
    """
    figure = new_figure(_width(graph), 6.4)
    ax = figure.add_subplot()
    boxes = _draw(ax, graph, max_links)
    s = graph.scores
    hidden = f"  ·  hidden by pruning: {graph.hidden[0]} nodes, {graph.hidden[1]} links" if any(graph.hidden) else ""
    shown = f"  ·  the {max_links} strongest of {len(graph.links)} links drawn" if len(graph.links) > max_links else ""
    weaker = (
        f"  ·  {len(graph.supernodes) - len(boxes)} weaker supernodes as dots"
        if len(graph.supernodes) > len(boxes)
        else ""
    )
    notes = f"  ·  notes on the file: {len(graph.notes)}" if graph.notes else ""
    ax.set_title(
        f"{len(graph.nodes)} nodes  ·  replacement {s.replacement:.2f}  ·  completeness {s.completeness:.2f}{hidden}{shown}{weaker}{notes}",
        fontsize=11, color="#444444", loc="left",
    )  # fmt: skip
    return figure


def draw_comparison(comparison: Comparison, max_links: int = 80) -> Figure:
    """Two graphs side by side in the style of ``draw_graph``, the same layers at the same height; features that both have
    are filled, features of one alone are hollow."""
    graphs = (comparison.a, comparison.b)
    widths = [_width(g, 0.85) for g in graphs]
    figure = new_figure(sum(widths), 6.6)
    axes = figure.subplots(1, 2, sharey=True, width_ratios=widths)
    top = max(int(g.nodes.layer.max()) for g in graphs)
    for ax, graph, name, width, alone in zip(
        axes, graphs, "ab", widths, (comparison.only_a, comparison.only_b), strict=True
    ):
        table = comparison.table
        shared = set(table.dropna(subset=["node_a", "node_b"])[f"node_{name}"]) if comparison.same_features else set()
        _draw(ax, graph, max_links, filled=shared, top_layer=top, share=width / sum(widths))
        count = (
            f"{comparison.shared} features shared (filled), {alone} only here"
            if comparison.same_features
            else graph.scan
        )
        ax.set_title(
            f"{name}: {_short(graph.prompt, 60)}\n{count}  ·  replacement {graph.scores.replacement:.2f}",
            fontsize=13, color="#444444", loc="left", parse_math=False,
        )  # fmt: skip
        ax.tick_params(axis="x", rotation=35)
    return figure


def _width(graph: AttributionGraph, column: float = 1.25) -> float:
    return min(max(9.0, column * len(graph.tokens)), 80.0)


def _draw(
    ax: Any,
    graph: AttributionGraph,
    max_links: int,
    filled: set[str] | None = None,
    top_layer: int = 0,
    share: float = 1.0,
) -> list[str]:
    """Draw ``graph`` on ``ax`` with the answers at ``top_layer`` or higher, on ``share`` of the figure's width; returns the labels of the supernodes drawn as boxes."""
    nodes = graph.nodes
    top_layer = max(top_layer, int(nodes.layer.max()))
    n_pos, filled = len(graph.tokens), filled or set()
    inch = n_pos / (share * ax.get_figure().get_figwidth())  # in columns
    place = _positions(graph, 1.9 * inch)
    answers = nodes[nodes.feature_type == LOGIT].sort_values("token_prob", ascending=False)
    room = max(1, sum(place[i][0] - 1.6 * inch > -0.6 for i in answers.node_id.head(5)))
    for i in answers.node_id[room:]:
        del place[i]
    links = graph.links[graph.links.target.isin(place)]
    strong = links.reindex(links.weight.abs().sort_values(ascending=False).index).head(max_links)
    scale = float(strong.weight.abs().max() or 1)
    for link in strong.itertuples():
        (x0, y0), (x1, y1) = place[link.source], place[link.target]
        size = abs(link.weight) / scale
        ax.plot(
            [x0, x1],
            [y0, y1],
            color=GREY,
            lw=0.3 + 1.7 * size,
            alpha=0.15 + 0.35 * size,
            zorder=1,
            ls="-" if link.weight > 0 else ":",
        )
    boxes = drawn_supernodes(graph)
    grouped = {i for label in boxes for i in graph.supernodes[label]}
    free = nodes[~nodes.feature_type.isin((TOKEN, LOGIT)) & ~nodes.node_id.isin(grouped)]
    for (kind, full), group in free.groupby([free.feature_type, free.node_id.isin(filled)]):
        error, colour = "error" in kind, BLUE if kind in CODED else GREY
        inside = colour if full else "#DDDDDD" if error else "white"
        xs, ys = zip(*(place[i] for i in group.node_id), strict=True)
        ax.scatter(xs, ys, marker="D" if error else "o", s=26, c=inside, edgecolors=colour, lw=1.1, zorder=3)
    centres = _draw_boxes(ax, graph, boxes, place, 1.1 * inch)
    _draw_arrows(ax, graph, centres)
    for node in answers.head(room).itertuples():
        x, y = place[node.node_id]
        strongest = node.label == graph.top.token[0]
        ax.text(
            n_pos - 0.35 if strongest else x, y, f"{_short(node.label, 24)} {node.token_prob:.0%}", ha="right", va="center", fontsize=15 if strongest else 10,
            weight="bold" if strongest else "normal", color=INK, parse_math=False, zorder=6,
            bbox={"boxstyle": "round,pad=.3", "fc": "white", "ec": INK, "lw": 1.6 if strongest else 0.6},
        )  # fmt: skip
    ax.set_xticks(range(n_pos), [_short(t) for t in graph.tokens], fontsize=14, parse_math=False)
    ax.set_yticks(
        [-1, *range(top_layer), top_layer], ["tokens", *[f"layer {i}" for i in range(top_layer)], "answer"], fontsize=12
    )
    ax.set_xlim(-0.6, n_pos - 0.3)
    ax.set_ylim(-1.35, top_layer + 0.45)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    ax.grid(axis="y", color="#EEEEEE", zorder=0)
    return boxes


def _short(text: str, length: int = 14) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _positions(graph: AttributionGraph, between: float) -> dict[str, tuple[float, float]]:
    """Where each node stands: its token across, its layer up, nodes of the same place side by side, answers ``between`` columns apart."""
    out: dict[str, tuple[float, float]] = {}
    member = {i: label for label, ids in graph.supernodes.items() for i in ids}
    together: dict[tuple[int, int], list[Any]] = {}
    for node in graph.nodes.itertuples():
        together.setdefault((node.ctx_idx, node.layer), []).append(node)
    for (_, layer), group in together.items():
        logits = group[0].feature_type == LOGIT
        order = sorted(group, key=lambda n: (-n.token_prob, member.get(n.node_id, "~"), n.feature))
        for i, node in enumerate(order):
            if logits:
                out[node.node_id] = (node.ctx_idx + 0.15 - between * i, layer)
            else:
                row, column = divmod(i, 7)
                width = min(7, len(order) - row * 7)
                out[node.node_id] = (
                    node.ctx_idx + 0.1 * (column - (width - 1) / 2),
                    layer + 0.13 * row - 0.2 * (len(order) > 7),
                )
    return out


def drawn_supernodes(graph: AttributionGraph, count: int = 10) -> list[str]:
    """The supernodes of the strongest chain and those with the most influential members, ``count`` in all."""
    influence = graph.nodes.set_index("node_id").influence
    chain = [name for step in graph.path() for name in (step[0], step[2]) if name in graph.supernodes]
    ranked = sorted(graph.supernodes, key=lambda label: influence[graph.supernodes[label]].min())
    return list(dict.fromkeys([*chain, *ranked]))[: max(count, len(set(chain)))]


def _draw_boxes(
    ax: Any, graph: AttributionGraph, boxes: list[str], place: dict[str, tuple[float, float]], wide: float
) -> dict[str, tuple[float, float]]:
    """One box for each supernode in ``boxes``, at its lowest layer over the token where most of it is; returns their centres, those of
    tokens and of answers that have a place, by the names ``flow`` uses."""
    centres: dict[str, tuple[float, float]] = {}
    for node in graph.nodes[
        graph.nodes.feature_type.isin((TOKEN, LOGIT)) & graph.nodes.node_id.isin(place)
    ].itertuples():
        centres[end_name(node)] = place[node.node_id]
    nodes = graph.nodes.set_index("node_id")
    taken: list[tuple[float, float]] = []
    for label in boxes:
        ids = graph.supernodes[label]
        mine = nodes.loc[ids]
        mine = mine[mine.ctx_idx == mine.ctx_idx.mode()[0]]
        x, y = np.mean([place[i] for i in mine.index[mine.layer == mine.layer.min()]], axis=0)
        while any(abs(x - a) < wide and abs(y - b) < 0.26 for a, b in taken):
            y += 0.27
        taken.append((x, y))
        text = f"{label.split(' @')[0]} ×{len(ids)}" if len(ids) > 1 else label.split(" @")[0]
        ax.text(
            x, y, _short(text, 22), ha="center", va="center", fontsize=11.5, color="white", weight="bold", parse_math=False, zorder=5,
            bbox={"boxstyle": "round,pad=.32", "fc": RUST if label.startswith("say ") else BLUE, "ec": "white", "lw": 1.2},
        )  # fmt: skip
        centres[label] = (float(x), float(y))
    return centres


def _draw_arrows(ax: Any, graph: AttributionGraph, centres: dict[str, tuple[float, float]], count: int = 14) -> None:
    flow = graph.flow
    chain = {(s, t) for s, _, t in graph.path()}
    flow = flow[(flow.share.abs() >= 0.02) & flow.source.isin(centres) & flow.target.isin(centres)]
    flow = flow[~flow.source.str.startswith("token ") | flow.target.isin(t for s, t in chain)].head(count)
    for row in flow.itertuples():
        main = (row.source, row.target) in chain
        (x0, y0), (x1, y1) = centres[row.source], centres[row.target]
        ax.annotate(
            "", (x1, y1), (x0, y0), zorder=4 if main else 2,
            arrowprops={"arrowstyle": "-|>", "lw": (wide := 1 + 9 * abs(row.share) ** 0.8), "mutation_scale": 8 + 2 * wide, "color": INK if main else "#666666", "alpha": 0.9 if main else 0.45,
                        "ls": "-" if row.share > 0 else ":", "shrinkA": 14, "shrinkB": 14, "connectionstyle": "arc3,rad=.06"},
        )  # fmt: skip


def _before_after(ax: Any, before: list[dict[str, Any]], after: list[dict[str, Any]], first: list[str]) -> None:
    old, new = ({t["token"]: t["prob"] for t in side} for side in (before, after))
    words = list(dict.fromkeys([*first, *new, *old]))[:5][::-1]
    y = np.arange(len(words))
    ax.barh(y + 0.2, [old.get(w, 0) for w in words], 0.38, color="white", edgecolor=INK, hatch="///", label="before")
    ax.barh(y - 0.2, [new.get(w, 0) for w in words], 0.38, color=BLUE, edgecolor=INK, label="after")
    ax.set_yticks(y, words, fontsize=13, parse_math=False)
    ax.set_xlim(0, 1)
    ax.legend(fontsize=12, frameon=False)
    ax.set_xlabel("probability", fontsize=12)


def draw_ablation(result: AblationResult) -> Figure:
    """Left: answers before and after; right: what random sets of equal size leave of the answer."""
    figure = new_figure(11, 4)
    bars, spread = figure.subplots(1, 2)
    answer = result.before[0]["token"]
    _before_after(bars, result.before, result.after, [answer])
    bars.set_title(f"{counted(len(result.node_ids), 'feature')} set to zero", fontsize=14)
    spread.hist(result.random_probs, bins=np.linspace(0, 1, 26), color="#BBBBBB", edgecolor=INK, label="random sets")
    spread.axvline(result.prob, color=ORANGE, lw=3, label="these features")
    spread.set_ylabel("number of random sets", fontsize=12)
    spread.set_xlim(0, 1)
    spread.set_xlabel(f"probability of {answer}", fontsize=12, parse_math=False)
    spread.set_title(f"{len(result.random_probs)} different random sets of equal size", fontsize=14)
    spread.legend(fontsize=12, frameon=False)
    open_frames(bars, spread)
    return figure


def draw_swap(result: SwapResult) -> Figure:
    """Left: answers before and after; middle: each control; right: the dose curve."""
    figure = new_figure(13, 4.6)
    bars, table, curve = figure.subplots(1, 3, width_ratios=[1.1, 1.35, 1])
    _before_after(bars, result.before, result.after, [result.before[0]["token"], result.expected])
    bars.set_title(f"{result.old} → {result.new} ({result.at})", fontsize=14, parse_math=False)
    c = result.controls
    rows = [
        ("the swap", result.after[0]["token"], result.after[0]["prob"], BLUE),
        ("nothing changed", result.before[0]["token"], result.before[0]["prob"], GREY),
        (
            f"{c['random']['n']} random sets\n({c['random']['expected_rate']:.0%} say {result.expected})",
            f"mean of {result.before[0]['token']}",
            c["random"]["mean_prob_kept"],
            GREY,
        ),
        (f"same place\n({c['same_state']['city']})", c["same_state"]["token"], c["same_state"]["prob"], GREY),
        (f"third place\n({c['third_state']['place']})", c["third_state"]["token"], c["third_state"]["prob"], GREY),
        ("everything at\nthat place", c["ceiling"]["token"], c["ceiling"]["prob"], GREY),
    ][::-1]
    table.barh(range(len(rows)), [r[2] for r in rows], color=[r[3] for r in rows], edgecolor=INK, height=0.62)
    for i, (_, token, prob, colour) in enumerate(rows):
        inside = prob > 0.5
        table.text(
            0.03 if inside else prob + 0.03,
            i,
            f"{token} {prob:.2f}",
            va="center",
            fontsize=12.5,
            color="white" if inside and colour == BLUE else INK,
            weight="bold",
            parse_math=False,
        )
    table.set_yticks(range(len(rows)), [r[0] for r in rows], fontsize=11.5, parse_math=False)
    table.set_xlim(0, 1)
    table.set_title("the answer beside each control's", fontsize=14)
    table.set_xlabel("probability", fontsize=12)
    dose = [d["dose"] for d in result.dose]
    curve.plot(dose, [d["old"] for d in result.dose], "s--", color=INK, lw=2, label=result.before[0]["token"])
    curve.plot(dose, [d["new"] for d in result.dose], "o-", color=BLUE, lw=2.5, label=result.expected)
    curve.set_xlabel("dose (1 = the swap)", fontsize=12)
    curve.set_ylim(-0.03, 1.03)
    legend = curve.legend(fontsize=12, frameon=False)
    for text in legend.get_texts():
        text.set_parse_math(False)
    curve.set_title("dose curve: probability", fontsize=14)
    open_frames(bars, table, curve)
    return figure


def draw_report(report: Report) -> Figure:
    """Left: answers before and after (of the first prompt); middle: what is lost and gained beside each control, dots for the random
    changes; right: the dose curve."""
    figure = new_figure(13, 5)
    n = len(report.table)
    verdict = {"both": "necessary and sufficient"}.get(report.verdict, report.verdict)
    failed = f"; {counted(len(report.against), 'control')} against it" if report.against else ""
    said = f"{verdict}{failed}  ({n} prompt{'' if n == 1 else 's'}, attention {report.attention})"
    title = textwrap.fill(f"{_short(report.what, 150)}  →  {said}", 100)
    figure.suptitle(title, fontsize=15, weight="bold", x=0.01, ha="left", parse_math=False)
    bars, table, curve = figure.subplots(1, 3, width_ratios=[1, 1.45, 1])
    _before_after(bars, report.before, report.after, [report.before[0]["token"]])
    bars.set_title("before and after" + (" (first prompt)" if n > 1 else ""), fontsize=14)
    mean = report.table[["lost", "gained"]].mean()
    rows = [("the change", mean.lost, mean.gained), *((n, c["lost"], c["gained"]) for n, c in report.controls.items())]
    rows = rows[::-1]
    names = [name for name, *_ in rows]
    both = bool(mean.notna().all())
    kinds = [("lost", 1, ORANGE), ("gained", 2, BLUE)] if both else [("lost", 1, ORANGE)]
    for i, (name, column, colour) in enumerate(kinds):
        y = np.arange(1, len(rows) + 1) + (0.2 - 0.4 * i if both else 0)
        wide = 0.36 if both else 0.6
        hatch = "///" if name == "lost" else None
        table.barh(y, [r[column] for r in rows], wide, color=colour, edgecolor=INK, hatch=hatch, label=name)
        spread = 0.22 * np.sin(np.arange(len(report.random)) * 2.4) - i  # so that dots do not hide each other
        table.plot(report.random[name], spread, "s" if name == "lost" else "o", color=colour, ms=3.5, alpha=0.6)
    table.axvline(0.5, color=GREY, lw=1, ls=":")
    below = [f"{len(report.random)} random changes: {name}" for name, *_ in kinds]
    table.set_yticks(range(1 - len(kinds), len(names) + 1), [*below[::-1], *names], fontsize=12)
    table.set_xlim(min(-0.05, float(report.random.min(axis=None))), 1.05)
    table.set_title("share of the answer's probability", fontsize=14)
    table.legend(fontsize=12, loc="best", ncols=len(kinds))
    for name, style, colour, label in (
        ("prob", "s--", INK, "own answer"),
        ("donor_prob", "o-", BLUE, "donor's answer"),
    ):
        if report.dose[name].notna().all():
            curve.plot(report.dose.index, report.dose[name], style, color=colour, lw=2.2, label=label)
    curve.set_xlabel("dose (1 = the change)", fontsize=12)
    curve.set_ylim(-0.03, 1.03)
    curve.set_title("dose curve: probability", fontsize=14, pad=30)
    curve.legend(fontsize=12, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 0.99), ncols=2, borderaxespad=0)
    for ax in (bars, table, curve):
        ax.spines[["top", "right"]].set_visible(False)
    return figure


# ------------------------------------------------------------------- showing
def png(figure: Figure, dpi: int = 80) -> bytes:
    """A small PNG, so that stored notebooks stay light: 32 colours for a drawing, 48 with a picture or a colour scale in it."""
    mapped = any(shown.get_array() is not None for ax in figure.axes for shown in (*ax.images, *ax.collections))
    drawn, out = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=dpi, pil_kwargs={"compress_level": 1})
    image = Image.open(drawn).convert("RGB")
    image.quantize(48 if mapped else 32, kmeans=1).save(out, format="png", optimize=True)
    return out.getvalue()


def picture(figure: Figure, sentence: str, dpi: int = 100) -> str:
    """An HTML image of a figure, with alt text."""
    return image(base64.b64encode(png(figure, dpi)).decode(), sentence, int(figure.get_figwidth() * 80))


def mimebundle(figure: Figure, sentence: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a notebook stores: an image with alt text (HTML without scripts), the same PNG, and the sentence."""
    data = base64.b64encode(png(figure)).decode()
    width = int(figure.get_figwidth() * 80)
    return {"text/html": image(data, sentence, width), "image/png": data, "text/plain": sentence}, {
        "image/png": {"alt": sentence, "width": width}
    }
