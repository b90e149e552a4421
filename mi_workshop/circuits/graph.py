"""The attribution graph of one prompt: nodes and links as DataFrames, supernodes, scores, pictures, Neuronpedia JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import csr_array, diags_array

from mi_workshop.circuits import scores
from mi_workshop.circuits.scores import Scores
from mi_workshop.show import Shown

FEATURE, ERROR, TOKEN, LOGIT = "cross layer transcoder", "mlp reconstruction error", "embedding", "logit"
CODED = (FEATURE, "lorsa")  # features of a layer, of MLPs and of attention
KINDS = (*CODED, ERROR, "lorsa error", TOKEN, LOGIT, "bias", "unexplored node")
NODES = ["node_id", "feature_type", "layer", "ctx_idx", "feature", "activation", "influence", "token_prob", "label"]


class GraphError(ValueError):
    """A graph file or argument cannot be used; the message says why."""


@dataclass(frozen=True, eq=False)
class AttributionGraph(Shown):
    """What leads from the words of a prompt to the model's answers, as circuit-tracer attributes it. It is never changed:
    ``prune`` and ``group`` give a new one.

    ``nodes``: ``node_id, feature_type, layer, ctx_idx, feature, activation, influence, token_prob, label``. Layer -1 is the
    embedding, the highest layer the answers. ``influence`` is cumulative (0 = strongest; keep a node when
    influence <= threshold). ``links``: ``source, target, weight``, the direct linear effect of one on the other.
    ``hidden`` counts the nodes and links that pruning left out. ``notes`` says what was repaired when the graph was read,
    one sentence for each kind of repair; ``dangling_pins`` and ``renamed_nodes`` count two of them. ``pins`` and ``clicked``
    are what a viewer had pinned and selected; ``opaque``: feature numbers are no index in a layer. ``source_set`` names the transcoders
    where a file does. ``model`` is what was traced (a ``HostedModel`` for a graph from Neuronpedia, None for one from a file).
    """

    formats = (".json", ".html", ".svg", ".png")
    problem = GraphError
    prompt: str
    tokens: list[str]
    nodes: pd.DataFrame
    links: pd.DataFrame
    supernodes: dict[str, list[str]] = field(default_factory=dict)
    scan: str = ""
    hidden: tuple[int, int] = (0, 0)
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    pins: list[str] = field(default_factory=list)
    clicked: str = ""
    dangling_pins: int = 0
    renamed_nodes: int = 0
    opaque: bool = False
    source_set: str = ""
    model: Any = field(default=None, repr=False)

    # ------------------------------------------------------------- numbers
    @cached_property
    def answers(self) -> pd.DataFrame:
        """The answer nodes, likeliest first."""
        return self.nodes[self.nodes.feature_type == LOGIT].sort_values("token_prob", ascending=False, kind="stable")

    @cached_property
    def top(self) -> pd.DataFrame:
        """The model's answers: ``token, prob``, likeliest first."""
        return pd.DataFrame({"token": self.answers.label.tolist(), "prob": self.answers.token_prob.tolist()})

    @cached_property
    def _matrix(self) -> csr_array:
        row = {node: i for i, node in enumerate(self.nodes.node_id)}
        ends = [np.array([row[i] for i in self.links[end].tolist()], dtype=np.int64) for end in ("target", "source")]
        return csr_array((self.links.weight.to_numpy(float), tuple(ends)), shape=(len(row), len(row)))

    def _is(self, *types: str) -> Any:
        return self.nodes.feature_type.isin(types).to_numpy()

    @property
    def _weights(self) -> Any:
        return np.where(self._is(LOGIT), self.nodes.token_prob.to_numpy(float), 0.0)

    @cached_property
    def scores(self) -> Scores:
        """Replacement and completeness score of what is in this graph."""
        return scores.score(self._matrix, self._weights, self._errors, self._is(TOKEN))

    @property
    def _errors(self) -> Any:
        return self.nodes.feature_type.str.contains("error").to_numpy(bool)

    def scores_of(self, node_ids: Iterable[str]) -> Scores:
        """Scores of the sub-graph of these features: every other one counts as unexplained, like an error node.

        What enters the other features is cut, and what leaves them counts as error. Tokens, answers and error nodes are
        always in. Neuronpedia's sub-graph score first adds the left-out features, with their signs, to the error node of
        their place (and drops those without one); here nothing cancels and nothing is dropped. Raises GraphError for a
        node that is not in the graph.
        """
        inside = self.nodes.node_id.isin(self._known(node_ids)).to_numpy()
        outside = ~(inside | self._errors | self._is(TOKEN, LOGIT))
        cut = diags_array((~outside).astype(float)) @ self._matrix
        return scores.score(csr_array(cut), self._weights, self._errors | outside, self._is(TOKEN))

    def _known(self, node_ids: Iterable[str]) -> list[str]:
        asked = list(node_ids)
        if unknown := sorted(set(asked) - set(self.nodes.node_id)):
            raise GraphError(f"There is no node {unknown[0]!r} in this graph; see graph.nodes.node_id.")
        return asked

    def ablate(self, node_ids: Iterable[str]) -> Any:
        """Set feature nodes to zero in the model that was traced, beside random ones: ``circuits.ablate``, or steering for a hosted model.

        Raises GraphError for a node that is not in the graph, and for a graph without a model.
        """
        from mi_workshop.circuits import live

        return live.ablate(self, self._known(node_ids))

    def prune(self, node_threshold: float = 0.8, edge_threshold: float = 0.98) -> AttributionGraph:
        """Keep the nodes and links that carry these shares of the influence on the answers (both within 0..1)."""
        for name, value in (("node_threshold", node_threshold), ("edge_threshold", edge_threshold)):
            if not 0 <= value <= 1:
                raise GraphError(f"{name} must lie between 0 and 1, not {value}.")
        keep, links = scores.prune(
            self._matrix, self._weights, self._is(TOKEN, LOGIT), self._is(*CODED), node_threshold, edge_threshold
        )
        return self.restrict(keep, _links(links, self.nodes.node_id.to_numpy()))

    def restrict(self, keep: Any, links: pd.DataFrame) -> AttributionGraph:
        """The graph of the nodes in ``keep`` [node] and of ``links`` between them; ``hidden`` counts what is left out."""
        nodes = self.nodes[keep].reset_index(drop=True)
        kept = set(nodes.node_id)
        return replace(
            self, nodes=nodes, links=links, supernodes=inside(self.supernodes, kept),
            hidden=(self.hidden[0] + len(self.nodes) - len(nodes), self.hidden[1] + len(self.links) - len(links)),
            pins=[i for i in self.pins if i in kept], clicked=self.clicked if self.clicked in kept else "",
        )  # fmt: skip

    # ---------------------------------------------------------- supernodes
    def group(self, label: str, node_ids: list[str]) -> AttributionGraph:
        """A copy in which these nodes form the supernode ``label`` (an empty list dissolves it).

        A node belongs to one supernode: it leaves its old one. Raises GraphError for a node that is not in the graph.
        """
        node_ids = self._known(node_ids)
        rest = {k: [i for i in v if i not in node_ids] for k, v in self.supernodes.items() if k != label}
        return replace(self, supernodes={k: v for k, v in (rest | {label: list(node_ids)}).items() if v})

    @cached_property
    def flow(self) -> pd.DataFrame:
        """Links between supernodes, tokens and answers: ``source, target, weight, share``.

        ``weight`` sums the direct effects; ``share`` divides it by all absolute input of the target (error nodes and
        ungrouped features included), so that what is not shown is not forgotten.
        """
        name = {i: label for label, ids in self.supernodes.items() for i in ids}
        for node in self.nodes[self._is(TOKEN, LOGIT)].itertuples():
            name.setdefault(node.node_id, end_name(node))
        links = self.links.assign(s=self.links.source.map(name), t=self.links.target.map(name)).dropna(subset="t")
        total = links.assign(size=links.weight.abs()).groupby("t")["size"].sum()
        between = links.dropna(subset="s")
        between = between[between.s != between.t].groupby(["s", "t"], as_index=False).weight.sum()
        between["share"] = between.weight / between.t.map(total).astype(float)
        out = between.rename(columns={"s": "source", "t": "target"})
        return out.sort_values("share", key=abs, ascending=False, ignore_index=True)

    def path(self) -> list[tuple[str, float, str]]:
        """The strongest chain of supernodes that ends in the likeliest answer: ``(source, share, target)`` steps.

        From the answer backwards, each step takes the strongest positive input among supernodes and tokens not yet passed.
        """
        flow = self.flow
        here = f"answer {self.top.token[0]!r}"
        steps: list[tuple[str, float, str]] = []
        seen = {here}  # supernodes made by hand may feed each other
        while not here.startswith("token "):
            inputs = flow[(flow.target == here) & (flow.share > 0) & ~flow.source.isin(seen)]
            if not len(inputs):
                break
            best = inputs.iloc[0]
            steps.insert(0, (str(best.source), float(best.share), here))
            here = str(best.source)
            seen.add(here)
        return steps

    def words(self) -> str:
        """The circuit in words: the strongest chain, and what else feeds each of its steps."""
        flow, lines = self.flow, []
        for source, share, target in self.path():
            others = flow[(flow.target == target) & (flow.source != source)].head(2)
            also = ", ".join(f"{o.source} {o.share:+.0%}" for o in others.itertuples())
            lines.append(f"{source} → {target}  {share:+.0%} of its input" + (f"  (also {also})" if also else ""))
        return "\n".join(lines) or "No supernodes: group some nodes, or trace with labels."

    # ------------------------------------------------------------- pictures
    def describe(self) -> str:
        """One sentence that says what the graph shows (also the picture's alt text)."""
        s = self.scores
        chain = self.path()
        route = " → ".join([chain[0][0], *(t for _, _, t in chain)]) if chain else "no grouped path"
        return (
            f"Attribution graph of {self.prompt!r}: {len(self.nodes)} nodes ({int(self._is(*CODED).sum())} features, "
            f"{int(self._errors.sum())} errors) and {len(self.links)} links; the answer is {self.top.token[0]!r} "
            f"({self.top.prob[0]:.0%}); strongest chain: {route}; replacement score {s.replacement:.2f}, "
            f"completeness {s.completeness:.2f}."
            + (f" Notes on the file: {len(self.notes)}, see graph.notes." if self.notes else "")
        )

    def figure(self, **options: Any) -> Any:
        """The picture as a matplotlib Figure: tokens across, layers up, supernodes as boxes (see ``plots.draw_graph``)."""
        from mi_workshop.plots import draw_graph

        return draw_graph(self, **options)

    def show(self, **traits: Any) -> Any:
        """The interactive view (``widgets.graph_view.GraphView``); ``traits`` set what it starts with, such as ``size="stage"``."""
        from mi_workshop.widgets.graph_view import GraphView

        return GraphView(self, **traits)

    # ----------------------------------------------------------------- files
    def _write(self, path: Path) -> None:
        """``.json`` (Neuronpedia's format), ``.html`` (the interactive view in one file), or the picture."""
        if path.suffix == ".json":
            path.write_text(json.dumps(self.to_json(), ensure_ascii=False, allow_nan=False), encoding="utf-8")
        elif path.suffix == ".html":
            from mi_workshop.widgets.standalone import page

            path.write_text(page(self), encoding="utf-8")
        else:
            super()._write(path)

    def to_json(self) -> dict[str, Any]:
        """Neuronpedia's graph JSON (see ``writer.to_json``)."""
        from mi_workshop.circuits.writer import to_json

        return to_json(self)

    @classmethod
    def load(cls, source: str | Path | dict[str, Any]) -> AttributionGraph:
        """Read a graph from a JSON file, an https address, a graph's page on Neuronpedia, or a dict (see ``dialects``).

        Raises GraphError naming the source and what is wrong with it; ``notes`` says what was repaired.
        """
        from mi_workshop.circuits.dialects import read_graph

        return read_graph(source)


