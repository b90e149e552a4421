"""A replacement model of any shape with random weights, whose transcoders have as many active features as asked for."""

from __future__ import annotations

from typing import Any

import torch
from scale_formulas import Shape


class Tokens:
    """Stands in for a tokenizer: token ids are given, names are numbers."""

    padding_side, bos_token, bos_token_id, all_special_ids = "right", "<bos>", 0, [0]

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size

    def decode(self, ids: Any) -> str:
        return str(ids)


def random_model(shape: Shape, dtype: torch.dtype = torch.bfloat16, device: str = "cpu", seed: int = 0) -> Any:
    """circuit-tracer's replacement model of this shape, every weight random."""
    from circuit_tracer.replacement_model.replacement_model_transformerlens import TransformerLensReplacementModel
    from circuit_tracer.transcoder.activation_functions import JumpReLU
    from circuit_tracer.transcoder.cross_layer_transcoder import CrossLayerTranscoder
    from circuit_tracer.transcoder.single_layer_transcoder import SingleLayerTranscoder, TranscoderSet
    from transformer_lens import HookedTransformerConfig

    import mi_workshop.models.embedded  # noqa: F401 (keeps circuit-tracer quiet when Python ends)

    torch.manual_seed(seed)
    gemma = {
        "use_local_attn": True, "window_size": shape.n_ctx // 2, "attn_types": ["global", "local"] * shape.n_layers,
        "attn_scores_soft_cap": 50.0, "output_logits_soft_cap": 30.0,
    }  # fmt: skip
    config = HookedTransformerConfig(
        n_layers=shape.n_layers, d_model=shape.d_model, d_head=shape.d_head, n_heads=shape.n_heads, d_mlp=shape.d_mlp,
        n_key_value_heads=shape.n_kv if shape.n_kv != shape.n_heads else None, d_vocab=shape.d_vocab, n_ctx=shape.n_ctx,
        act_fn="gelu_pytorch_tanh" if shape.gated else "gelu_new", gated_mlp=shape.gated, normalization_type=shape.norm,
        final_rms=shape.norm == "RMS", positional_embedding_type="rotary" if shape.rotary else "standard",
        use_normalization_before_and_after=shape.post_norms, use_qk_norm=shape.qk_norm, device=device, dtype=dtype,
        init_weights=False, **(gemma if shape.masks == 2 else {}),
    )  # fmt: skip
    hooks = {
        "feature_input_hook": "ln2.hook_normalized" if shape.reads_normalized else "hook_resid_mid",
        "feature_output_hook": "hook_mlp_out", "scan": "random",
    }  # fmt: skip
    where: Any = {"device": torch.device(device), "dtype": dtype}
    layers, d, width = shape.n_layers, shape.d_model, shape.features
    transcoders: Any
    if shape.clt:
        transcoders = CrossLayerTranscoder(layers, width, d, "jump_relu", lazy_decoder=False, **hooks, **where)
    else:
        one = {
            i: SingleLayerTranscoder(d, width, JumpReLU(torch.zeros(width, dtype=dtype, device=device)), i, **where)
            for i in range(layers)
        }
        transcoders = TranscoderSet(one, **hooks)
    model = TransformerLensReplacementModel.from_config(config, transcoders)
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1 and "threshold" not in name:
            parameter.data.normal_(0, 0.02)
    model.tokenizer = Tokens(shape.d_vocab)
    return model


@torch.no_grad()
def force_active(model: Any, tokens: torch.Tensor, active: tuple[int, ...]) -> None:
    """Set the thresholds so that ``active[layer]`` features are active over the positions after <bos> (a few fewer where numbers tie)."""
    for parameter in model.transcoders.parameters():
        if parameter.ndim == 1 or parameter.shape[1:2] == (1,):
            parameter.zero_()
    seen: dict[int, torch.Tensor] = {}
    _, hooks = model._get_activation_caching_hooks(apply_activation_function=False)
    names = [name for name, _ in hooks]

    def look(acts: torch.Tensor, hook: Any) -> None:
        seen[hook.layer()] = model.transcoders.encode_layer(acts, hook.layer(), apply_activation_function=False)[0, 1:]

    model.run_with_hooks(tokens, fwd_hooks=[(name, look) for name in names])
    for layer, count in enumerate(active):
        threshold = seen[layer].flatten().float().topk(count + 1).values[-1]
        if hasattr(model.transcoders, "activation_function"):
            model.transcoders.activation_function.threshold[layer] = threshold
        else:
            model.transcoders[layer].activation_function.threshold.fill_(threshold)
