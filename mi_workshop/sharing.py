"""One's own sub-graphs and graphs on Neuronpedia: what needs a key."""

from __future__ import annotations

import gzip
import json
import re
from typing import TYPE_CHECKING, Any

from mi_workshop.api import Api, source_set_of
from mi_workshop.circuits.graph import AttributionGraph
from mi_workshop.web import HostedError

if TYPE_CHECKING:
    import pandas as pd

MAX_UPLOAD = 100 * 2**20


class Sharing(Api):
    """The part of ``Neuronpedia`` that writes there."""

    def upload(self, graph: AttributionGraph, slug: str, model: str = "", source_set: str = "") -> str:
        """Publish a graph of a model that Neuronpedia knows; returns the address of its page. Needs a key.

        ``model`` and ``source_set``: the names there, by default those in the graph.
        """
        data = graph.to_json()
        meta = data["metadata"]
        meta["slug"], meta["scan"] = slug, model or graph.scan
        for key in ("slug", "scan"):
            if not re.fullmatch(r"[A-Za-z0-9_.-]+", meta[key]):
                raise HostedError(
                    f"{meta[key]!r} cannot be a {'slug' if key == 'slug' else 'model'}: letters, digits, _ . and - only."
                )
        if name := source_set_of(meta["scan"], source_set or graph.source_set):
            meta["feature_details"] = {"neuronpedia_source_set": name}
            meta["info"]["neuronpedia_source_set"] = name
        text = json.dumps(data, ensure_ascii=False, allow_nan=False).encode().ljust(1024)  # the least that is taken
        packed, headers = gzip.compress(text, 6), {"Content-Encoding": "gzip"}
        if len(packed) < 1024:
            packed, headers = text, {}
        if len(packed) > MAX_UPLOAD:
            raise HostedError(
                f"The graph has {len(packed) >> 20} MB and Neuronpedia takes {MAX_UPLOAD >> 20}: prune it first."
            )
        asked = {"filename": f"{slug}.json", "contentLength": len(packed), "contentType": "application/json"}
        place = self._ask("/api/graph/signed-put", asked, "place for an upload", key=True)
        self._send(_given(place, "url"), "place for an upload", "PUT", packed, headers)
        done = self._ask("/api/graph/save-to-db", {"putRequestId": _given(place, "putRequestId")}, "upload", key=True)
        return _given(done, "url")

    # -------------------------------------------------------------- sub-graphs
    def save_subgraph(self, graph: AttributionGraph, slug: str, label: str = "", overwrite: str = "") -> str:
        """Save pins and supernodes of ``graph`` as a sub-graph of the published graph ``slug``; returns its id. Needs a key."""
        members = [i for ids in graph.supernodes.values() for i in ids]
        body = {
            "modelId": getattr(graph.model, "name", "") or graph.scan, "slug": slug,
            "displayName": label or "mi-workshop", "pinnedIds": list(dict.fromkeys([*graph.pins, *members])),
            "supernodes": [[name, *ids] for name, ids in graph.supernodes.items()], "clerps": [],
            "pruningThreshold": None, "densityThreshold": None, **({"overwriteId": overwrite} if overwrite else {}),
        }  # fmt: skip
        return _given(self._ask("/api/graph/subgraph/save", body, f"graph {slug!r}", key=True), "subgraphId")

    def list_subgraphs(self, model: str, slug: str) -> pd.DataFrame:
        """One's own sub-graphs of a published graph: ``id, label, pins, supernodes``. Needs a key."""
        import pandas as pd

        found = self._ask("/api/graph/subgraph/list", {"modelId": model, "slug": slug}, f"graph {slug!r}", key=True)
        rows = found.get("subgraphs") if isinstance(found, dict) else None
        table = [
            [str(r.get("id")), str(r.get("displayName") or ""), r.get("pinnedIds") or [],
             {str(s[0]): s[1:] for s in r.get("supernodes") or [] if isinstance(s, list) and s}]
            for r in rows or [] if isinstance(r, dict)
        ]  # fmt: skip
        return pd.DataFrame(table, columns=["id", "label", "pins", "supernodes"])

    def delete_subgraph(self, subgraph_id: str) -> None:
        """Delete one of one's own sub-graphs. Needs a key."""
        self._ask("/api/graph/subgraph/delete", {"subgraphId": subgraph_id}, f"sub-graph {subgraph_id!r}", key=True)


def _given(value: Any, key: str) -> str:
    found = value.get(key) if isinstance(value, dict) else None
    if not isinstance(found, str) or not found:
        raise HostedError(f"Neuronpedia's answer lacks {key}.")
    return found
