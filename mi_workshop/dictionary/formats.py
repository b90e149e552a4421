"""Dictionaries as files, in SAELens' layout: a folder with ``cfg.json`` and ``sae_weights.safetensors``. ``load`` gets one by name, layer and width.

Written and read are SAELens' architectures standard, topk, jumprelu (also what it makes of a trained BatchTopK), transcoder and jumprelu_transcoder.
Nothing is unpickled. SAELens itself is needed for what comes from the Hub alone.
"""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from mi_workshop.dictionary.core import DictionaryError, SparseDictionary
from mi_workshop.files import write_text
from mi_workshop.models import WEIGHTS, Model, names
from mi_workshop.models.tensors import save_tensors
from mi_workshop.show import either

CONFIG, TENSORS = "cfg.json", "sae_weights.safetensors"
AUTOENCODER = {"l1": "standard", "topk": "topk", "batchtopk": "jumprelu", "jumprelu": "jumprelu"}
TRANSCODER = {"l1": "transcoder", "batchtopk": "jumprelu_transcoder", "jumprelu": "jumprelu_transcoder"}
KIND = {"standard": "l1", "transcoder": "l1", "topk": "topk", "jumprelu": "jumprelu", "jumprelu_transcoder": "jumprelu"}
LAYOUT = "6.0.0"  # of SAELens, since which files look like this
HUB = {
    "gpt2": ("gpt2-small-res-jb", "blocks.{layer}.hook_resid_pre"),
    "gemma-2-2b": ("gemma-scope-2b-pt-res-canonical", "layer_{layer}/width_16k/canonical"),
}  # release and id of SAELens, for models of the Hub


def load(
    source: str | Path = "atlas", layer: int = 1, width: int = 512, *, release: str | None = None, sae_id: str | None = None, otherwise: str | None = None
) -> SparseDictionary:  # fmt: skip
    """The dictionary of ``width`` features that ships for a model's residual stream after ``layer``; or one from a folder in SAELens' layout; or from the
    Hub, for ``gpt2``, ``gemma-2-2b`` or any ``release`` and ``sae_id`` that SAELens knows (``pip install sae-lens``; ``width`` is then the release's).

    ``otherwise``: say in one sentence why it cannot be had, and load this shipped model's instead. Raises DictionaryError, one sentence.
    """
    try:
        if Path(source).is_dir():
            return read(source)
        if str(source) in names() and release is None:
            return _shipped(str(source), layer, width)
        if release is None and str(source) not in HUB:
            raise DictionaryError(
                f"There is no folder and no dictionary {str(source)!r}; there are those of {', '.join(_models())}, and from the Hub {', '.join(HUB)}."
            )
        return _from_hub(str(source), layer, release, sae_id)
    except DictionaryError as error:
        if otherwise is None:
            raise
        print(f"{error} Going on with {otherwise}.")
    at = [path for path in _sizes(otherwise) if path[0] == layer] or _sizes(otherwise)
    return _shipped(otherwise, *min(at, key=lambda path: abs(path[1] - width))) if at else _shipped(otherwise, 1, width)


def _models() -> list[str]:
    return sorted({path.parents[1].name for path in WEIGHTS.glob(f"*/sae_*/{CONFIG}")})


def _sizes(name: str) -> list[tuple[int, int]]:
    """Layer and width of the dictionaries that ship for a model."""
    found = [path.parent.name.split("_") for path in WEIGHTS.glob(f"{name}/sae_*/{CONFIG}")]
    return sorted((int(layer), int(width)) for _, layer, width in found)


def _shipped(name: str, layer: int, width: int) -> SparseDictionary:
    if (folder := WEIGHTS / name / f"sae_{layer}_{width}").is_dir():
        return read(folder)
    if not (sizes := _sizes(name)):
        raise DictionaryError(
            f"No dictionaries ship for {name}; there are those of {', '.join(_models())}: train one with mi.dictionary.train."
        )
    have = [f"layer {at} with {', '.join(str(w) for a, w in sizes if a == at)}" for at in sorted({a for a, _ in sizes})]
    raise DictionaryError(
        f"For {name} there is no dictionary of layer {layer} with {width} features; there are {'; '.join(have)}."
    )


