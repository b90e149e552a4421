"""Figures of the lenses and of logit attribution, in the style of ``plots``; the grid is also a plotly figure with more on hover."""

from __future__ import annotations

import html
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import ScalarFormatter

from mi_workshop.plots import BLUE, GREEN, GREY, INK, ORANGE, new_figure, picture

if TYPE_CHECKING:
    from mi_workshop.lens import Lens, Result, Trajectory
    from mi_workshop.logit_attribution import LogitAttribution
    from mi_workshop.tuned import TunedLens

STYLES = [(BLUE, "o", "-"), (ORANGE, "s", "--"), (GREEN, "^", "-."), (INK, "D", ":"), (GREY, "v", "-")]
WIDE, STRONGEST, HOVER = 16, 12, 6  # positions drawn, components drawn, tokens listed on hover
LIGHT = 0.715  # probability from which white is read better on a cell than black
BLUES = [[0, "#F7FBFF"], [0.25, "#C6DBEF"], [0.5, "#6BAED6"], [0.75, "#2171B5"], [1, "#08306B"]]  # as matplotlib's
CSP = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"
PAGE = """\
<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta http-equiv="Content-Security-Policy" content="{csp}"></head>
<body style="font-family: sans-serif"><main><h1>{title}</h1>{figure}<p>{words}</p></main></body></html>
"""


def _short(text: str, length: int = 11) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _cells(lens: Lens) -> tuple[list[int], list[list[tuple[str, float]]], list[list[bool]]]:
    """The positions drawn, and for each point and position the likeliest token, and whether the model says it in the end."""
    shown = list(range(len(lens.tokens)))[-WIDE:]
    p, i = lens.logprobs[:, shown].max(-1)
    best = [
        [(lens.vocabulary.name(t), q) for t, q in zip(*r, strict=True)]
        for r in zip(i.tolist(), p.exp().tolist(), strict=True)
    ]
    return shown, best, (i == lens.final[shown].argmax(-1)).tolist()


def _title(lens: Lens, shown: list[int]) -> str:
    left_out = f", the last {len(shown)} of {len(lens.tokens)} tokens" if len(shown) < len(lens.tokens) else ""
    return f"{lens.kind}: likeliest token and its probability{left_out}"


def draw_lens(lens: Lens) -> Figure:
    """Tokens across, layers up; in each cell the likeliest token and its probability, darker where more certain. A frame marks
    the cells that already have the token with which the model ends."""
    shown, best, ends = _cells(lens)
    figure = new_figure(1.5 + 1.22 * len(shown), 1.4 + 0.66 * len(best))
    ax = figure.add_subplot()
    ax.imshow([[q for _, q in row] for row in best], cmap="Blues", vmin=0, vmax=1, aspect="auto", origin="lower")
    for y, row in enumerate(best):
        for x, (token, q) in enumerate(row):
            ax.text(
                x, y, f"{_short(token)}\n{q:.2f}", ha="center", va="center", fontsize=11.5, color="white" if q > LIGHT else "black",
                weight="bold" if ends[y][x] else "normal", parse_math=False,
            )  # fmt: skip
            if ends[y][x]:
                ax.add_patch(Rectangle((x - 0.47, y - 0.45), 0.94, 0.9, fill=False, ec=INK, lw=1.8))
    ax.set_xticks(range(len(shown)), [_short(lens.tokens[i]) for i in shown], fontsize=14, parse_math=False)
    ax.set_yticks(range(len(best)), [p if p == "embed" else f"after {p}" for p in lens.points], fontsize=12.5)
    ax.set_title(
        f"{_title(lens, shown)}; framed: what the model says there in the end", fontsize=13, loc="left", color="#444444"
    )
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    return figure


def plotly_lens(lens: Lens) -> dict[str, Any]:
    """The grid as data and layout of a plotly figure; on hover the likeliest tokens, entropy and KL of the cell. Tokens are escaped:
    plotly reads its texts as markup."""
    shown, best, ends = _cells(lens)
    entropy, kl = lens.entropy.to_numpy(), lens.kl.to_numpy()
    text, hover = [], []
    for y, row in enumerate(best):
        colours = ["#FFFFFF" if q > LIGHT else "#000000" for _, q in row]
        cell = [
            f"<span style='color:{c}'>{html.escape(_short(t))}<br>{q:.2f}</span>"
            for c, (t, q) in zip(colours, row, strict=True)
        ]
        text.append([f"<b>{c}</b>" if end else c for c, end in zip(cell, ends[y], strict=True)])
        hover.append(
            [
                f"{html.escape(lens.labels[i])}, {lens.points[y]}<br>"
                + "<br>".join(f"{q:.3f} {html.escape(token)}" for token, q in lens.top(lens.points[y], i, HOVER))
                + f"<br>entropy {entropy[y, i]:.2f} nats<br>KL from the output {kl[y, i]:.2f} nats"
                for i in shown
            ]
        )
    grid = {
        "type": "heatmap", "z": [[round(q, 3) for _, q in row] for row in best], "zmin": 0, "zmax": 1, "text": text, "texttemplate": "%{text}",
        "customdata": hover, "hovertemplate": "%{customdata}<extra></extra>", "xgap": 2, "ygap": 2, "showscale": False,
        "colorscale": BLUES, "textfont": {"size": 13},
    }  # fmt: skip
    axis = {"showgrid": False, "zeroline": False, "ticks": "", "tickfont": {"size": 15}, "fixedrange": True}
    frames = [
        {
            "type": "rect",
            "x0": x - 0.46,
            "x1": x + 0.46,
            "y0": y - 0.45,
            "y1": y + 0.45,
            "line": {"color": INK, "width": 1.5},
        }
        for y, row in enumerate(ends)
        for x, end in enumerate(row)
        if end
    ]
    names = [p if p == "embed" else f"after {p}" for p in lens.points]
    layout = {
        "title": {"text": f"{_title(lens, shown)}; framed: what the model says there in the end", "font": {"size": 15}, "x": 0},
        "height": 130 + 52 * len(best), "margin": {"l": 120, "r": 10, "t": 45, "b": 45}, "hoverlabel": {"align": "left", "font": {"size": 14}},
        "xaxis": axis | {"tickvals": list(range(len(shown))), "ticktext": [html.escape(_short(lens.tokens[i])) for i in shown]},
        "yaxis": axis | {"tickvals": list(range(len(best))), "ticktext": names},
        "shapes": frames, "plot_bgcolor": "white", "paper_bgcolor": "white", "font": {"color": INK},
    }  # fmt: skip
    return {"data": [grid], "layout": layout}


