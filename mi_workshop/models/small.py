"""The models of *Scenes*: ``load("scenes-cnn")``, ``"scenes-shortcut"`` and ``"scenes-clip"``."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from mi_workshop.models import ModelError
from mi_workshop.models.tensors import read_json, read_tensors
from mi_workshop.models.vision import CLIP, CNN
from mi_workshop.worlds.scenes import SIDE, Scene, Scenes

Pictures = Scene | np.ndarray | Sequence[Scene | np.ndarray]


def images(pictures: Pictures, side: int | None = None) -> list[UInt8[np.ndarray, "y x rgb"]]:
    """The bytes of one picture or several: Scenes, or arrays of bytes [y, x, 3] or [picture, y, x, 3].

    Raises ModelError for another number of channels or another type than uint8, or another size than ``side`` × ``side`` pixels.
    """
    several: Any = pictures if isinstance(pictures, list | tuple) or getattr(pictures, "ndim", 0) == 4 else [pictures]
    arrays = [p.image if isinstance(p, Scene) else np.asarray(p) for p in several]
    for a in arrays:
        if a.ndim != 3 or a.shape[2] != 3 or not a.size or a.dtype != np.uint8 or a.shape[:2] != (side or len(a), side or a.shape[1]):  # fmt: skip
            size, shape, how = (f"{side} × {side} pixels", f"[{side}, {side}, 3]", f", side={side}") if side else ("pixels", "[y, x, 3]", "")  # fmt: skip
            raise ModelError(
                f"A picture must be {size} of red, green and blue bytes (an array {shape} of uint8); this one is {list(a.shape)} of "
                f"{a.dtype}. read_picture(file{how}) makes one of any picture."
            )
    if not arrays:
        raise ModelError("There is no picture to look at: the list is empty.")
    return arrays


def to_pixels(pictures: Pictures) -> Float[Tensor, "picture rgb y x"]:
    """Pixels in [0, 1] of one picture or several of Scenes' size; see ``images``."""
    return torch.from_numpy(np.stack(images(pictures, SIDE))).permute(0, 3, 1, 2) / 255


def suggest(name: Any, known: Sequence[str]) -> str:
    """Which of the names could be meant: all of them where they are few, otherwise those that are like it or contain it."""
    if len(known) <= 20:
        return f"choose one of {', '.join(known)}"
    each = {one.strip().lower(): k for k in known for one in k.split(",")}
    close = [each[c] for c in difflib.get_close_matches(str(name).lower(), each, n=3)]
    inside = [k for k in known if re.search(rf"\b{re.escape(str(name))}\b", k, re.IGNORECASE)]
    found = list(dict.fromkeys([*inside[:3], *close]))[:3] or [*known[:3], "…"]
    return f"{'did you mean' if inside or close else 'there are'} {', '.join(map(repr, found))}{'?' if inside or close else ''}"


@dataclass(eq=False)
class ImageModel:
    """A classifier of pictures. ``module`` is a plain PyTorch module from pixels to logits; ``world`` is the answer key (None for models of
    the real world)."""

    name: str
    module: Any = field(repr=False)
    world: Scenes | None = field(repr=False)
    classes: tuple[str, ...] = field(repr=False)
    read: Callable[[Pictures], Tensor] = field(default=to_pixels, repr=False)

    def pixels(self, pictures: Pictures) -> Float[Tensor, "picture rgb y x"]:
        """What ``module`` reads, in [0, 1]; see ``to_pixels``, or for models from the Hub ``vision_hub.reader``."""
        return self.read(pictures)

    @torch.no_grad()
    def __call__(self, pictures: Pictures) -> Float[Tensor, "picture class"]:
        """Probabilities."""
        return self.module(self.pixels(pictures)).softmax(-1).cpu()

    def predict(self, pictures: Pictures) -> list[str]:
        """The most likely class of each picture."""
        return [self.classes[i] for i in self(pictures).argmax(-1).tolist()]

    def class_id(self, name: str) -> int:
        """Position of a class among the logits; ModelError if there is none of this name."""
        if name not in self.classes:
            raise ModelError(f"{self.name} has no class {name!r}; {suggest(name, self.classes)}.")
        return self.classes.index(name)


@dataclass(eq=False)
class ImageTextModel:
    """Pictures and words in one space. ``module(pixels, tokens)`` is their cosine similarity; ``world`` is the answer key (None for models of
    the real world)."""

    name: str
    module: Any = field(repr=False)
    world: Any = field(repr=False)
    read: Callable[[Pictures], Tensor] = field(default=to_pixels, repr=False)

    def pixels(self, pictures: Pictures) -> Float[Tensor, "picture rgb y x"]:
        """What ``module`` reads of pictures, in [0, 1]; see ``to_pixels``, or for models from the Hub ``vision_hub.reader``."""
        return self.read(pictures)

    @cached_property
    def vocabulary(self) -> tuple[str, ...]:
        """The text of each token id."""
        return self.world.vocabulary

    @cached_property
    def framing(self) -> frozenset[int]:
        """Ids of tokens that are put around every query: no part of what it says."""
        return frozenset()

    def words(self, query: str) -> list[str]:
        """The tokens of a query as text; raises as ``tokens``."""
        return self.world.words(query)

    def tokens(self, queries: str | Sequence[str]) -> Int[Tensor, "query word"]:
        """Token ids, padded with 0. Raises WorldError for a query that is empty, too long or has an unknown word."""
        rows = [self.words(q) for q in ([queries] if isinstance(queries, str) else queries)]
        width = max(map(len, rows))
        ids = {word: i for i, word in enumerate(self.vocabulary)}
        return torch.tensor([[ids[w] for w in row] + [0] * (width - len(row)) for row in rows])

    @torch.no_grad()
    def __call__(self, pictures: Pictures, queries: str | Sequence[str]) -> Float[Tensor, "picture query"]:
        """Cosine similarity of every picture with every query."""
        return self.module(self.pixels(pictures), self.tokens(queries)).cpu()


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
    return ImageTextModel(folder.name, module, world)
