"""The tuned lens: an affine map for each layer, into the language of the last (Belrose et al., "Eliciting Latent Predictions from
Transformers with the Tuned Lens", 2023). Trained in seconds on the text of a model's world, judged on questions that it never saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from mi_workshop.counterfactual.changes import by_shape
from mi_workshop.lens import LensError, Prompt, Result, divergence, readout, residuals, token_ids
from mi_workshop.models import network

BATCH, RATE = 256, 3e-3  # tokens in a step, learning rate


@dataclass(eq=False)
class TunedLens(Result):
    """One affine map per point, ``h + h @ weight + bias``; the last point's is the identity.

    ``table`` [point]: on held-out prompts at their last tokens, the mean KL (nats) from the model's own output of the ``plain`` and
    of the ``tuned`` lens, and ``cosine``: how far the map turns the residual stream (1: not at all).
    """

    name: str
    points: list[str]
    weight: Float[Tensor, "point d_model d_model"] = field(repr=False)
    bias: Float[Tensor, "point d_model"] = field(repr=False)
    table: pd.DataFrame
    counts: tuple[int, int]  # tokens trained on, held-out prompts

    def translate(self, stack: Float[Tensor, "point pos d_model"]) -> Float[Tensor, "point pos d_model"]:
        return stack + torch.baddbmm(self.bias[:, None].to(stack), stack, self.weight.to(stack))

    def words(self) -> str:
        rows = "; ".join(f"{r.Index}: {r.plain:.2f} plain, {r.tuned:.2f} tuned" for r in self.table.itertuples())
        trained, asked = self.counts
        return f"Tuned lens of {self.name}, trained on {trained} tokens. Mean KL in nats at the last token of {asked} held-out prompts: {rows}."

    def figure(self) -> Any:
        from mi_workshop.lens_plots import draw_tuned

        return draw_tuned(self)


def tuned_lens(
    model: Any,
    prompts: Sequence[Prompt] | None = None,
    held_out: Sequence[Prompt] | None = None,
    steps: int = 200,
    seed: int = 0,
) -> TunedLens:
    """Train an affine map per layer so that the readout comes close, in KL, to the model's own output.

    ``prompts`` and ``held_out`` (to evaluate on) are by default what the model's world trained on (``world.training_text``) and its
    validation questions, which training never saw. Starts at the identity; Adam on random tokens of the prompts, as many at each step
    as ``BATCH``. The same seed gives the same lens. Raises LensError for a model without a world if prompts are missing.
    """
    net, world = network(model), getattr(model, "world", None)
    if world is not None:
        prompts = prompts or [s.prompt for s in world.training_text()]
        held_out = held_out or [s.prompt for s in world.facts if (s.stratum or "").endswith(":validation")]
    if not prompts or not held_out:
        raise LensError("This model has no world: give prompts to train on, and held_out ones to evaluate on.")
    points, stack = _stacked(model, prompts, slice(1, None))  # [point, token, d_model]
    stack = stack.to(net.W_E.device)
    with torch.no_grad():
        final = readout(net, stack[-1:])[0]
    n, width = len(points) - 1, stack.shape[-1]
    weight = torch.zeros(n, width, width, device=stack.device, requires_grad=True)
    bias = torch.zeros(n, width, device=stack.device, requires_grad=True)
    optimizer = torch.optim.Adam([weight, bias], lr=RATE)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1, 0.05, steps)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        rows = torch.randint(stack.shape[1], (BATCH,), generator=generator).to(stack.device)
        h = stack[:-1, rows]
        with torch.enable_grad():
            read = readout(net, h + torch.baddbmm(bias[:, None], h, weight))
            loss = (final[rows].exp() * (final[rows] - read)).sum(-1).mean(1).sum()
            weight.grad, bias.grad = torch.autograd.grad(loss, (weight, bias))  # the model's own weights get none
        optimizer.step()
        schedule.step()
    zero = torch.zeros(1, width, width, device=stack.device)
    lens = TunedLens(
        getattr(model, "name", None) or net.cfg.model_name, points, torch.cat([weight.detach(), zero]),
        torch.cat([bias.detach(), zero[0, :1]]), pd.DataFrame(), (stack.shape[1], len(held_out)),
    )  # fmt: skip
    lens.table = _evaluated(lens, model, held_out)
    return lens


def _stacked(
    model: Any, prompts: Sequence[Prompt], positions: slice
) -> tuple[list[str], Float[Tensor, "point token d_model"]]:
    """The residual stream at the chosen positions of many prompts, those of one length together."""
    ids = [token_ids(model, prompt) for prompt in prompts]
    parts: list[Tensor] = []
    points: list[str] = []
    with torch.no_grad():
        for members in by_shape(ids):
            found = residuals(network(model), torch.stack([ids[i] for i in members]))
            points = list(found)
            parts.append(torch.stack([x[:, positions].flatten(0, 1) for x in found.values()]).float())
    return points, torch.cat(parts, 1)


@torch.no_grad()
def _evaluated(lens: TunedLens, model: Any, held_out: Sequence[Prompt]) -> pd.DataFrame:
    net = network(model)
    _, stack = _stacked(model, held_out, slice(-1, None))
    turned, final = lens.translate(stack), readout(net, stack[-1:])
    columns = {name: divergence(final, readout(net, x)).mean(1) for name, x in (("plain", stack), ("tuned", turned))}
    columns["cosine"] = torch.cosine_similarity(stack, turned, dim=-1).mean(1)
    return pd.DataFrame({k: v.cpu().numpy() for k, v in columns.items()}, index=pd.Index(lens.points, name="point"))
