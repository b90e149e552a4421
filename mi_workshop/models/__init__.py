"""Models by name. ``load("atlas")`` is the only line of a notebook that says which model it looks into."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from mi_workshop.worlds import Atlas

WEIGHTS = Path(__file__).parent / "weights"


class ModelError(ValueError):
    """A model cannot be loaded; the message says what is wrong and what to do."""


@dataclass(frozen=True, eq=False)
class Wired:
    """Where training made a variable live (``atlas-wired``): the subspace of the residual stream at ``hook``, at the city's token,
    that carries ``variable``: answers follow these coordinates and not the others. The others are not empty, the place can be
    decoded from them too; they are not used. ``subspace``: orthonormal directions [direction, d_model]."""

    subspace: Tensor = field(repr=False)
    layer: int = 1
    variable: str = "place of the city"

    @property
    def hook(self) -> str:
        return f"blocks.{self.layer}.hook_resid_post"


@dataclass(eq=False)
class Model:
    """A language model with transcoders, ready to be traced.

    ``replacement`` is circuit-tracer's replacement model, which is a TransformerLens ``HookedTransformer``: everything
    those libraries can do can be done with it. ``world`` is the answer key (None for models of the real world), ``wired`` the
    known inside, where there is one.
    """

    name: str
    replacement: Any
    tokenizer: Any
    world: Atlas | None
    transcoders: str  # "plt", "clt" or, where there are none, ""
    read_features: Callable[[], pd.DataFrame] = field(repr=False)
    wired: Wired | None = None
    backend: str = "transformerlens"
    offload: str | None = None
    source_set: str = ""  # what Neuronpedia calls the transcoders

    @cached_property
    def features(self) -> pd.DataFrame:
        """What each transcoder feature responds to and promotes, indexed by (layer, feature); see ``circuits.features``."""
        return self.read_features()

    @property
    def dtype(self) -> Any:
        return self.replacement.dtype if self.backend == "nnsight" else self.replacement.cfg.dtype

    @property
    def device(self) -> Any:
        """Where the weights are, a ``torch.device``."""
        import torch

        return torch.device(self.replacement.device if self.backend == "nnsight" else self.replacement.cfg.device)

    def tokens(self, prompt: str) -> Tensor:
        """Token ids [position], <bos> first (for tokenizers without one, what circuit-tracer puts there), on the CPU.

        Raises WorldError for what the model's world does not know, ModelError for a prompt that is empty or too long.
        """
        import torch

        if self.world is not None:
            self.world.words(prompt)  # one clear sentence for an empty, unknown or over-long prompt
            ids = self.tokenizer(prompt, add_special_tokens=False).input_ids
            return torch.tensor([self.tokenizer.bos_token_id, *ids])
        from circuit_tracer.replacement_model.common import ensure_tokenized

        if not prompt:
            raise ModelError("The prompt is empty: give the text that the model shall go on with.")
        found = ensure_tokenized(prompt, self.tokenizer, "cpu", self.name)
        limit = getattr(self.replacement.cfg, "n_ctx", None) or len(found)
        if len(found) > limit:
            raise ModelError(f"The prompt has {len(found)} tokens, and {self.name} is loaded for {limit}: shorten it.")
        return found

    def token_id(self, word: str) -> int:
        """The id of a word that is one token, for real tokenizers with the space before it where there is such a token.

        Raises ModelError for a word that is several (models of a world: the id of the unknown token)."""
        if self.world is not None:
            return self.tokenizer.convert_tokens_to_ids(word)
        for text in (f" {word}", word) if word[:1].isalnum() else (word,):
            ids = self.tokenizer(text, add_special_tokens=False).input_ids
            if len(ids) == 1 and ids[0] != self.tokenizer.unk_token_id:
                return int(ids[0])
        ids = self.tokenizer(word, add_special_tokens=False).input_ids
        raise ModelError(
            f"{word!r} is {len(ids)} tokens of {self.name} ({', '.join(map(repr, self.words(ids)))}): choose one."
        )

    def words(self, ids: Iterable[int]) -> list[str]:
        """Token ids as text, each on its own: ``" Austin"`` with the space that belongs to it."""
        ids = [int(i) for i in ids]
        if self.world is not None:
            return self.tokenizer.convert_ids_to_tokens(ids)
        return self.tokenizer.batch_decode([[i] for i in ids], clean_up_tokenization_spaces=False)

    def logits(self, tokens: Tensor) -> Tensor:
        """Logits after the last of the token ids [position], as a tensor [d_vocab], float32 on the CPU."""
        import torch

        with torch.no_grad():
            if self.backend == "nnsight":
                return self.replacement._module(tokens[None].to(self.replacement.device)).logits[0, -1].float().cpu()
            return self.replacement(tokens[None])[0, -1].float().cpu()

    def top(self, prompt: str, k: int = 10) -> list[tuple[str, float]]:
        """The k most likely next tokens with their probabilities."""
        p, i = self.logits(self.tokens(prompt)).softmax(-1).topk(k)
        return list(zip(self.words(i.tolist()), p.tolist(), strict=True))


def rounding(model: Any, logits: Tensor) -> float:
    """How far two ways of computing the same ``logits`` may part by rounding alone: 32 units in the last place of their largest in
    float32, 8 where the model computes in half precision (a unit is much larger there)."""
    import torch

    dtype = model.dtype if isinstance(model, Model) else getattr(getattr(model, "cfg", None), "dtype", logits.dtype)
    eps = torch.finfo(dtype).eps
    return (32 if eps < 1e-6 else 8) * eps * max(1.0, float(logits.abs().max()))


def network(model: Any) -> Any:
    """The PyTorch module: of a ``Model`` its replacement model (a ``HookedTransformer``), otherwise the model itself."""
    return model.replacement if isinstance(model, Model) else model


def mlp(model: Any, layer: int) -> Any:
    """The MLP of a layer, with its weights and hooks: circuit-tracer's replacement models have it inside a wrapper."""
    block = network(model).blocks[layer]
    return getattr(block.mlp, "old_mlp", block.mlp)


