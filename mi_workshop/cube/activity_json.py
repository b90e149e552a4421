"""ActivityCube JSON, as modelrecon's mr-recon-tracer writes it: ``{"meta", "tokens", "layers", "provenance"}``, one entry for each module it hooked.

A file of theirs becomes a cube of (prompt, module, token) whose attribute ``activity_cube`` is the file without its numbers, so that it is written again as it
was. What ``capture`` made becomes one entry for each module, or layer and site; their three metrics stand in every entry, null where they were not captured.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from mi_workshop import files

from .metrics import METRICS, CubeError, definition
from .provenance import FORMAT, FORMAT_VERSION

LIMIT = 1 << 30  # bytes
OURS = {"energy": "norm", "mean_activation": "mean", "std_activation": "std"}
THEIRS = {ours: theirs for theirs, ours in OURS.items()}
ATTENTION, RAW = ("prompt", "layer", "head", "query", "key"), ("prompt", "module", "token", "d_model")


def read(path: str | Path) -> xr.Dataset:
    """The cube in a file: ``module_<metric>`` (energy is norm), ``pattern`` and ``hidden_states`` (of the commonest width), float64.

    Raises CubeError, which names the field, for what is not there or no ActivityCube.
    """
    try:
        if Path(path).stat().st_size > LIMIT:
            raise CubeError(f"{path} is larger than {LIMIT >> 30} GB: such a cube is for Zarr.")
        return _Reader(json.loads(Path(path).read_bytes()), f"{path} is no ActivityCube").dataset()
    except CubeError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        said = "it is nested too deeply" if isinstance(error, RecursionError) else getattr(error, "strerror", None) or error  # fmt: skip
        raise CubeError(f"{path} cannot be read as JSON: {str(said)[:200].rstrip('.')}.") from None


class _Reader:
    """One document; what is wrong with it is a CubeError with the field's name."""

    def __init__(self, found: Any, name: str) -> None:
        self.name = name
        self.rest: dict[str, Any] = {"meta": {}} | self.want("the whole", found, dict)
        self.tokens: list[str] = [self.want(f"tokens[{i}]", t, str) for i, t in enumerate(self.want("tokens", self.rest.pop("tokens", None), list))]  # fmt: skip
        if not self.tokens:
            raise CubeError(f"{name}: tokens is empty.")
        self.left_out: dict[str, str] = {}
        self.metrics: dict[str, dict[int, np.ndarray]] = {}  # metric → number of the entry → values
        self.attention: dict[int, np.ndarray] = {}
        self.raw: dict[int, np.ndarray] = {}
        self.rest["layers"] = [self.entry(i, one) for i, one in enumerate(self.want("layers", self.rest.get("layers"), list))]  # fmt: skip
        if not self.metrics and not self.attention:
            raise CubeError(f"{name}: layers has neither metrics nor attention.")

    def want(self, where: str, value: Any, kind: type) -> Any:
        if not isinstance(value, kind):
            words = {"dict": "an object", "list": "a list", "str": "a text"}[kind.__name__]
            raise CubeError(f"{self.name}: {where} is {'not there' if value is None else f'not {words}'}.")
        return value

    def numbers(self, where: str, value: Any, shape: tuple[int, ...]) -> np.ndarray:
        """``shape``: -1 for any length. The first prompt alone, if lists of several are there."""
        try:
            array = np.array(value)
            if array.dtype == object:  # null
                array = np.array([np.nan if v is None else v for v in array.ravel()]).reshape(array.shape)
            good = array.ndim == len(shape) and array.dtype.kind in "iuf" and not np.isinf(array).any()
        except (ValueError, TypeError, OverflowError):
            good = False
        if not good:
            raise CubeError(f"{self.name}: {where} is not {'lists in ' * (len(shape) - 1)}a list of finite numbers, all of one length.")  # fmt: skip
        if any(n not in (-1, m) for n, m in zip(shape, array.shape, strict=True)):
            got = " × ".join(map(str, array.shape))
            raise CubeError(f"{self.name}: {where} has {got} numbers for {len(self.tokens)} tokens{' and the heads of the others' if len(shape) == 4 else ''}.")  # fmt: skip
        if len(shape) > 1 and len(array) > 1:
            self.left_out[where] = f"of {len(array)} prompts the first is kept: the file has the tokens of one"
        return array.astype(float) if len(shape) == 1 else array[0].astype(float)

    def entry(self, i: int, found: Any) -> dict[str, Any]:
        """Keep an entry's numbers; returns the rest of it."""
        at, n = f"layers[{i}]", len(self.tokens)
        out = dict(self.want(at, found, dict))
        self.want(f"{at}.layer_name", out.get("layer_name"), str)
        if "core_metrics" in out:
            core = self.want(f"{at}.core_metrics", out["core_metrics"], dict)
            for key, values in core.items():
                if not re.fullmatch(r"\w[\w .-]{0,79}", key) or OURS.get(key) in core:
                    raise CubeError(f"{self.name}: {at}.core_metrics has {key[:80]!r}, no name of a metric or one that is there twice.")  # fmt: skip
                self.metrics.setdefault(OURS.get(key, key), {})[i] = self.numbers(f"{at}.core_metrics.{key}", values, (n,))  # fmt: skip
            out["core_metrics"] = list(core)
            tensors = out.get("raw_tensors")
            if isinstance(tensors, dict) and "hidden_states" in tensors:
                self.raw[i] = self.numbers(f"{at}.raw_tensors.hidden_states", tensors["hidden_states"], (-1, n, -1))
                out["raw_tensors"] = tensors | {"hidden_states": None}
        if "attention_scores" in out:
            heads = len(next(iter(self.attention.values()))) if self.attention else -1
            self.attention[i] = self.numbers(f"{at}.attention_scores", out["attention_scores"], (-1, heads, n, n))
            out["attention_scores"] = None
        return out

    def dataset(self) -> xr.Dataset:
        n, rest, variables = len(self.tokens), self.rest, {}
        names = {i: one["layer_name"] for i, one in enumerate(rest["layers"]) if "core_metrics" in one}
        for metric, some in self.metrics.items():
            attrs = {"site": "module", "metric": metric, "says": definition(METRICS[metric]) if metric in METRICS else ""}  # fmt: skip
            variables[f"module_{metric}"] = xr.Variable(RAW[:3], [[some.get(i, np.full(n, np.nan)) for i in names]], attrs)  # fmt: skip
        if self.attention:
            variables["pattern"] = xr.Variable(ATTENTION, [list(self.attention.values())], {"site": "pattern"})
        if self.raw:
            width = Counter(a.shape[1] for a in self.raw.values()).most_common(1)[0][0]
            for i in [i for i, a in self.raw.items() if a.shape[1] != width]:
                self.left_out[names[i]] = f"hidden states of {self.raw.pop(i).shape[1]} units: those of {width} are kept"  # fmt: skip
                del rest["layers"][i]["raw_tensors"]
            values = [[self.raw.get(i, np.full((n, width), np.nan)) for i in names]]
            variables["hidden_states"] = xr.Variable(RAW, values, {"site": "hidden_states"})
        ids = [int(t) if re.fullmatch("[0-9]{1,9}", t) else -1 for t in self.tokens]
        told = rest.get("provenance")
        text = str(told["prompt"]) if isinstance(told, dict) and "prompt" in told else " ".join(self.tokens)
        coords: dict[str, Any] = {
            "prompt": [0], "prompt_text": ("prompt", [text]), "n_tokens": ("prompt", [n]), "token_text": (RAW[::2], [self.tokens]),
            "token_id": (RAW[::2], np.array([ids if min(ids) >= 0 else [-1] * n], np.int32)), "position": (RAW[::2], [np.arange(n)]),
            "module": list(names.values()), "entry": ("module", list(names)),
        }  # fmt: skip
        if self.attention:
            coords |= {"layer": np.arange(len(self.attention)), "layer_entry": ("layer", list(self.attention))}
        meta = self.want("meta", rest["meta"], dict)
        about: dict[str, Any] = {
            "format": FORMAT, "format_version": FORMAT_VERSION, "kind": "activations", "model": str(meta.get("model_name", "")), "weights": "",
            "date": str(meta.get("timestamp", "")), "left_out": self.left_out, "sites": {}, "activity_cube": rest,
        }  # fmt: skip
        return xr.Dataset(variables, coords, about)