def _points(ax: Any, names: list[str]) -> None:
    crowded = len(names) > 6
    ax.set_xticks(
        range(len(names)),
        names,
        fontsize=11 if crowded else 12,
        rotation=40 if crowded else 0,
        ha="right" if crowded else "center",
    )
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis="y", color="#EEEEEE")


def _legend(ax: Any, **where: Any) -> None:
    for text in ax.legend(fontsize=13, frameon=False, **where).get_texts():
        text.set_parse_math(False)


def draw_trajectory(result: Trajectory) -> Figure:
    """Probability (left) and rank (right, 1 on top, logarithmic) of the chosen tokens along the layers."""
    figure = new_figure(12, 4.2)
    left, right = figure.subplots(1, 2)
    for ax, values in ((left, result.prob), (right, result.rank)):
        for i, word in enumerate(values):
            colour, marker, line = STYLES[i % len(STYLES)]
            ax.plot(values[word].to_numpy(), color=colour, marker=marker, ls=line, lw=2.4, ms=8, label=word)
        _points(ax, list(values.index))
    left.set_ylim(-0.03, 1.03)
    left.set_title(f"probability at {result.label!r}", fontsize=14, parse_math=False)
    right.set_yscale("log")
    right.set_ylim(result.d_vocab * 1.2, 0.8)
    right.yaxis.set_major_formatter(ScalarFormatter())
    right.set_title(f"rank among {result.d_vocab} tokens (1 = likeliest)", fontsize=14)
    _legend(left)
    figure.suptitle(
        f"{result.kind}: {_short(result.prompt, 90)}", fontsize=12, color="#444444", x=0.01, ha="left", parse_math=False
    )
    return figure


def draw_tuned(lens: TunedLens) -> Figure:
    """KL from the model's own output along the layers, plain and tuned lens."""
    figure = new_figure(8, 4)
    ax = figure.add_subplot()
    for column, (colour, marker, line) in zip(("plain", "tuned"), (STYLES[1], STYLES[0]), strict=True):
        ax.plot(
            lens.table[column].to_numpy(), color=colour, marker=marker, ls=line, lw=2.4, ms=8, label=f"{column} lens"
        )
    _points(ax, lens.points)
    ax.set_ylim(bottom=0)
    ax.set_title(f"KL from the output in nats, mean over {lens.counts[1]} held-out prompts", fontsize=14)
    _legend(ax)
    return figure


def draw_attribution(result: LogitAttribution) -> Figure:
    """The strongest components as bars in the model's order; what speaks against the token is hatched and to the left."""
    keep = result.table.value.abs().sort_values(ascending=False).index[:STRONGEST].sort_values()
    rows = [(r.component, r.value) for r in result.table.loc[keep].itertuples()]
    if others := len(result.table) - len(rows):
        rows.append((f"the other {others}", result.table.drop(keep).value.sum()))
    figure = new_figure(10, 1.2 + 0.36 * len(rows))
    ax = figure.add_subplot()
    for y, (_, value) in enumerate(rows):
        against = value < 0
        ax.barh(
            y,
            value,
            color="white" if against else BLUE,
            edgecolor=ORANGE if against else BLUE,
            hatch="///" if against else "",
        )
        ax.annotate(
            f"{value:+.2f}",
            (value, y),
            (-5 if against else 5, 0),
            textcoords="offset points",
            va="center",
            fontsize=12,
            ha="right" if against else "left",
        )
    ax.set_yticks(range(len(rows)), [name for name, _ in rows], fontsize=12.5)
    ax.invert_yaxis()
    ax.axvline(0, color=INK, lw=1)
    ax.margins(x=0.12)
    ax.set_title(f"{result.target} at {result.label!r}: {result.logit:.2f}", fontsize=14, loc="left", parse_math=False)
    ax.set_xlabel("written directly into the logit", fontsize=12)
    ax.spines[["top", "right", "left"]].set_visible(False)
    return figure


def save(result: Result, path: Path) -> None:
    """Write the picture as .svg or .png, or as one page that asks for nothing else; the grid's page is interactive."""
    if path.suffix != ".html":
        result.figure().savefig(path, format=path.suffix[1:], dpi=160)
        return
    words = result.words()
    if live := result.interactive():
        import plotly.graph_objects as go

        drawn = go.Figure(live).to_html(full_html=False, include_plotlyjs=True, config={"displayModeBar": False})
    else:
        drawn = picture(result.figure(), words, 160)
    title = html.escape(f"{type(result).__name__}: {getattr(result, 'prompt', '') or getattr(result, 'name', '')}")
    path.write_text(PAGE.format(title=title, csp=CSP, figure=drawn, words=html.escape(words)), encoding="utf-8")
