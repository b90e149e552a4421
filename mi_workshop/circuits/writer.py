"""Write a graph as Neuronpedia's JSON, valid against its published schema and circuit-tracer's own models."""

from __future__ import annotations

from typing import Any

import numpy as np

from mi_workshop.circuits.graph import CODED, LOGIT, TOKEN, AttributionGraph, cantor


def to_json(graph: AttributionGraph) -> dict[str, Any]:
    """Schema version 1 (features as Cantor pairs); a graph whose feature numbers are opaque keeps them and names no version.

    Neuronpedia draws a supernode only if its members are pinned, so they stand after the pins; ``info.n_pins`` tells them apart.
    """
    members = [i for ids in graph.supernodes.values() for i in ids]
    first = graph.answers.node_id.iloc[0] if len(graph.answers) else ""
    return {
        "metadata": {
            "slug": "-".join("".join(c if c.isalnum() else " " for c in graph.prompt.lower()).split())[:80] or "graph",
            "scan": graph.scan,
            "transcoder_list": [],
            "prompt_tokens": list(graph.tokens),
            "prompt": graph.prompt,
            **({} if graph.opaque else {"schema_version": 1}),
            **({"feature_details": {"neuronpedia_source_set": graph.source_set}} if graph.source_set else {}),
            "info": {
                "generator": {"name": "mi-workshop"}, "hidden_nodes": graph.hidden[0], "hidden_links": graph.hidden[1],
                "n_pins": len(graph.pins), "notes": list(graph.notes),
            },
        },
        "qParams": {
            "pinnedIds": list(dict.fromkeys([*graph.pins, *members])),
            "supernodes": [[label, *ids] for label, ids in graph.supernodes.items()],
            "linkType": "both", "clickedId": graph.clicked, "sg_pos": "",
        },
        "nodes": [_node(n, graph.opaque, first) for n in graph.nodes.to_dict("records")],
        "links": graph.links.to_dict("records"),
    }  # fmt: skip


def _node(n: dict[str, Any], opaque: bool, first: str) -> dict[str, Any]:
    kind, layer, feature = n["feature_type"], n["layer"], n["feature"]
    return {
        "node_id": n["node_id"],
        "feature": cantor(layer, feature) if kind in CODED and feature >= 0 and not opaque else feature,
        "layer": "E" if kind == TOKEN else str(layer),
        "ctx_idx": n["ctx_idx"],
        "feature_type": kind,
        "token_prob": n["token_prob"],
        "is_target_logit": n["node_id"] == first,
        "run_idx": 0,
        "reverse_ctx_idx": 0,
        "jsNodeId": n["node_id"],
        "clerp": f'Output "{n["label"]}" (p={n["token_prob"]:.3f})' if kind == LOGIT else n["label"],
        "influence": _null(n["influence"]),
        "activation": _null(n["activation"]),
    }


def _null(value: float | None) -> float | None:
    return None if value is None or np.isnan(value) else float(value)
