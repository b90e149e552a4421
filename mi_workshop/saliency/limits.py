"""Two readings of a map that do not hold, with counterexamples found by search (after Bilodeau et al. 2022 and Chaszczewicz 2023): "positive means
that more of it helps" and "zero means that it does not matter". No method of this kind can promise either.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from mi_workshop.show import Shown

from .attribution import attribute
from .inputs import SaliencyError, problem
from .keys import answer_keys

DOSES = tuple(np.round(np.linspace(0, 2, 21), 2).tolist())


@dataclass(eq=False)
class Dose(Shown):
    """``curve``: the ``target`` by dose of one part, all else as in the input: 0 is the baseline, 1 the input, beyond it more of the same (where pixels
    end at black and white). ``attribution``: the sum of the scores over the part."""

    curve: pd.Series
    attribution: float
    part: str
    method: str
    target: str
    model: str

    def words(self) -> str:
        c = self.curve
        last = c.index[-1]
        return f"{self.part} in {self.model}: attribution {self.attribution:+.2f} by {self.method}; {self.target} {c[0.0]:.2f} without it, {c[1.0]:.2f} as it is, {c[last]:.2f} at {last:g} times as much."

    def figure(self) -> Any:
        from .compare_plots import draw_dose

        return draw_dose(self)


def dose(
    model: Any, input: Any, target: Any, part: str, method: str = "integrated_gradients", baseline: Any = None,
    doses: tuple[float, ...] = DOSES, **options: Any,
) -> Dose:  # fmt: skip
    """What the number does when there is less or more of one part of the answer keys, on the line through baseline and input that attributions
    are about. Raises SaliencyError for a part that is not there."""
    p, key = problem(model, input, target, baseline), answer_keys(model, input, target)
    if part not in key.masks:
        raise SaliencyError(f"There is no part {part!r}: choose one of {', '.join(key.masks)}.")
    a = attribute(p, None, method=method, **options)
    numbers = _dosed(p, key.masks[part], doses)
    return Dose(pd.Series(numbers, pd.Index(doses, name="dose")), float(a.scores[key.masks[part]].sum()), part, method, p.target, p.model)  # fmt: skip


@torch.no_grad()
def _dosed(p: Any, mask: np.ndarray, doses: Iterable[float]) -> np.ndarray:
    where = torch.from_numpy(mask)[None] if p.picture else torch.from_numpy(mask)[:, None]
    rows = torch.cat([torch.where(where, p.baseline + t * (p.x - p.baseline), p.x) for t in doses])
    return p.forward(rows.clamp(0, 1) if p.picture else rows).cpu().numpy()


def more_hurts(
    model: Any, inputs: Iterable[tuple[Any, Any]], method: str = "integrated_gradients", baseline: Any = None, more: float = 1.1, **options: Any
) -> pd.DataFrame:  # fmt: skip
    """Searched: parts with a positive attribution of which there is ``more`` (times what the input has): by how much the number ``rises``, lowest
    first. Rows: (number of the input, part)."""
    rows = {}
    for i, (given, target) in enumerate(inputs):
        p, key = problem(model, given, target, baseline), answer_keys(model, given, target)
        a = attribute(p, None, method=method, **options)
        for name, mask in key.masks.items():
            if (total := float(a.scores[mask].sum())) > 0:
                now, then = _dosed(p, mask, (1, more))
                rows[i, name] = {"attribution": total, "rises": float(then - now)}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(["input", "part"]).sort_values("rises")


def zero_matters(
    model: Any, inputs: Iterable[tuple[Any, Any]], methods: Iterable[str], baseline: Any = None, least: float = 0.5, **options: Any
) -> pd.DataFrame:  # fmt: skip
    """Searched: parts that change the number much when they alone are substituted (``effect`` of the model key, at least ``least`` times that of the
    strongest part), by how hot the map is there: ``highest``, the highest absolute score in the part as a share of the map's. Coldest first.
    Rows: (method, number of the input, part)."""
    rows = {}
    for i, (given, target) in enumerate(inputs):
        p, key = problem(model, given, target, baseline), answer_keys(model, given, target)
        strong = key.table.effect[key.table.effect >= least * key.table.effect.max()]
        for method in methods:
            size = np.abs(attribute(p, None, method=method, **options).scores)
            for name, effect in strong.items():
                share = size[key.masks[str(name)]].max() / (size.max() or 1)
                rows[method, i, name] = {"highest": float(share), "effect": effect}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(["method", "input", "part"]).sort_values("highest")
