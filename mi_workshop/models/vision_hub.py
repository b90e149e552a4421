"""Models from the Hugging Face Hub that look at pictures, through transformers: CLIP, and the classifiers ViT and ResNet. They are called as
the models of Scenes are.

Sizes of a picture, its middle and its resolution are left to the model's own image processor; ``pixels`` are what comes out of it, in [0, 1].
Means and spreads of the colours are taken off inside the module, so that a baseline and a map are about colours that one can look at.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mi_workshop.models import ModelError
from mi_workshop.models.faults import faults
from mi_workshop.models.hub import TYPES
from mi_workshop.models.small import ImageModel, ImageTextModel, Pictures, images
from mi_workshop.models.vision import unit

LONGEST = 50  # times as long as wide: what an image processor would make of a longer picture fills the memory


def attend(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float, **_: Any) -> tuple[Tensor, Tensor]:  # fmt: skip
    """transformers' own attention (its "eager" one), except that the weights pass through ``module.pattern``."""
    scores = query @ key.transpose(-1, -2) * scaling  # [row, head, query, key]
    weights = module.pattern((scores if mask is None else scores + mask).softmax(-1))
    return (weights @ value).transpose(1, 2).contiguous(), weights


def patterns(net: nn.Module) -> list[nn.Module]:
    """Give each attention layer a ``pattern`` for its weights to pass through; returned first layer first."""
    layers: list[Any] = [m for m in net.modules() if type(m).__name__ in ("CLIPAttention", "ViTSelfAttention")]
    for layer in layers:
        layer.pattern = nn.Identity()
    return [layer.pattern for layer in layers]


class Seeing(nn.Module):
    """What CLIP and the classifiers share: colours as their processor scales them."""

    mean: Tensor
    std: Tensor

    def __init__(self, processor: Any) -> None:
        super().__init__()
        for name, numbers in (("mean", processor.image_mean), ("std", processor.image_std)):
            given = numbers if getattr(processor, "do_normalize", False) else [float(name == "std")] * 3
            self.register_buffer(name, torch.tensor(given, dtype=torch.float32)[:, None, None], persistent=False)

    def seen(self, pixels: Tensor) -> Tensor:
        return (pixels - self.mean) / self.std


class Classifier(Seeing):
    """``net`` as a function from pixels to logits."""

    def __init__(self, net: Any, processor: Any) -> None:
        super().__init__(processor)
        self.net, self.image_patterns = net, patterns(net)

    def forward(self, pixels: Float[Tensor, "picture rgb y x"]) -> Float[Tensor, "picture class"]:
        return self.net(self.seen(pixels)).logits


class HubCLIP(Seeing):
    """CLIP of transformers, with the parts' names and functions of the tiny one (``models.vision.CLIP``)."""

    image_parts, text_parts = ("vision_model", "visual_projection"), ("text_model", "text_projection")

    def __init__(self, net: Any, processor: Any) -> None:
        super().__init__(processor)
        self.vision_model, self.visual_projection = net.vision_model, net.visual_projection
        self.text_model, self.text_projection = net.text_model, net.text_projection
        self.words = net.text_model.embeddings.token_embedding
        self.image_patterns, self.text_patterns = patterns(net.vision_model), patterns(net.text_model)

    def text_read(self, words: int) -> list[int]:
        """Queries that the text's vector is read at: the end token's."""
        return [words - 1]

    def encode_image(self, pixels: Float[Tensor, "picture rgb y x"]) -> Float[Tensor, "picture d_out"]:
        return unit(self.visual_projection(self.vision_model(self.seen(pixels)).pooler_output))

    def encode_text(self, tokens: Int[Tensor, "query word"]) -> Float[Tensor, "query d_out"]:
        """Attention is causal and the vector that of the first end token: what stands after it, the padding, changes nothing."""
        return unit(self.text_projection(self.text_model(tokens).pooler_output))

    def forward(self, pixels: Tensor, tokens: Tensor) -> Float[Tensor, "picture query"]:
        return self.encode_image(pixels) @ self.encode_text(tokens).T


