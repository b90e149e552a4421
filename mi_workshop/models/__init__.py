"""Models by name. ``load("atlas")`` is the only line of a notebook that says which model it looks into."""

from __future__ import annotations

import difflib
import gc
from collections.abc import Callable
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
    transcoders: str  # "plt" or "clt"
    read_features: Callable[[], pd.DataFrame] = field(repr=False)
    wired: Wired | None = None

    @cached_property
    def features(self) -> pd.DataFrame:
        """What each transcoder feature responds to and promotes, indexed by (layer, feature); see ``circuits.features``."""
        return self.read_features()

    def tokens(self, prompt: str) -> Tensor:
        """Token ids [position], <bos> first. Raises WorldError for what the model's world does not know."""
        import torch

        if self.world is not None:
            self.world.words(prompt)  # one clear sentence for an empty, unknown or over-long prompt
        ids = self.tokenizer(prompt, add_special_tokens=False).input_ids
        return torch.tensor([self.tokenizer.bos_token_id, *ids])

    def token_id(self, word: str) -> int:
        return self.tokenizer.convert_tokens_to_ids(word)

    def logits(self, tokens: Tensor) -> Tensor:
        """Logits after the last of the token ids [position], as a tensor [d_vocab]."""
        import torch

        with torch.no_grad():
            return self.replacement(tokens[None])[0, -1]

    def top(self, prompt: str, k: int = 10) -> list[tuple[str, float]]:
        """The k most likely next tokens with their probabilities."""
        p, i = self.logits(self.tokens(prompt)).softmax(-1).topk(k)
        return list(zip(self.tokenizer.convert_ids_to_tokens(i.tolist()), p.tolist(), strict=True))


def network(model: Any) -> Any:
    """The PyTorch module: of a ``Model`` its replacement model (a ``HookedTransformer``), otherwise the model itself."""
    return model.replacement if isinstance(model, Model) else model


def names() -> list[str]:
    """The embedded models, shipped in the package."""
    return sorted(path.parent.name for path in WEIGHTS.glob("*/config.json"))


def load(name: str = "atlas", transcoders: str = "plt", weights: str | Path | None = None) -> Model:
    """Load a model by name, with per-layer (``"plt"``) or cross-layer (``"clt"``) transcoders.

    ``weights``: another folder that holds ``<name>/``, by default the package's own.
    Raises ModelError if there is no such model, if it has no cross-layer transcoders or if a file is missing or damaged.
    """
    if transcoders not in ("plt", "clt"):
        raise ModelError(f"There are no {transcoders!r} transcoders; choose 'plt' (per layer) or 'clt' (cross-layer).")
    folder = Path(weights or WEIGHTS) / str(name)
    if weights is None and name not in names():
        close = difflib.get_close_matches(str(name), names(), n=1) or names()[:1]
        raise ModelError(f"There is no model {name!r}: did you mean {close[0]!r}? Shipped are {', '.join(names())}.")
    if str(name).startswith("scenes-"):
        return import_module("mi_workshop.models.small").load_small(folder)
    if transcoders == "clt" and (folder / "config.json").exists() and not (folder / "clt.safetensors").exists():
        have = ", ".join(sorted(path.parent.name for path in folder.parent.glob("*/clt.safetensors")))
        raise ModelError(
            f"{name} has per-layer transcoders only: load it with 'plt', or another with 'clt' ({have or 'none here'})."
        )
    collecting = gc.isenabled()
    gc.disable()  # the libraries' import makes millions of objects that stay: collecting meanwhile costs over a second
    try:
        from mi_workshop.models.embedded import load_embedded

        return load_embedded(folder, transcoders)
    finally:
        if collecting:
            gc.enable()