def inside(supernodes: dict[str, list[str]], known: set[str]) -> dict[str, list[str]]:
    """The supernodes without the members that are not ``known``; those that lose all of them are gone."""
    members = {label: [i for i in ids if i in known] for label, ids in supernodes.items()}
    return {label: ids for label, ids in members.items() if ids}


def end_name(node: Any) -> str:
    """What ``flow`` and ``path`` call a token or an answer."""
    return f"token {node.label!r} [{node.ctx_idx}]" if node.feature_type == TOKEN else f"answer {node.label!r}"


def cantor(layer: int, index: int) -> int:
    """Cantor's pairing: one number for a feature's layer and index, as schema version 1 writes it."""
    return (layer + index) * (layer + index + 1) // 2 + index


def _links(matrix: csr_array, ids: Any) -> pd.DataFrame:
    coo = matrix.tocoo()
    target, source = (
        pd.Series(ids[end], dtype=object) for end in coo.coords
    )  # strings of pandas' own would take as long as the rest
    return pd.DataFrame({"source": source, "target": target, "weight": coo.data.astype(float)})


def _sparse(dense: Any) -> csr_array:
    """The same as ``csr_array(dense)``, which takes several times as long and as much memory."""
    flat = np.flatnonzero(dense)
    ends = np.concatenate([[0], np.cumsum(np.count_nonzero(dense, axis=1))])
    return csr_array(
        (dense.ravel()[flat], (flat % dense.shape[1]).astype(np.int32), ends.astype(np.int32)), dense.shape
    )


