"""Sanity checks of saliency maps (Adebayo et al. 2018): a map that stays the same when the weights are random, or when the labels were random in
training, does not show what the model has learned. That a map changes does not prove it right.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.stats import rankdata
from torch import nn

from mi_workshop.worlds.passages import Passage, Passages

from .attribution import attribute
from .inputs import Problem, SaliencyError, problem

RANDOMISED = 10**9  # the first seed of random weights: no model is trained with it


def layers(p: Problem) -> dict[str, nn.Module]:
    """The modules that the input passes and that have weights of their own, from the output down."""
    found = reversed(list(p.forward.parts.named_modules()))
    return {n: m for n, m in found if next(m.parameters(recurse=False), None) is not None}


@contextmanager
def randomised(modules: Iterable[nn.Module], seed: int = 0) -> Iterator[None]:
    """While it is open, all weights of these modules are drawn anew from a normal distribution with the mean and spread that each tensor had.

    Not from ``seed`` itself: a model whose training began with the same seed would get back the weights that it began with, and an embedding hardly
    moves from those."""
    tensors = [t for m in modules for t in m.parameters(recurse=False)]
    kept = [t.detach().clone() for t in tensors]
    generator = torch.Generator().manual_seed(RANDOMISED + seed)
    try:
        with torch.no_grad():
            for t in tensors:
                spread = t.std(correction=0)
                t.copy_(torch.randn(t.shape, generator=generator).to(t) * spread + t.mean())
        yield
    finally:
        with torch.no_grad():
            for t, old in zip(tensors, kept, strict=True):
                t.copy_(old)


def similarity(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rank correlation of the absolute scores; NaN where either map is constant."""
    x, y = (rankdata(np.abs(s)) for s in (a, b))
    return float(np.corrcoef(x, y)[0, 1]) if np.ptp(x) and np.ptp(y) else np.nan


def sanity_check(
    model: Any, inputs: Sequence[tuple[Any, Any]], method: str, order: str = "cascading", baseline: Any = None, seed: int = 0, **options: Any
) -> pd.DataFrame:  # fmt: skip
    """How like the map stays to itself (``similarity``) when the weights of the model are random, from the output down (``"cascading"``: one more
    layer each time) or layer by layer (``"independent"``). Rows: layers, from the output down; columns: inputs.

    (input, target) pairs need a target: a random model would choose another. The model is as before afterwards. Raises SaliencyError.
    """
    if order not in ("cascading", "independent"):
        raise SaliencyError(f"There is no order {order!r}: choose 'cascading' or 'independent'.")
    _targets(inputs)

    def explained(given: Any, target: Any) -> np.ndarray:
        return attribute(model, given, target, method, baseline, seed, **options).scores

    parts = layers(problem(model, *inputs[0]))
    names = list(parts)
    rows: dict[str, list[float]] = {}
    own = [explained(*pair) for pair in inputs]
    for i, name in enumerate(names):
        chosen = names[: i + 1] if order == "cascading" else [name]
        with randomised([parts[n] for n in chosen], seed):
            rows[name] = [similarity(first, explained(*pair)) for first, pair in zip(own, inputs, strict=True)]
    return pd.DataFrame(rows).T.rename_axis("layer")


def _targets(inputs: Sequence[tuple[Any, Any]]) -> None:
    if any(target is None for _, target in inputs):
        raise SaliencyError("Each input needs its target: with random weights the likeliest would be another.")


def label_check(
    model: Any, others: Mapping[str, Any], inputs: Sequence[tuple[Any, Any]], method: str, baseline: Any = None, seed: int = 0, **options: Any
) -> pd.DataFrame:  # fmt: skip
    """How like the maps of ``others`` ({name: model}) are to those of ``model``: of one that was trained on random labels (``permuted``) and, as the
    control, of one trained as ``model`` was but for its seed: two models differ anyhow. Rows: others; columns: inputs; as of ``sanity_check``."""
    _targets(inputs)
    own = [attribute(model, *pair, method, baseline, seed, **options).scores for pair in inputs]
    rows = {
        name: [similarity(first, attribute(other, *pair, method, baseline, seed, **options).scores) for first, pair in zip(own, inputs, strict=True)]
        for name, other in others.items()
    }  # fmt: skip
    return pd.DataFrame(rows).T.rename_axis("labels")


def permuted(world: Passages, seed: int = 0) -> Passages:
    """The same world of passages with the answers of each sample dealt out anew: what there is to learn can only be learned by heart."""
    other: Any = copy.copy(world)

    def sample(n: int, split: str = "train", *args: Any, **kwargs: Any) -> list[Passage]:
        drawn = world.sample(n, split, *args, **kwargs)
        dealt = np.random.default_rng(seed).permutation([p.answer for p in drawn])
        return [dataclasses.replace(p, answer=str(answer)) for p, answer in zip(drawn, dealt, strict=True)]

    other.sample = sample
    return other
