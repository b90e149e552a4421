"""Cubes as files: Zarr (a directory, one ``.zarr.zip``, or any fsspec address) and ActivityCube JSON.

A store is Zarr format 2, whose specification is finished and knows strings of fixed width: compressed chunks of about 2 MB along ``prompt``,
plain JSON beside them. Local files are written beside their place, under ``.{process}.{name}``, and moved there: whoever stops a writer finds the old
cube whole. Reading is lazy and runs nothing: only codecs and types that hold plain numbers and text are opened.
"""

from __future__ import annotations

import os
import re
import shutil
import warnings
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import fsspec  # type: ignore[import-untyped]
import numpy as np
import psutil
import xarray as xr
import zarr
from zarr.storage import FsspecStore, LocalStore, ZipStore

from mi_workshop import files
from mi_workshop.models import network

from . import activity_json
from .activity_json import ATTENTION, RAW
from .core import Cube
from .metrics import CubeError
from .provenance import FORMAT, FORMAT_VERSION, weights_hash

CHUNK, LARGEST = 2 << 20, 1 << 30  # bytes of a chunk: of those we write, and the largest we read
CODECS = {
    "blosc",
    "zstd",
    "lz4",
    "zlib",
    "gzip",
    "bz2",
    "lzma",
    "shuffle",
    "delta",
    "crc32",
    "crc32c",
    "bytes",
    "transpose",
}
DIMS = {*ATTENTION, *RAW, "d_head", "d_mlp", "d_sae", "rank"}
TOKENS = {"n_tokens": ("prompt",)} | dict.fromkeys(("token_text", "token_id", "position"), ("prompt", "token"))


def write(cube: Cube, path: str | Path) -> str | Path:
    """Write a cube by its suffix: ``.zarr``, ``.zarr.zip`` or ``.json``; an address (``s3://bucket/x.zarr``) must end in ``.zarr``. Returns ``path``.

    A local cube of that name is replaced; at an address nothing is. Raises CubeError for another suffix, a place where nothing can be written, and
    a cube that the format cannot hold.
    """
    name = _named(path)
    try:
        slash = next((k for k in cube.data.variables if "/" in str(k)), None)
        if slash is not None:
            raise CubeError(f"The variable {slash!r} cannot be written: a name in a Zarr store has no slash.")
        if "://" in name:
            fs, root = fsspec.url_to_fs(name)
            if any(fs.exists(f"{root}/{key}") for key in (".zmetadata", "zarr.json")):
                raise CubeError(f"At {name} there is a store already: delete it, or choose another name.")
            _save(cube.data, FsspecStore.from_url(name))
            return path
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        _restore(path)
        for left, pid in _leftovers(path):
            if not psutil.pid_exists(pid):
                shutil.rmtree(left) if left.is_dir() else left.unlink()
        if name.endswith(".json"):
            return activity_json.write(cube, path)
        return (
            files.write(path, lambda p: _pack(cube.data, p)) if name.endswith(".zip") else _directory(cube.data, path)
        )
    except (OSError, ImportError, ValueError) as error:
        if isinstance(error, CubeError):
            raise
        raise CubeError(f"{name} cannot be written: {_reason(error)}. Choose another place for it.") from None


def read(path: str | Path, model: Any = None) -> Cube:
    """The cube in a file, its numbers still there: they are read when they are needed. ``model``: the model it was captured from.

    Raises CubeError, which names the field, for what is not there, is no cube, is damaged, is of a newer version or of other weights than
    ``model``, and for codecs or types that are not plain numbers and text. Warns if parts are missing.
    """
    name = _named(path)
    if name.endswith(".json"):
        data = activity_json.read(name)
    else:
        try:
            data = _open(name)
        except Exception as error:  # whatever a stranger's metadata, a disk or a server brings about
            if isinstance(error, CubeError):
                raise
            raise CubeError(f"{name} cannot be read: {_reason(error)}.") from None
        data = _check(data, name)
        if "done" in data.coords and not (done := data.done.values.astype(bool)).all():
            warnings.warn(f"{done.sum()} of {done.size} prompts are there; the others are NaN: the same run again goes on, and its log says which have failed.", stacklevel=3)  # fmt: skip
    if model is not None and data.attrs.get("weights"):
        net = model.module if hasattr(model, "pixels") else network(model)
        if not hasattr(net, "state_dict") or weights_hash(net) != data.attrs["weights"]:
            raise CubeError(f"{name} was captured from {data.attrs.get('model')} with other weights than this model's.")
    return Cube(data, model)


