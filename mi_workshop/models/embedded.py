"""The embedded tier: read a model shipped in the package (safetensors, JSON; nothing is unpickled, nothing downloaded)."""

from __future__ import annotations

import atexit
from pathlib import Path
from typing import Any

import torch
from circuit_tracer.replacement_model.replacement_model_transformerlens import TransformerLensReplacementModel
from circuit_tracer.transcoder.activation_functions import JumpReLU
from circuit_tracer.transcoder.cross_layer_transcoder import CrossLayerTranscoder
from circuit_tracer.transcoder.single_layer_transcoder import SingleLayerTranscoder, TranscoderSet
from torch import Tensor
from transformer_lens import HookedTransformer, HookedTransformerConfig
from transformers import PreTrainedTokenizerFast

from mi_workshop.models import Model, ModelError, Wired
from mi_workshop.models.tensors import read_json, read_tensors
from mi_workshop.worlds import Atlas, world_of

# circuit-tracer's models tidy their hooks when they are deleted; while Python shuts down that only prints a traceback.
atexit.register(delattr, TransformerLensReplacementModel, "__del__")
HOOKS = {"feature_input_hook": "mlp.hook_in", "feature_output_hook": "mlp.hook_out"}


def make_tokenizer(world: Atlas) -> PreTrainedTokenizerFast:
    """A Hugging Face fast tokenizer, one token per word or name of the world."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    vocabulary = {word: i for i, word in enumerate(world.vocabulary)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(world.token_pattern), behavior="removed", invert=True)
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<bos>",
        pad_token="<pad>",
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
    )


def transcoder_object(kind: str, t: dict[str, Tensor], scan: str) -> TranscoderSet | CrossLayerTranscoder:
    """circuit-tracer's transcoder object from our tensors.

    ``W_enc [layer, feature, d_model]``, ``b_enc``, ``threshold [layer, feature]``, ``b_dec [layer, d_model]`` and, per
    source layer, ``W_dec_<layer> [feature, target layer, d_model]`` (one target layer for per-layer transcoders).
    """
    n_layers, width, d_model = t["W_enc"].shape
    if kind == "clt":
        clt = CrossLayerTranscoder(
            n_layers, width, d_model, "jump_relu", lazy_decoder=False, dtype=torch.float32, scan=scan, **HOOKS
        )
        with torch.no_grad():
            clt.W_enc.copy_(t["W_enc"])
            clt.b_enc.copy_(t["b_enc"])
            clt.b_dec.copy_(t["b_dec"])
            clt.activation_function.threshold.copy_(t["threshold"][:, None])
            for layer in range(n_layers):
                clt.W_dec[layer].copy_(t[f"W_dec_{layer}"])
        return clt
    layers = {}
    for layer in range(n_layers):
        one = SingleLayerTranscoder(d_model, width, JumpReLU(t["threshold"][layer], 0.1), layer, dtype=torch.float32)
        with torch.no_grad():
            one.W_enc.copy_(t["W_enc"][layer])
            one.b_enc.copy_(t["b_enc"][layer])
            one.W_dec.copy_(t[f"W_dec_{layer}"][:, 0])
            one.b_dec.copy_(t["b_dec"][layer])
        layers[layer] = one
    return TranscoderSet(layers, scan=scan, **HOOKS)


def load_embedded(folder: Path, transcoders: str, device: str = "cpu", dtype: torch.dtype | None = None) -> Model:
    """Read the model in ``folder``: config.json, tokenizer.json, model.safetensors, <transcoders>.safetensors; a model whose config
    says that it has no transcoders is a plain ``HookedTransformer``."""
    settings = read_json(folder / "config.json")
    if not settings.pop("transcoders", True):
        transcoders = ""
    config = HookedTransformerConfig.from_dict(settings | {"init_weights": False, "device": "cpu"})
    tensors = read_tensors(folder / f"{transcoders}.safetensors") if transcoders else {}
    weights = read_tensors(folder / "model.safetensors")
    try:
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_file=str(folder / "tokenizer.json"), bos_token="<bos>", pad_token="<pad>", unk_token="<unk>",
            clean_up_tokenization_spaces=False,
        )  # fmt: skip
    except Exception as error:
        raise ModelError(f"The tokenizer {folder / 'tokenizer.json'} is missing or damaged ({error}).") from None
    if transcoders:
        weights = {  # circuit-tracer wraps these two modules
            key.replace(".mlp.", ".mlp.old_mlp.").replace("unembed.", "unembed.old_unembed."): value
            for key, value in weights.items()
        }
    try:
        replacement: Any
        if transcoders:
            replacement = TransformerLensReplacementModel.from_config(
                config, transcoder_object(transcoders, tensors, f"{folder.name}-{transcoders}")
            )
        else:
            replacement = HookedTransformer(config).requires_grad_(False)
        missing, unexpected = replacement.load_state_dict(weights, strict=False)
        lost = [
            k
            for k in missing
            if not k.startswith("transcoders.") and not k.endswith((".mask", ".IGNORE", "rotary_sin", "rotary_cos"))
        ]
        if lost or unexpected:
            raise KeyError((lost + unexpected)[0])
    except (KeyError, RuntimeError) as error:
        raise ModelError(f"The weights in {folder} do not fit together ({error}): install mi-workshop again.") from None
    for moved in (dtype, None if device == "cpu" else device):
        if moved is not None:
            replacement.to(moved, print_details=False)
    replacement.tokenizer, replacement.cfg.tokenizer_name = tokenizer, str(folder)

    def read_features() -> Any:
        from mi_workshop.circuits.features import read_table
        from mi_workshop.models.pretrained import no_features

        return read_table(folder / f"{transcoders}.features.json") if transcoders else no_features()

    inside = folder / "wired.safetensors"
    wired = Wired(read_tensors(inside)["subspace"]) if inside.exists() else None
    return Model(folder.name, replacement.eval(), tokenizer, world_of(folder.name), transcoders, read_features, wired)
