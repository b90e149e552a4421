"""Training of sparse dictionaries on activations kept in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from mi_workshop.dictionary.activations import activations
from mi_workshop.dictionary.core import SparseDictionary
from mi_workshop.models import Model


def train(
    model: Model, layer: int = 1, width: int = 512, kind: str = "batchtopk", *, k: int = 8, l1: float = 0.05, steps: int = 1500, batch: int = 1024,
    learning_rate: float = 2e-3, site: str = "hook_resid_post", seed: int = 0, progress: bool = True,
) -> SparseDictionary:  # fmt: skip
    """Train a sparse autoencoder of ``width`` features on the activations of ``layer`` at every token of the model's training text."""
    hook = f"blocks.{layer}.{site}"
    x = activations(model, hook)
    torch.manual_seed(seed)
    dictionary = SparseDictionary(x.shape[1], width, kind, reads=hook, model=model.name, k=k)
    fit(dictionary, x, x, k=k, l1=l1, steps=steps, batch=batch, learning_rate=learning_rate, progress=progress)
    return dictionary


def fit(
    dictionary: SparseDictionary, x: Float[Tensor, "token d_in"], y: Float[Tensor, "token d_out"], *, k: int, l1: float, steps: int, batch: int,
    learning_rate: float, progress: bool = True, report: Callable[[int, dict[str, float]], Any] | None = None,
) -> SparseDictionary:  # fmt: skip
    """Fit to inputs ``x`` and targets ``y``. The loss is the squared error per token, as a share of the mean square of ``y`` about its mean, plus the kind's own part."""
    torch.set_flush_denormal(True)
    scale = float((y - y.mean(0)).norm(dim=1).mean())
    dictionary.b_dec.data.copy_(y.mean(0) / scale)
    optimizer = torch.optim.Adam(dictionary.parameters(), lr=learning_rate, betas=(0.9, 0.99), fused=True)
    silent, level = torch.zeros(dictionary.width), torch.tensor(float("nan"))
    for step in tqdm(range(steps), desc=str(dictionary), disable=not progress, mininterval=0.5):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * min(1, (step + 1) / 50, 5 * (1 - step / steps))
        item = torch.randint(len(x), (batch,))
        dense = dictionary.before(x[item] / scale).relu()
        norms = dictionary.W_dec.norm(dim=1)
        acts, aux = dense, torch.zeros(())
        if dictionary.kind == "batchtopk":
            weighted = dense * norms
            floor = weighted.detach().flatten().topk(k * batch).values[-1]
            level = floor if level.isnan() else 0.98 * level + 0.02 * floor
            acts = dense * (weighted >= floor)
        elif dictionary.kind == "topk":
            floor = (dense * norms).topk(k).values[:, -1:]
            acts = dense * (dense * norms >= floor)
        elif dictionary.kind == "l1":
            aux = l1 * (dense * norms).sum(1).mean()
        target = y[item] / scale
        error = target - dictionary.decode(acts)
        loss = error.square().sum(1).mean() + aux
        silent = torch.where((acts.detach() > 0).any(0), torch.zeros_like(silent), silent + 1)
        if (
            dictionary.kind != "l1" and step % 4 == 0 and (dead := silent > 100).any()
        ):  # silent features learn what is left unexplained
            revived = dense * dead
            revived = revived * (revived >= revived.topk(min(k, dictionary.width)).values[:, -1:])
            missed = error.detach() - revived @ dictionary.W_dec
            loss = loss + missed.square().sum(1).mean() / 16
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    dictionary.normalize(scale)
    if dictionary.kind == "batchtopk":
        dictionary.threshold.fill_(float(level) * scale)
    return dictionary.requires_grad_(False)
