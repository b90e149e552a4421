"""The interactive attribution graph: tokens across, layers up, answers on top.

The picture is drawn by ``graph_view.js`` (an ES module without dependencies); all state lives in traits, so that a view can
be rebuilt, two views of one graph stay in step, and Python can move what is shown. ``clicked`` and ``interventions`` are
answered here; what they compute is in ``circuits.live``.
"""

from __future__ import annotations

import asyncio
import html
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import traitlets as t

from mi_workshop.circuits.graph import ERROR, FEATURE, LOGIT, TOKEN, AttributionGraph, end_name, inside
from mi_workshop.circuits.live import NO_MODEL
from mi_workshop.files import write_text
from mi_workshop.widgets.view import HERE, View, module

OPENING = 100  # a larger graph opens with at most so many nodes besides tokens and answers; the slider shows the others
REMEMBERED = 20  # details kept for nodes clicked before


class GraphView(View):
    """An interactive view of ``graph`` (``graph.show()`` makes one).

    ``selected``, ``threshold``, ``supernodes``, ``interventions``, ``clicked`` and ``size`` ("normal", or "stage" for a
    projector) can be set from Python; ``answers`` holds ``{before, after, controls, expected, running, error}``.
    Raises traitlets.TraitError for a value of the wrong type.
    """

    _esm = module("graph_view.js")
    _css = HERE / "graph_view.css"
    nodes = t.Dict().tag(sync=True)
    links = t.Bytes().tag(sync=True)
    meta = t.Dict().tag(sync=True)
    selected = t.List(t.Unicode()).tag(sync=True)
    threshold = t.Float(1.0, min=0, max=1).tag(sync=True)
    supernodes = t.Dict(key_trait=t.Unicode(), value_trait=t.List(t.Unicode())).tag(sync=True)
    interventions = t.List(t.Dict()).tag(sync=True)
    clicked = t.Unicode("").tag(sync=True)
    details = t.Dict(key_trait=t.Unicode(), value_trait=t.Unicode()).tag(sync=True)
    answers = t.Dict().tag(sync=True)
    can_act = t.Bool(False).tag(sync=True)
    swaps = t.Dict().tag(sync=True)
    size = t.Enum(["normal", "stage"], "normal").tag(sync=True)

    def __init__(self, graph: AttributionGraph, **traits: Any) -> None:
        """``traits``: any of the traits, to start with other than the usual values."""
        self._graph = graph
        self._task: asyncio.Task[None] | None = None
        super().__init__(**state(graph))
        self.observe(self._show_details, "clicked")
        self.observe(self._list_swaps, "supernodes")
        self.observe(self._act, "interventions")
        self._list_swaps()
        for name, value in traits.items():
            if not self.has_trait(name):
                raise TypeError(f"GraphView has no trait {name!r}.")
            setattr(self, name, value)

    @property
    def graph(self) -> AttributionGraph:
        """The graph with the supernodes as they are grouped now."""
        return replace(self._graph, supernodes=inside(self.supernodes, set(self._graph.nodes.node_id)))

    # --------------------------------------------------------------- answering
    def _show_details(self, change: Any) -> None:
        node = self._graph.nodes[self._graph.nodes.node_id == change.new]
        if self._graph.model is None or not len(node) or node.feature_type.iloc[0] != FEATURE:
            return
        from mi_workshop.circuits import live

        try:
            text = live.detail(self._graph, int(node.layer.iloc[0]), int(node.feature.iloc[0]))
        except Exception as error:  # whatever it is, the reader must see it: nothing else shows a callback's errors
            text = f"<p>{html.escape(f'The details cannot be shown: {error}')}</p>"
        kept = {i: self.details[i] for i in [i for i in self.details if i != change.new][1 - REMEMBERED :]}
        self.details = kept | {change.new: text}

    def _list_swaps(self, change: Any = None) -> None:
        if self.can_act:
            from mi_workshop.circuits import live

            self.swaps = live.swaps(self._graph, self.supernodes)

    def _act(self, change: Any = None) -> None:
        """New answers at once; the controls follow while the kernel has nothing better to do, or until the next change."""
        if self._task is not None:
            self._task.cancel()
            self._task = None
        if not self.interventions:
            self.answers = _answers(self.answers.get("before", []))
            return
        if not self.can_act:
            self.answers = _answers(self.answers.get("before", []), error=self.meta["why"])
            return
        try:
            from mi_workshop.circuits import live

            before, after, expected, portions = live.begin(self._graph, self.interventions)
            self.answers = _answers(before, after, expected=expected, running=True)
        except Exception as error:  # the reader must see it: nothing else shows a callback's errors
            self.answers = _answers(self.answers.get("before", []), error=_sentence(error))
            return
        try:
            self._task = asyncio.get_running_loop().create_task(self._stream(portions))
        except RuntimeError:  # no loop runs: a script, or a test
            while self._next(portions):
                pass

    async def _stream(self, portions: Iterator[list[dict[str, Any]]]) -> None:
        await asyncio.sleep(0)  # the answers go out first
        while self._next(portions):
            await asyncio.sleep(0)

    def _next(self, portions: Iterator[list[dict[str, Any]]]) -> bool:
        try:
            self.answers = self.answers | {"controls": next(portions)}
            return True
        except StopIteration:
            self.answers = self.answers | {"running": False}
        except Exception as error:  # as above
            self.answers = self.answers | {"running": False, "error": _sentence(error)}
        return False

    # ----------------------------------------------------------------- showing
    @property
    def subject(self) -> AttributionGraph:
        return self.graph

    def save(self, path: str | Path) -> Path:
        """Write the view as one ``.html`` file that opens from disk, without the interventions; other suffixes as ``AttributionGraph.save``."""
        from mi_workshop.widgets.standalone import page

        if Path(path).suffix != ".html":
            return self.graph.save(path)
        kept = {
            name: getattr(self, name) for name in ("selected", "threshold", "supernodes", "clicked", "details", "size")
        }
        return write_text(path, page(self.graph, kept))