def _from_hub(model: str, layer: int, release: str | None, sae_id: str | None) -> SparseDictionary:
    known = HUB.get(model, ("", ""))
    release, sae_id = release or known[0], sae_id or known[1].format(layer=layer)
    try:
        sae = import_module("sae_lens").SAE.from_pretrained(release, sae_id)
    except ImportError:
        raise DictionaryError(
            f"{release} comes through SAELens, which is not installed: pip install sae-lens."
        ) from None
    except Exception as error:  # of the network, the Hub, the library: its own words say which
        from mi_workshop.models.faults import scrub

        raise DictionaryError(f"{release} {sae_id} cannot be had: {scrub(error)[:300]}") from None
    return from_parts(sae.cfg.to_dict(), dict(sae.state_dict()), f"{release} {sae_id}")


# ---------------------------------------------------------------- SAELens' layout
def save(dictionary: SparseDictionary, folder: str | Path, half: bool = False) -> Path:
    """Write a dictionary as SAELens does; ``half``: in half precision. Returns the folder. Raises DictionaryError for a TopK transcoder, which SAELens does not have."""
    d, folder = dictionary, Path(folder)
    same = d.reads == d.writes
    architecture = (AUTOENCODER if same else TRANSCODER).get(d.kind)
    if architecture is None:
        raise DictionaryError(
            "SAELens has no TopK transcoders: train it with kind='batchtopk', which is saved as a JumpReLU one."
        )
    tensors = {name: getattr(d, name).detach() for name in ("W_enc", "b_enc", "W_dec", "b_dec")}
    if "jumprelu" in architecture:
        tensors["threshold"] = d.threshold
    config: dict[str, Any] = {"architecture": architecture, "d_in": d.W_enc.shape[0], "d_sae": d.width}
    config |= {"k": d.k, "rescale_acts_by_decoder_norm": False} if architecture == "topk" else {}
    config |= {} if same else {"d_out": d.W_dec.shape[1]}
    config |= {"dtype": "float32", "device": "cpu", "apply_b_dec_to_input": same, "normalize_activations": "none", "reshape_activations": "none"}  # fmt: skip
    metadata = {
        "sae_lens_version": LAYOUT,
        "sae_lens_training_version": None,
        "model_name": d.model,
        "hook_name": d.reads,
    }
    metadata |= {} if same else {"hook_name_out": d.writes}
    config["metadata"] = metadata | {"prepend_bos": True, "kind": d.kind, "k": d.k, "provenance": d.provenance}
    save_tensors(folder / TENSORS, tensors, half)
    write_text(folder / CONFIG, json.dumps(config, indent=1))
    return folder


def read(folder: str | Path, *, model: Model | None = None) -> SparseDictionary:
    """Read a dictionary in SAELens' layout. ``model``: check that it is this model's, and that its hooks exist there.

    Raises DictionaryError, one sentence: files missing, cut off or not of this layout, a tensor of another shape, an architecture or a normalisation
    that has no place here, another model or hook.
    """
    folder = Path(folder)
    for name in (CONFIG, TENSORS):
        if not (folder / name).is_file():
            raise DictionaryError(f"{folder} is no dictionary in SAELens' layout: it has no {name}.")
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except ValueError as error:
        raise DictionaryError(f"{folder / CONFIG} is no JSON, or cut off ({error}).") from None
    try:
        tensors = load_file(folder / TENSORS)
    except (SafetensorError, OSError) as error:
        raise DictionaryError(
            f"{folder / TENSORS} is no safetensors file, or cut off ({error}): get it again."
        ) from None
    dictionary = from_parts(config, tensors, str(folder))
    if model is not None:
        from mi_workshop.dictionary.quality import check

        check(model, dictionary)
    return dictionary


