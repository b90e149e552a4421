"""Trace a prompt: circuit-tracer's attribution, our tables, supernodes suggested from the features' labels."""

from __future__ import annotations

import time
import warnings

from mi_workshop.circuits.graph import FEATURE, AttributionGraph, from_circuit_tracer
from mi_workshop.models import Model
from mi_workshop.worlds.atlas import ATTRIBUTES


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
    graph.supernodes = suggest(model, graph)
    graph.seconds = time.perf_counter() - start
    return graph


def suggest(model: Model, graph: AttributionGraph) -> dict[str, list[str]]:
    """Supernodes from the labels: features of one place, of one answer, or of the question (its attribute and kind), at one token.

    The label is ``"Texas @Dallas"``: what the features stand for, and the token at which they are active.
    """
    out: dict[str, list[str]] = {}
    table = model.features
    asked = {f"{w!r}" for kind, attributes in ATTRIBUTES.items() for w in (kind, *attributes)}
    for node in graph.nodes[graph.nodes.feature_type == FEATURE].itertuples():
        row = table.loc[(node.layer, node.feature)]
        if row.place or row.say_answer or row.label in asked:
            out.setdefault(f"{row.label} @{graph.tokens[node.ctx_idx]}", []).append(node.node_id)
    return out
