"""Read attribution graphs as Neuronpedia, circuit-tracer and Anthropic's frontend write them."""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mi_workshop.circuits.graph import FEATURE, LOGIT, NODES, TOKEN, AttributionGraph, GraphError


def read_graph(path: str | Path) -> AttributionGraph:
    """Read one file. Raises GraphError naming the file and what is wrong with it; nothing is ever unpickled."""
    path = Path(path)
    if path.suffix == ".pt":
        raise GraphError(f"{path} is a pickled graph, which could run any program when opened: ask for its JSON file.")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return parse_graph(data)
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise GraphError(f"{path} cannot be read as JSON: {error}.") from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise GraphError(f"{path} is not an attribution graph: {type(error).__name__} {error}.") from None


def parse_graph(data: dict[str, Any]) -> AttributionGraph:
    """The tables of one graph; a second node with a taken id is renamed, with a warning (the first keeps the links)."""
    meta, raw = data["metadata"], data["nodes"]
    highest = max((int(n["layer"]) for n in raw if n["layer"] not in ("E", -1)), default=0)
    taken: set[str] = set()
    rows = []
    for n in raw:
        node_id = str(n["node_id"])
        while node_id in taken:
            warnings.warn(f"two nodes have the id {node_id!r}: the later one is renamed and has no links", stacklevel=3)
            node_id += "'"
        taken.add(node_id)
        kind = str(n["feature_type"])
        layer = highest if kind == LOGIT else -1 if kind == TOKEN else int(n["layer"])
        parts = str(n["node_id"]).split("_")
        feature = int(parts[1]) if kind == FEATURE and len(parts) == 3 and parts[1].isdigit() else n.get("feature")
        label = str(n.get("clerp") or "")
        if kind == LOGIT and label.startswith('Output "'):
            label = label[len('Output "') :].rsplit('"', 1)[0].strip()
        position = int(n["ctx_idx"])
        if kind == TOKEN and not label:
            label = str(meta["prompt_tokens"][position])
        rows.append(
            (node_id, kind, layer, position, -1 if feature is None else int(feature), _number(n.get("activation")),
             _number(n.get("influence")), float(n.get("token_prob") or 0.0), label)
        )  # fmt: skip
    nodes = pd.DataFrame(rows, columns=NODES)
    links = pd.DataFrame(data["links"], columns=["source", "target", "weight"]).astype({"weight": float})
    if lost := (set(links.source) | set(links.target)) - taken:
        raise ValueError(f"a link names the unknown node {sorted(lost)[0]!r}")
    if not np.isfinite(links.weight).all():
        raise ValueError("a link's weight is not a number")
    supernodes = {
        str(s[0]): [str(i) for i in s[1:] if str(i) in taken] for s in data.get("qParams", {}).get("supernodes") or []
    }
    hidden = meta.get("info", {}) or {}
    return AttributionGraph(
        str(meta["prompt"]), [str(t) for t in meta["prompt_tokens"]], nodes, links, {k: v for k, v in supernodes.items() if v},
        str(meta.get("scan") or ""), (int(hidden.get("hidden_nodes", 0)), int(hidden.get("hidden_links", 0))),
    )  # fmt: skip


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