def _sentence(error: Exception) -> str:
    return str(error) or f"This went wrong in the kernel: {type(error).__name__}."


def _answers(before: list[dict[str, Any]], after: list[dict[str, Any]] | None = None, **more: Any) -> dict[str, Any]:
    return {
        "before": before,
        "after": after or [],
        "controls": [],
        "expected": None,
        "running": False,
        "error": "",
    } | more


# ------------------------------------------------------------------ the traits
def state(graph: AttributionGraph) -> dict[str, Any]:
    """The traits that show ``graph``, without the bytes of any picture."""
    nodes, notes, influence = graph.nodes, list(graph.notes), graph.nodes.influence.to_numpy(float)
    if strange := sorted(set(nodes.feature_type) - {FEATURE, ERROR, TOKEN, LOGIT}):
        count = int((~graph._is(FEATURE, ERROR, TOKEN, LOGIT)).sum())
        notes.append(f"{count} nodes of types unknown here ({', '.join(strange)}) are drawn as plain grey dots.")
    x, y, columns, rows = layout(graph, influence)
    ends = [end_name(n) if n.feature_type in (TOKEN, LOGIT) else "" for n in nodes.itertuples()]
    table = {
        "id": nodes.node_id.tolist(), "type": nodes.feature_type.tolist(), "layer": nodes.layer.tolist(), "ctx": nodes.ctx_idx.tolist(),
        "label": nodes.label.tolist(), "activation": _plain(nodes.activation, 5), "influence": _plain(influence, 6),
        "prob": _plain(nodes.token_prob, 6), "end": ends, "x": _plain(x, 3), "y": _plain(y, 3),
    }  # fmt: skip
    coo = graph._matrix.tocoo()
    links = [coo.coords[1].astype("<i4"), coo.coords[0].astype("<i4"), coo.data.astype("<f4")]
    can_act = graph.model is not None
    meta = {
        "prompt": graph.prompt, "tokens": graph.tokens, "sentence": graph.describe(), "hidden": list(graph.hidden), "notes": notes,
        "suggested": graph.supernodes, "columns": columns, "rows": rows, "why": "" if can_act else NO_MODEL,
    }  # fmt: skip
    return {
        "nodes": table, "links": b"".join(a.tobytes() for a in links), "meta": meta, "supernodes": graph.supernodes, "can_act": can_act,
        "threshold": opening(influence[~graph._is(TOKEN, LOGIT)]),
        "answers": _answers(graph.top.to_dict("records")),
    }  # fmt: skip


