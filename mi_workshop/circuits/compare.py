"""Two attribution graphs beside each other: which features both have, at which tokens, and how strong they are in each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mi_workshop.circuits.graph import CODED, LOGIT, TOKEN, AttributionGraph, GraphError
from mi_workshop.show import Shown

KEY = ["feature_type", "layer", "feature", "position"]


@dataclass(frozen=True, eq=False)
class Comparison(Shown):
    """What two graphs have in common.

    ``table`` for graphs of one model: one row per feature and position, ``feature_type, layer, feature, position`` (of ``a``;
    prompts of different length are aligned at their ends), ``label, node_a, node_b, influence_a, influence_b, activation_a,
    activation_b``; missing values where one graph lacks it. For different models or transcoders, whose features do not correspond: one row
    per supernode label, ``label, members_a, members_b, influence_a, influence_b`` (the strongest member's). Influence is
    cumulative (0 = strongest). ``links`` counts the links that both have between nodes that both have, ``correlation`` is
    Pearson's between their weights (NaN for fewer than three).
    """

    problem = GraphError
    a: AttributionGraph
    b: AttributionGraph
    table: pd.DataFrame
    same_features: bool
    shared: int
    only_a: int
    only_b: int
    links: int
    correlation: float

    def words(self) -> str:
        what = "features" if self.same_features else "supernode labels"
        lines = [
            f"a: {self.a.prompt!r} → {self.a.top.token[0]} ({self.a.top.prob[0]:.0%}), replacement {self.a.scores.replacement:.2f}",
            f"b: {self.b.prompt!r} → {self.b.top.token[0]} ({self.b.top.prob[0]:.0%}), replacement {self.b.scores.replacement:.2f}",
            f"{self.shared} {what} in both, {self.only_a} in a alone, {self.only_b} in b alone.",
        ]
        sets = [" ".join(filter(None, (g.scan, g.source_set))) for g in (self.a, self.b)]
        if not self.same_features:
            lines.append(
                f"The models or transcoders differ ({sets[0]!r}, {sets[1]!r}), so features do not correspond: compared by supernode label."
            )
        elif self.a.source_set != self.b.source_set:
            lines.append(
                f"Only one of the graphs names its transcoders ({sets[0]!r}, {sets[1]!r}): if they differ, this says nothing."
            )
        if self.same_features and len(self.a.tokens) != len(self.b.tokens):
            lines.append(
                f"The prompts have {len(self.a.tokens)} and {len(self.b.tokens)} tokens: aligned at their ends."
            )
        if not np.isnan(self.correlation):
            lines.append(f"{self.links} links in both; their weights correlate at {self.correlation:.2f}.")
        return "\n".join(lines)

    def figure(self) -> Any:
        from mi_workshop.plots import draw_comparison

        return draw_comparison(self)


def compare(a: AttributionGraph, b: AttributionGraph) -> Comparison:
    """Compare two graphs: of one model by feature and aligned position, of different models or transcoders (``scan``,
    ``source_set``) by supernode label."""
    known = a.source_set and b.source_set
    if a.scan != b.scan or a.opaque != b.opaque or (known and a.source_set != b.source_set):
        return _by_label(a, b)
    shift = len(a.tokens) - len(b.tokens)
    keyed_a, keyed_b = _keyed(a, 0), _keyed(b, shift)
    columns = [*KEY, "label", "node_id", "influence", "activation"]
    features = [k[k.feature_type.isin(CODED)][columns] for k in (keyed_a, keyed_b)]
    table = features[0].merge(features[1], on=KEY, how="outer", suffixes=("_a", "_b"))
    table["label"] = table.label_a.where(table.label_a.notna(), table.label_b)
    table = table.rename(columns={"node_id_a": "node_a", "node_id_b": "node_b"})
    table = table[[*KEY, "label", *(f"{c}_{g}" for c in ("node", "influence", "activation") for g in "ab")]]
    strongest = table[["influence_a", "influence_b"]].min(axis=1)
    table = table.loc[strongest.sort_values(kind="stable").index].reset_index(drop=True)
    in_a, in_b = table.node_a.notna(), table.node_b.notna()
    links, correlation = _links(a, b, keyed_a, keyed_b)
    return Comparison(
        a, b, table, True, int((in_a & in_b).sum()), int((~in_b).sum()), int((~in_a).sum()), links, correlation
    )


def _keyed(graph: AttributionGraph, shift: int) -> pd.DataFrame:
    """The nodes with a key that means the same in both graphs; of several nodes with one key the first keeps it."""
    nodes = graph.nodes.assign(position=graph.nodes.ctx_idx + shift)
    ends = nodes.feature_type.isin((TOKEN, LOGIT))
    nodes.loc[nodes.feature_type == TOKEN, "feature"] = -1
    nodes.loc[ends, "layer"] = -1
    return nodes.drop_duplicates(KEY)


def _links(a: AttributionGraph, b: AttributionGraph, keyed_a: pd.DataFrame, keyed_b: pd.DataFrame) -> tuple[int, float]:
    both = keyed_a.merge(keyed_b, on=KEY, suffixes=("_a", "_b"))
    weights = []
    for graph, side in ((a, "a"), (b, "b")):
        common = pd.Series(both.index, index=both[f"node_id_{side}"])
        ends = graph.links.assign(source=graph.links.source.map(common), target=graph.links.target.map(common)).dropna()
        weights.append(ends.groupby(["source", "target"]).weight.sum())
    joined = pd.concat(weights, axis=1, join="inner").to_numpy()
    if len(joined) < 3 or not joined.std(axis=0).all():
        return len(joined), float("nan")
    return len(joined), float(np.corrcoef(joined.T)[0, 1])


def _by_label(a: AttributionGraph, b: AttributionGraph) -> Comparison:
    sides = []
    for graph in (a, b):
        influence = graph.nodes.set_index("node_id").influence
        rows = [(label, len(ids), influence[ids].min()) for label, ids in graph.supernodes.items()]
        sides.append(pd.DataFrame(rows, columns=["label", "members", "influence"]))
    table = sides[0].merge(sides[1], on="label", how="outer", suffixes=("_a", "_b"))
    table = table[["label", "members_a", "members_b", "influence_a", "influence_b"]]
    in_a, in_b = table.members_a.notna(), table.members_b.notna()
    return Comparison(
        a, b, table, False, int((in_a & in_b).sum()), int((~in_b).sum()), int((~in_a).sum()), 0, float("nan")
    )