def _named(path: str | Path) -> str:
    name = str(path).rstrip("/")
    if not name.endswith((".zarr",) if "://" in name else (".zarr", ".zarr.zip", ".json")):
        raise CubeError(f"{name} is no name of a cube: it ends in .zarr, .zarr.zip or .json (an address in .zarr).")
    return name


def _reason(error: Exception) -> str:
    said = (getattr(error, "strerror", None) or str(error) or "nothing more is known").strip().split("\n")[0]
    return f"{type(error).__name__}, {said[:200].rstrip('.')}"


# ------------------------------------------------------------------ writing
def _save(data: xr.Dataset, store: Any) -> None:
    """All chunks, empty ones too, then the consolidated metadata: a store that has them is whole."""
    data, encoding = data.drop_encoding().assign_attrs(variables=[str(k) for k in data.data_vars]), {}
    for name, v in data.variables.items():
        chunks = list(v.shape)
        for i in range(v.ndim):  # as much of the first axis as fits, one of it if even that is too large, and so on
            rest = v.dtype.itemsize * int(np.prod(chunks[i + 1 :], dtype=np.int64))
            chunks[i] = min(chunks[i], max(1, CHUNK // max(1, rest)))
            if rest <= CHUNK:
                break
        encoding[name] = {"chunks": [max(1, n) for n in chunks]}
        if v.chunks is not None:
            data = data.assign({name: (v.dims, v.chunk(dict(zip(v.dims, chunks, strict=True))).data, v.attrs)})
    data.to_zarr(store, mode="w", zarr_format=2, consolidated=False, encoding=encoding, write_empty_chunks=True)
    zarr.consolidate_metadata(store, zarr_format=2)


def _pack(data: xr.Dataset, place: Path) -> None:
    parts = place.with_name(f"{place.name}.parts")
    try:
        _save(data, parts)
        with zipfile.ZipFile(place, "w") as packed:
            for part in sorted(p for p in parts.rglob("*") if p.is_file()):
                packed.write(part, part.relative_to(parts))
    finally:
        shutil.rmtree(parts, ignore_errors=True)


def _directory(data: xr.Dataset, path: Path) -> Path:
    if path.exists() and not any((path / key).exists() for key in (".zgroup", "zarr.json")):
        raise CubeError(f"{path} is there and is no Zarr store: choose another name.")
    beside = path.with_name(f".{os.getpid()}.{path.name}")
    old = beside.with_name(f"{beside.name}.old")
    try:
        _save(data, beside)
        while beside.exists():
            if path.exists():
                shutil.rmtree(old, ignore_errors=True)
                os.rename(path, old)
            try:
                os.rename(beside, path)
            except OSError:
                if not path.exists():  # otherwise somebody else has put a cube there meanwhile
                    raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)
        _restore(path)
        if path.exists():
            shutil.rmtree(old, ignore_errors=True)
    return path


def _leftovers(path: Path) -> Iterator[tuple[Path, int]]:
    """What writers of ``path`` have beside it, and their processes."""
    for one in path.parent.iterdir() if path.parent.is_dir() else ():
        if match := re.fullmatch(rf"\.(\d+)\.{re.escape(path.name)}(\.old|\.parts)?", one.name):
            yield one, int(match[1])


def _restore(path: Path) -> None:
    """Put back the cube that a writer had moved away when it was killed."""
    old = [one for one, _ in _leftovers(path) if one.suffix == ".old"]
    if old and not path.exists():
        with suppress(OSError):  # somebody else was faster
            os.rename(max(old, key=os.path.getmtime), path)


# ------------------------------------------------------------------ reading
class _Directory(LocalStore):
    """A directory that says when another cube was moved into its place, rather than mixing the two."""

    def __init__(self, root: Path | str, *, read_only: bool = False) -> None:
        super().__init__(root, read_only=read_only)
        self.first = self._stamp()

    def _stamp(self) -> tuple[int, int] | None:
        with suppress(OSError):
            found = os.stat(self.root / ".zgroup")
            return found.st_ino, found.st_mtime_ns
        return None

    async def get(self, key: str, prototype: Any = None, byte_range: Any = None) -> Any:
        if self._stamp() != self.first:
            raise CubeError(f"The cube at {self.root} was replaced or removed after it was read: read it again.")
        return await super().get(key, prototype, byte_range)


def _open(name: str) -> xr.Dataset:
    store: Any
    keys: Iterable[str] = ()
    path = Path(name)
    if "://" in name:
        store = FsspecStore.from_url(name, read_only=True)
    elif name.endswith(".zip"):
        with zipfile.ZipFile(path) as packed:
            keys, store = packed.namelist(), ZipStore(path, mode="r")
    else:
        _restore(path)
        os.listdir(path)  # says whether it is there and may be read
        keys, store = (p.relative_to(path).as_posix() for p in path.rglob("[!.]*")), _Directory(path, read_only=True)
    there = Counter(key.split("/")[0] for key in keys if re.search("/[0-9.]+$", key))
    group = zarr.open_group(store, mode="r", use_consolidated="://" in name or None)
    opened = xr.backends.ZarrStore(group, "r", use_zarr_fill_value_as_mask=False)
    for key, array in opened.arrays():
        meta: Any = array.metadata
        codecs = meta.codecs if meta.zarr_format == 3 else [*(meta.filters or ()), *([meta.compressor] if meta.compressor else [])]  # fmt: skip
        odd = {getattr(c, "codec_id", None) or c.to_dict()["name"] for c in codecs} - CODECS
        if odd or array.dtype.kind not in "biufUS":
            what = f"the codec {min(odd)!r}" if odd else f"the type {array.dtype}"
            raise CubeError(f"{name} is not opened: {key} has {what}, and a cube holds plain numbers and text alone.")
        eager = opened.open_store_variable(key).dims == (key,)
        if max(np.prod(array.chunks, dtype=float) * array.dtype.itemsize, array.nbytes if eager else 0) > LARGEST:
            raise CubeError(f"{name} is not opened: {key} asks for more than {LARGEST >> 30} GB at once.")
        if "://" not in name and "done" not in opened.members and array.nchunks > there[key]:
            warnings.warn(f"{name}: {key} has {there[key]} of its {array.nchunks} chunks; the others are read as empty.", stacklevel=4)  # fmt: skip
    return xr.open_dataset(opened, chunks={}, mask_and_scale=False, decode_times=False, concat_characters=False)


def _check(data: xr.Dataset, name: str) -> xr.Dataset:
    """The Dataset in its own order. Raises CubeError unless it is a cube."""
    kind, version = data.attrs.get("format"), data.attrs.get("format_version")
    if kind != FORMAT:
        raise CubeError(f"{name} is a Zarr store but no activation cube: its attribute 'format' is {kind!r}, not {FORMAT!r}.")  # fmt: skip
    if type(version) is not int:
        raise CubeError(f"{name}: format_version is {version!r}, not a number.")
    if version > FORMAT_VERSION:
        raise CubeError(f"{name} is of format version {version}, and this mi-workshop reads {FORMAT_VERSION}: upgrade it.")  # fmt: skip
    wanted = {"prompt": ("prompt",), "prompt_text": ("prompt",)} | ({"module": ("module",)} if "module" in data.dims else {})  # fmt: skip
    for coord, dims in (wanted | (TOKENS if "token" in data.dims else {})).items():
        if coord not in data.coords or data[coord].dims != dims:
            raise CubeError(f"{name} lacks the coordinate {coord!r} of {' × '.join(dims)}.")
    for key, v in data.data_vars.items():
        site, odd = v.attrs.get("site"), {*map(str, v.dims)} - DIMS
        if not isinstance(site, str) or not isinstance(v.attrs.get("metric", ""), str):
            raise CubeError(f"{name}: the variable {key!r} has no attribute 'site' (or 'metric') that is a text.")
        if v.dims[:1] != ("prompt",) or not all(dim.startswith(f"{site}_") for dim in odd):
            raise CubeError(f"{name}: the variable {key!r} has the axes {', '.join(map(str, v.dims))}: the first is not prompt, or one is unknown.")  # fmt: skip
    order = list(data.attrs.pop("variables", []))
    return data[sorted(data.data_vars, key=lambda k: order.index(k) if k in order else len(order))]
