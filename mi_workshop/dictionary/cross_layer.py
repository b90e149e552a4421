"""Transcoders of all layers at once: sparse, linear stand-ins for the MLPs, per layer or cross-layer.

Top-k training (Gao et al., "Scaling and Evaluating Sparse Autoencoders", 2024) of transcoders (Dunefsky et al., 2024) and
cross-layer transcoders (Ameisen et al., 2025); a per-layer set is the cross-layer one in which a feature writes to its
own layer only. A cross-layer set starts from the trained per-layer one: from a random start it mixes places in one feature
(swaps of one state for another then worked for six to eight in ten validation pairs, instead of all). Afterwards the
selection becomes a fixed threshold per feature (JumpReLU), so that a feature's activation depends on nothing but its input.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from tqdm.auto import tqdm

from mi_workshop.dictionary.activations import several
from mi_workshop.dictionary.core import DictionaryError
from mi_workshop.dictionary.history import History, Live
from mi_workshop.models import Model, network


class Transcoders(nn.Module):
    """All layers' transcoders. ``cross`` lets a feature of layer l write to the MLP outputs of layers l, l+1, ..."""

    threshold: Tensor
    W_dec: Any  # a ParameterList: per source layer [feature, target layer, d_model]

    def __init__(self, n_layers: int, d_model: int, width: int, cross: bool) -> None:
        super().__init__()
        self.n_layers, self.cross = n_layers, cross
        targets = [n_layers - layer if cross else 1 for layer in range(n_layers)]
        self.W_dec = nn.ParameterList(
            nn.Parameter(torch.randn(width, t, d_model) / (t * d_model) ** 0.5) for t in targets
        )
        self.W_enc = nn.Parameter(torch.stack([w[:, 0].detach().clone() for w in self.W_dec]))
        self.b_enc = nn.Parameter(torch.zeros(n_layers, width))
        self.b_dec = nn.Parameter(torch.zeros(n_layers, d_model))
        self.register_buffer("threshold", torch.zeros(n_layers, width))
        self.history = History(f"{'cross-layer' if cross else 'per-layer'} transcoders, {width} features per layer", 0)

    @torch.no_grad()
    def begin_at(self, start: dict[str, Tensor]) -> None:
        for name in ("W_enc", "b_enc", "b_dec"):
            getattr(self, name).copy_(start[name])
        for layer, w in enumerate(self.W_dec):
            w.zero_()
            w[:, 0] = start[f"W_dec_{layer}"][:, 0]

    def encode(self, x: Float[Tensor, "layer item d_model"]) -> Float[Tensor, "layer item feature"]:
        return (torch.einsum("lnd,lfd->lnf", x, self.W_enc) + self.b_enc[:, None]).relu()

    def decode(self, acts: Float[Tensor, "layer item feature"]) -> Float[Tensor, "layer item d_model"]:
        out = [self.b_dec[layer].expand(acts.shape[1], -1) for layer in range(self.n_layers)]
        for source in range(self.n_layers):
            for i in range(self.W_dec[source].shape[1]):
                out[source + i] = out[source + i] + acts[source] @ self.W_dec[source][:, i]
        return torch.stack(out)

    def norms(self) -> Float[Tensor, "layer feature"]:
        return torch.stack([w.flatten(1).norm(dim=1) for w in self.W_dec])

    @torch.no_grad()
    def normalize(self) -> None:
        """Scale every decoder to length 1, so that an activation is the size of what the feature writes."""
        n = self.norms().clamp(min=1e-8)
        self.W_enc.mul_(n[..., None])
        self.b_enc.mul_(n)
        self.threshold.mul_(n)
        for w, size in zip(self.W_dec, n, strict=True):
            w.div_(size[:, None, None])


def _top_k(acts: Tensor, strength: Tensor, k: Sequence[int]) -> Tensor:
    """Keep each item's k strongest activations, k by layer, zero the rest [layer, item, feature]."""
    weighted = acts * strength
    floor = torch.stack([w.topk(n).values[:, -1:] for w, n in zip(weighted, k, strict=True)])
    return acts * (weighted >= floor.clamp(min=1e-8))


