"""The activation cube: an xarray Dataset with the field's names for its axes, and what one asks of it.

``cube.data`` is the Dataset. Axes: ``prompt``, ``layer`` (or ``module``), ``token``, ``head``, and for raw tensors ``query``, ``key``, ``d_model``,
``d_head``, ``d_mlp``, ``d_sae``. A variable is called ``<site>_<metric>`` (``resid_post_norm``), a raw tensor by its site alone. Coordinates: ``prompt_text``, ``token_text``,
``token_id`` (-1: none), ``position`` in the prompt (-1: the prompt has no such token) and ``n_tokens``. Attributes are plain JSON: which model, which weights, when, with what.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
import xarray as xr

from mi_workshop.show import Shown, counted

from .metrics import DEFAULT, CubeError, chosen, definition, measure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from mi_workshop.widgets.attention_view import AttentionView
    from mi_workshop.widgets.cube_controls import LayerScrubber
    from mi_workshop.widgets.heat_map import HeatMap

    from .causal import Matters
    from .plots import Histogram, Traces
    from .stack import Stack

SAME = ("model", "weights")  # what two cubes must share to be subtracted


class Cube(Shown):
    """Numbers of what is inside a model, labelled. ``data``: the Dataset; ``model``: the model it was captured from, where it is at hand (a
    file holds none: ``Cube.read(path, model=model)``). ``a - b``, ``select``, ``statistics`` and the views ask it; ``cube[site, metric]`` is a DataArray.
    """

    problem = CubeError

    def __init__(self, data: xr.Dataset, model: Any = None) -> None:
        self.data, self.model = data, model

    # ------------------------------------------------------------------ what is there
    @property
    def provenance(self) -> dict[str, Any]:
        """Model, weight hash, code and package versions, dtype, device, prompt hash, date, and what was left out."""
        return dict(self.data.attrs)

    @property
    def prompts(self) -> list[str]:
        return [str(text) for text in self.data.prompt_text.values]

    @property
    def metrics(self) -> dict[str, tuple[str, str]]:
        """Variable → (site, metric)."""
        return {
            str(k): (v.attrs["site"], v.attrs["metric"]) for k, v in self.data.data_vars.items() if "metric" in v.attrs
        }

    @property
    def raw(self) -> list[str]:
        """The sites whose activations are there whole."""
        return [str(k) for k, v in self.data.data_vars.items() if v.attrs.get("site") == k]

    @property
    def layers(self) -> list[str]:
        """Names of the layers, or of the modules."""
        if "module" in self.data.dims:
            return [str(m) for m in self.data.module.values]
        return [str(i) for i in self.data.layer.values] if "layer" in self.data.dims else []

    def tokens(self, prompt: int = 0) -> list[str]:
        """The tokens of the prompt in this row of the cube."""
        self._row(prompt)
        if "token_text" not in self.data:
            raise CubeError("This cube's inputs have no tokens.")
        row = self.data.isel(prompt=prompt)
        return [str(t) for t, at in zip(row.token_text.values, row.position.values, strict=True) if at >= 0]

    def _row(self, prompt: int) -> None:
        n = self.data.sizes["prompt"]
        if not -n <= prompt < n:
            raise CubeError(f"There is no prompt {prompt}: the cube has {counted(n, 'prompt')} (0 to {n - 1}).")

    def variable(self, metric: str | None = None, site: str | None = None) -> str:
        """The variable of a metric and a site; by default the first. Raises CubeError for one that is not there."""
        have = self.metrics
        found = [k for k, (s, m) in have.items() if metric in (None, m, k) and site in (None, s)]
        if not found:
            what = f"{metric or 'metric'} of {site}" if site else repr(metric)
            raise CubeError(f"The cube has no {what}: it has {', '.join(have) or 'no metrics'}.")
        return found[0]

    def __getitem__(self, key: str | tuple[str, str]) -> xr.DataArray:
        """``cube["resid_post", "norm"]``, ``cube["norm"]``, ``cube["resid_post_norm"]``, or a raw tensor, ``cube["pattern"]``."""
        if isinstance(key, str) and key in self.data.data_vars:
            return self.data[key]
        return self.data[self.variable(*((key,) if isinstance(key, str) else (key[1], key[0])))]

    # ------------------------------------------------------------------ algebra
    def select(
        self, prompt: int | str | Sequence[int] | slice | None = None, layer: int | str | Sequence[int | str] | None = None,
        token: int | str | None = None, site: str | None = None,
    ) -> Cube:  # fmt: skip
        """A smaller cube: rows of ``prompt`` (a number, numbers, or every prompt that contains a text), ``layer`` (a number; of modules its place among them, or part of
        its name), ``token`` (a number, from the end if negative; "last"; or a token's text, wherever it stands in each prompt), one ``site``.

        Raises CubeError for what is not there.
        """
        data = self.data
        if site is not None:
            keep = [k for k, v in data.data_vars.items() if v.attrs.get("site") == site]
            if not keep:
                sites = dict.fromkeys(str(v.attrs.get("site")) for v in data.data_vars.values())
                raise CubeError(f"The cube has no site {site!r}: it has {', '.join(sites)}.")
            data = data[keep]
        if prompt is not None:
            data = data.isel(prompt=self._prompts(prompt))
        if layer is not None:
            data = data.isel({"module" if "module" in data.dims else "layer": self._layers(layer)})
        return Cube(data if token is None else _tokens(data, token), self.model)

    def _prompts(self, prompt: Any) -> Any:
        if isinstance(prompt, str):
            rows = [i for i, text in enumerate(self.prompts) if prompt in text]
            if not rows:
                raise CubeError(f"No prompt of the cube contains {prompt!r}; the first is {self.prompts[0]!r}.")
            return rows
        if isinstance(prompt, slice):
            return prompt
        rows = [prompt] if isinstance(prompt, int) else list(prompt)
        for row in rows:
            self._row(row)
        return rows

    def _layers(self, layer: Any) -> list[int]:
        found = []
        for one in [layer] if isinstance(layer, int | str) else layer:
            here = [i for i, name in enumerate(self.layers) if name == str(one)]
            if isinstance(one, str):
                here = here or [i for i, name in enumerate(self.layers) if one in name]
            elif "module" in self.data.dims and -len(self.layers) <= one < len(self.layers):
                here = [range(len(self.layers))[one]]
            if not here:
                raise CubeError(f"The cube has no layer {one!r}: it has {', '.join(self.layers[:6])}{' ...' if len(self.layers) > 6 else ''}.")  # fmt: skip
            found += here
        return found

    def __sub__(self, other: Cube) -> Cube:
        """Cell by cell, prompt by prompt (or against the one prompt of ``other``): clean - corrupted. Metrics are subtracted as numbers, raw
        tensors as tensors; the norm of a difference is not the difference of norms.

        Raises CubeError for cubes of different models or weights, and for prompts of different lengths.
        """
        a, b = self.data, other.data
        for name in SAME:
            if a.attrs.get(name) != b.attrs.get(name):
                raise CubeError(f"These cubes are of different models: {name} is {_short(a.attrs.get(name))} here and {_short(b.attrs.get(name))} there.")  # fmt: skip
        if set(a.data_vars) != set(b.data_vars):
            alone = ", ".join(sorted(str(k) for k in set(a.data_vars) ^ set(b.data_vars)))
            raise CubeError(f"Only one of the two cubes has {alone}: capture both with the same sites and metrics.")
        n, m = a.sizes["prompt"], b.sizes["prompt"]
        if m not in (1, n):
            raise CubeError(f"One cube has {counted(n, 'prompt')} and the other {m}: give as many, or a single one.")
        b = b.isel(prompt=np.zeros(n, int)) if m == 1 else b
        if {k: v for k, v in a.sizes.items() if k != "prompt"} != {k: v for k, v in b.sizes.items() if k != "prompt"} or not np.array_equal(a.get("n_tokens", 0), b.get("n_tokens", 0)):  # fmt: skip
            sizes = " and ".join(", ".join(f"{v} {k}" for k, v in d.sizes.items()) for d in (a, b))
            raise CubeError(f"The prompts do not fit together (the cubes have {sizes}): choose prompts of the same number of tokens, or select one token of each.")  # fmt: skip
        for axis in {"layer", "module", "head"} & set(a.sizes):
            if not np.array_equal(a[axis].values, b[axis].values):
                raise CubeError(
                    f"These cubes are of different {axis}s: {_few(a[axis])} here and {_few(b[axis])} there."
                )
        whole = [k for k, v in a.data_vars.items() if v.dtype.kind == "i"]  # names of features are not subtracted
        a, b = a.drop_vars(whole), b.drop_vars(whole)
        b = b.assign_coords({k: v for k, v in a.coords.items() if k in b.dims})
        with xr.set_options(keep_attrs=True):
            out = a - b.reset_coords(drop=True)
        out = out.assign_coords({k: (a[k].dims, _both(a[k].values, b[k].values)) for k in ("prompt_text", "token_text") if k in a})  # fmt: skip
        return Cube(out.assign_attrs(a.attrs | {"kind": "difference", "prompts_subtracted": b.attrs.get("prompts", "")}), self.model)  # fmt: skip

    def measured(self, metrics: Any = DEFAULT) -> Cube:
        """Metrics of this cube's whole tensors, in place of those that it has: after a subtraction, of the difference itself ("norm": how far apart), which
        the attribute ``of`` then says.

        Raises CubeError if the cube has none (``capture(..., raw=...)``), or for an unknown metric.
        """
        if not self.raw:
            raise CubeError("The cube has no whole tensors to measure: capture it with raw= and the sites you want.")
        new, of = {}, {"of": "the difference"} if self.data.attrs.get("kind") == "difference" else {}
        for site in self.raw:
            for name, function in chosen(metrics).items():
                array = xr.apply_ufunc(
                    lambda x, f=function: measure(torch.from_numpy(np.ascontiguousarray(x)), {"": f})[0].numpy(), self.data[site],
                    input_core_dims=[[self.data[site].dims[-1]]], dask="parallelized", output_dtypes=[np.float32],
                )  # fmt: skip
                new[f"{site}_{name}"] = array.assign_attrs(site=site, metric=name, says=definition(function), **of)
        return Cube(self.data.drop_vars(list(self.metrics)).assign(new), self.model)

    def statistics(self, metric: str | None = None, site: str | None = None, by: str | None = None) -> pd.DataFrame:
        """Count, mean, standard deviation and quartiles over prompts and tokens for each layer; ``by="token"``: for each token text too, ``by="position"``
        for each position. Cells that no prompt has are not counted."""
        array = self.data[self.variable(metric, site)]
        frame = array.to_dataframe(name="value").reset_index()
        rows = [d for d in array.dims if d in ("layer", "module", "head")]
        more = {None: [], "token": ["token_text"], "position": ["token"], "prompt": ["prompt"]}
        if by not in more:
            raise CubeError(f"Statistics are by {', '.join(str(k) for k in more if k)}, or over all, not by {by!r}.")
        frame = frame[np.isfinite(frame.value)]
        keys = [*rows, *more[by]]
        values = frame.groupby(keys)["value"] if keys else frame.assign(all="all").groupby("all")["value"]
        return values.describe().rename(columns={"50%": "median"})

    # ------------------------------------------------------------------ files
    @classmethod
    def read(cls, path: str | Path, model: Any = None) -> Cube:
        """A cube from a Zarr store (lazy: numbers are read when they are needed) or an ActivityCube JSON; see ``cube.files``."""
        from .files import read

        return read(path, model)

    def write(self, path: str | Path) -> str | Path:
        """Write as Zarr (``.zarr``, or one file ``.zarr.zip``) or as ActivityCube ``.json``; see ``cube.files``. Returns the path."""
        from .files import write

        return write(self, path)

    # ------------------------------------------------------------------ showing
    def words(self) -> str:
        d = self.data
        sites = ", ".join(dict.fromkeys(site for site, _ in self.metrics.values()))
        names = ", ".join(dict.fromkeys(metric for _, metric in self.metrics.values()))
        size = " × ".join(f"{n} {k}" for k, n in d.sizes.items())
        kind = "Activation cube" if d.attrs.get("kind") != "difference" else "Difference of two activation cubes"
        whole = f"; whole tensors of {', '.join(self.raw)}" if self.raw else ""
        left = (
            f"; {counted(len(d.attrs['left_out']), 'module')} left out (see provenance)"
            if d.attrs.get("left_out")
            else ""
        )
        size_of = f"{d.nbytes / 1e6:.1f} MB" if d.nbytes >= 1e6 else f"{d.nbytes / 1e3:.0f} kB"
        return (
            f"{kind} of {d.attrs.get('model', 'an unnamed model')}: {size}; {names} of {sites}{whole}{left}; {size_of}."
        )

    __repr__ = words

    def figure(self) -> Figure:
        """The first metric of the first prompt as a map of tokens by layers."""
        from .plots import draw_heat

        return draw_heat(self)

    def heat(self, metric: str | None = None, site: str | None = None, prompt: int = 0, per_layer: bool = False) -> HeatMap:  # fmt: skip
        """The map [layer, token] of one prompt; a click on a cell ablates it, with controls, where the model is at hand. ``per_layer``: each row as a share
        of its largest number. Modules, heads (``layer.head``) and inputs without tokens have rows and columns of their own."""
        from .causal import heat

        return heat(self, metric, site, prompt, per_layer)

    def matters(self, metric: str | None = None, site: str | None = None, prompt: int = 0, change: Any = None) -> Matters:  # fmt: skip
        """The map beside what ablating each cell costs the model's answer; see ``causal.matters``."""
        from .causal import matters

        return matters(self, metric, site, prompt, change)

    def traces(self, metric: str | None = None, site: str | None = None, prompt: int = 0, tokens: Any = None) -> Traces:
        """One line for each token through the layers; see ``plots.traces``."""
        from .plots import traces

        return traces(self, metric, site, prompt, tokens)

    def histogram(self, metric: str | None = None, site: str | None = None, by: str = "layer", prompt: int | None = None) -> Histogram:  # fmt: skip
        """How a metric is distributed over all prompts and tokens in each layer; see ``plots.histogram``."""
        from .plots import histogram

        return histogram(self, metric, site, by, prompt)

    def attention(self, prompt: int = 0) -> AttentionView:
        """The attention explorer over the cube's own ``pattern`` [layer, head, query, key]. Raises CubeError where the cube has none."""
        from .plots import attention

        return attention(self, prompt).show()

    def stack(self, prompt: int = 0, metric: str | None = None, top: int = 3) -> Stack:
        """Layer planes with each token's strongest units and what flows between them, in three dimensions; see ``stack.stack``."""
        from .stack import stack

        return stack(self, prompt, metric, top)

    def scrub(self, prompt: int = 0, metric: str | None = None) -> LayerScrubber:
        """A slider through the layers; see ``widgets.cube_controls``."""
        from mi_workshop.widgets.cube_controls import LayerScrubber

        return LayerScrubber(self, prompt, metric)


def _tokens(data: xr.Dataset, token: int | str) -> xr.Dataset:
    """One token, or the tokens with one text, of every prompt; where a prompt has none the numbers are NaN."""
    if "token" not in data.dims:
        raise CubeError("This cube's inputs have no tokens to select.")
    texts, positions = data.token_text.values, data.position.values
    n = data.n_tokens.values
    if isinstance(token, str) and token != "last":
        hits = np.char.strip(texts, " Ġ▁") == token.strip()
        if not hits.any():
            some = dict.fromkeys(str(t) for t in texts[0] if t)
            raise CubeError(f"No prompt of the cube has a token {token!r}; those of the first are {', '.join(some)}.")
    else:
        at = -1 if token == "last" else int(token)
        hits = positions == np.where(at < 0, n + at, at)[:, None]
        if not hits.any():
            raise CubeError(f"No prompt of the cube has a token {token}: the longest has {n.max()} (0 to {n.max() - 1}).")  # fmt: skip
    width = int(hits.sum(1).max())
    index = np.argsort(~hits, axis=1, kind="stable")[:, :width]  # hits first
    there = np.take_along_axis(hits, index, 1)
    rows, keep = xr.DataArray(np.arange(len(index)), dims="prompt"), xr.DataArray(there, dims=("prompt", "token"))
    out = data.isel(prompt=rows, token=xr.DataArray(index, dims=("prompt", "token")))
    dims = {k: v.dims for k, v in data.data_vars.items()}
    for name, order in dims.items():
        v = out[name]
        if "token" in order:
            v = v.where(keep, -1 if v.dtype.kind == "i" else np.nan).astype(v.dtype)
        out[name] = v.transpose(*order)
    coords: dict[str, Any] = {"n_tokens": ("prompt", there.sum(1).astype(np.int32))}
    for name, empty in (("token_text", ""), ("token_id", -1), ("position", -1)):
        values = np.where(there, out[name].values, np.array(empty, out[name].dtype))
        coords[name] = (("prompt", "token"), values)
    return out.assign_coords(coords)


def _both(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.where(a == b, a, np.char.add(np.char.add(a, " − "), b))


def _few(axis: xr.DataArray) -> str:
    return ", ".join(map(str, axis.values[:3])) + (" ..." if axis.size > 3 else "")


def _short(value: Any) -> str:
    text = str(value)
    return f"{text[:19]}…" if text.startswith("sha256:") else repr(text)
