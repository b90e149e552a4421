"""Pictures of what a cube holds: a map of layers by tokens, traces through the layers, histograms over a corpus. Nothing here runs a model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from matplotlib.figure import Figure

from mi_workshop.attention import Attention, silent_heads
from mi_workshop.heat_plots import DIVERGING, MOST_ROWS, SEQUENTIAL, draw_heat_map, row_ticks, shown, tall
from mi_workshop.lens_plots import STYLES
from mi_workshop.models import network
from mi_workshop.plots import BLUE, INK, ORANGE, new_figure, open_frames
from mi_workshop.show import Shown, counted

from .metrics import CubeError

if TYPE_CHECKING:
    import xarray as xr

    from .core import Cube

LINES = [*STYLES[:4], ("#7B3294", "v", (0, (5, 1, 1, 1, 1, 1)))]  # of the highlighted tokens
BLOCK = 2_000_000  # numbers read at a time


@dataclass(eq=False)
class Grid:
    """One metric of one prompt as a map. ``rows``: layers, modules or layer.head; ``columns``: tokens, places of a picture, or one without a
    name. ``at`` [row]: {dimension: index}; ``low`` and ``high``: the ends of the scale; ``position`` [column]: in the prompt."""

    values: Float[np.ndarray, "row column"]  # NaN: none
    rows: list[str]
    columns: list[str]
    at: list[dict[str, int]]
    site: str
    metric: str
    title: str
    signed: bool
    low: float
    high: float
    position: Int[np.ndarray, " column"]

    @property
    def colours(self) -> dict[str, Any]:
        return {"low": self.low, "high": self.high, "scale": DIVERGING if self.signed else SEQUENTIAL, "upward": self.upward}  # fmt: skip

    @property
    def upward(self) -> bool:
        return bool({"layer", "module"} & set(self.at[0]))


def grid(cube: Cube, metric: str | None = None, site: str | None = None, prompt: int = 0, per_layer: bool = False) -> Grid:  # fmt: skip
    """``per_layer``: each row as a share of its largest number. Raises CubeError for a metric, site or prompt that is not there."""
    cube._row(prompt)
    name = cube.variable(metric, site)
    array = cube.data[name].isel(prompt=prompt)
    inner = [d for d in array.dims if d not in ("layer", "module", "head")]
    across = ["token"] if "token" in inner else inner[-1:]
    down = [str(d) for d in array.dims if d not in across]
    at = [dict(zip(down, i, strict=True)) for i in product(*(range(array.sizes[d]) for d in down))]
    values = array.transpose(*down, *across).values.reshape(len(at), -1).astype(float)
    columns, position = [str(i) for i in range(values.shape[1])] if across else [""], np.arange(values.shape[1])
    if across == ["token"]:
        position = cube.data.position.values[prompt]
        values, columns, position = values[:, position >= 0], cube.tokens(prompt), position[position >= 0]
    kept = [i for i, row in enumerate(values) if np.isfinite(row).any()]
    if not kept:
        raise CubeError(f"The cube has no numbers of {name} for prompt {prompt}.")
    values, at = values[kept], [at[i] for i in kept]
    if per_layer:
        values = values / np.maximum(np.nanmax(np.abs(values), axis=1, keepdims=True), 1e-12)
    site, metric = cube.metrics[name]
    of = "the difference of " if array.attrs.get("of") == "the difference" else ""  # measured on the difference itself
    known, note = values[np.isfinite(values)], ""
    difference = cube.data.attrs.get("kind") == "difference" and not of
    signed, top = bool(known.min() < 0 or difference), float(np.abs(known).max())
    first, rest = (float(np.nanmax(np.abs(part), initial=0)) for part in (values[:, :1], values[:, 1:]))
    if across == ["token"] and first > 2 * rest > 0:  # nothing else would be seen beside it
        top, note = rest, f", {shown(columns[0])} off the scale (up to {first:.3g})"
    note += ", share of the row's largest" if per_layer else ""
    low = -(top or 1.0) if signed else min(float(known.min()), 0.9 * top)
    title = f"{'difference in ' if difference else ''}{metric} of {of}{'modules' if site == 'module' else site}{note}  ·  {shown(cube.prompts[prompt], 60)}"  # fmt: skip
    rows = row_names(cube, at, site)
    return Grid(values, rows, columns, at, site, metric, title, signed, low, top or 1.0, position)


def row_names(cube: Cube, at: list[dict[str, int]], site: str = "") -> list[str]:
    """ "layer 3", "3.1" for a head, and modules without what most of them begin with; long names are cut in front."""
    names = cube.layers
    firsts = [name.split(".")[0] for name in names]
    common = max(set(firsts), key=firsts.count, default="")
    if 2 * firsts.count(common) > len(names) > 1:
        short = [re.sub(rf"^{re.escape(common)}\.(?!\d)", "", name) for name in names]
        names = short if len(set(short)) == len(names) else names
    names = [name if len(name) <= 20 else f"…{name[-19:]}" for name in names]
    out = []
    for one in at:
        parts = [names[i] if d in ("layer", "module") else str(i) for d, i in one.items()]
        out.append(f"layer {parts[0]}" if [*one] == ["layer"] else ".".join(parts) or site)
    return out


def draw_heat(cube: Cube, metric: str | None = None, site: str | None = None, prompt: int = 0, per_layer: bool = False) -> Figure:  # fmt: skip
    """Rows are layers, modules or layer.head, upwards; columns the tokens of ``prompt``. Signed numbers diverge around 0. Inputs without tokens: bars
    for each module, or the [y, x] map. Raises what ``grid`` raises."""
    g = grid(cube, metric, site, prompt, per_layer)
    if any(g.columns):
        return draw_heat_map(g.values, g.rows, g.columns, g.title, g.metric, **g.colours)
    return draw_bars(g.rows, g.values[:, 0], g.title, (g.low, g.high))


def draw_bars(names: list[str], values: Any, title: str, ends: tuple[float, float], best: pd.DataFrame | None = None) -> Figure:  # fmt: skip
    """Bars between ``ends`` (and 0); beside them the strongest units ``best`` (columns label, where, strength)."""
    figure, m = new_figure(11, 4.2), len(names)
    figure.set_layout_engine("none")  # which would take longer than the drawing
    ax = figure.add_axes((0.06, 0.28, 0.61 if best is not None else 0.92, 0.62))
    every = int(np.ceil(m / (24 if best is not None else 40)))
    ax.bar(range(m), values, color=BLUE, edgecolor=INK if m <= 60 else BLUE)
    ax.set_xticks(range(m)[::every], [shown(c, 12) for c in names[::every]], rotation=90 if m > 5 else 0, fontsize=12, parse_math=False)  # fmt: skip
    ax.set_ylim(min(ends[0], 0) * 1.05, max(ends[1], 0) * 1.05)
    ax.axhline(0, color=INK, lw=1)
    ax.set_title(shown(title, 62 if best is not None else 100), fontsize=14, loc="left", parse_math=False)
    if best is not None:
        side, y = figure.add_axes((0.69, 0.1, 0.3, 0.8)), range(len(best))[::-1]
        side.barh(y, best.strength.abs(), color=["#C6DBEF" if v > 0 else "white" for v in best.strength], edgecolor=INK)
        for i, label, where in zip(y, best.label, best["where"], strict=True):
            side.text(0.02, i, f"{shown(label, 32)}\nat {shown(where)}", transform=side.get_yaxis_transform(), va="center", fontsize=12, parse_math=False)  # fmt: skip
        side.set_yticks([])
        side.set_title("strongest units", fontsize=14, loc="left")
    for one in figure.axes:
        one.tick_params(labelsize=12)
        open_frames(one)
    return figure


@dataclass(eq=False)
class Traces(Shown):
    """A metric through the layers: ``table`` [layer, token], columns ``token [number]``; ``chosen``: the columns that are highlighted."""

    table: pd.DataFrame
    chosen: list[int]
    title: str

    def words(self) -> str:
        ends = [f"{self.table.columns[i]} from {self.table.iloc[0, i]:.3g} to {self.table.iloc[-1, i]:.3g}" for i in self.chosen]  # fmt: skip
        return f"{self.title} through {counted(len(self.table), 'layer')}: {'; '.join(ends)}; in grey {self.table.shape[1] - len(ends)} other tokens."  # fmt: skip

    def figure(self) -> Figure:
        figure, x, values = new_figure(10, 4.8), np.arange(len(self.table)), self.table.to_numpy()
        ax = figure.add_subplot()
        ax.plot(x, np.delete(values, self.chosen, 1), color="#BBBBBB", lw=1.2)
        for (colour, marker, dashes), i in zip(LINES, self.chosen, strict=False):
            ax.plot(x, values[:, i], color=colour, marker=marker, ls=dashes, lw=2.2, ms=7, markevery=1 + len(x) // 12)
        (low, high), last = ax.get_ylim(), -np.inf
        for i in sorted(self.chosen, key=lambda i: values[-1, i]):
            last, colour = max(values[-1, i], last + 0.075 * (high - low)), LINES[self.chosen.index(i)][0]
            ax.annotate(shown(self.table.columns[i], 22), (x[-1], values[-1, i]), (x[-1] + 0.03 * max(len(x), 4), last), fontsize=13, color=INK, va="center", parse_math=False,
                        annotation_clip=False, arrowprops={"arrowstyle": "-", "color": colour, "lw": 0.8})  # fmt: skip
        ticks, names = row_ticks([str(name) for name in self.table.index])
        ax.set_xticks(ticks - 0.5, names, rotation=90 if len(x) > 12 else 0, fontsize=12, parse_math=False)
        ax.tick_params(axis="y", labelsize=12)
        ax.set_title(shown(f"{self.title}  ·  grey: {values.shape[1] - len(self.chosen)} other tokens", 100), fontsize=13, loc="left", parse_math=False)  # fmt: skip
        open_frames(ax)
        return figure


def traces(cube: Cube, metric: str | None = None, site: str | None = None, prompt: int = 0, tokens: Sequence[int | str] | None = None) -> Traces:  # fmt: skip
    """``tokens``: at most 5, numbers (from the end if negative) or texts; by default the last and those with the largest numbers. Heads are
    averaged. Raises CubeError where there are no tokens or one layer, and for tokens that the prompt has not."""
    words, g = cube.tokens(prompt), grid(cube, metric, site, prompt)
    if not g.upward or len(words) != g.values.shape[1] or len(g.rows) < 2:
        raise CubeError(f"{g.metric} of {g.site} has nothing to trace: a trace needs tokens and at least two layers.")
    lead = np.array([next(i for d, i in at.items() if d in ("layer", "module")) for at in g.at])
    table = pd.DataFrame(g.values, columns=[f"{t} [{i}]" for i, t in enumerate(words)]).groupby(lead).mean()
    table.index = pd.Index(row_names(cube, [{next(iter(g.at[0])): i} for i in table.index]), name="layer")
    order = [len(words) - 1, *np.argsort(-np.nanmax(np.abs(table.to_numpy()), axis=0))] if tokens is None else []
    for one in tokens or []:
        found = [i for i, t in enumerate(words) if one in (t, t.strip(" Ġ▁"), i, i - len(words))]
        if not found:
            raise CubeError(f"The prompt has no token {one!r}: it has {', '.join(words)}.")
        order += found
    heads = ", mean over heads" if len(g.rows) > len(table) else ""
    return Traces(table, [int(i) for i in dict.fromkeys(order)][: len(LINES)], f"{g.metric} of {g.site}{heads}")


@dataclass(eq=False)
class Histogram(Shown):
    """``counts`` [row, bin] of a metric over all prompts and tokens, between ``edges``; ``marked`` [row]: the numbers of the prompt that was asked for."""

    counts: Int[np.ndarray, "row bin"]
    edges: Float[np.ndarray, " bin_1"]
    rows: list[str]
    title: str
    marked: list[np.ndarray] = field(default_factory=list)

    def words(self) -> str:
        peaks = [f"{name} {self.edges[i]:.3g} to {self.edges[i + 1]:.3g}" for name, i in zip(self.rows, self.counts.argmax(1), strict=True)]  # fmt: skip
        return f"{self.title}: {self.counts.sum()} numbers; most lie in {', '.join(peaks[:3] + ['…'] * (len(peaks) > 4) + peaks[3:][-1:])}."  # fmt: skip

    def figure(self) -> Figure:
        n, few = len(self.rows), len(self.rows) <= MOST_ROWS
        figure = new_figure(9, 1.4 + max(0.75 * n if n <= 8 else tall(n), 1.0))
        ax = figure.add_subplot()
        for i, row in list(enumerate(self.counts))[::-1]:
            line = i + row / max(row.max(), 1) * (0.85 if few else 2.5)
            ax.stairs(line, self.edges, baseline=i, fill=True, color="#9ECAE1", zorder=2 * (n - i))
            ax.stairs(line, self.edges, baseline=i, color=INK, lw=0.8 if few else 0.4, zorder=2 * (n - i))
        for i, some in enumerate(self.marked):
            ax.plot(some, np.full(len(some), i), "|", color=ORANGE, ms=12 if few else 5, mew=2 if few else 0.7, zorder=2 * n + 1)  # fmt: skip
        if 0 < 100 * self.edges[0] < self.edges[-1]:
            ax.set_xscale("log")
        ticks, names = row_ticks(self.rows)
        ax.set_yticks(ticks - 0.5, names, fontsize=12, parse_math=False)
        ax.tick_params(axis="x", labelsize=12)
        ax.set_xlabel(f"{self.title.split(' over ')[0]} (height: how many cells)", fontsize=12, parse_math=False)
        ax.set_title(shown(self.title, 85), fontsize=13, loc="left", parse_math=False)
        open_frames(ax)
        return figure


def histogram(cube: Cube, metric: str | None = None, site: str | None = None, by: str = "layer", prompt: int | None = None, bins: int = 40) -> Histogram:  # fmt: skip
    """``by``: "layer" (or module), "head" (of each layer) or "all". Read in blocks of prompts, so that a corpus need not fit into memory; bins are
    logarithmic where numbers differ a hundredfold. ``prompt``: the one that is marked. Raises CubeError for another ``by`` and an empty cube."""
    array = cube.data[cube.variable(metric, site)]
    if by not in ("layer", "head", "all"):
        raise CubeError(f"A histogram is by layer, head or all, not by {by!r}.")
    rows = [d for d in array.dims if d in {"layer": ("layer", "module"), "head": ("layer", "head"), "all": ()}[by]]
    n, chunk = array.sizes["prompt"], array.variable.chunksizes["prompt"][0] if array.chunks else 1
    step = chunk * max(1, BLOCK * n // max(1, chunk * array.size))
    at = [dict(zip(map(str, rows), i, strict=True)) for i in product(*(range(array.sizes[d]) for d in rows))]

    def read(some: xr.DataArray) -> list[np.ndarray]:
        return [r[np.isfinite(r)] for r in some.transpose(*rows, ...).values.reshape(len(at), -1)]

    blocks = [array.isel(prompt=slice(i, i + step)) for i in range(0, n, step)]
    low, high = np.array([[(r.min(initial=np.inf), -r.max(initial=-np.inf)) for r in read(b)] for b in blocks]).min((0, 1)) * [1, -1]  # fmt: skip
    if not low <= high:
        raise CubeError(f"The cube has no numbers of {array.name}.")
    edges = np.geomspace(low, high, bins + 1) if 0 < 100 * low < high else np.linspace(low, max(high, low + 1e-6), bins + 1)  # fmt: skip
    counts = np.sum([[np.histogram(r, edges)[0] for r in read(b)] for b in blocks], axis=0)
    title = f"{array.attrs['metric']} of {array.attrs['site']} over {counted(n, 'prompt')}"
    if prompt is None:
        return Histogram(counts, edges, row_names(cube, at, "all"), title)
    cube._row(prompt)
    return Histogram(counts, edges, row_names(cube, at, "all"), f"{title}; marks: {shown(cube.prompts[prompt], 40)}", read(array.isel(prompt=[prompt])))  # fmt: skip


def attention(cube: Cube, prompt: int = 0) -> Attention:
    """The raw ``pattern`` of one prompt, silent heads marked where the model is at hand. Raises CubeError where there is none, or only a difference."""
    if "pattern" not in cube.raw or cube.data.attrs.get("kind") == "difference":
        raise CubeError('This cube has no attention patterns (a difference of patterns is none): capture one with raw="pattern".')  # fmt: skip
    tokens, array = cube.tokens(prompt), cube.data.pattern.isel(prompt=prompt).values
    n = int(np.isfinite(array[0, 0, :, 0]).sum())
    if n != len(tokens):
        raise CubeError("The attention explorer needs all tokens of the prompt: ask the cube before tokens are selected.")  # fmt: skip
    return Attention(array[..., :n, :n], tokens, quiet(cube))


def quiet(cube: Cube) -> np.ndarray:
    """Which heads write nothing [layer, head]: known where the model is at hand, otherwise none."""
    if not getattr(network(cube.model), "blocks", None):
        return np.zeros([cube.data.sizes["layer"], cube.data.sizes["head"]], bool)
    return silent_heads(network(cube.model))[cube.data.layer.values]
