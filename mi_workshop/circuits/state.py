"""What a viewer saved with a graph: pins, supernodes, labels of its own and the threshold, from a file or a page's address."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mi_workshop.circuits.graph import LOGIT, TOKEN, AttributionGraph
from mi_workshop.circuits.repairs import Notes, number, shown


class Names:
    """The nodes that an id in a file can mean: a ``node_id``, a ``jsNodeId`` that one node alone has, or, for labels,
    ``layer_feature_position`` with the feature as the file encodes it."""

    def __init__(self) -> None:
        self.ids: dict[str, str] = {}
        self.js: dict[str, str | None] = {}
        self.features: dict[str, str] = {}

    def add(self, node_id: str, raw: str, js: Any, feature: str) -> None:
        self.ids.setdefault(raw, node_id)
        self.features.setdefault(feature, node_id)
        if isinstance(js, str):
            self.js[js] = None if js in self.js else node_id

    def find(self, value: Any) -> str | None:
        key = str(value) if type(value) is int else value
        if not isinstance(key, str):
            return None
        return self.ids.get(key) or self.ids.get(key.strip()) or self.js.get(key.strip())


def labels(clerps: Any, names: Names, notes: Notes) -> dict[str, str]:
    """Labels of the viewer's own, by node id: ``clerps`` is a list of ``[id, label]``."""
    found: dict[str, str] = {}
    for item in notes.items(clerps, "labels (clerps)"):
        pair = item if isinstance(item, list) and len(item) == 2 else [None, None]
        key = pair[0] if isinstance(pair[0], str) else ""
        if (node := names.features.get(key) or names.find(key)) and isinstance(pair[1], str):
            found[node] = notes.text(pair[1])
        else:
            notes.count("Labels (clerps) that name no node of the file", "left out")
    return found


def pins(value: Any, names: Names, notes: Notes) -> tuple[list[str], int]:
    """The pinned nodes, and how many pins name no node."""
    asked = notes.items(value, "pins (pinnedIds)")
    found = [names.find(p) for p in asked]
    dangling = found.count(None)
    if dangling:
        notes.tell(f"Pins that name no node of the file: {dangling} of {len(asked)} (left out).")
    return list(dict.fromkeys(p for p in found if p)), dangling


def supernodes(value: Any, names: Names, notes: Notes) -> dict[str, list[str]]:
    """Label → members. A node belongs to one supernode, the first that names it."""
    out: dict[str, list[str]] = {}
    taken: set[str] = set()
    for item in notes.items(value, "supernodes"):
        if isinstance(item, dict):
            members: list[Any] = next(
                (item[k] for k in ("nodes", "node_ids", "ids", "members") if isinstance(item.get(k), list)), []
            )
            item = [item.get("label", item.get("name")), *members]
        if not isinstance(item, list) or not item:
            notes.count("Supernodes that could not be read", "left out")
            continue
        found = [names.find(i) for i in item[1:]]
        notes.count("Members of supernodes that name no node of the file", "left out", found.count(None))
        ids = list(dict.fromkeys(i for i in found if i))
        free = [i for i in ids if i not in taken]
        notes.count("Nodes in more than one supernode", "they stay in the first", len(ids) - len(free))
        if not free:
            notes.count("Supernodes without a member", "left out")
            continue
        taken.update(free)
        label = first = (notes.text(item[0]).replace("\n", " ").strip() if item[0] is not None else "") or "unnamed"
        n = 1
        while label in out:
            n += 1
            label = f"{first} ({n})"
        if n > 1:
            notes.count("Supernodes whose label is taken", "a number was added")
        out[label] = free
    return out


def cut(graph: AttributionGraph, state: dict[str, Any], recomputed: bool, notes: Notes) -> AttributionGraph:
    """Hide what the page hides: nodes of influence above ``pruningThreshold``, unless token, answer, pinned or clicked."""
    if "subgraph" in state:
        notes.tell("The address names a saved sub-graph, which only Neuronpedia's own pages know: not applied.")
    if state.get("densityThreshold") not in (None, "", "1"):
        notes.tell(
            f"densityThreshold {shown(state['densityThreshold'])} of the address is not applied: the file holds no densities."
        )
    if (asked := state.get("pruningThreshold")) in (None, ""):
        return graph
    try:
        threshold = number(float(asked))
    except (TypeError, ValueError):
        threshold = -1.0
    if not 0 <= threshold <= 1:
        notes.tell(f"pruningThreshold {shown(asked)} of the address does not lie between 0 and 1: not applied.")
        return graph
    if recomputed:
        notes.tell(f"pruningThreshold {threshold:g} of the address is not applied: the file holds no influence.")
        return graph
    nodes = graph.nodes
    keep = (nodes.influence <= threshold) | nodes.feature_type.isin((TOKEN, LOGIT))
    keep |= nodes.node_id.isin([*graph.pins, graph.clicked])
    notes.tell(f"pruningThreshold {threshold:g} of the address hides {int((~keep).sum())} of {len(nodes)} nodes.")
    kept = graph.links.source.isin(nodes.node_id[keep]) & graph.links.target.isin(nodes.node_id[keep])
    return graph.restrict(keep.to_numpy(), graph.links[kept].reset_index(drop=True))


def with_state(
    graph: AttributionGraph, params: dict[str, Any], names: Names, own: int | None, notes: Notes
) -> AttributionGraph:
    """``graph`` with the pins, supernodes and clicked node of ``params``. ``own``: so many pins are pins, the rest are there
    because they are members of supernodes (Neuronpedia draws a supernode only if its members are pinned)."""
    groups = supernodes(params.get("supernodes"), names, notes)
    pinned, dangling = pins(params.get("pinnedIds"), names, notes)
    if own is not None:
        members = {i for ids in groups.values() for i in ids}
        pinned = pinned[:own] + [p for p in pinned[own:] if p not in members]
    if hidden := notes.items(params.get("hiddenIds"), "hiddenIds"):
        notes.tell(f"Nodes that the file asks its viewer to hide: {len(hidden)} (shown here).")
    clicked = names.find(params.get("clickedId")) or ""
    return replace(graph, supernodes=groups, pins=pinned, dangling_pins=dangling, clicked=clicked)