def opening(influence: Any) -> float:
    """The highest threshold, in steps of .05, that leaves no more than ``OPENING`` nodes (at least one)."""
    ranked = np.sort(influence[np.isfinite(influence)])
    if len(ranked) <= OPENING:
        return 1.0
    return float(max(np.floor(20 * ranked[OPENING - 1]) / 20, np.ceil(20 * ranked[0]) / 20).clip(0, 1))


def _plain(values: Any, digits: int) -> list[float | None]:
    return [round(float(v), digits) if np.isfinite(v) else None for v in np.asarray(values, float)]


def layout(
    graph: AttributionGraph, influence: Any
) -> tuple[Any, Any, list[tuple[float, float]], list[tuple[int, float, float]]]:
    """Where each node stands: ``x, y`` in slots, the span of each token's column, and ``(layer, from, to)`` of each row.

    A column is as wide as its nodes need. Nodes of one token and layer fill a block, the most influential in its middle;
    blocks are as high as makes the whole picture about 1.7 times as wide as high. Answers stand side by side on top.
    """
    nodes = graph.nodes
    counts = nodes[~graph._is(LOGIT)].groupby(["ctx_idx", "layer"]).size()
    positions = range(max([len(graph.tokens), *(nodes.ctx_idx + 1)]))
    most = counts.groupby("ctx_idx").max().reindex(positions, fill_value=1)
    shapes = []
    for high in range(1, 9):
        wide = np.ceil(most / high)  # [position]
        wide = np.maximum(wide, max(2, np.ceil(wide.median() / 2)))  # room for the word
        rows = np.ceil(counts / wide.loc[counts.index.get_level_values("ctx_idx")].to_numpy()).groupby("layer").max()
        shapes.append((abs(np.log((wide + 1).sum() / (rows + 0.6).sum() / 1.7)), high, wide, rows))
    _, _, wide, rows = min(shapes, key=lambda s: s[:2])
    right = (wide + 1).cumsum().to_numpy()
    columns = [(float(r - w - 1), float(r)) for r, w in zip(right, wide, strict=True)]
    bands, bottom = [], 0.0
    for layer, high in rows.items():
        top = bottom + (1.2 if layer < 0 else max(float(high), 0.6 * float(rows.max())) + 0.6)
        bands.append((int(layer), bottom, top))
        bottom = top
    middle = {layer: (low + high) / 2 for layer, low, high in bands}
    x, y = np.zeros(len(nodes)), np.zeros(len(nodes))
    strength = np.nan_to_num(influence, nan=2.0)
    for (kind, layer, position), index in nodes.groupby([graph._is(LOGIT), "layer", "ctx_idx"]).indices.items():
        if kind:
            continue
        across = int(wide.iloc[position])
        for i, node in enumerate(index[np.argsort(strength[index], kind="stable")]):
            row, slot = divmod(i, across)
            x[node] = sum(columns[position]) / 2 + _from_middle(min(across, len(index) - row * across))[slot]
            y[node] = middle[layer] + _from_middle(-(-len(index) // across))[row]
    answers = nodes[graph._is(LOGIT)].sort_values("token_prob", ascending=False).index
    for i, node in enumerate(nodes.index.get_indexer(answers)):
        x[node], y[node] = right[-1] - (i + 0.5) * right[-1] / max(len(answers), 6), bottom + 0.8
    bands.append((int(nodes.layer.max()), bottom, bottom + 1.6))
    return x, y, columns, bands


def _from_middle(count: int) -> list[float]:
    """The places of ``count`` things in a line around 0, the middle ones first."""
    return sorted((k - (count - 1) / 2 for k in range(count)), key=abs)
