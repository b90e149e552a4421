"""Trace a prompt: circuit-tracer's attribution, our tables, supernodes suggested from the features' labels."""

from __future__ import annotations

import time
import warnings
from dataclasses import replace

import pandas as pd

from mi_workshop.circuits.graph import FEATURE, AttributionGraph, from_circuit_tracer
from mi_workshop.models import Model


def trace(
    model: Model, prompt: str, max_n_logits: int = 10, desired_logit_prob: float = 0.95, batch_size: int = 256
) -> AttributionGraph:
    """Attribution graph of ``prompt``: every active feature, error node, token and likely answer, and their direct effects.

    The attribution is ``circuit_tracer.attribute`` (attention patterns and layer-norm scales frozen); the options are its own.
    Supernodes are suggested by ``suggest``. Raises WorldError for a prompt that the model's world does not know.
    """
    from circuit_tracer.attribution.attribute import attribute

    start = time.perf_counter()
    tokens = model.tokens(prompt)
    with warnings.catch_warnings():  # torch's remark on how circuit-tracer hooks gradients is not for the reader
        warnings.filterwarnings("ignore", message="Full backward hook is firing")
        raw = attribute(
            tokens,
            model.replacement,
            max_n_logits=max_n_logits,
            desired_logit_prob=desired_logit_prob,
            batch_size=batch_size,
        )
    vocabulary = model.tokenizer.convert_ids_to_tokens(range(len(model.tokenizer)))
    graph = from_circuit_tracer(raw, prompt, vocabulary, model.features.label.to_dict(), model.tokenizer.bos_token)
    return replace(graph, supernodes=suggest(model, graph), seconds=time.perf_counter() - start, model=model)


def suggest(model: Model, graph: AttributionGraph) -> dict[str, list[str]]:
    """Supernodes from the labels: features of one place, of one answer, or of the question (its attribute and kind), at one token.

    The label is ``"Texas @Dallas"``: what the features stand for, and the token at which they are active.
    """
    nodes = graph.nodes[graph.nodes.feature_type == FEATURE]
    concept = model.features.concept.reindex(pd.MultiIndex.from_frame(nodes[["layer", "feature"]]), fill_value="")
    out: dict[str, list[str]] = {}
    for node_id, label, position in zip(nodes.node_id, concept, nodes.ctx_idx, strict=True):
        if label:
            out.setdefault(f"{label} @{graph.tokens[position]}", []).append(node_id)
    return out
