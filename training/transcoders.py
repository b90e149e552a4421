"""What the shipped transcoders are trained on (``mi_workshop.dictionary.cross_layer`` trains them)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor


@torch.no_grad()
def activations(model: Any, batches: Iterator[Tensor]) -> tuple[Tensor, Tensor]:
    """MLP inputs and outputs [layer, item, d_model] of a TransformerLens model over batches of token ids.

    <bos> and padding are left out: circuit-tracer never explains the first position.
    """
    layers = range(model.cfg.n_layers)
    inputs: list[Tensor] = []
    outputs: list[Tensor] = []
    for tokens in batches:
        keep = tokens != 0
        keep[:, 0] = False
        names = [f"blocks.{i}.{hook}" for i in layers for hook in ("ln2.hook_normalized", "hook_mlp_out")]
        _, cache = model.run_with_cache(tokens, names_filter=names, stop_at_layer=len(layers))
        inputs.append(torch.stack([cache[f"blocks.{i}.ln2.hook_normalized"][keep] for i in layers]))
        outputs.append(torch.stack([cache[f"blocks.{i}.hook_mlp_out"][keep] for i in layers]))
    return torch.cat(inputs, 1), torch.cat(outputs, 1)
