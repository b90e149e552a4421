"""Influence, pruning and scores of an attribution graph, on sparse matrices.

The definitions are those of circuit-tracer 0.5 (``circuit_tracer.graph``), after Ameisen et al., "Circuit Tracing", 2025;
they are computed here from nodes and links alone, so that a graph read from a file can be scored too. Rows of the
adjacency matrix are targets, columns are sources.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, diags_array

Vector = NDArray[np.float64]


class Scores(NamedTuple):
    """Shares of influence that pass through features rather than error nodes (1 = nothing unexplained).

    ``replacement``: from tokens to answers, end to end. ``completeness``: input of each node, weighted by its influence.
    """

    replacement: float
    completeness: float


def normalize(adjacency: csr_array) -> csr_array:
    """Absolute weights, each row divided by its sum."""
    absolute = abs(adjacency)
    total = np.asarray(absolute.sum(axis=1)).ravel()
    return csr_array(diags_array(1 / np.maximum(total, 1e-10)) @ absolute)


def influence(normalized: csr_array, weights: Vector) -> Vector:
    """Total influence of each node on the answers: w (A + A² + ...); ValueError if the graph has a cycle.

    Each node passes its influence on once all that it influences have passed theirs: one visit of each link.
    """
    a = csr_array(normalized)
    a.eliminate_zeros()
    waiting = np.bincount(a.indices, minlength=a.shape[0])  # links to targets that have not passed theirs on
    total = np.zeros(a.shape[0])
    front, done = np.flatnonzero(waiting == 0), 0
    while front.size:
        done += front.size
        size = a.indptr[front + 1] - a.indptr[front]
        start = np.repeat(a.indptr[front] - np.cumsum(size) + size, size)
        links = start + np.arange(size.sum())
        sources = a.indices[links]
        np.add.at(total, sources, a.data[links] * np.repeat(total[front] + weights[front], size))
        np.subtract.at(waiting, sources, 1)
        front = np.unique(sources[waiting[sources] == 0])
    if done < a.shape[0]:
        raise ValueError("The graph has a cycle: influence is defined on acyclic graphs only.")
    return total


def score(adjacency: csr_array, weights: Vector, is_error: NDArray[np.bool_], is_token: NDArray[np.bool_]) -> Scores:
    """Replacement and completeness score; ``weights`` holds each answer node's probability, 0 elsewhere."""
    normalized = normalize(adjacency)
    total = influence(normalized, weights)
    tokens, errors = total[is_token].sum(), total[is_error].sum()
    explained = 1 - np.asarray(normalized[:, np.flatnonzero(is_error)].sum(axis=1)).ravel()
    output = total + weights
    return Scores(
        float(tokens / (tokens + errors)) if tokens + errors else 0.0,
        float((explained * output).sum() / output.sum()) if output.sum() else 0.0,
    )


def cumulative(total: Vector) -> Vector:
    """Rank nodes by influence and accumulate: a node's value is the share of influence of it and all stronger nodes."""
    order = np.argsort(-total, kind="stable")
    out = np.empty_like(total)
    out[order] = np.cumsum(total[order]) / max(total.sum(), 1e-30)
    return out


def _threshold(scores: Vector, share: float) -> float:
    ranked = np.sort(scores)[::-1]
    if not ranked.size:
        return 0.0
    reached = int(np.searchsorted(np.cumsum(ranked) / max(ranked.sum(), 1e-30), share))
    return float(ranked[min(reached, len(ranked) - 1)])


def prune(
    adjacency: csr_array, weights: Vector, always: NDArray[np.bool_], is_feature: NDArray[np.bool_],
    node_threshold: float, edge_threshold: float,
) -> tuple[NDArray[np.bool_], csr_array]:  # fmt: skip
    """Nodes to keep and the links left: the strongest that carry the given shares of influence, dead ends removed.

    ``always`` marks tokens and answers, which are kept whatever their influence.
    """
    total = influence(normalize(adjacency), weights)
    keep = (total >= _threshold(total, node_threshold)) | always
    inside = _restrict(adjacency, keep)
    normalized = normalize(inside)
    edges = csr_array(diags_array(influence(normalized, weights) + weights) @ normalized)
    links = csr_array(inside.multiply(edges >= _threshold(edges.data, edge_threshold)))
    while True:
        has_output = np.asarray(abs(links).sum(axis=0)).ravel() > 0
        has_input = np.asarray(abs(links).sum(axis=1)).ravel() > 0
        left = keep & (always | has_output) & (~is_feature | has_input)
        if (left == keep).all():
            return keep, links
        keep, links = left, _restrict(links, left)


def _restrict(adjacency: csr_array, keep: NDArray[np.bool_]) -> csr_array:
    mask = diags_array(keep.astype(float))
    out = csr_array(mask @ adjacency @ mask)
    out.eliminate_zeros()
    return out
