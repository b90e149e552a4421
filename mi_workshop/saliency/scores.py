"""Saliency maps scored: against the two keys (``keys``), against the model by insertion and deletion, and by sanity checks.

``scores`` makes one row for an input and a method, ``table`` the means over many with their confidence intervals. No score has anything
to tune on; the numbers depend on the inputs, the baseline and the seed that are given.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from captum.metrics import infidelity as captum_infidelity
from captum.metrics import sensitivity_max
from scipy.stats import kendalltau, rankdata
from torch import Tensor

from mi_workshop.answer_key import area

from .attribution import Attribution, _seeded, attribute
from .inputs import Problem, SaliencyError, problem
from .keys import Key, answer_keys, by_part
from .methods import METHODS, PATCH, TOGETHER

STEPS = 32  # points of an insertion or deletion curve


def pointing(a: Attribution, mask: np.ndarray) -> bool:
    """The pointing game (Zhang et al. 2018): whether the highest score lies in the mask. Where several pixels share it, as those of a patch
    do, their centre counts; a constant map points nowhere."""
    if not np.ptp(a.scores):
        return False
    highest = np.argwhere(a.scores >= a.scores.max() - 1e-6 * np.ptp(a.scores))
    return bool(mask[tuple(highest.mean(0).round().astype(int))])


def mass(a: Attribution, mask: np.ndarray) -> float:
    """The mask's share of all that is positive in the map."""
    positive = np.clip(a.scores, 0, None)
    return float(positive[mask].sum() / positive.sum()) if positive.any() else 0.0


def agreement(a: Attribution, key: Key) -> dict[str, float]:
    """How a map's parts rank against the keys, by the absolute sum of the scores over each part.

    ``found``: whether the first is the model key's; ``tau``: Kendall's τ-b with the model key's effects, over the parts whose effect is known;
    ``found_per_pixel`` and ``tau_per_pixel``: by the mean over the part instead, which is fairer to methods whose scores do not add up (for tokens the
    same); ``auc``: the chance that a part that should matter (world key) has more than one that should not. NaN where there is nothing to rank.
    """
    total, known = by_part(a, key), key.table.effect.dropna()
    out = {}
    for name, ranked in (("", total), ("_per_pixel", by_part(a, key, per_pixel=True))):
        ranked_known = ranked[known.index]
        out[f"found{name}"] = float(ranked_known.idxmax() == key.strongest)
        constant = ranked_known.nunique() < 2 or known.nunique() < 2
        out[f"tau{name}"] = np.nan if constant else float(kendalltau(ranked_known, known).statistic)
    return out | {"auc": area(key.table.matters.to_numpy(), total.to_numpy())}


def against_keys(a: Attribution, key: Key) -> dict[str, float]:
    """``pointing`` and ``mass`` in the model key's strongest part and (``_world``) in what should matter, and the ranks of ``agreement``."""
    own, world = key.true_mask("model"), key.true_mask("world")
    return {
        "pointing": float(pointing(a, own)), "pointing_world": float(pointing(a, world)), "mass": mass(a, own),
        "mass_world": mass(a, world), **agreement(a, key),
    }  # fmt: skip


@torch.no_grad()
def curves(p: Problem, scores: np.ndarray, steps: int = STEPS) -> pd.DataFrame:
    """Insertion and deletion (Petsiuk et al. 2018): the number when the highest scores first are put into the baseline, or taken out of the
    input. Index: share of pixels or tokens; the number is scaled to 0 at the baseline and 1 for the input. A good map's insertion rises early and its
    deletion falls early. Half-covered pictures are like none that the model has seen: the curves are about those, too."""
    rank = torch.from_numpy(rankdata(-scores, "ordinal").reshape(scores.shape)).to(p.x.device)  # 1 for the highest
    counts = np.unique(np.linspace(0, scores.size, min(steps, scores.size) + 1).astype(int))
    top = torch.stack([rank <= int(n) for n in counts])
    top = top[:, None] if p.picture else top[..., None]
    found = {"insertion": (p.x, p.baseline), "deletion": (p.baseline, p.x)}
    low, high = float(p.forward(p.baseline)), float(p.forward(p.x))
    out = {}
    for name, (there, elsewhere) in found.items():
        numbers = torch.cat([p.forward(torch.where(t, there, elsewhere)) for t in top.split(TOGETHER)])
        out[name] = (numbers.cpu().numpy() - low) / (high - low)
    return pd.DataFrame(out, index=pd.Index(counts / scores.size, name="share"))


def curve_areas(found: pd.DataFrame) -> dict[str, float]:
    """Area under each curve: insertion should be large, deletion small."""
    return {str(name): float(np.trapezoid(column, found.index)) for name, column in found.items()}


