"""The models of *Scenes*: ``load("scenes-cnn")``, ``"scenes-shortcut"`` and ``"scenes-clip"``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mi_workshop.models import ModelError
from mi_workshop.models.tensors import read_json, read_tensors
from mi_workshop.models.vision import CLIP, CNN
from mi_workshop.worlds.scenes import SIDE, Scene, Scenes

Pictures = Scene | np.ndarray | Sequence[Scene | np.ndarray]


def to_pixels(pictures: Pictures) -> Float[Tensor, "picture rgb y x"]:
    """Pixels in [0, 1] of one picture or several: Scenes, or arrays of bytes [64, 64, 3] or [picture, 64, 64, 3].

    Raises ModelError for another size, another number of channels or another type than uint8.
    """
    several = [pictures] if isinstance(pictures, Scene) or np.ndim(pictures) == 3 else pictures  # type: ignore[arg-type]
    arrays = [p.image if isinstance(p, Scene) else np.asarray(p) for p in several]
    for a in arrays:
        if a.shape != (SIDE, SIDE, 3) or a.dtype != np.uint8:
            raise ModelError(
                f"A picture must be {SIDE} × {SIDE} pixels of red, green and blue bytes (an array [{SIDE}, {SIDE}, 3] of uint8); "
                f"this one is {list(a.shape)} of {a.dtype}."
            )
    if not arrays:
        raise ModelError("There is no picture to look at: the list is empty.")
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2) / 255


@dataclass(eq=False)
class ImageModel:
    """A classifier of pictures. ``module`` is a plain PyTorch module from pixels to logits; ``world`` is the answer key."""

    name: str
    module: CNN = field(repr=False)
    world: Scenes = field(repr=False)
    classes: tuple[str, ...]

    def pixels(self, pictures: Pictures) -> Float[Tensor, "picture rgb y x"]:
        """What ``module`` reads; see ``to_pixels``."""
        return to_pixels(pictures)

    @torch.no_grad()
    def __call__(self, pictures: Pictures) -> Float[Tensor, "picture class"]:
        """Probabilities."""
        return self.module(self.pixels(pictures)).softmax(-1)

    def predict(self, pictures: Pictures) -> list[str]:
        """The most likely class of each picture."""
        return [self.classes[i] for i in self(pictures).argmax(-1).tolist()]

    def class_id(self, name: str) -> int:
        """Position of a class among the logits; ModelError if there is none of this name."""
        if name not in self.classes:
            raise ModelError(f"{self.name} has no class {name!r}; it has {', '.join(self.classes)}.")
        return self.classes.index(name)


@dataclass(eq=False)
class ImageTextModel:
    """Pictures and words in one space. ``module(pixels, tokens)`` is their cosine similarity."""

    name: str
    module: CLIP = field(repr=False)
    world: Scenes = field(repr=False)

    def pixels(self, pictures: Pictures) -> Float[Tensor, "picture rgb y x"]:
        """What ``module`` reads of pictures; see ``to_pixels``."""
        return to_pixels(pictures)

    def tokens(self, queries: str | Sequence[str]) -> Int[Tensor, "query word"]:
        """Token ids, padded with 0. Raises WorldError for a query that is empty, too long or has an unknown word."""
        rows = [self.world.words(q) for q in ([queries] if isinstance(queries, str) else queries)]
        width = max(map(len, rows))
        ids = {word: i for i, word in enumerate(self.world.vocabulary)}
        return torch.tensor([[ids[w] for w in row] + [0] * (width - len(row)) for row in rows])

    @torch.no_grad()
    def __call__(self, pictures: Pictures, queries: str | Sequence[str]) -> Float[Tensor, "picture query"]:
        """Cosine similarity of every picture with every query."""
        return self.module(self.pixels(pictures), self.tokens(queries))


def build(config: dict[str, Any]) -> nn.Module:
    """The network that a config.json describes, untrained."""
    return {"cnn": CNN, "clip": CLIP}[config["network"]](**config["size"])


def load_small(folder: Path) -> Any:
    """Read the model in ``folder`` (config.json, model.safetensors): an ``ImageModel`` or an ``ImageTextModel``.

    Raises ModelError if a file is missing or damaged or the two do not fit together.
    """
    config = read_json(folder / "config.json")
    weights = read_tensors(folder / "model.safetensors")
    try:
        module, world = build(config).eval(), Scenes(cue=config["cue"])
        module.load_state_dict(weights)
    except (KeyError, TypeError, RuntimeError) as error:
        said = str(error).splitlines()[0]
        raise ModelError(
            f"The weights in {folder} do not fit config.json ({said}): install mi-workshop again."
        ) from None
    if isinstance(module, CNN):
        return ImageModel(folder.name, module, world, world.classes)
    return ImageTextModel(folder.name, module, world)  # type: ignore[arg-type]
