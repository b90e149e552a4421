"""Figures of feature splitting and universality, in the style of ``plots``; the map is also a plotly figure with a menu of families."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.linalg import eigh

from mi_workshop.dictionary.core import SparseDictionary
from mi_workshop.dictionary.families import LINKS, Map, Tree
from mi_workshop.plots import BLUE, GREY, INK, ORANGE, new_figure, open_frames
from mi_workshop.show import counted

if TYPE_CHECKING:
    from mi_workshop.dictionary.universality import Matched

LOOKS = [
    ("o", "circle-open", INK, 13.0),
    ("s", "square", ORANGE, 8.0),
    ("^", "triangle-up", BLUE, 5.0),
]  # smallest dictionary first
LEAVES = 14  # rows of a drawn tree, at most
NEAR = 10


def plane(near: np.ndarray, layout: str) -> tuple[np.ndarray, float, float]:
    """Places [feature, 2] from the likeness of each two features (a Gram matrix), share of features whose nearest other
    is among the ``NEAR`` nearest in the plane, share of the variance that the plane holds (NaN for t-SNE)."""
    if layout == "tsne":
        from sklearn.manifold import TSNE

        xy = TSNE(2, metric="precomputed", init="random", perplexity=min(8, len(near) / 4), max_iter=300, angle=0.7, random_state=0, n_jobs=1).fit_transform((1 - near).clip(0))  # fmt: skip
        variance = np.nan
    else:
        centred = near - near.mean(0) - near.mean(1, keepdims=True) + near.mean()
        values, vectors = eigh(centred, subset_by_index=(len(near) - 2, len(near) - 1))
        xy, variance = vectors * np.sqrt(values.clip(0)), values.sum() / np.trace(centred)
    flat, full = xy @ xy.T - 0.5 * (xy**2).sum(1), near - 0.5 * near.diagonal()
    for likeness in (flat, full):
        np.fill_diagonal(likeness, -np.inf)
    shown = np.argpartition(-flat, min(NEAR, len(flat)) - 1, axis=1)[:, :NEAR]
    return xy.astype(float), float((shown == full.argmax(1)[:, None]).any(1).mean()), float(variance)


def _by_size(picture: Map) -> list[tuple[SparseDictionary, pd.DataFrame, np.ndarray]]:
    rows = [(d, picture.families.table.loc[d.width]) for d in picture.families.dictionaries]
    places = np.split(picture.places, np.cumsum([len(t) for _, t in rows])[:-1])
    return [(d, t, p) for (d, t), p in zip(rows, places, strict=True)]


def draw_map(picture: Map) -> Figure:
    """All live features of all sizes, the smallest dictionary's as large rings."""
    figure = new_figure(9, 6.6)
    ax = figure.add_subplot()
    for (d, table, xy), (marker, symbol, colour, size) in zip(_by_size(picture), LOOKS, strict=False):
        face = "none" if symbol.endswith("open") else colour
        ax.scatter(xy[:, 0], xy[:, 1], s=size**2, marker=marker, facecolors=face, edgecolors=colour, lw=1.2, alpha=0.7, label=f"{d.width}: {len(table)} live")  # fmt: skip
    ax.set(xticks=[], yticks=[])
    figure.legend(
        fontsize=13,
        frameon=False,
        title="size of the dictionary",
        title_fontsize=13,
        loc="outside lower center",
        ncols=3,
    )
    ax.set_title(_title(picture).replace("<br>", "\n"), fontsize=12.5, loc="left", color="#444444", parse_math=False)
    ax.spines[:].set_visible(False)
    return figure


def _title(picture: Map) -> str:
    head, hides = picture.words().split(": ", 1)
    return f"{head}<br>{hides}"


