"""Methods side by side: insertion and deletion curves, similarity curves of the sanity checks, and the table of all scores, as pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from mi_workshop.show import Shown, counted

from .attribution import attribute
from .checks import sanity_check
from .inputs import SaliencyError, problem
from .scores import STEPS, curve_areas, curves

HIGHER = (  # is better; of the others of ``LOWER``, lower is
    "pointing", "mass", "found_per_pixel", "tau_per_pixel", "found", "tau", "pointing_world", "mass_world", "auc", "insertion",
)  # fmt: skip
LOWER = ("deletion", "infidelity", "sensitivity", "seconds")


@dataclass(eq=False)
class Curves(Shown):
    """``tables``: {method: the mean insertion and deletion curve}, index the share of pixels or tokens; ``areas``: those under each input's
    curves, mean over inputs, by method."""

    tables: dict[str, pd.DataFrame] = field(repr=False)
    areas: pd.DataFrame
    model: str
    inputs: int

    def words(self) -> str:
        said = "; ".join(f"{m} {a.insertion:.2f} and {a.deletion:.2f}" for m, a in self.areas.iterrows())
        return f"Area under the insertion curve (good: large) and the deletion curve (good: small) in {self.model}, mean over {counted(self.inputs, 'input')}: {said}."

    def figure(self) -> Any:
        from .compare_plots import draw_curves

        return draw_curves(self)


def compare_curves(
    model: Any, inputs: Sequence[tuple[Any, Any]], methods: Sequence[str], baseline: Any = None, seed: int = 0,
    options: Mapping[str, dict[str, Any]] | None = None,
) -> Curves:  # fmt: skip
    """Insertion and deletion curves (``scores.curves``) of each method, mean over ``inputs`` [(input, target)]. Raises SaliencyError."""
    if not inputs or not methods:
        raise SaliencyError("Curves need at least one input and one method.")
    problems = [problem(model, given, target, baseline) for given, target in inputs]
    share, tables, areas = np.linspace(0, 1, STEPS + 1), {}, {}
    for method in methods:
        drawn, each = [], []
        for p in problems:
            a = attribute(p, None, method=method, seed=seed, **(options or {}).get(method, {}))
            found = curves(p, a.scores)
            drawn.append([np.interp(share, found.index, found[c]) for c in found])
            each.append(curve_areas(found))
        mean = np.mean(drawn, 0).T
        tables[method] = pd.DataFrame(mean, pd.Index(share, name="share"), ["insertion", "deletion"])
        areas[method] = pd.DataFrame(each).mean()
    return Curves(tables, pd.DataFrame(areas).T.rename_axis("method"), problems[0].model, len(inputs))


@dataclass(eq=False)
class Sanity(Shown):
    """``table``: mean similarity of the maps, by layer (rows, from the output down) and method; ``check``: "cascading" or "independent"."""

    table: pd.DataFrame
    check: str
    model: str
    inputs: int

    @classmethod
    def of(cls, stored: pd.DataFrame, model: str, check: str) -> Sanity:
        """A part of the stored table ``results.read("saliency")["sanity"]``."""
        part = stored.xs((model, check), level=("model", "check"))
        layers = part.index.get_level_values("layer").unique()
        return cls(part["mean"].unstack("method").loc[layers], check, model, int(part.n.max()))

    def words(self) -> str:
        first, last = self.table.iloc[0], self.table.iloc[-1]
        said = "; ".join(f"{m} {first[m]:.2f} to {last[m]:.2f}" for m in self.table)
        return f"Similarity (rank correlation) of maps of {self.model} to those with random weights, {self.check}, from {first.name} to {last.name}, mean over {counted(self.inputs, 'input')}: {said}."

    def figure(self) -> Any:
        from .compare_plots import draw_sanity

        return draw_sanity(self)


def compare_sanity(
    model: Any, inputs: Sequence[tuple[Any, Any]], methods: Sequence[str], order: str = "cascading", baseline: Any = None, seed: int = 0,
    options: Mapping[str, dict[str, Any]] | None = None,
) -> Sanity:  # fmt: skip
    """``sanity_check`` of each method, mean over ``inputs``."""
    found = {m: sanity_check(model, inputs, m, order, baseline, seed, **(options or {}).get(m, {})).mean(axis=1) for m in methods}  # fmt: skip
    return Sanity(pd.DataFrame(found), order, problem(model, *inputs[0]).model, len(inputs))


@dataclass(eq=False)
class Overview(Shown):
    """``table``: means and their intervals (columns mean, low, high), rows (method, column of the picture)."""

    table: pd.DataFrame
    title: str

    @property
    def means(self) -> pd.DataFrame:
        """Methods × columns."""
        methods, columns = (self.table.index.get_level_values(i).unique() for i in (0, 1))
        return self.table["mean"].unstack().loc[methods, columns]

    def words(self) -> str:
        means, said = self.means, []
        for column in means:
            better = means[column].dropna().sort_values(ascending=self.falls(str(column)))
            said.append(
                f"{column}: {better.index[0]} {better.iloc[0]:.2g}, last {better.index[-1]} {better.iloc[-1]:.2g}"
            )
        return f"{self.title}. Best by {'; '.join(said)}."

    def falls(self, column: str) -> bool:
        """Whether lower is better in this column."""
        return column in LOWER or self.title in LOWER

    def figure(self) -> Any:
        from .compare_plots import draw_overview

        return draw_overview(self)


def overview(
    table: pd.DataFrame, model: str | None = None, inputs: str | None = None, score: str | None = None, scores: Sequence[str] = (*HIGHER, *LOWER)
) -> Overview:  # fmt: skip
    """A picture of the stored table (``results.read("saliency")["scores"]``), or of ``summary(rows)``: all scores of one ``model`` on one kind of
    ``inputs``, or one ``score`` of all models. Raises SaliencyError where that is not in the table."""
    if isinstance(table.columns, pd.MultiIndex):
        table = table.stack(0, future_stack=True).rename_axis(["method", "score"])
    names = list(table.index.names)
    for name, wanted in (("model", model), ("inputs", inputs), ("score", score)):
        if wanted is None:
            continue
        there = table.index.get_level_values(name).unique() if name in table.index.names else []
        if wanted not in there:
            raise SaliencyError(f"There is no {name} {wanted!r} in the table; it has {', '.join(there) or 'none'}.")
        table = table.xs(wanted, level=name)
    if score is None:
        if table.index.names != ["method", "score"]:
            raise SaliencyError(
                f"Choose a score, or one each of {', '.join(n for n in names if n not in ('method', 'score'))}."
            )
        kept = [s for s in scores if s in table.index.get_level_values("score")]
        table = table[table.index.get_level_values("score").isin(kept)]
        order = {s: i for i, s in enumerate(kept)}
        table = (
            table.sort_index(level="score", key=lambda x: x.map(order), sort_remaining=False, kind="stable")
            if kept
            else table
        )
        return Overview(table, ", ".join(filter(None, (model, inputs))) or "scores")
    others = [n for n in table.index.names if n != "method"]
    columns = [" · ".join(map(str, i if isinstance(i, tuple) else (i,))) for i in table.droplevel("method").index]
    table = table.set_axis(
        pd.MultiIndex.from_arrays([table.index.get_level_values("method"), columns], names=["method", "-".join(others)])
    )
    return Overview(table, score)
