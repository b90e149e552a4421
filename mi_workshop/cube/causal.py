"""Did the large cell matter? A cell of a cube's map beside what ablating it does to the model's answer: correlational beside causal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from mi_workshop.counterfactual import Change, Experiment, Site, mean, sweep, zero
from mi_workshop.counterfactual.changes import Row, run_rows
from mi_workshop.counterfactual.experiment import SHARE
from mi_workshop.counterfactual.sites import HOOKS, layers_of, tokens_of, words_of
from mi_workshop.heat_plots import SEQUENTIAL, draw_cells, shown, tall
from mi_workshop.models import network
from mi_workshop.plots import BLUE, INK, ORANGE, new_figure, open_frames
from mi_workshop.show import Shown, counted
from mi_workshop.widgets.heat_map import HeatMap

from .metrics import CubeError
from .plots import Grid, grid

if TYPE_CHECKING:
    from .core import Cube

OTHERS, NOTHING, DRAWS = 20, 0.1, 2000  # prompts to average over; a share lost that counts as nothing; permutations
READ_LATER = ("embed", "resid_pre", "k", "v")  # what other positions still read in the last layer


def prompt_ids(cube: Cube, prompt: int) -> Tensor:
    """Token ids [position] of the whole prompt (of a difference: of its first). Raises CubeError where the cube cannot give them back."""
    cube.tokens(prompt)
    row = cube.data.isel(prompt=prompt)
    here = row.position.values >= 0
    at, ids = row.position.values[here], row.token_id.values[here]
    try:
        whole = tokens_of(cube.model, str(row.prompt_text.values).split(" − ")[0])
        if at.max(initial=0) < len(whole) and (whole.cpu().numpy()[at] == ids).all():
            return whole
    except ValueError:  # no tokenizer, or words that it does not know
        pass
    if not len(at) or not np.array_equal(at, np.arange(len(at))) or (ids < 0).any():
        raise CubeError("The prompt cannot be run again: this cube does not hold all of its tokens.")
    return torch.tensor(ids.astype(np.int64))


def fitting(cube: Cube, ids: Tensor, prompt: int, position: int | None = None) -> tuple[Change, str, int]:
    """The gentlest change that the cube has data for, what it is in words, and how many first tokens it leaves as they are: the mean over
    other prompts of this length if they differ by ``position`` (None: in the first half), otherwise zero."""
    lengths = cube.data.n_tokens.values
    rows = np.flatnonzero((lengths == lengths[prompt]) & (np.arange(len(lengths)) != prompt % len(lengths)))[:OTHERS]
    others = [o for o in (prompt_ids(cube, int(i)) for i in rows) if len(o) == len(ids) and not torch.equal(o, ids)]
    same = int((torch.stack(others) == ids).all(0).int().cumprod(0).sum()) if others else len(ids)
    if others and (2 * same <= len(ids) if position is None else position >= same):
        return mean(others), f"set to the mean over {counted(len(others), 'other prompt')} of {len(ids)} tokens", same
    why = f"the other prompts begin with the same {same} tokens" if others else f"there is no other prompt of {len(ids)} tokens"  # fmt: skip
    return zero(), f"set to zero, since {why}", 0


def site_of(cube: Cube, g: Grid, row: int, position: int | None) -> Site:
    """The site of a cell. Raises CubeError where there is no language model at hand, or no such site in it."""
    if cube.model is None:
        raise CubeError("There is no model at hand, so nothing is ablated: read the cube with Cube.read(path, model=model).")  # fmt: skip
    if "token_id" not in cube.data or not hasattr(network(cube.model), "hook_dict"):
        raise CubeError("Nothing is ablated: that needs a language model that TransformerLens runs.")
    at = g.at[row]
    if "module" in at:
        return Site(cube.layers[at["module"]], None, position)
    if g.site not in HOOKS or set(at) - {"layer", "head"}:
        raise CubeError(f"Nothing is ablated: {g.site} is none of the sites {', '.join(HOOKS)}.")
    return Site(g.site, int(cube.layers[at["layer"]]) if "layer" in at else None, position, at.get("head"))


def read_on(model: Any, site: Site, last: int) -> bool:
    """Can what is at this site still reach the answer, at position ``last``?"""
    return site.kind in READ_LATER or site.layer != layers_of(model) - 1 or site.position == last


def heat(cube: Cube, metric: str | None = None, site: str | None = None, prompt: int = 0, per_layer: bool = False) -> HeatMap:  # fmt: skip
    """The map as a widget; see ``Cube.heat``."""
    g = grid(cube, metric, site, prompt, per_layer)

    def ask(row: int, column: int) -> dict[str, Any]:
        value, known = g.values[row, column], np.abs(g.values[np.isfinite(g.values)])
        rank = 1 + int((known > abs(value)).sum())
        size = "large" if 4 * rank <= len(known) else "small" if 2 * rank > len(known) else "neither large nor small"
        where = f", {g.columns[column]!r} [{column}]" if any(g.columns) else ""
        cell = f"{g.rows[row]}{where}: {g.metric} {value:.3g}; {size}: rank {rank} of {len(known)} cells"
        try:
            here = site_of(cube, g, row, int(g.position[column]))
            ids = prompt_ids(cube, prompt)
        except CubeError as error:
            return {"text": f"{cell}. {error}"}
        change, said, _ = fitting(cube, ids, prompt, int(g.position[column]))
        report = Experiment(here, change).run(cube.model, ids)
        first = report.table.iloc[0]
        if not read_on(cube.model, here, len(ids) - 1):
            said += "; the answer does not read this cell any more, whatever is in it"
        controls = [{"name": name, "token": "lost", "prob": c["lost"]} for name, c in report.controls.items()]
        controls.append({"name": "mean of random changes", "token": "lost", "prob": float(report.random.lost.mean())})
        text = f"{cell}; ablating it costs {first.lost:.2f} of the probability of {first.answer}: {report.verdict}.\n({said})\n{report.words()}"  # fmt: skip
        return {"text": text, "before": report.before, "after": report.after, "controls": controls}

    columns = [c.strip() or "␣" for c in g.columns] if any(g.columns) else [g.metric]
    return HeatMap(g.values, g.rows, columns, g.title, g.metric, ask, g.low, g.high, g.signed, g.upward)


@dataclass(eq=False)
class Matters(Shown):
    """``table``: every cell (``row``, ``token``, ``position``, ``value`` of the metric, ``lost``: the share of the answer's probability that ablating it costs, their ranks within the row, a ``note``;
    ``trivial`` ones are not compared), the largest discrepancies first. ``correlation``: Spearman's; ``p``: of one as far from what shuffling whole tokens gives; ``n``: cells and tokens that are compared."""

    grid: Grid
    lost: np.ndarray  # [row, column]
    table: pd.DataFrame
    correlation: float
    p: float
    n: tuple[int, int]
    answer: str
    prob: float
    change: str

    @property
    def within(self) -> float:
        """Correlation of the ranks within each row (every row has as many cells): what is left where rows as such differ in size, as layers do."""
        compared = self.table[~self.table.trivial]
        ranks = compared.assign(value=compared.value.abs()).groupby("row")[["value", "lost"]].rank()
        return float(ranks.value.corr(ranks.lost))

    def words(self) -> str:
        g, t = self.grid, self.table
        rho = f"Spearman {self.correlation:.2f} over {counted(self.n[0], 'cell')} (p = {self.p:.3f}, shuffling the {counted(self.n[1], 'token')})" if np.isfinite(self.correlation) else "too little to correlate"  # fmt: skip
        rho += f"; ranked within each row {self.within:.2f}" if np.isfinite(self.within) else ""
        said = f"{g.metric} of {g.site} against what ablating the cell ({self.change}) costs of {self.answer} ({self.prob:.2f}): {rho}."  # fmt: skip
        for r in t[(t.note != "") & (t.position > 0)].head(1).itertuples():
            said += f" Most instructive: {r.row} at {r.token!r} [{r.position}], {r.value:.3g}, is {r.note}: {r.lost:.2f} lost."
        first = t[(t.position == 0) & t.lost.notna()]
        if len(first):
            said += f" {first.token.iloc[0]!r}, the first token, has rank {first.value_rank.min():.0f} in its row and costs {first.lost.max():.2f} at most."  # fmt: skip
        if self.prob > 0.99:
            said += " The answer is saturated: damage that leaves it far ahead is not seen."
        return f"{said} Not compared: the last token, where the answer is read, and what nothing reads any more."

    def figure(self) -> Figure:
        g, t = self.grid, self.table
        figure = new_figure(18, 2.2 + max(tall(len(g.rows)), 2.4))
        left, right, cloud = figure.subplots(1, 3, width_ratios=[1.12, 1, 0.85])
        draw_cells(left, g.values, g.rows, g.columns, wide=6, **g.colours)
        draw_cells(right, self.lost, [""] * len(g.rows), g.columns, 0, 1, SEQUENTIAL, 6, g.upward)
        kinds = {"compared": (~t.trivial & (t.position > 0), "o", BLUE), "first token": (~t.trivial & (t.position == 0), "s", ORANGE), "not compared": (t.trivial, "x", "#777777")}  # fmt: skip
        for label, (some, marker, colour) in kinds.items():
            cloud.scatter(t.value[some], t.lost[some], marker=marker, c=colour, s=45, label=label, lw=1.4, edgecolors=None if marker == "x" else INK)  # fmt: skip
        for ax, title in ((left, f"{g.metric} of {g.site}"), (right, f"ablated: share of {shown(self.answer)} lost"), (cloud, f"Spearman {self.correlation:.2f}, p = {self.p:.2f}")):  # fmt: skip
            ax.set_title(title, fontsize=13, loc="left", parse_math=False)
        cloud.set_xlabel(g.metric, fontsize=12, parse_math=False)
        cloud.set_ylabel("lost", fontsize=12)
        cloud.tick_params(labelsize=11)
        cloud.legend(fontsize=11, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3, handletextpad=0, columnspacing=1)  # fmt: skip
        open_frames(cloud)
        return figure