def plotly_map(picture: Map, trees: int = 20) -> dict[str, Any]:
    """The map as data and layout: on hover label, F1 and parent; a menu picks one family of concepts or one of the largest ``trees``."""
    traces, digits = [], 3 - int(np.log10(np.ptp(picture.places)))
    for (d, table, xy), (_, symbol, colour, size) in zip(_by_size(picture), LOOKS, strict=False):
        text = []
        for feature, row in table.iterrows():
            parent = f"<br>parent {row.parent:.0f}, cosine {row.cosine:.2f}" if row.get("parent", np.nan) >= 0 else ""
            text.append(f"{feature}: {html.escape(row.concept)}<br>F1 {row.f1:.2f}, {counted(int(row.tokens), 'token')}{parent}")  # fmt: skip
        traces.append({
            "type": "scatter", "mode": "markers", "name": f"{d.width} ({len(table)} live)", "x": xy[:, 0].round(digits).tolist(), "y": xy[:, 1].round(digits).tolist(), "text": text,
            "hovertemplate": "%{text}<extra></extra>", "marker": {"symbol": symbol, "color": colour, "size": size, "opacity": 0.75, "line": {"width": 1.5 if "open" in symbol else 0}},
            "selected": {"marker": {"opacity": 1}}, "unselected": {"marker": {"opacity": 0.07}},
        })  # fmt: skip
    layout = {
        "title": {"text": _title(picture), "font": {"size": 13}, "x": 0, "y": 0.97}, "margin": {"t": 110, "l": 10, "r": 10}, "height": 640, "hovermode": "closest", "font": {"size": 14, "color": INK}, "plot_bgcolor": "white",
        "xaxis": {"visible": False}, "yaxis": {"visible": False},
        "legend": {"title": {"text": "size of the dictionary"}, "orientation": "h", "y": -0.05},
        "updatemenus": [{"buttons": _menu(picture, trees), "x": 1, "xanchor": "right", "y": 1, "yanchor": "bottom", "font": {"size": 13}}],
    }  # fmt: skip
    return {"data": traces, "layout": layout}


def _menu(picture: Map, trees: int) -> list[dict[str, Any]]:
    """Buttons that light up a part of the map: all, each family of concepts, the largest trees."""
    families = picture.families
    tables = [families.table.loc[d.width] for d in families.dictionaries]
    lit: dict[str, list[list[int]] | None] = {"all features": None}
    for kind in families.table.family.value_counts().index:
        lit[f"labels: {kind}"] = [np.flatnonzero(t.family == kind).tolist() for t in tables]
    root = tables[0].index.to_series()
    roots = [root.to_numpy()]
    for table in tables[1:]:
        roots.append((root := table[LINKS[picture.by]].map(root)).to_numpy())
    for eldest, members in pd.Series(np.concatenate(roots)).value_counts().head(trees).items():
        name = f"tree of {eldest:.0f}: {html.escape(tables[0].concept[eldest][:22])} ({members})"
        lit[name] = [np.flatnonzero(of == eldest).tolist() for of in roots]
    return [
        {"label": name, "method": "restyle", "args": [{"selectedpoints": points or [None] * len(tables)}]}
        for name, points in lit.items()
    ]