def from_parts(config: Any, tensors: dict[str, Tensor], where: str) -> SparseDictionary:
    """A dictionary from SAELens' configuration and tensors; what can be folded into the weights is. ``where`` names it in errors."""
    if not isinstance(config, dict):
        raise DictionaryError(f"{where}: the configuration is no table of settings.")
    meta: dict[str, Any] = {**config, **(config.get("metadata") or {})}  # before version 6, all was in one table
    architecture = str(config.get("architecture", "standard"))
    k = config.get("k") or (config.get("activation_fn_kwargs") or {}).get("k") or 0
    if config.get("activation_fn_str") == "topk":
        architecture = "topk"
    if architecture not in KIND:
        raise DictionaryError(f"{where} is of the architecture {architecture!r}; {either(KIND)} can be read.")
    if (norm := config.get("normalize_activations") or "none") != "none":
        raise DictionaryError(
            f"{where} normalises its inputs ({norm}), which cannot be folded into its weights without the data: save it from SAELens after "
            "sae.fold_activation_norm_scaling_factor(...), where that applies."
        )
    kind = meta["kind"] if AUTOENCODER.get(str(meta.get("kind"))) in (architecture, "jumprelu") else KIND[architecture]
    reads = meta.get("hook_name") or meta.get("hook_point")
    if not isinstance(reads, str) or not reads.startswith("blocks."):
        raise DictionaryError(f"{where} does not say at which hook it reads (metadata, hook_name): found {reads!r}.")
    transcoder = architecture.endswith("transcoder")
    writes = meta.get("hook_name_out") or reads.rsplit(".", 1)[0] + ".hook_mlp_out" if transcoder else reads
    weights = _shaped(config, tensors, architecture, where)
    dictionary = SparseDictionary(
        weights["W_enc"].shape[0], len(weights["b_enc"]), kind, reads=reads, writes=writes, model=str(meta.get("model_name") or ""),
        k=int(k or meta.get("k") or 0), d_out=len(weights["b_dec"]),
    )  # fmt: skip
    if not transcoder and config.get("apply_b_dec_to_input", True) is False:
        weights["b_enc"] = weights["b_enc"] + weights["b_dec"] @ weights["W_enc"]  # ours subtracts it first
    with torch.no_grad():
        for name, value in weights.items():
            getattr(dictionary, name).copy_(value)
    dictionary.provenance = meta.get("provenance") or {"from": where}
    if config.get("rescale_acts_by_decoder_norm"):
        dictionary.normalize()
    return dictionary.requires_grad_(False)


def _shaped(config: dict[str, Any], tensors: dict[str, Tensor], architecture: str, where: str) -> dict[str, Tensor]:
    """The tensors of an architecture in float32. Raises DictionaryError for one that is missing, foreign or of another shape."""
    try:
        d_in, width = int(config["d_in"]), int(config["d_sae"])
        d_out = int(config.get("d_out") or d_in)
    except (KeyError, TypeError, ValueError):
        raise DictionaryError(f"{where} does not say how large it is (d_in, d_sae).") from None
    shapes: dict[str, tuple[int, ...]] = {
        "W_enc": (d_in, width),
        "b_enc": (width,),
        "W_dec": (width, d_out),
        "b_dec": (d_out,),
    }
    shapes |= {"threshold": (width,)} if "jumprelu" in architecture else {}
    tensors = {n: t for n, t in tensors.items() if n != "scaling_factor" or not bool((t == 1).all())}
    for name, shape in shapes.items():
        if name not in tensors:
            raise DictionaryError(f"{where} has no tensor {name}, which an architecture {architecture!r} needs.")
        if tuple(tensors[name].shape) != shape:
            raise DictionaryError(
                f"{where}: {name} has the shape {list(tensors[name].shape)}, and {list(shape)} is expected."
            )
        if not bool(torch.isfinite(tensors[name]).all()):
            raise DictionaryError(f"{where}: {name} holds values that are infinite or no number.")
    if foreign := sorted(set(tensors) - set(shapes)):
        raise DictionaryError(
            f"{where} holds {', '.join(foreign)}, which an architecture {architecture!r} does not have."
        )
    return {name: tensors[name].float() for name in shapes}
