"""Models from the Hugging Face Hub that look at pictures, through transformers: CLIP, and the classifiers ViT and ResNet. They are called as
the models of Scenes are.

Sizes of a picture, its middle and its resolution are left to the model's own image processor; ``pixels`` are what comes out of it, in [0, 1].
Means and spreads of the colours are taken off inside the module, so that a baseline and a map are about colours that one can look at.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
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


class Seeing(nn.Module):
    """What CLIP and the classifiers share: a network of transformers, its attention patterns, and colours as the processor would scale them."""

    def __init__(self, net: Any, processor: Any) -> None:
        super().__init__()
        scaled = getattr(processor, "do_normalize", False)
        for name, numbers in (("mean", processor.image_mean), ("std", processor.image_std)):
            given = torch.tensor(numbers if scaled else [float(name == "std")] * 3, dtype=torch.float32)
            self.register_buffer(name, given[:, None, None], persistent=False)
        for attention in self.attentions(net):
            attention.pattern = nn.Identity()

    @staticmethod
    def attentions(net: nn.Module) -> list[Any]:
        return [m for m in net.modules() if type(m).__name__ in ("CLIPAttention", "ViTSelfAttention")]

    def seen(self, pixels: Tensor) -> Tensor:
        return (pixels - self.mean) / self.std


class Classifier(Seeing):
    """``net`` as a function from pixels to logits."""

    def __init__(self, net: Any, processor: Any) -> None:
        super().__init__(net, processor)
        self.net = net

    @property
    def image_patterns(self) -> list[nn.Module]:
        return [m.pattern for m in self.attentions(self.net)]

    def forward(self, pixels: Float[Tensor, "picture rgb y x"]) -> Float[Tensor, "picture class"]:
        return self.net(self.seen(pixels)).logits


class HubCLIP(Seeing):
    """CLIP of transformers, with the parts' names and functions of the tiny one (``models.vision.CLIP``)."""

    image_parts, text_parts = ("vision_model", "visual_projection"), ("text_model", "text_projection")

    def __init__(self, net: Any, processor: Any) -> None:
        super().__init__(net, processor)
        self.vision_model, self.visual_projection = net.vision_model, net.visual_projection
        self.text_model, self.text_projection = net.text_model, net.text_projection
        self.words, self.log_scale = net.text_model.embeddings.token_embedding, net.logit_scale

    @property
    def image_patterns(self) -> list[nn.Module]:
        return [m.pattern for m in self.attentions(self.vision_model)]

    @property
    def text_patterns(self) -> list[nn.Module]:
        return [m.pattern for m in self.attentions(self.text_model)]

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


class _Processed:
    """Pixels by the model's own image processor."""

    name: str
    module: Any
    processor: Any

    def pixels(self, pictures: Pictures) -> Float[Tensor, "picture rgb y x"]:
        """What ``module`` reads of pictures: Scenes, or arrays of bytes [y, x, rgb] of any size. ModelError for others."""
        given = images(pictures)
        for shape in (a.shape for a in given):
            if max(shape[:2]) > LONGEST * min(shape[:2]):
                raise ModelError(f"A picture of {shape[1]} × {shape[0]} pixels is too long and narrow for {self.name}: cut a part out.")  # fmt: skip
        made = self.processor(given, do_normalize=False, return_tensors="pt", input_data_format="channels_last")
        return made.pixel_values.float().clamp(0, 1).to(self.module.mean.device)


class HubImageModel(_Processed, ImageModel):
    def __init__(self, name: str, module: Classifier, processor: Any, classes: Sequence[str]) -> None:
        ImageModel.__init__(self, name, module, None, tuple(classes))
        self.processor = processor


class HubImageTextModel(_Processed, ImageTextModel):
    def __init__(self, name: str, module: HubCLIP, processor: Any, tokenizer: Any, max_tokens: int) -> None:
        ImageTextModel.__init__(self, name, module, None)
        self.processor, self.tokenizer, self.max_tokens = processor, tokenizer, max_tokens
        ids = tokenizer.get_vocab()
        self.framing = frozenset(tokenizer.all_special_ids)
        self.vocabulary = tuple(token if ids[token] in self.framing else readable(token) for token in sorted(ids, key=ids.__getitem__))  # fmt: skip

    def tokens(self, queries: str | Sequence[str]) -> Int[Tensor, "query word"]:
        """Token ids with a start and an end token. Raises ModelError for a query that is empty or too long."""
        rows = [queries] if isinstance(queries, str) else list(queries)
        if not rows or not all(re.search(r"\w", q) for q in rows):
            raise ModelError("The query is empty: try 'a photo of a cat'.")
        found = self.tokenizer(rows, padding=True, return_tensors="pt").input_ids
        if found.shape[1] > self.max_tokens:
            raise ModelError(f"The query has {found.shape[1]} tokens, {self.name} reads at most {self.max_tokens}: shorten it.")  # fmt: skip
        return found.to(self.module.mean.device)

    def words(self, query: str) -> list[str]:
        return [self.vocabulary[i] for i in self.tokens(query)[0].tolist()]


def readable(token: str) -> str:
    """One of CLIP's byte pairs as text; "…" where the word goes on."""
    from transformers.models.clip.tokenization_clip import bytes_to_unicode

    own = {letter: byte for byte, letter in bytes_to_unicode().items()}
    text = bytes(own[letter] for letter in token.removesuffix("</w>")).decode("utf-8", "replace")
    return text if token.endswith("</w>") else f"{text}…"


def load_vision(repo: str, files: list[Path], device: torch.device) -> ImageModel | ImageTextModel:
    """Build the model from its files, in float32. Raises ModelError."""
    folder = next(path for path in files if path.name == "config.json").parent
    kind = json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"]
    with faults(repo, lambda: files):
        import transformers

        transformers.AttentionInterface.register("patterns", attend)
        plain: dict[str, Any] = {} if kind == "resnet" else {"attn_implementation": "patterns"}
        net, info = getattr(transformers, TYPES[kind]).from_pretrained(
            folder, use_safetensors=True, output_loading_info=True, dtype=torch.float32, **plain
        )
        processor = transformers.AutoImageProcessor.from_pretrained(folder, use_fast=False, trust_remote_code=False)
        tokenizer = transformers.CLIPTokenizerFast.from_pretrained(folder) if kind == "clip" else None
    if info["missing_keys"]:
        raise ModelError(f"{repo} has no weights for {min(info['missing_keys'])}: it is no trained {TYPES[kind]}.")
    net = net.eval().requires_grad_(False).to(device)
    name = repo.rpartition("/")[2]
    if tokenizer:
        return HubImageTextModel(name, HubCLIP(net, processor).to(device).eval(), processor, tokenizer, net.config.text_config.max_position_embeddings)  # fmt: skip
    classes = [str(net.config.id2label[i]) for i in range(net.config.num_labels)]
    return HubImageModel(name, Classifier(net, processor).to(device).eval(), processor, classes)