def draw_tree(tree: Tree) -> Figure:
    """The eldest left, the largest dictionary right; thicker lines for nearer directions, dashed where the other measure names another parent."""
    root = tree.table.index[0]
    widths = sorted({w for w, _ in tree.table.index})
    children = tree.children(*root)[: LEAVES // 2]
    each = max(1, LEAVES // max(1, len(children)))
    shown = {root: children} | {c: tree.children(*c)[:each] for c in children}
    place: dict[tuple[int, int], tuple[int, float]] = {}
    y = 0.0
    for child in children:
        first = y
        for grandchild in shown[child]:
            place[grandchild], y = (2, y), y + 1
        y = max(y, first + 1)
        place[child] = (1, (first + y - 1) / 2)
    place[root] = (0, max(y - 1, 0) / 2)
    figure = new_figure(13, max(3.2, 1.4 + 0.52 * y))
    ax = figure.add_subplot()
    for parent, kin in shown.items():
        for child in kin:
            row = tree.table.loc[child]
            (x0, y0), (x1, y1) = place[parent], place[child]
            ax.plot([x0 + 0.02, x1 - 0.02], [y0, y1], color=BLUE if row.agree else GREY, ls="-" if row.agree else "--", lw=0.5 + 4 * max(0, row[tree.by]), zorder=1)  # fmt: skip
    for (width, feature), (x, at) in place.items():
        row = tree.table.loc[(width, feature)]
        label = row.concept.replace("the token ", "").replace(" or a city of it", " (or city)")
        label = label if len(label) <= 30 else label[:29] + "…"
        ax.text(
            x, at, f"{label}\nF1 {row.f1:.2f} · {row.tokens:.0f} tokens", ha="left", va="center", fontsize=13.5, weight="bold" if x == 0 else "normal", color=INK, parse_math=False,
            bbox={"boxstyle": "round,pad=.25", "fc": "white", "ec": INK if row.f1 >= 0.5 else GREY, "lw": 1.6 if row.f1 >= 0.5 else 0.8}, zorder=3, linespacing=0.95,
        )  # fmt: skip
    hidden = len(tree.table) - len(place)
    ax.set_xticks(range(len(widths)), [f"{w} features" for w in widths], fontsize=15, ha="left")
    ax.xaxis.tick_top()
    ax.set(xlim=(-0.05, len(widths) - 0.25), ylim=(max(y, 1) - 0.4, -0.6), yticks=[])
    more = f"; {counted(hidden, 'smaller member')} not drawn" if hidden else ""
    ax.set_xlabel(f"thicker: higher {tree.by}; dashed: the other measure names another parent; grey box: label with F1 under .5{more}", fontsize=12, loc="left")  # fmt: skip
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    return figure


def draw_matched(matched: Matched) -> Figure:
    """Share of units by the correlation with their best match: features filled, controls as lines, the published value dotted."""
    from mi_workshop.dictionary.universality import PUBLISHED

    figure = new_figure(11, 5.2)
    ax = figure.add_subplot()
    bins = np.linspace(0, 1, 21)

    def share(r: np.ndarray) -> np.ndarray:
        return np.histogram(np.clip(r, 0, 1), bins)[0] / max(1, len(r))

    r = matched.table.correlation.to_numpy()
    ax.stairs(share(r), bins, fill=True, color=BLUE, alpha=0.35)
    ax.stairs(share(r), bins, color=BLUE, lw=2.5, label=f"features, median {np.median(r):.2f}")
    for (name, s), (colour, style) in zip(matched.controls.items(), ((GREY, ":"), (INK, "--"), (ORANGE, "-.")), strict=False):  # fmt: skip
        ax.stairs(share(s), bins, color=colour, ls=style, lw=2.2, label=f"{name}, median {np.median(s):.2f}")
    top = max(
        0.3, 1.15 * max(share(s).max() for n, s in (("", r), *matched.controls.items()) if n != "tokens dealt anew")
    )
    ax.axvline(PUBLISHED, color=INK, lw=1.5, ls=(0, (1, 2)))
    ax.text(
        PUBLISHED, top, f" published median, about {PUBLISHED}\n (other models, text and sizes)", fontsize=12, va="top"
    )
    ax.set_ylim(0, top)
    ax.set_xlabel("correlation of activations with the best match", fontsize=13)
    ax.set_ylabel("share of units", fontsize=13)
    ax.set_title(f"{matched.a} and {matched.b}: {matched.table.mutual.mean():.0%} each other's best", fontsize=14, loc="left", parse_math=False)  # fmt: skip
    figure.legend(fontsize=12.5, frameon=False, loc="outside lower center", ncols=2)
    ax.tick_params(labelsize=12)
    open_frames(ax)
    return figure
