"""A sparse dictionary: an encoder that says which features are present, a decoder that adds their directions up.

``l1``: sparse autoencoder with a penalty on the sum of activations (Bricken et al. 2023, "Towards Monosemanticity"); ``topk``: the k strongest
features of each token (Gao et al. 2024); ``batchtopk``: the strongest of a batch, k per token on average, and afterwards one threshold for all
(Bussmann et al. 2024); ``jumprelu``: a threshold per feature, trained (Rajamanoharan et al. 2024). Where what is read and
what is rebuilt are two places, it is a transcoder (Dunefsky et al. 2024). Names and shapes of the tensors are those of SAELens.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mi_workshop.dictionary.history import History
from mi_workshop.models import ModelError

KINDS = ("l1", "topk", "batchtopk", "jumprelu")


class DictionaryError(ModelError):
    """A dictionary cannot be made, read or used; the message says why."""


class SparseDictionary(nn.Module):
    """Features of the activations at one hook of a model.

    ``W_enc`` [d_in, feature], ``b_enc`` [feature], ``W_dec`` [feature, d_out], ``b_dec`` [d_out] and ``threshold`` [feature] (0 for the kinds
    that have none). ``reads``, ``writes``: hooks of TransformerLens, such as ``blocks.1.hook_resid_post``; the same for an autoencoder.
    ``model``: the name of the model whose activations it was trained on. ``k``: features per token, for ``topk`` (``batchtopk``: on average).
    ``provenance``: how it was trained, as far as is known; ``history``: the curves of its training, if it was trained here.
    """

    threshold: Tensor

    def __init__(
        self, d_in: int, width: int, kind: str = "batchtopk", *, reads: str, writes: str = "", model: str = "", k: int = 0, d_out: int = 0
    ) -> None:  # fmt: skip
        super().__init__()
        if kind not in KINDS:
            raise DictionaryError(f"There is no dictionary of the kind {kind!r}: choose {', '.join(KINDS)}.")
        if kind == "topk" and not 0 < k <= width:
            raise DictionaryError(f"A token has from 1 to {width} of {width} features, not {k}.")
        self.kind, self.reads, self.writes, self.model, self.k = kind, reads, writes or reads, model, k
        self.provenance: dict[str, Any] = {}
        self.history = History(str(self.kind), 0)
        directions = torch.randn(width, d_out or d_in)
        self.W_dec = nn.Parameter(directions / directions.norm(dim=1, keepdim=True))
        same = d_out in (0, d_in)
        self.W_enc = nn.Parameter(self.W_dec.detach().T.clone() if same else torch.randn(d_in, width) / d_in**0.5)
        self.b_enc = nn.Parameter(torch.zeros(width))
        self.b_dec = nn.Parameter(torch.zeros(d_out or d_in))
        self.register_buffer("threshold", torch.zeros(width))

    @property
    def width(self) -> int:
        return self.W_dec.shape[0]

    @property
    def layer(self) -> int:
        """The layer that is read."""
        return int(self.reads.split(".")[1])

    def __repr__(self) -> str:
        where = self.reads if self.reads == self.writes else f"{self.reads} → {self.writes}"
        return f"SparseDictionary({self.kind}, {self.width} features of {self.model} at {where})"

    def before(self, x: Float[Tensor, "*item d_in"]) -> Float[Tensor, "*item feature"]:
        """What the nonlinearity sees. An autoencoder takes its output bias off its input (the tied bias of the lecture)."""
        return (x - self.b_dec if self.reads == self.writes else x) @ self.W_enc + self.b_enc

    def encode(self, x: Float[Tensor, "*item d_in"]) -> Float[Tensor, "*item feature"]:
        """Activations of the features: a row depends on nothing but its own ``x``."""
        acts = self.before(x).relu()
        if self.kind == "topk":
            strongest = acts.topk(self.k, dim=-1)
            return torch.zeros_like(acts).scatter(-1, strongest.indices, strongest.values)
        return acts * (acts > self.threshold)

    def decode(self, acts: Float[Tensor, "*item feature"]) -> Float[Tensor, "*item d_out"]:
        return acts @ self.W_dec + self.b_dec

    def forward(self, x: Float[Tensor, "*item d_in"]) -> Float[Tensor, "*item d_out"]:
        return self.decode(self.encode(x))

    @torch.no_grad()
    def normalize(self, scale: float = 1.0) -> SparseDictionary:
        """Directions of length 1, so that an activation is the size of what a feature writes; ``scale``: what inputs and outputs were
        divided by in training, put back."""
        size = self.W_dec.norm(dim=1).clamp(min=1e-8)
        self.W_dec.div_(size[:, None])
        self.W_enc.mul_(size)
        self.b_enc.mul_(size * scale)
        self.threshold.mul_(size * scale)
        self.b_dec.mul_(scale)
        return self
