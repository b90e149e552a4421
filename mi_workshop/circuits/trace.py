"""Trace a prompt: circuit-tracer's attribution, our tables, supernodes suggested from the features' labels."""

from __future__ import annotations

import gc
import time
import warnings
from dataclasses import replace
from typing import Any

import pandas as pd
import torch

from mi_workshop.circuits.graph import FEATURE, AttributionGraph, from_circuit_tracer
from mi_workshop.models import Model, ModelError
from mi_workshop.models.faults import duration

BATCH = 256  # nodes in one backward pass, where the memory allows
HUB_NODES = 8192  # feature nodes kept for models from the Hub, as in circuit-tracer's tutorial


def trace(
    model: Model, prompt: str, max_n_logits: int = 10, desired_logit_prob: float = 0.95, batch_size: int | None = None,
    max_feature_nodes: int | None = None,
) -> AttributionGraph:  # fmt: skip
    """Attribution graph of ``prompt``: every active feature, error node, token and likely answer, and their direct effects.

    The attribution is ``circuit_tracer.attribute`` (attention patterns and layer-norm scales frozen); the options are its own.
    ``batch_size`` is chosen from the GPU's free memory (256 at most) and halved where that is not enough; ``max_feature_nodes``, the
    strongest of which are kept, is all for the embedded models and 8,192 for others. Supernodes are suggested by ``suggest``. Raises
    WorldError for a prompt that the model's world does not know, ModelError for a model without transcoders or too little memory.
    """
    if not model.transcoders:
        raise ModelError(
            f"{model.name} has no transcoders, and an attribution graph is made of their features: trace atlas, gemma-2-2b, llama-3.2-1b or "
            f"qwen3-0.6b, or load it with transcoders='owner/repository'."
        )
    start = time.perf_counter()
    tokens = model.tokens(prompt)
    options: dict[str, Any] = {
        "max_n_logits": max_n_logits, "desired_logit_prob": desired_logit_prob, "offload": model.offload,
        "max_feature_nodes": max_feature_nodes or (HUB_NODES if model.world is None else None),
    }  # fmt: skip
    batch_size = batch_size or batch_for(model, len(tokens))
    if model.world is None and model.device.type == "cuda" and model.backend == "transformerlens":
        print(expectation(model, tokens, batch_size, options["max_feature_nodes"]))
    raw = _attribute(model, tokens, batch_size, options)
    names = model.words(raw.input_tokens.tolist())
    graph = from_circuit_tracer(raw, prompt, names, model.features.label.to_dict())
    seconds = time.perf_counter() - start
    return replace(graph, supernodes=suggest(model, graph), seconds=seconds, model=model, source_set=model.source_set)


def _attribute(model: Model, tokens: Any, batch_size: int, options: dict[str, Any]) -> Any:
    """circuit-tracer's graph; after running out of GPU memory again with half the batch."""
    from circuit_tracer.attribution.attribute import attribute

    on_gpu = model.device.type == "cuda"
    while True:
        try:
            with (
                warnings.catch_warnings()
            ):  # torch's remark on how circuit-tracer hooks gradients is not for the reader
                warnings.filterwarnings("ignore", message="Full backward hook is firing")
                return attribute(
                    tokens, model.replacement, batch_size=batch_size, verbose=on_gpu and model.world is None, **options
                )
        except torch.OutOfMemoryError:
            if batch_size == 1:
                raise ModelError(
                    f"The GPU's memory does not hold the attribution of {len(tokens)} tokens: shorten the prompt, load the model with "
                    "offload='cpu', or restart the kernel to free what else is there."
                ) from None
            batch_size //= 2
        gc.collect()
        torch.cuda.empty_cache()


@torch.no_grad()
def expectation(model: Model, tokens: Any, batch_size: int, kept: int) -> str:
    """How long the attribution will take, from the features that are active and the time of one forward pass of a whole batch (a
    backward pass took as long on a CPU, for a random model of eight layers)."""
    m = model.replacement
    active = m.get_activations(tokens, sparse=True)[1]._nnz()
    start = time.perf_counter()
    float(m(tokens.expand(batch_size, -1), stop_at_layer=m.cfg.n_layers)[0, 0, 0])  # waits for the GPU
    passes = -(-min(active, kept) // batch_size)
    seconds = passes * (time.perf_counter() - start)
    return f"{active:,} features are active at {len(tokens)} tokens: {passes} backward passes of {batch_size} nodes, about {duration(seconds)}."


def batch_for(model: Model, n_tokens: int) -> int:
    """How many backward passes fit side by side into half of the GPU's free memory: what each layer keeps for one token, computed
    from the model's sizes, is 12 vectors of the residual stream, 4 of the heads and the attention pattern."""
    if model.device.type != "cuda":
        return BATCH
    cfg = model.replacement.cfg
    kept = 12 * cfg.d_model + 4 * cfg.n_heads * cfg.d_head + 4 * cfg.n_heads * n_tokens
    row = kept * n_tokens * cfg.n_layers * torch.finfo(model.dtype).bits // 8
    free = torch.cuda.mem_get_info(model.device)[0]
    return max(1, min(BATCH, 1 << int(free / 2 / row).bit_length() - 1)) if free > 2 * row else 1


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
