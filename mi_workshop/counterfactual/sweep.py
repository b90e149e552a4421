"""The same change at every layer, position and unit in turn: a few large batches instead of one run for each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float

from .changes import Change, Row, Values, patch, read_all, run_rows
from .experiment import Experiment, Report, as_list
from .metrics import METRICS, Reference
from .sites import HEADS, InterventionError, Position, Site, layers_of, matched, tokens_of, words_of

if TYPE_CHECKING:
    from mi_workshop.widgets.heat_map import HeatMap

# What stands on a figure in place of the names in the code.
KINDS = {"resid_post": "residual stream", "z": "head output", "pattern": "attention", "mlp_out": "MLP output", "attn_out": "attention output"}  # fmt: skip
UNITS = {
    "lost": "share of the answer lost", "gained": "share of donor's answer", "recovered": "way to the donor's answer",
    "prob": "probability", "donor_prob": "donor's probability", "says_donor": "share with donor's answer",
}  # fmt: skip


@dataclass
class Sweep:
    """``values`` [layer, position, unit, prompt] of ``metric``, NaN where a run was interrupted; ``layers``, ``positions`` and
    ``units`` name the first three axes (one entry "all" where all were changed together)."""

    kind: str
    change: str
    metric: str
    attention: str
    values: Float[np.ndarray, "layer position unit prompt"]
    layers: list[str]
    positions: list[str]
    units: list[str]
    sites: list[list[list[Site]]] = field(repr=False)  # [layer][position][unit]
    run_at: Callable[[Site], Report] = field(repr=False)  # the experiment, with its controls, at one site

    @property
    def mean(self) -> Float[np.ndarray, "layer position unit"]:
        """Mean over the prompts that were run."""
        counted = np.maximum((~np.isnan(self.values)).sum(-1), 1)
        return np.where(np.isnan(self.values).all(-1), np.nan, np.nansum(self.values, -1) / counted)

    def best(self) -> Site:
        """The site with the largest effect (in size)."""
        layer, position, unit = np.unravel_index(np.nanargmax(np.abs(self.mean)), self.mean.shape)
        return self.sites[layer][position][unit]

    def significant(self, alpha: float = 0.05, draws: int = 2000) -> Bool[np.ndarray, "layer position unit"]:
        """Cells whose mean is too large to be chance among so many cells: max-statistic sign-flip permutation over prompts
        (Westfall and Young 1993; Nichols and Holmes 2002), which controls the chance of even one false cell at ``alpha``.

        Under the null each prompt's values are as likely with the other sign. n prompts have 2^(n - 1) different flips, and d draws give
        no p below 1 / (1 + d): where that exceeds ``alpha`` nothing can be significant, and InterventionError says so. (Without the
        maximum one would divide ``alpha`` by the number of cells: a hundred draws could then never reach it.)
        """
        n = self.values.shape[-1]
        smallest = max(2.0 ** (1 - n), 1 / (1 + draws))
        if smallest > alpha:
            raise InterventionError(
                f"{n} prompt{'' if n == 1 else 's'} and {draws} draws cannot give a p below {smallest:.3f}, so no cell can be significant at {alpha}: "
                "use more prompts or draws."
            )
        rng = np.random.default_rng(0)
        flat = np.nan_to_num(self.values).reshape(-1, n)  # [cell, prompt]
        largest = np.abs(flat @ rng.choice([-1.0, 1.0], (n, draws)) / n).max(0)  # [draw]
        p = (1 + (largest[None] >= np.abs(flat.mean(1))[:, None] - 1e-12).sum(1)) / (1 + draws)
        return (p <= alpha).reshape(self.values.shape[:-1])

    def words(self) -> str:
        mean, n = self.mean, self.values.shape[-1]
        done = int((~np.isnan(mean)).sum())
        best = self.best()
        value = float(mean.flat[np.nanargmax(np.abs(mean))])
        part = "" if done == mean.size else f" ({done} of {mean.size} cells were run before it was stopped)"
        return (
            f"{self.metric} with {self.kind} {self.change} at {len(self.layers)} layers × {len(self.positions)} positions × {len(self.units)} units, "
            f"attention {self.attention}, mean over {n} prompt{'' if n == 1 else 's'}{part}. Largest: {value:.2f} at {best}."
        )

    __str__ = words

    def show(self, **options: Any) -> HeatMap:
        """The mean as a heat map; a click on a cell runs the experiment there, with its controls. ``options`` as of ``HeatMap``.

        Rows are layers (and units, where there are several and positions too), columns positions (or units, where there is one position).
        """
        from mi_workshop.widgets.heat_map import HeatMap

        n_layers, n_positions, n_units = self.mean.shape
        by_unit = n_positions == 1 and n_units > 1
        grid = [[(i, 0, k) for k in range(n_units)] for i in range(n_layers)]
        if not by_unit:
            grid = [[(i, j, k) for j in range(n_positions)] for i in range(n_layers) for k in range(n_units)]
        layers = [f"layer {name}" for name in self.layers]
        rows = (
            layers
            if by_unit or n_units == 1
            else [f"{self.layers[i]}.{self.units[k]}" for i, _, k in (row[0] for row in grid)]
        )
        columns = [f"head {u}" if self.kind in HEADS else u for u in self.units] if by_unit else self.positions

        def ask(row: int, column: int) -> dict[str, Any]:
            i, j, k = grid[row][column]
            report = self.run_at(self.sites[i][j][k])
            controls = [{"name": name, "token": "lost", "prob": c["lost"]} for name, c in report.controls.items()]
            return {"text": report.words(), "before": report.before, "after": report.after, "controls": controls}

        title = f"{KINDS.get(self.kind, self.kind)} {self.change}"
        options = {"title": title, "unit": UNITS.get(self.metric, self.metric), "on_click": ask} | options
        if self.metric in UNITS:  # shares and probabilities
            options = {
                "low": min(0.0, float(np.nanmin(self.mean))),
                "high": max(1.0, float(np.nanmax(self.mean))),
            } | options
        return HeatMap([[self.mean[cell] for cell in row] for row in grid], rows, columns, **options)

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        return self.show()._repr_mimebundle_(**kwargs)


def sweep(
    model: Any,
    prompts: Any,
    donors: Any = None,
    kind: str = "resid_post",
    layers: Sequence[int] | None = None,
    positions: str | Sequence[Position] = "each",
    units: str | Sequence[int] | None = None,
    change: Change | None = None,
    metric: str = "recovered",
    freeze_attention: bool = False,
    memory: int | None = None,
    progress: bool = True,
) -> Sweep:
    """Make ``change`` (by default: patch from the donor) at every site of ``kind`` in turn, and measure.

    ``positions``: "each", None for all at once, or several that are named (``["{city}", "last"]``), which also serves prompts of
    different lengths. ``units``: "each" (by default for heads), None for all together, or some. Interrupt it (the stop button) and
    what is done is kept. ``mean`` and ``resample`` need reference prompts of the same length, or named positions. Raises InterventionError as ``Experiment.run`` does.
    """
    if metric not in METRICS:
        raise InterventionError(f"There is no metric {metric!r}: choose {', '.join(METRICS)}.")
    change = change or patch()
    prompts, donors = as_list(prompts), as_list(donors)
    if change.needs_donor and len(donors) != len(prompts):
        raise InterventionError(
            f"Patching copies from another prompt: {len(prompts)} prompts need {len(prompts)} donors, not {len(donors)}."
        )
    layer_list = list(range(layers_of(model)) if layers is None else layers)
    units = "each" if units is None and kind in HEADS else units
    tokens = [tokens_of(model, p) for p in prompts]
    where: list[Any] = [None] if positions is None else list(positions) if positions != "each" else []
    if positions == "each":
        if len({t.shape for t in tokens}) > 1:
            raise InterventionError(
                f"The prompts have {' and '.join(map(str, sorted({len(t) for t in tokens})))} tokens: name the positions."
            )
        where = list(range(len(tokens[0])))
    wide = [Site(kind, layer, units=None if units is None else []) for layer in layer_list]
    g = torch.Generator().manual_seed(0)
    rows: list[Row] = []
    references: list[Reference] = []
    unit_list: list[Any] = []
    found = read_all(model, tokens + [tokens_of(model, d) for d in donors], wide)
    reference = list(
        zip(change.reference, read_all(model, [tokens_of(model, p) for p in change.reference], wide), strict=True)
    )
    for i, prompt in enumerate(prompts):
        base, own = found[i]
        there = found[len(prompts) + i][0] if donors else None
        references.append(Reference(base, there, int(base.argmax()), None if there is None else int(there.argmax())))
        sources = [(donors[i], found[len(prompts) + i])] if donors else [(prompt, found[i])]
        if reference:
            drawn = int(torch.randint(len(reference), (1,), generator=g))
            sources = reference if change.averaged else [reference[drawn]]
        unit_list = [None] if units is None else list(range(own[0].shape[1])) if units == "each" else list(units)
        for w in where:
            pairs = [matched(model, w, prompt, source, False) for source, _ in sources]
            here = pairs[0][0]
            for layer, site in enumerate(wide):
                x = own[layer][here]  # [position, unit, width]
                y = torch.stack([read[layer][at] for (_, (_, read)), (_, at) in zip(sources, pairs, strict=True)]).mean(
                    0
                )
                new = change.make(x, y, g).expand_as(x)
                for unit in unit_list:
                    chosen = list(range(x.shape[1])) if unit is None else [unit]
                    position, u = torch.cartesian_prod(torch.tensor(here), torch.tensor(chosen)).T
                    v = Values(site, position, u, x[:, chosen].flatten(0, 1), new[:, chosen].flatten(0, 1))
                    rows.append(Row(tokens[i], [v]))
    logits = run_rows(model, rows, freeze_attention, memory=memory, progress="sweep" if progress else None)
    shape = (len(prompts), len(where), len(layer_list), len(unit_list))
    measured = []
    for r, block in zip(references, logits.split(len(rows) // len(prompts)), strict=True):
        measured.append(torch.where(block.isnan().any(-1), torch.nan, METRICS[metric](block, r).float()))
    values = torch.stack(measured).reshape(shape).permute(2, 1, 3, 0).numpy()
    names = [f"{w}" for w in where]
    if positions == "each":
        names = words_of(model, tokens[0]) if len(prompts) == 1 else _common(model, tokens)
    sites = [[[Site(kind, layer, w, u) for u in unit_list] for w in where] for layer in layer_list]
    first = slice(0, 10)  # a click shall not take long

    def run_at(site: Site) -> Report:
        experiment = Experiment(site, change, freeze_attention, n_random=100 if len(prompts) == 1 else 20)
        return experiment.run(model, prompts[first], donors[first] or None)

    return Sweep(
        kind, str(change), metric, "frozen" if freeze_attention else "free", values, [str(layer) for layer in layer_list],
        ["all" if w is None else n for w, n in zip(where, names, strict=True)], ["all" if u is None else str(u) for u in unit_list], sites, run_at,
    )  # fmt: skip


def _common(model: Any, tokens: list[Any]) -> list[str]:
    """The token at each position where all prompts have the same, its number where they differ."""
    columns = zip(*(words_of(model, t) for t in tokens), strict=True)
    return [column[0] if len(set(column)) == 1 else f"[{i}]" for i, column in enumerate(columns)]