def names() -> list[str]:
    """The embedded models, shipped in the package."""
    return sorted(path.parent.name for path in WEIGHTS.glob("*/config.json"))


def available_memory() -> int:
    """Bytes of memory that are free, in a container (Binder, Docker) those within its limit."""
    import psutil

    available = psutil.virtual_memory().available
    group = Path("/sys/fs/cgroup")  # a container may have less than its machine
    try:
        used = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())["anon"]
        available = min(available, int((group / "memory.max").read_text()) - int(used))
    except (OSError, ValueError, KeyError):  # not in a container, or no limit: "max"
        pass
    return int(available)


def load(
    name: str = "atlas", transcoders: str = "plt", weights: str | Path | None = None, *, dtype: Any = None,
    device: str | None = None, offload: str | None = None, backend: str = "transformerlens", otherwise: str | None = None,
) -> Model:  # fmt: skip
    """Load a model by name, with per-layer (``"plt"``) or cross-layer (``"clt"``) transcoders.

    The models of ``names()`` are in the package. ``gemma-2-2b``, ``llama-3.2-1b``, ``qwen3-0.6b`` (to 14b), ``gpt2`` and every other name
    that TransformerLens knows come from the Hugging Face Hub; so do ``clip-vit-base-patch32``, ``vit-base-patch16-224``, ``resnet-50`` and every
    other CLIP, ViT or ResNet classifier by its repository, which look at pictures as those of Scenes do (an ``ImageModel`` or
    ``ImageTextModel``; ``device`` and ``otherwise`` alone matter to them). What will be downloaded is said beforehand. A model without known
    transcoders takes ``transcoders="owner/repository"``, or does without (lenses, attention, interventions; no ``trace``).

    ``dtype``: by default bfloat16 on a GPU and float32 on a CPU. A T4 has no bfloat16 units: PyTorch computes it there in steps
    through float32, correct but slower; float16 would overflow in Gemma. ``device``: the GPU where there is one; large models run on
    a CPU only if asked for with ``"cpu"``. ``offload`` (``"cpu"``, ``"disk"``): where ``trace`` puts parts that it does not need at
    the moment. ``backend="nnsight"`` runs Hub models that TransformerLens does not (``trace`` and ``top`` only; circuit-tracer 0.5 has no
    remote execution, so neither has this). ``otherwise``: say in one sentence why the model cannot be had, and load this one instead.
    ``weights``: another folder that holds ``<name>/`` of an embedded model.

    Raises ModelError, one sentence with what to do: no such model or transcoders, a file missing or damaged, no token or licence, no
    network, disk or memory.
    """
    try:
        return _load(str(name), transcoders, weights, dtype=dtype, device=device, offload=offload, backend=backend)
    except ModelError as error:
        if otherwise is None:
            raise
        print(f"{error} Going on with {otherwise}.")
    return load(otherwise, device=device if device == "cpu" else None)


def _load(name: str, transcoders: str, weights: str | Path | None, **options: Any) -> Model:
    collecting = gc.isenabled()
    gc.disable()  # the libraries' import makes millions of objects that stay: collecting meanwhile costs over a second
    try:
        if weights is None and name not in names():
            from mi_workshop.models.pretrained import load_pretrained

            return load_pretrained(name, transcoders, **options)
        folder = Path(weights or WEIGHTS) / name
        if name.startswith("scenes-"):
            return import_module("mi_workshop.models.small").load_small(folder)
        if transcoders not in ("plt", "clt"):
            raise ModelError(
                f"There are no {transcoders!r} transcoders; choose 'plt' (per layer) or 'clt' (cross-layer)."
            )
        if transcoders == "clt" and (folder / "config.json").exists() and not (folder / "clt.safetensors").exists():
            have = ", ".join(sorted(path.parent.name for path in folder.parent.glob("*/clt.safetensors")))
            own = "per-layer transcoders only: load it with 'plt'"
            if not (folder / "plt.safetensors").exists():
                own = "no transcoders: load it without naming any"
            raise ModelError(f"{name} has {own}, or another with 'clt' ({have or 'none here'}).")
        from mi_workshop.models.embedded import load_embedded

        return load_embedded(folder, transcoders, options["device"] or "cpu", options["dtype"])
    finally:
        if collecting:
            gc.enable()
