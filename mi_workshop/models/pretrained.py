"""Build a ``Model`` from files of the Hub: a replacement model with transcoders, or a plain ``HookedTransformer`` without.

Memory for Gemma-2-2B with GemmaScope's transcoders, in bf16: 5.2 GB of weights and 3.9 GB of transcoders (computed from the shapes).
Decoders in safetensors are read from the disk as they are needed, encoders too where they would not fit (circuit-tracer's
``lazy_decoder`` and ``lazy_encoder``); GemmaScope's ``.npz`` files are read whole, layer by layer, unless
``circuit_tracer.utils.caching.save_transcoders_to_cache`` has made a lazy copy of them.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from mi_workshop.models import Model, ModelError
from mi_workshop.models.faults import faults
from mi_workshop.models.hub import LARGE, announce, download, find, local, model_files, size_of, transcoder_files
from mi_workshop.models.vision_hub import load_vision

COLUMNS = [
    "density", "selectivity", "about", "say", "at_end", "attribute", "tokens", "promotes", "suppresses", "places", "say_answer",
    "label_kind", "label", "concept",
]  # fmt: skip
CONTEXT = 2048  # tokens: the masks of attention take context² bytes in each layer while a model is loaded
BACKENDS = ("transformerlens", "nnsight")


def no_features() -> pd.DataFrame:
    """The feature table of a model whose training text nobody knows: no rows."""
    return pd.DataFrame(columns=COLUMNS, index=pd.MultiIndex.from_arrays([[], []], names=["layer", "feature"]))


def load_pretrained(
    name: str, transcoders: str, dtype: Any = None, device: str | None = None, offload: str | None = None, backend: str = BACKENDS[0]
) -> Any:  # fmt: skip
    """Download what is missing and build the model; see ``mi_workshop.load``."""
    if backend not in BACKENDS:
        raise ModelError(f"There is no backend {backend!r}: choose {' or '.join(BACKENDS)}.")
    if offload not in (None, "cpu", "disk"):
        raise ModelError(f"offload={offload!r} is not possible: choose 'cpu', 'disk' or None.")
    known = find(name, backend)
    if transcoders == "clt" and "clt" not in known.transcoders:
        raise ModelError(
            f"{name} has no cross-layer transcoders here: name a repository of them, transcoders='owner/repository'."
        )
    reference = known.transcoders.get(transcoders, "" if transcoders == "plt" else transcoders)
    if backend == "nnsight" and not reference:
        raise ModelError(f"For {name} with nnsight name a repository of transcoders: transcoders='owner/repository'.")
    on = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if on.type == "cuda" and not torch.cuda.is_available():
        raise ModelError(
            "There is no CUDA GPU here (on Colab: Runtime, Change runtime type, T4); device='cpu' does without."
        )
    kind = _dtype(dtype, on)
    parts = [model_files(known.repo)]
    if known.pictures:
        if dtype is not None and kind != torch.float32:
            raise ModelError(f"{known.repo} runs in float32 here, not in {dtype}: leave dtype out.")
        announce(parts)
        download(parts)
        return load_vision(known.repo, parts[0].paths(), on)
    config: dict[str, Any] = {}
    with faults(known.repo):
        from circuit_tracer.utils.caching import is_cached
    if reference and not is_cached(reference):
        config, more = transcoder_files(reference)
        parts += more
    weights = sum(size for file, size in parts[0].files.items() if file.endswith(".safetensors"))
    if on.type == "cpu" and device is None and weights > LARGE:
        raise ModelError(
            f"{known.repo} has {size_of(weights)} of weights and there is no GPU here: use one (on Colab: Runtime, Change runtime type, "
            "T4), or say device='cpu' and be patient."
        )
    announce(parts)
    download(parts)
    files = [path for part in parts for path in part.paths()]
    with faults(known.repo, lambda: files), warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", category=DeprecationWarning
        )  # TransformerLens 3 on the class that circuit-tracer builds on
        sizes = sum(sum(part.files.values()) for part in parts[1:])
        lazy = on.type == "cuda" and sizes > 0.5 * torch.cuda.mem_get_info(on)[0]
        found = _transcoders(reference, config, on, kind, lazy) if reference else None
        network, tokenizer = _network(known.repo, found, files, on, kind, backend)
    which = "" if found is None else "plt" if hasattr(found, "transcoders") else "clt"
    ours = reference == known.transcoders.get(which)
    return Model(
        name, network, tokenizer, None, which, no_features, backend=backend, offload=offload,
        source_set=known.source_sets.get(which, "") if ours else "",
    )  # fmt: skip


def _dtype(dtype: Any, device: torch.device) -> torch.dtype:
    if dtype is None:
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    found = (
        getattr(torch, dtype.removeprefix("torch."))
        if isinstance(dtype, str) and hasattr(torch, dtype.removeprefix("torch."))
        else dtype
    )
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ModelError(f"dtype={dtype!r} is no number type for weights: choose 'bfloat16' or 'float32'.")
    return found


def _transcoders(reference: str, config: dict[str, Any], device: torch.device, dtype: torch.dtype, lazy: bool) -> Any:
    from circuit_tracer.utils.caching import load_transcoders_from_cache
    from circuit_tracer.utils.hf_utils import load_transcoders

    options: dict[str, Any] = {"device": device, "dtype": dtype, "lazy_encoder": lazy, "lazy_decoder": True}
    return (
        load_transcoders(local(config), **options) if config else load_transcoders_from_cache(reference, **options)[0]
    )


@contextmanager
def _nnsight() -> Iterator[None]:
    try:
        yield
    except ImportError:
        raise ModelError(
            f"circuit-tracer 0.5 works with nnsight 0.6, and {version('nnsight')} is installed: pip install 'nnsight>=0.6,<0.7', then restart "
            "the kernel."
        ) from None


def _network(
    repo: str, transcoders: Any, files: list[Path], device: torch.device, dtype: torch.dtype, backend: str
) -> tuple[Any, Any]:
    """The replacement model (without transcoders a ``HookedTransformer``) and its tokenizer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = next(path for path in files if path.name == "config.json").parent
    if backend == "nnsight":
        with _nnsight():
            from circuit_tracer.replacement_model.replacement_model_nnsight import NNSightReplacementModel
        model = NNSightReplacementModel.from_pretrained_and_transcoders(repo, transcoders, device=device, dtype=dtype)
        return model, model.tokenizer
    from transformer_lens import HookedTransformer

    from mi_workshop.models.embedded import TransformerLensReplacementModel  # with its tidying at exit

    given: dict[str, Any] = {
        "hf_model": AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, use_safetensors=True),
        "tokenizer": AutoTokenizer.from_pretrained(folder), "device": str(device), "dtype": dtype,
        "local_files_only": True,
    }  # fmt: skip
    if getattr(given["hf_model"].config, "rope_theta", None) is not None:
        given["n_ctx"] = min(CONTEXT, given["hf_model"].config.max_position_embeddings)
    if transcoders is None:
        model = HookedTransformer.from_pretrained_no_processing(repo, **given)
    else:
        model = TransformerLensReplacementModel.from_pretrained_and_transcoders(repo, transcoders, **given)
    for parameter in model.parameters():
        parameter.requires_grad = False
    return model.eval(), model.tokenizer