def write(cube: Any, path: str | Path) -> Path:
    """Write a cube of one prompt; returns ``path``. What has no place in an ActivityCube (heads, features) is named in its ``provenance``.

    Raises CubeError for several prompts, none of tokens, and numbers that are infinite.
    """
    data = cube.data
    if data.sizes["prompt"] != 1 or "token" not in data.dims:
        n = data.sizes["prompt"]
        has = f"{n} prompts: select one, as cube.select(prompt=0)" if "token" in data.dims else "no tokens: write it as .zarr"  # fmt: skip
        raise CubeError(f"ActivityCube JSON holds the tokens of one prompt; this cube has {has}.")
    here = np.flatnonzero(data.position.values[0] >= 0)
    cut = ("token", "query", "key") if data.sizes.get("query") == data.sizes["token"] else ("token",)
    one = data.isel(prompt=0, **dict.fromkeys(cut, here)).compute()
    try:
        document = _again(one) if "activity_cube" in data.attrs else _ours(one)
    except (LookupError, TypeError, AttributeError) as error:
        raise CubeError(f"The cube's attributes do not fit its numbers ({type(error).__name__}: {error}).") from None
    return files.write_text(path, json.dumps(document, indent=2, allow_nan=False))


def _plain(values: np.ndarray) -> Any:
    if np.isinf(values).any():
        raise CubeError("The cube has infinite numbers, which JSON has not: write it as .zarr.")
    return np.where(np.isnan(values), None, values).tolist()  # type: ignore[call-overload]


