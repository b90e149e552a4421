"""The networks that look at pictures: a small CNN and a tiny CLIP, plain PyTorch modules whose parts have names.

Both read pixels in [0, 1] as ``[picture, rgb, 64, 64]``. ``vision_hub`` gives large ones from the Hub the same names.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


def unit(vectors: Float[Tensor, "row d_out"]) -> Float[Tensor, "row d_out"]:
    """Vectors of length 1."""
    return nn.functional.normalize(vectors, dim=-1)


class CNN(nn.Module):
    """Four convolutions, each with a ReLU module of its own (``conv1``, ``relu1``, ...), the mean over the picture, one linear layer.

    The maps after ``relu4`` are [unit, 8, 8].
    """

    def __init__(self, n_classes: int, widths: tuple[int, int, int, int] = (16, 32, 48, 64)) -> None:
        super().__init__()
        a, b, c, d = widths
        self.conv1, self.relu1 = nn.Conv2d(3, a, 5, stride=2, padding=2), nn.ReLU()  # 32 × 32
        self.conv2, self.relu2 = nn.Conv2d(a, b, 3, padding=1), nn.ReLU()
        self.pool2 = nn.MaxPool2d(2)  # 16 × 16
        self.conv3, self.relu3 = nn.Conv2d(b, c, 3, padding=1), nn.ReLU()
        self.pool3 = nn.MaxPool2d(2)  # 8 × 8
        self.conv4, self.relu4 = nn.Conv2d(c, d, 3, padding=1), nn.ReLU()
        self.fc = nn.Linear(d, n_classes)

    def forward(self, pixels: Float[Tensor, "picture rgb y x"]) -> Float[Tensor, "picture class"]:
        """Logits."""
        x = self.relu1(self.conv1(4 * pixels - 2))
        x = self.pool2(self.relu2(self.conv2(x)))
        x = self.pool3(self.relu3(self.conv3(x)))
        x = self.relu4(self.conv4(x))  # [picture, unit, 8, 8]
        return self.fc(x.mean((2, 3)))


class Attention(nn.Module):
    """Multi-head self-attention. ``pattern`` passes the weights [row, head, query, key] through unchanged: hook it to read or change
    them, or to take their gradient."""

    def __init__(self, d_model: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.qkv, self.out, self.pattern = nn.Linear(d_model, 3 * d_model), nn.Linear(d_model, d_model), nn.Identity()

    def forward(self, x: Tensor, ignore: Tensor | None = None) -> Tensor:
        """x: [row, token, d_model]; ignore: tokens that nothing attends to, [row, token]."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.n_heads, -1)).permute(2, 0, 3, 1, 4)  # [row, head, token, d_head]
        scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5  # [row, head, query, key]
        if ignore is not None:
            scores = scores.masked_fill(ignore[:, None, None], -torch.inf)
        return self.out((self.pattern(scores.softmax(-1)) @ v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """A transformer block with layer norm before each part."""

    def __init__(self, d_model: int, n_heads: int) -> None:
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.attn = Attention(d_model, n_heads)
        self.mlp = nn.Sequential(nn.Linear(d_model, 2 * d_model), nn.GELU(), nn.Linear(2 * d_model, d_model))

    def forward(self, x: Tensor, ignore: Tensor | None = None) -> Tensor:
        x = x + self.attn(self.ln1(x), ignore)
        return x + self.mlp(self.ln2(x))


class CLIP(nn.Module):
    """Image and text encoder with one space, trained contrastively (Radford et al. 2021), tiny.

    Pictures: four convolutions make 8×8 patches (early convolutions let a small vision transformer learn fast, Xiao et al. 2021), a
    class token is put before them. Text: one token per word, <pad> is id 0. Image blocks are ``visual.0``, ..., text blocks ``textual.0``, ...
    ``image_parts`` and ``text_parts``: what a picture and the words' embeddings pass through.
    """

    image_parts = ("stem", "visual", "visual_norm", "visual_out")
    text_parts = ("textual", "textual_norm", "textual_out")

    def __init__(
        self, vocabulary: int, max_tokens: int, d_model: int, d_out: int, n_heads: int, n_visual: int, n_textual: int
    ):
        super().__init__()
        d = d_model
        self.stem = nn.Sequential(
            nn.Conv2d(3, 16, 5, stride=2, padding=2), nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(32, 48, 3, padding=1), nn.ReLU(),
            nn.Conv2d(48, d, 3, stride=2, padding=1),
        )  # fmt: skip
        self.class_token = nn.Parameter(torch.randn(d) * 0.5)
        self.row_position, self.column_position = (nn.Parameter(torch.randn(8, d) * 0.5) for _ in range(2))
        self.visual: Any = nn.ModuleList(Block(d, n_heads) for _ in range(n_visual))
        self.visual_norm, self.visual_out = nn.LayerNorm(d), nn.Linear(d, d_out, bias=False)
        self.words = nn.Embedding(vocabulary, d)
        self.word_position = nn.Parameter(torch.randn(max_tokens, d))
        self.textual: Any = nn.ModuleList(Block(d, n_heads) for _ in range(n_textual))
        self.textual_norm, self.textual_out = nn.LayerNorm(d), nn.Linear(d, d_out, bias=False)
        self.log_scale = nn.Parameter(torch.tensor(2.0))

    @property
    def image_patterns(self) -> list[nn.Module]:
        return [block.attn.pattern for block in self.visual]

    @property
    def text_patterns(self) -> list[nn.Module]:
        return [block.attn.pattern for block in self.textual]

    def text_read(self, words: int) -> list[int]:
        """Queries that the text's vector is read at: all words'."""
        return list(range(words))

    def encode_image(self, pixels: Float[Tensor, "picture rgb y x"]) -> Float[Tensor, "picture d_out"]:
        """Unit vectors, one per picture."""
        patches = self.stem(4 * pixels - 2).permute(0, 2, 3, 1) + self.row_position[:, None] + self.column_position
        patches = patches.flatten(1, 2)  # [picture, 64 patches row by row, d_model]
        x = torch.cat([self.class_token.expand(len(patches), 1, -1), patches], 1)
        for block in self.visual:
            x = block(x)
        return unit(self.visual_out(self.visual_norm(x[:, 0])))

    def encode_text(self, tokens: Int[Tensor, "query word"]) -> Float[Tensor, "query d_out"]:
        """Unit vectors, one per query: the mean over its words."""
        padding = tokens == 0
        x = self.words(tokens) + self.word_position[: tokens.shape[1]]
        for block in self.textual:
            x = block(x, padding)
        x = self.textual_norm(x).masked_fill(padding[..., None], 0).sum(1) / (~padding).sum(1, keepdim=True)
        return unit(self.textual_out(x))

    def forward(self, pixels: Tensor, tokens: Tensor) -> Float[Tensor, "picture query"]:
        """Cosine similarity of every picture with every query."""
        return self.encode_image(pixels) @ self.encode_text(tokens).T
