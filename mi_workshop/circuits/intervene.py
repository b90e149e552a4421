"""Set transcoder features to chosen values while the model runs, many variants of one prompt in one batch.

The operation is circuit-tracer's ``feature_intervention`` (a feature's change times its decoder is added to the MLP output
and everything downstream is computed again), done for a whole batch at once; a test holds the two equal.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mi_workshop.models import Model

Acts = Float[Tensor, "batch layer position feature"]


@torch.no_grad()
def feature_activations(model: Model, tokens: Int[Tensor, "batch position"]) -> Acts:
    """Activation of every transcoder feature; position 0 (<bos>) is zero, as in circuit-tracer."""
    m, found = model.replacement, []

    def read(x: Tensor, hook: Any) -> None:
        acts = m.transcoders.encode_layer(x, hook.layer())
        acts[:, 0] = 0
        found.append(acts)

    m.run_with_hooks(tokens, fwd_hooks=[(f"blocks.{i}.{m.feature_input_hook}", read) for i in range(m.cfg.n_layers)])
    return torch.stack(found, 1)


def decoders(
    model: Model, layer: int, features: Int[Tensor, " feature"] | None = None
) -> Float[Tensor, "feature target d_model"]:
    """What features write, all of the layer's by default: to their own layer (per-layer transcoders: one target) or to it
    and each later one (cross-layer ones)."""
    t = model.replacement.transcoders
    vectors = t._get_decoder_vectors(layer, torch.arange(t.d_transcoder) if features is None else features)
    return vectors if vectors.ndim == 3 else vectors[:, None]


@torch.no_grad()
def frozen_attention(model: Model, tokens: Int[Tensor, "batch position"]) -> list[tuple[str, Any]]:
    """Hooks that keep the attention patterns of ``tokens`` (one row stands for all)."""
    _, cache = model.replacement.run_with_cache(tokens, names_filter=lambda name: name.endswith("hook_pattern"))
    return [(name, lambda x, hook, p=pattern: p.expand_as(x)) for name, pattern in cache.items()]


@torch.no_grad()
def intervene(
    model: Model,
    tokens: Int[Tensor, " position"] | Int[Tensor, "batch position"],
    values: Acts,
    mask: Acts,
    freeze_attention: bool = True,
) -> Float[Tensor, "batch d_vocab"]:
    """Logits after the last token with the features in ``mask`` set to ``values``, one variant of the prompt per row.

    ``tokens``: one prompt for all variants, or one for each. With ``freeze_attention`` every variant keeps the attention
    patterns of its unedited prompt, as circuit-tracer does by default; layer norms and later features respond freely.
    """
    m = model.replacement
    n, layers = values.shape[0], range(m.cfg.n_layers)
    tokens = tokens.expand(n, -1) if tokens.ndim == 1 else tokens
    change = [torch.zeros(n, tokens.shape[1], m.cfg.d_model) for _ in layers]
    hooks: list[tuple[str, Any]] = []
    if freeze_attention:
        hooks += frozen_attention(model, tokens[:1] if (tokens == tokens[0]).all() else tokens)

    def read(x: Tensor, hook: Any) -> None:
        layer = hook.layer()
        if not mask[:, layer].any():
            return
        row, pos, feature = mask[:, layer].nonzero(as_tuple=True)
        now = m.transcoders.encode_layer(x, layer)[row, pos, feature]
        delta = values[:, layer][row, pos, feature] - now
        decoder = decoders(model, layer, feature)
        for i in range(decoder.shape[1]):
            change[layer + i].index_put_((row, pos), delta[:, None] * decoder[:, i], accumulate=True)

    def add(x: Tensor, hook: Any) -> Tensor:
        return x + change[hook.layer()]

    for layer in layers:
        hooks.append((f"blocks.{layer}.{m.feature_input_hook}", read))
        hooks.append((f"blocks.{layer}.{m.original_feature_output_hook}", add))
    return m.run_with_hooks(tokens, fwd_hooks=hooks)[:, -1]