def train_transcoders(
    inputs: Float[Tensor, "layer item d_model"], outputs: Float[Tensor, "layer item d_model"], *,
    width: int, k: Sequence[int], cross: bool, steps: int, seed: int, batch: int = 512, learning_rate: float = 1.5e-3,
    start: dict[str, Tensor] | None = None, progress: bool = True,
) -> Transcoders:  # fmt: skip
    """Fit transcoders to MLP inputs and outputs; the loss is the unexplained share of each item's output.

    Shares, so that a token about which an MLP says little is explained as well as one about which it says much.

    ``k``: for each layer, how many features may be active at a token. ``start``: the tensors of a trained per-layer set, from
    which a cross-layer one starts, with nothing written to later layers yet. ``history`` of the result holds the curves; its FVU is the mean of the loss over
    the layers. Raises DictionaryError if the loss becomes no number.
    """
    torch.manual_seed(seed)
    torch.set_flush_denormal(True)
    n_layers, n_items, d_model = inputs.shape
    model = Transcoders(n_layers, d_model, width, cross)
    model.b_dec.data.copy_(outputs.mean(1))
    if start is not None:
        model.begin_at(start)
    sizes = (outputs - model.b_dec[:, None].detach()).norm(dim=-1, keepdim=True)  # [layer, item, 1]
    sizes = sizes.clamp(min=0.1 * float(sizes.mean()))
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate, betas=(0.9, 0.99), fused=True)
    silent = torch.zeros(n_layers, width)  # steps since a feature last fired
    weakest = torch.full(
        (n_layers, width), torch.nan
    )  # the weakest activation of a feature that was kept, a moving mean
    model.history.steps = steps
    live = Live(model.history, progress)
    for step in tqdm(range(steps), desc=model.history.name, disable=not progress, mininterval=1):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * min(1, (step + 1) / 50, 5 * (1 - step / steps))
        item = torch.randint(n_items, (batch,))
        x, y, size = inputs[:, item], outputs[:, item], sizes[:, item]
        dense = model.encode(x)
        strength = model.norms()[:, None]
        acts = _top_k(dense, strength, k)
        error = y - model.decode(acts)
        loss = (error / size).square().sum(-1).mean(1).sum()
        if not torch.isfinite(loss):
            raise DictionaryError(
                f"The loss is no number at step {step}: the learning rate is too high (learning_rate={learning_rate:g}; 1.5e-3 is usual)."
            )
        fired = acts.detach() > 0
        if step % max(1, steps // 50) == 0 or step == steps - 1:
            model.history.add(
                step,
                float(loss) / n_layers,
                float(fired.sum()) / batch / n_layers,
                float((silent > 200).float().mean()),
                None,
            )
            live.update(last=step == steps - 1)
        silent = torch.where(fired.any(1), torch.zeros_like(silent), silent + 1)
        lowest = torch.where(fired, acts.detach(), torch.inf).amin(1)
        moved = torch.where(weakest.isnan(), lowest, 0.98 * weakest + 0.02 * lowest)
        weakest = torch.where(lowest.isinf(), weakest, moved)
        if step % 4 == 0 and (dead := silent > 200).any():  # silent features learn from what is left unexplained
            revived = _top_k(dense * dead[:, None], strength, [4] * n_layers)
            missed = error.detach() - model.decode(revived) + model.b_dec[:, None]
            loss = loss + (missed / size).square().sum(-1).mean(1).sum() / 16
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        model.threshold.copy_(0.8 * weakest.nan_to_num(torch.inf))  # a feature that never fired never will
    model.normalize()
    return model


def tensors(model: Transcoders) -> dict[str, Tensor]:
    """What is saved: see ``models.embedded.transcoder_object`` for the shapes."""
    kept: dict[str, Any] = {n: getattr(model, n).detach() for n in ("W_enc", "b_enc", "b_dec", "threshold")}
    return kept | {f"W_dec_{i}": w.detach() for i, w in enumerate(model.W_dec)}


def train_cross_layer(
    model: Model, width: int = 256, *, k: int = 8, steps: int = 300, batch: int = 512, learning_rate: float = 1.5e-3, cross: bool = True, seed: int = 0,
    progress: bool = True,
) -> Transcoders:  # fmt: skip
    """A cross-layer transcoder (``cross=False``: one per layer) of all MLPs of a model, on its training text, ``k`` features per token and layer."""
    layers = range(network(model).cfg.n_layers)
    if not 0 < k <= width:
        raise DictionaryError(f"A token has from 1 to {width} of {width} features, not k={k}.")
    hooks = [f"blocks.{i}.{hook}" for hook in ("ln2.hook_normalized", "hook_mlp_out") for i in layers]
    found = torch.stack(several(model, hooks))
    inputs, outputs = found[: len(layers)], found[len(layers) :]
    return train_transcoders(
        inputs, outputs, width=width, k=[k] * len(layers), cross=cross, steps=steps, seed=seed, batch=batch, learning_rate=learning_rate, progress=progress
    )  # fmt: skip