def from_circuit_tracer(
    raw: Any, prompt: str, tokens: list[str], labels: dict[tuple[int, int], str]
) -> AttributionGraph:
    """Our tables from a ``circuit_tracer.Graph``: [features, errors, tokens, answers] in the order of its matrix.

    ``tokens``: the text of the prompt's tokens; ``labels`` of features by (layer, feature)."""
    selected = raw.selected_features.to(raw.active_features.device)
    chosen = raw.active_features[selected].cpu().numpy()  # [feature node, (layer, position, feature)]
    n_layers, n_pos = raw.cfg.n_layers, raw.n_pos
    ids = raw.input_tokens.tolist()
    layer, pos, index = chosen.T
    rows = [
        pd.DataFrame({
            "node_id": [f"{a}_{f}_{p}" for a, p, f in chosen], "feature_type": FEATURE, "layer": layer, "ctx_idx": pos,
            "feature": index, "activation": raw.activation_values[selected].float().cpu().numpy(),
            "label": [labels.get((a, f), f"feature {a}/{f}") for a, _, f in chosen.tolist()],
        }),
        pd.DataFrame({
            "node_id": [f"{a}_-1_{p}" for a in range(n_layers) for p in range(n_pos)], "feature_type": ERROR,
            "layer": np.repeat(np.arange(n_layers), n_pos), "ctx_idx": np.tile(np.arange(n_pos), n_layers),
            "feature": -1, "label": "reconstruction error",
        }),
        pd.DataFrame({
            "node_id": [f"E_{t}_{p}" for p, t in enumerate(ids)], "feature_type": TOKEN, "layer": -1,
            "ctx_idx": range(n_pos), "feature": range(n_pos), "label": tokens,
        }),
        pd.DataFrame({
            "node_id": [f"{n_layers}_{t.vocab_idx}_{n_pos - 1}" for t in raw.logit_targets], "feature_type": LOGIT,
            "layer": n_layers, "ctx_idx": n_pos - 1, "feature": [t.vocab_idx for t in raw.logit_targets],
            "token_prob": raw.logit_probabilities.float().cpu().numpy(), "label": [t.token_str.strip() for t in raw.logit_targets],
        }),
    ]  # fmt: skip
    nodes = pd.concat([r.reindex(columns=NODES) for r in rows], ignore_index=True).fillna({"token_prob": 0.0})
    nodes = nodes.astype({"layer": int, "ctx_idx": int, "feature": int, "activation": float, "token_prob": float})
    adjacency = _sparse(raw.adjacency_matrix.float().cpu().numpy())
    weights = np.where(nodes.feature_type == LOGIT, nodes.token_prob, 0.0)
    nodes["influence"] = scores.cumulative(scores.influence(scores.normalize(adjacency), weights))
    nodes.loc[nodes.feature_type == LOGIT, "influence"] = np.nan
    return AttributionGraph(
        prompt, tokens, nodes, _links(adjacency, nodes.node_id.to_numpy()), scan=str(raw.scan or "")
    )