def reader(name: str, processor: Any, module: Seeing) -> Callable[[Pictures], Float[Tensor, "picture rgb y x"]]:
    """What a model reads of pictures: Scenes, or arrays of bytes [y, x, rgb] of any size."""

    def read(pictures: Pictures) -> Tensor:
        given = images(pictures)
        for y, x, _ in (a.shape for a in given):
            if max(y, x) > LONGEST * min(y, x):
                raise ModelError(f"A picture of {x} × {y} pixels is too long and narrow for {name}: cut a part out.")
        made = processor(given, do_normalize=False, return_tensors="pt", input_data_format="channels_last")
        return made.pixel_values.float().clamp(0, 1).to(module.mean.device)

    return read


class HubImageTextModel(ImageTextModel):
    """With CLIP's tokenizer."""

    tokenizer: Any
    max_tokens: int

    @cached_property
    def vocabulary(self) -> tuple[str, ...]:
        """The text of each token; "…" where its word goes on."""
        from transformers.models.clip.tokenization_clip import bytes_to_unicode

        own, ids = {letter: byte for byte, letter in bytes_to_unicode().items()}, self.tokenizer.get_vocab()
        texts = []
        for token in sorted(ids, key=ids.__getitem__):
            text = bytes(own.get(letter, 0) for letter in token.removesuffix("</w>")).decode("utf-8", "replace")
            texts.append(token if ids[token] in self.framing else text + "…" * (not token.endswith("</w>")))
        return tuple(texts)

    @cached_property
    def framing(self) -> frozenset[int]:
        return frozenset(self.tokenizer.all_special_ids)

    def tokens(self, queries: str | Sequence[str]) -> Int[Tensor, "query word"]:
        """Token ids with a start and an end token. Raises ModelError for a query that is empty or too long."""
        rows = [queries] if isinstance(queries, str) else list(queries)
        if not rows or not all(map(str.strip, rows)):
            raise ModelError("The query is empty: try 'a photo of a cat'.")
        found = self.tokenizer(rows, padding=True, return_tensors="pt").input_ids
        if (n := found.shape[1]) > self.max_tokens:
            raise ModelError(f"The query has {n} tokens, {self.name} reads at most {self.max_tokens}: shorten it.")
        return found.to(self.module.mean.device)

    def words(self, query: str) -> list[str]:
        return [self.vocabulary[i] for i in self.tokens(query)[0].tolist()]


def load_vision(repo: str, files: list[Path], device: torch.device) -> ImageModel | ImageTextModel:
    """Build the model from its files, in float32. Raises ModelError."""
    folder = next(path for path in files if path.name == "config.json").parent
    kind = json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"]
    with faults(repo, lambda: files):
        import transformers

        transformers.AttentionInterface.register("patterns", attend)
        plain: dict[str, Any] = {} if kind == "resnet" else {"attn_implementation": "patterns"}
        given = plain | {"use_safetensors": True, "output_loading_info": True, "dtype": torch.float32}
        net, info = getattr(transformers, TYPES[kind]).from_pretrained(folder, **given)
        processor = transformers.AutoImageProcessor.from_pretrained(folder, use_fast=False, trust_remote_code=False)
        tokenizer = transformers.CLIPTokenizerFast.from_pretrained(folder) if kind == "clip" else None
    if info["missing_keys"]:
        raise ModelError(f"{repo} has no weights for {min(info['missing_keys'])}: it is no trained {TYPES[kind]}.")
    name, net = repo.rpartition("/")[2], net.requires_grad_(False)
    module = (HubCLIP if tokenizer else Classifier)(net, processor).to(device).eval()
    if not tokenizer:
        classes = tuple(str(net.config.id2label[i]) for i in range(net.config.num_labels))
        return ImageModel(name, module, None, classes, reader(name, processor, module))
    model = HubImageTextModel(name, module, None, reader(name, processor, module))
    model.tokenizer, model.max_tokens = tokenizer, net.config.text_config.max_position_embeddings
    return model