def matters(cube: Cube, metric: str | None = None, site: str | None = None, prompt: int = 0, change: Change | None = None) -> Matters:  # fmt: skip
    """Ablate every cell of the map in one sweep and compare. ``change``: by default what ``fitting`` finds for all cells. Raises CubeError without a language
    model or for a site that is not one of ``counterfactual.HOOKS``, InterventionError for a change that does not fit."""
    g = grid(cube, metric, site, prompt)
    sites = [site_of(cube, g, row, None) for row in range(len(g.rows))]
    if sites[0].kind != g.site:
        raise CubeError("A sweep needs one site in all layers: capture the cube with sites such as resid_post.")
    ids, same, said = prompt_ids(cube, prompt), 0, str(change)
    if change is None:
        change, said, same = fitting(cube, ids, prompt)
    layers: Any = list(dict.fromkeys(s.layer for s in sites))
    swept = sweep(cube.model, ids, kind=g.site, layers=layers, positions=g.position.tolist(), change=change, metric="lost").mean  # fmt: skip
    lost = np.array([swept[layers.index(s.layer), :, s.units or 0] for s in sites])
    lost[:, g.position < same] = np.nan  # nothing was changed there
    rows = np.array([read_on(cube.model, s, len(ids) - 1) for s in sites])
    columns = (g.position >= same) & (g.position < len(ids) - 1)
    a, b = (pd.Series(x[np.ix_(rows, columns)].ravel()).rank().to_numpy().reshape(rows.sum(), columns.sum()) for x in (np.abs(g.values), lost))  # fmt: skip
    rng, rho, p = np.random.default_rng(0), np.nan, np.nan
    if columns.sum() > 1 and rows.any() and a.std() and b.std():
        rho = float(np.corrcoef(a.ravel(), b.ravel())[0, 1])
        null = np.array([np.corrcoef(a[:, rng.permutation(a.shape[1])].ravel(), b.ravel())[0, 1] for _ in range(DRAWS)])
        p = float((1 + (np.abs(null - null.mean()) >= abs(rho - null.mean()) - 1e-12).sum()) / (1 + DRAWS))
    i, j = np.indices(lost.shape).reshape(2, -1)
    t = pd.DataFrame({"row": np.array(g.rows)[i], "token": np.array(g.columns)[j], "position": g.position[j], "value": g.values[i, j], "lost": lost[i, j], "trivial": ~(rows[i] & columns[j])})  # fmt: skip
    t["value_rank"], t["lost_rank"] = (x.groupby(t.row).rank(ascending=False) for x in (t.value.abs(), t.lost))
    large, small = t.value_rank <= lost.shape[1] / 4, t.value_rank > lost.shape[1] / 2
    t["note"] = np.select([t.trivial, large & (t.lost.abs() < NOTHING), small & (t.lost >= SHARE)], ["", "large and does nothing", "small and matters"], "")  # fmt: skip
    gap = (t.value_rank - t.lost_rank).abs().where(t.note != "", -1)
    t = t.iloc[np.argsort(-gap.to_numpy(), kind="stable")].reset_index(drop=True)
    chances = run_rows(cube.model, [Row(ids, [])])[0].softmax(-1)
    answer = words_of(cube.model, chances.argmax()[None])[0]
    return Matters(g, lost, t, rho, p, (a.size, a.shape[1]), answer, float(chances.max()), said)