def _again(one: xr.Dataset) -> dict[str, Any]:
    """The document that was read, with the numbers that are (still) in the cube."""
    rest, n, layers, said = one.attrs["activity_cube"], one.sizes["token"], [], {}
    rows = {int(e): j for j, e in enumerate(one.entry.values)}
    heads = {int(e): j for j, e in enumerate(one.layer_entry.values)} if one.sizes.get("query") == n else {}
    for i, entry in enumerate(rest["layers"]):
        entry = dict(entry)
        if "core_metrics" in entry and i in rows:
            found = {m: f"module_{OURS.get(m, m)}" for m in entry["core_metrics"]}
            entry["core_metrics"] = {m: _plain(one[v].values[rows[i]]) for m, v in found.items() if v in one}
            if "hidden_states" in one and (entry.get("raw_tensors") or {}).get("hidden_states", 0) is None:
                entry["raw_tensors"] = entry["raw_tensors"] | {"hidden_states": [_plain(one.hidden_states.values[rows[i]])]}  # fmt: skip
        if "attention_scores" in entry and i in heads:
            entry["attention_scores"] = [_plain(one.pattern.values[heads[i]])]
        if ("core_metrics" not in entry or i in rows) and ("attention_scores" not in entry or i in heads):
            layers.append(entry)
    if one.attrs.get("kind") == "difference":
        said = {"kind": "difference", "prompts_subtracted": one.attrs.get("prompts_subtracted", "")}
    if "pattern" in one and not heads:
        said["left_out"] = "attention: only some of the tokens were selected"
    shape = rest["meta"].get("input_shape")
    meta = rest["meta"] | ({"input_shape": [*shape[:-1], n]} if shape else {})
    told = {"provenance": rest.get("provenance", {}) | said} if said else {}
    return rest | {"meta": meta, "tokens": one.token_text.values.tolist(), "layers": layers} | told


def _ours(one: xr.Dataset) -> dict[str, Any]:
    """One entry for each module, or for each layer and site; then the attention of each layer."""
    attrs, n, found = one.attrs, one.sizes["token"], []
    left_out, sites, raw = dict(attrs.get("left_out", {})), {}, {}  # type: dict[str, str], dict[Any, dict[str, np.ndarray]], dict[Any, np.ndarray]
    for key, v in one.data_vars.items():
        if "metric" in v.attrs and v.dims in (("layer", "token"), ("module", "token"), ("token",)):
            sites.setdefault((v.attrs["site"], v.dims[0]), {})[v.attrs["metric"]] = v.values.reshape(-1, n)
        elif v.attrs.get("says") == "activations" and v.dims[1:2] == ("token",) and len(v.dims) == 3:
            raw[v.attrs["site"], v.dims[0]] = v.values
            sites.setdefault((v.attrs["site"], v.dims[0]), {})
        elif key != "pattern" or v.dims != ATTENTION[1:] or v.sizes["query"] != n:
            left_out[str(key)] = f"{' × '.join(map(str, v.dims))}: an ActivityCube has tokens of modules alone"
    for (site, lead), metrics in sites.items():
        path = str(attrs.get("sites", {}).get(site, site))
        if missing := [m for m in OURS if OURS[m] not in metrics and m not in metrics]:
            left_out[f"{site}: {', '.join(missing)}"] = "not captured, so null"
        for j, label in enumerate([-1] if lead == "token" else one[lead].values.tolist()):
            core = {THEIRS.get(m, m): v[j] for m, v in metrics.items()}
            name = label if lead == "module" else path.replace("{}", str(label)) if "{}" in path or label == -1 else f"{path}.{label}"  # fmt: skip
            whole = raw[site, lead][j] if (site, lead) in raw else np.array(np.nan)
            if not all(np.isnan(v).all() for v in (whole, *core.values())):  # a site need not be in every layer
                values = {m: [None] * n for m in OURS} | {m: _plain(v) for m, v in core.items()}
                tensors = {} if np.isnan(whole).all() else {"raw_tensors": {"hidden_states": [_plain(whole)]}}
                found.append((j if lead == "module" else label, {"layer_name": name, "core_metrics": values} | tensors))
    layers = [entry for _, entry in sorted(found, key=lambda one: one[0])]
    if "pattern" in one and "pattern" not in left_out:
        for label, scores in zip(one.layer.values.tolist(), one.pattern.values, strict=True):
            layers.append({"layer_name": f"attention.{label}", "attention_scores": [_plain(scores)]})
    return {
        "meta": {"model_name": attrs.get("model", ""), "timestamp": attrs.get("date", ""), "input_shape": [1, n]},
        "tokens": one.token_text.values.tolist(), "layers": [{"layer_index": i} | entry for i, entry in enumerate(layers)],
        "provenance": attrs | {"left_out": left_out, "prompt": str(one.prompt_text.values)},
    }  # fmt: skip
