"""Set transcoder features to chosen values while the model runs, many variants of one prompt in one batch.

The operation is circuit-tracer's ``feature_intervention`` (a feature's change times its decoder is added to the MLP output
and everything downstream is computed again), done for a whole batch at once; a test holds the two equal.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mi_workshop.models import Model, ModelError

Acts = Float[Tensor, "batch layer position feature"]


@torch.no_grad()
def feature_activations(model: Model, tokens: Int[Tensor, "batch position"]) -> Acts:
    """Activation of every transcoder feature, float32 on the CPU; position 0 (<bos>) is zero, as in circuit-tracer."""
    m, found = settable(model), []

    def read(x: Tensor, hook: Any) -> None:
        acts = m.transcoders.encode_layer(x, hook.layer())
        acts[:, m.zero_positions] = 0
        found.append(acts.float().cpu())

    m.run_with_hooks(tokens, fwd_hooks=[(f"blocks.{i}.{m.feature_input_hook}", read) for i in range(m.cfg.n_layers)])
    return torch.stack(found, 1)


def settable(model: Model) -> Any:
    """The TransformerLens model whose features can be set. Raises ModelError for a model of another backend, or without transcoders."""
    if model.backend != "transformerlens":
        raise ModelError(
            f"{model.name} runs on {model.backend}, where features are set by circuit-tracer itself: model.replacement.feature_intervention(prompt, "
            "[(layer, position, feature, value)]); or load it with backend='transformerlens'."
        )
    if not model.transcoders:
        raise ModelError(
            f"{model.name} has no transcoders, so it has no features to set: choose sites of another kind."
        )
    return model.replacement


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


def settings(values: Float[Tensor, "*any"], mask: Tensor) -> Tensor:
    """What is set, as a sparse tensor: ``values`` where ``mask``, zeros included. Of Gemma's features a dense one takes 19 MB a row."""
    where = mask.nonzero().T
    return torch.sparse_coo_tensor(
        where, values[tuple(where)].float(), mask.shape, is_coalesced=True, check_invariants=False
    )


@torch.no_grad()
def intervene(
    model: Model, tokens: Int[Tensor, " position"] | Int[Tensor, "batch position"], sets: Tensor, freeze_attention: bool = True
) -> Float[Tensor, "batch d_vocab"]:  # fmt: skip
    """Logits after the last token with features set, one variant of the prompt per row; float32 on the CPU.

    ``sets``: sparse [batch, layer, position, feature], the new values (``settings``). ``tokens``: one prompt for all variants, or one
    for each. With ``freeze_attention`` every variant keeps the attention patterns of its unedited prompt, as circuit-tracer does by
    default; layer norms and later features respond freely. As many rows run together as memory allows.
    """
    from mi_workshop.counterfactual.run import rows_at_once

    m = settable(model)
    n = sets.shape[0]
    tokens = tokens.expand(n, -1) if tokens.ndim == 1 else tokens
    same = bool((tokens == tokens[:1]).all())
    frozen = frozen_attention(model, tokens[:1]) if freeze_attention and same else []
    sets = sets.coalesce()
    (row, layer, position, feature), value = sets.indices(), sets.values()
    size, out = rows_at_once(model, tokens), []
    for start in range(0, n, size):
        some = tokens[start : start + size]
        here = (row >= start) & (row < start + size)
        at = [x[here].to(m.cfg.device) for x in (row - start, layer, position, feature)]
        hooks = frozen if same or not freeze_attention else frozen_attention(model, some)
        edits = _hooks(model, len(some), some.shape[1], at, value[here].to(m.cfg.device))
        out.append(m.run_with_hooks(some, fwd_hooks=hooks + edits)[:, -1].float().cpu())
    return torch.cat(out)


def _hooks(model: Model, n: int, n_pos: int, at: list[Tensor], value: Tensor) -> list[tuple[str, Any]]:
    """Read the features where they are encoded, add what their change writes where it is decoded."""
    m, layers = model.replacement, range(model.replacement.cfg.n_layers)
    change = [torch.zeros(n, n_pos, m.cfg.d_model, device=m.cfg.device, dtype=m.cfg.dtype) for _ in layers]

    def read(x: Tensor, hook: Any) -> None:
        here = at[1] == hook.layer()
        if not here.any():
            return
        row, pos, feature = at[0][here], at[2][here], at[3][here]
        now = m.transcoders.encode_layer(x, hook.layer())[row, pos, feature]
        delta = value[here].to(now) - now
        decoder = decoders(model, hook.layer(), feature)
        for i in range(decoder.shape[1]):
            written = (delta[:, None] * decoder[:, i]).to(change[0])
            change[hook.layer() + i].index_put_((row, pos), written, accumulate=True)

    def add(x: Tensor, hook: Any) -> Tensor:
        return x + change[hook.layer()]

    hooks: list[tuple[str, Any]] = []
    for layer in layers:
        hooks.append((f"blocks.{layer}.{m.feature_input_hook}", read))
        hooks.append((f"blocks.{layer}.{m.original_feature_output_hook}", add))
    return hooks
