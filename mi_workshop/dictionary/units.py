"""Units of one layer: what a feature is compared with. Whatever the kind, a unit is an activation at each token and a direction that it
writes into the residual stream after the layer, so that all are scored, ablated and rebuilt from in the same way.

Directions that nobody trained fire at half of all tokens (one side of the mean), features at one in a hundred. So that they are no straw man,
there are ``random`` directions that fire as seldom as features do, and the key lets every unit choose its threshold from the same list.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from scipy.sparse import csc_array
from torch import Tensor

from mi_workshop.circuits.corpus import Text, training_text
from mi_workshop.dictionary.activations import activations, encoded, firings
from mi_workshop.dictionary.core import DictionaryError, SparseDictionary
from mi_workshop.models import Model, mlp

OTHERS = {
    "neurons": "MLP neurons of the layer, after the nonlinearity",
    "coordinates": "coordinates of the residual stream about their mean, each sign a unit",
    "PCA": "principal components of the residual stream, each sign a unit",
    "directions": "random directions of the residual stream about its mean, rectified, as many as the dictionary has features",
    "random": "a random dictionary: random directions, each with a threshold that lets it fire as often as a feature of the dictionary does",
    "shuffled": "the dictionary's features, each with the direction of another",
}  # what ``units_of`` makes beside the dictionary itself


@dataclass(eq=False)
class Units:
    """``encode`` makes activations [..., unit] of what ``reads`` sees; ``writes`` [unit, d_model] is what a unit of activation 1 adds to
    the residual stream after ``layer``."""

    kind: str
    model: Model
    layer: int
    reads: str
    encode: Callable[[Tensor], Tensor]
    writes: Float[Tensor, "unit d_model"] = field(repr=False)

    def __len__(self) -> int:
        return len(self.writes)

    @property
    def hook(self) -> str:
        """The residual stream that the units write into."""
        return f"blocks.{self.layer}.hook_resid_post"

    def fire(self, text: Callable[[Model], Text] = training_text) -> csc_array:
        """Activations [token, unit] over a text of ``circuits.corpus``."""
        return encoded(self.encode, activations(self.model, self.reads, text))

    @cached_property
    def acts(self) -> csc_array:
        """Activations over the training text."""
        return self.fire()

    @torch.no_grad()
    def rebuilt(self, x: Float[Tensor, "*item d_model"], per_token: int) -> Float[Tensor, "*item d_model"]:
        """Activations of the residual stream from the ``per_token`` units that contribute most to each, their sizes fitted again by least squares (which
        makes the most of units that nobody trained for it). Raises DictionaryError for units that read elsewhere."""
        if self.reads != self.hook:
            raise DictionaryError(f"The {self.kind} read {self.reads}: of the residual stream they write only a part.")
        mean, unit = activations(self.model, self.hook).mean(0), self.writes / self.writes.norm(dim=1, keepdim=True)
        top = (self.encode(x) * self.writes.norm(dim=1)).topk(per_token, dim=-1).indices
        basis = unit[top]  # [*item, per_token, d_model]
        gram = basis @ basis.mT + 1e-4 * torch.eye(per_token)
        size = torch.linalg.solve(gram, basis @ (x - mean)[..., None])
        return mean + (size * basis).sum(-2)


def units_of(model: Model, dictionary: SparseDictionary, kind: str = "dictionary", seed: int = 0) -> Units:
    """The features of ``dictionary``, or the units of another ``kind`` (``OTHERS``) of the layer that it writes into, to compare them with.

    Raises DictionaryError for a kind that there is not and for a dictionary of another model.
    """
    layer, width = int(dictionary.writes.split(".")[1]), dictionary.width
    features = Units("dictionary", model, layer, dictionary.reads, dictionary.encode, dictionary.W_dec.detach())
    features.acts = firings(model, dictionary)
    g = torch.Generator().manual_seed(seed)
    if kind == "dictionary":
        return features
    if kind == "shuffled":
        moved = replace(features, kind=kind, writes=features.writes[_derangement(features.acts, g)])
        moved.acts = features.acts
        return moved
    if kind == "neurons":
        inside = mlp(model, layer)
        return Units(kind, model, layer, inside.hook_post.name, torch.Tensor.relu, inside.W_out.detach())
    if kind not in OTHERS:
        raise DictionaryError(f"There are no units of the kind {kind!r}: choose dictionary, {', '.join(OTHERS)}.")
    x = activations(model, features.hook)
    mean, d = x.mean(0), x.shape[1]
    if kind in ("coordinates", "PCA"):
        axes = torch.eye(d) if kind == "coordinates" else torch.linalg.svd(x - mean, full_matrices=False).Vh
        written = torch.cat([axes, -axes])
    else:
        written = torch.randn(width, d, generator=g)
        written /= written.norm(dim=1, keepdim=True)
    floor = torch.zeros(len(written))
    if kind == "random":
        written, floor = _as_seldom(x - mean, written, np.diff(features.acts.indptr))

    def encode(x: Tensor) -> Tensor:
        along = ((x - mean) @ written.T).relu()
        return along * (along > floor)

    return Units(kind, model, layer, features.hook, encode, written)


def _as_seldom(
    x: Float[Tensor, "token d"], written: Float[Tensor, "unit d"], tokens: np.ndarray
) -> tuple[Tensor, Tensor]:
    """Directions in another order and a threshold for each, so that number i fires at about ``tokens[i]`` tokens. The same beginning of a sentence recurs with
    the same activation, so not every number can be had: those whose strongest activation recurs most go where a feature fires most."""
    along = (written @ x.T).mul(1e3).round()  # what differs by rounding alone is the same
    recurs = (along == along.max(1, keepdim=True).values).sum(1).argsort(stable=True)
    order = torch.empty_like(recurs)
    order[torch.from_numpy(tokens.argsort(kind="stable"))] = recurs
    along, wanted = along[order], torch.from_numpy(tokens).clamp(1, len(x) - 1).long()
    level = torch.stack([row.kthvalue(len(row) - n + 1).values for row, n in zip(along, wanted.tolist(), strict=True)])[
        :, None
    ]
    with_it, without = (along >= level).sum(1), (along > level).sum(1)
    keep = with_it - wanted <= wanted - without
    floor = ((level[:, 0] + torch.where(keep, -0.5, 0.5)) / 1e3).clamp(min=0)
    floor[torch.from_numpy(tokens) == 0] = torch.inf
    return written[order], floor


def _derangement(acts: csc_array, g: torch.Generator) -> Tensor:
    """Every unit that fires gets the number of another that does."""
    out, live = torch.arange(acts.shape[1]), torch.from_numpy(np.flatnonzero(np.diff(acts.indptr)))
    order = live[torch.randperm(len(live), generator=g)]
    out[order] = order.roll(1)
    return out