def infidelity(p: Problem, scores: np.ndarray, draws: int = 128, seed: int = 0) -> float:
    """Infidelity (Yeh et al. 2019, by Captum): mean squared difference between what scores say that a random set of pixels or tokens brings and
    what the number loses when the baseline covers it; 0 is best. Scores are first scaled as fits best (Captum's ``normalize``); the unit is the
    square of the number's range, output minus output at the baseline. Sets: rectangles up to half of the picture wide and high, each token with chance ½."""

    def switched(on: Tensor) -> Tensor:
        on = (on > 0.5)[:, None] if p.picture else (on > 0.5)[..., None]
        return p.forward(torch.where(on, p.x, p.baseline))

    def cover(on: Tensor) -> tuple[Tensor, Tensor]:
        off = torch.zeros_like(on)
        for row in off:
            if not p.picture:
                row[:] = torch.rand(len(row)) < 0.5
                continue
            (height, width) = (int(torch.randint(PATCH // 2, side // 2 + 1, ())) for side in row.shape)
            top, left = (
                int(torch.randint(side - n + 1, ())) for side, n in zip(row.shape, (height, width), strict=True)
            )
            row[top : top + height, left : left + width] = 1
        return off, on - off

    given = torch.from_numpy(scores)[None].to(p.x)
    with _seeded(seed), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = captum_infidelity(
            switched, cover, torch.ones_like(given), given,
            n_perturb_samples=draws, max_examples_per_batch=TOGETHER, normalize=True,
        )  # fmt: skip
        span = float(p.forward(p.x) - p.forward(p.baseline))
    return float(found) / span**2


def sensitivity(p: Problem, method: str, radius: float = 0.02, draws: int = 5, seed: int = 0, **options: Any) -> float:  # fmt: skip
    """Maximal sensitivity (Yeh et al. 2019, by Captum): by how much at most the map changes, relative to its length, when noise of at most
    ``radius`` times the input's range is added to the input; 0 is best, and a map that is always the same has it."""

    def explained(inputs: tuple[Tensor], **_: Any) -> tuple[Tensor]:
        found = attribute(replace(p, x=inputs[0].detach()), None, method=method, seed=seed, **options)
        return (torch.from_numpy(found.scores)[None],)  # as a tuple: Captum would take the rows of a tensor for maps

    with _seeded(seed):
        spread = radius * float(p.x.max() - p.x.min())
        return float(sensitivity_max(explained, p.x, perturb_radius=spread, n_perturb_samples=draws, max_examples_per_batch=1))  # fmt: skip


def scores(
    model: Any, input: Any, target: Any = None, method: str = "integrated_gradients", baseline: Any = None, key: Key | None = None,
    p: Problem | None = None, seed: int = 0, draws: int = 5, **options: Any,
) -> dict[str, float]:  # fmt: skip
    """Every score of one map: those of ``scored``, ``sensitivity`` (by ``draws`` noisy copies; without any it is NaN) and ``seconds``.

    ``key`` and ``p`` (the problem) spare computing them again for each method. Raises SaliencyError as ``attribute`` and ``answer_keys`` do."""
    p = p or problem(model, input, target, baseline)
    key = key or answer_keys(model, input, target)
    a = attribute(p, None, method=method, seed=seed, **options)
    moved = sensitivity(p, method, draws=draws, seed=seed, **options) if draws else np.nan
    return {**scored(a, p, key, seed), "sensitivity": moved, "seconds": a.seconds}


def scored(a: Attribution, p: Problem, key: Key, seed: int = 0, draws: int = 128) -> dict[str, float]:
    """The scores that need nothing but the map, whoever made it: those of ``against_keys``, ``insertion``, ``deletion``, ``infidelity`` (of ``draws`` sets)."""
    return {
        **against_keys(a, key),
        **curve_areas(curves(p, a.scores)), "infidelity": infidelity(p, a.scores, draws, seed),
    }  # fmt: skip


def table(
    model: Any, inputs: Iterable[tuple[Any, Any]], methods: Sequence[str] | None = None, baseline: Any = None,
    options: dict[str, dict[str, Any]] | None = None, seed: int = 0,
) -> pd.DataFrame:  # fmt: skip
    """``scores`` of each method on each (input, target), a row each, indexed by (method, number of the input). ``methods``: by default all
    that fit; ``options``: {method: its options}. ``summary`` makes it the table of means."""
    rows = {}
    for i, (given, target) in enumerate(inputs):
        p, key = problem(model, given, target, baseline), answer_keys(model, given, target)
        for method in methods or METHODS:
            try:
                rows[method, i] = scores(model, given, target, method, key=key, p=p, seed=seed, **(options or {}).get(method, {}))  # fmt: skip
            except SaliencyError:
                if methods:
                    raise
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(["method", "input"])


def summary(rows: pd.DataFrame, resamples: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Mean of every score and its 95 % confidence interval (percentile bootstrap over the inputs), columns (score, mean | low | high)."""
    rng = np.random.default_rng(seed)
    out = {}
    for method, group in rows.groupby(level="method", sort=False):
        values = group.to_numpy()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # means of nothing but NaN
            drawn = np.array([np.nanmean(values[rng.integers(len(values), size=len(values))], 0) for _ in range(resamples)])  # fmt: skip
            means, (low, high) = np.nanmean(values, 0), np.nanpercentile(drawn, [2.5, 97.5], axis=0)
        cells = zip(rows.columns, means, low, high, strict=True)
        out[method] = {(name, what): x for name, *three in cells for what, x in zip(("mean", "low", "high"), three, strict=True)}  # fmt: skip
    return pd.DataFrame(out).T
