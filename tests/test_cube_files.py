"""Cubes as files: what was written is read again, lazily; nothing of an old cube is lost; nothing of a stranger's file runs."""

import json
import os
import pickle
import signal
import warnings

import dask.array
import fsspec
import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from mi_workshop.cube import Cube, CubeError, activity_json, capture, files

PROMPTS = ["Fact: the capital of the state containing Dallas is", "Fact: the capital of France is"]
NAMES = ["cube.zarr", "cube.zarr.zip"]


@pytest.fixture(scope="module")
def cube(atlas):
    return capture(atlas, PROMPTS, ["resid_post", "mlp_out", "pattern"], raw=["pattern", "resid_post"], features=3)


@pytest.fixture(scope="module")
def pictures(cnn):
    return capture(cnn, [np.full((64, 64, 3), level, np.uint8) for level in (9, 200)], "modules")


def theirs(**changes):
    """What mr-recon-tracer writes with attention and raw tensors."""
    rows = {"energy": [1.5, 2.0], "mean_activation": [0.1, -0.1], "std_activation": [1.0, 3.0]}
    layers = [
        {"layer_index": 0, "layer_name": "wte", "core_metrics": rows, "raw_tensors": {"hidden_states": [[[1.0, 2.0], [3.0, 4.0]]]}},
        {"layer_index": 1, "layer_name": "wte", "core_metrics": {"energy": [0.1, None], "entropy": [2, 3]}},
        {"layer_index": 0, "layer_name": "attention.0", "attention_scores": [[[[1.0, 0.0], [0.25, 0.75]]]]},
    ]  # fmt: skip
    meta = {"model_name": "GPT2LMHeadModel", "timestamp": "2025-12-14T09:49:59", "input_shape": [1, 2], "seed": 3}
    return {"meta": meta, "tokens": ["15496", "2159"], "layers": layers, "provenance": {"by": ["me"]}} | changes


def put(path, document):
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def parsed(path):
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["ragged", "difference", "selected", "pictures"])
def test_round_trip(cube, pictures, tmp_path, name, kind):
    """A neighbour would get other numbers, labels, order or types than were captured."""
    one = {"ragged": cube, "difference": cube.select(token=3) - cube.select(token=2),
           "selected": cube.select(layer=[1, 3], token="capital"), "pictures": pictures}[kind]  # fmt: skip
    read = Cube.read(one.write(tmp_path / name))
    xr.testing.assert_identical(read.data.compute(), one.data)
    assert list(read.data.data_vars) == list(one.data.data_vars)
    assert {k: v.dtype for k, v in read.data.variables.items()} == {k: v.dtype for k, v in one.data.variables.items()}


def test_address(cube, atlas):
    """Cubes on S3 or Google Cloud could not be shared; an old one there could be overwritten half-way."""
    path = "memory://test_cube_files/x.zarr"
    xr.testing.assert_identical(Cube.read(cube.write(path), atlas).data.compute(), cube.data)
    with pytest.raises(CubeError, match="there is a store already"):
        cube.write(path)
    fsspec.filesystem("memory").rm("/test_cube_files/x.zarr/.zmetadata")
    for gone in (path, "memory://nothing/y.zarr"):
        with pytest.raises(CubeError, match="cannot be read"):
            Cube.read(gone)
    with pytest.raises(CubeError, match="ends in .zarr"):
        Cube.read("https://example.org/cube.json")


@pytest.mark.parametrize("name", NAMES)
def test_lazy(cube, tmp_path, monkeypatch, name):
    """A cube of a million prompts would not fit into memory: opening or selecting must read no number of it."""
    path = cube.write(tmp_path / name)
    seen = []
    for store in (zarr.storage.LocalStore, zarr.storage.ZipStore):
        get = store.get
        monkeypatch.setattr(
            store, "get", lambda self, key, *a, get=get, **k: seen.append(key) or get(self, key, *a, **k)
        )
    read = Cube.read(path)
    part = read.select(prompt=0, layer=2)
    assert all(isinstance(v.data, dask.array.Array) for v in part.data.data_vars.values())
    loaded = {key.split("/")[0] for key in seen if key[-1].isdigit()}
    assert loaded <= {"prompt", "layer", "prompt_text"}, loaded
    assert np.array_equal(part["pattern"].values, cube.data.pattern.values[:1, 2:3], equal_nan=True)


def test_algebra_of_lazy(cube, tmp_path):
    """What works on a fresh cube would fail, or come out otherwise, on one that was read."""
    read = Cube.read(cube.write(tmp_path / "x.zarr"))
    for ask in (
        lambda c: c.select(token="capital"), lambda c: c.select(token=-2, layer=1), lambda c: c.select(prompt="France", site="pattern"),
        lambda c: c.select(token="last") - c.select(prompt=0, token="last"), lambda c: c.select(prompt=0) - c.select(prompt=0),
    ):  # fmt: skip
        xr.testing.assert_identical(ask(read).data.compute(), ask(cube).data)
    for by in (None, "token", "position", "prompt"):
        assert read.statistics("norm", by=by).equals(cube.statistics("norm", by=by))


def test_chunks(tmp_path):
    """One prompt of a big cube would cost reading all of it, or a store would be millions of files."""
    norms = (("prompt", "layer", "token"), np.zeros((3000, 12, 64), np.float32), {"site": "resid_post"})
    data = xr.Dataset({"resid_post_norm": norms})
    files._save(data, tmp_path / "x.zarr")
    sizes = [np.prod(a.chunks) * a.dtype.itemsize for _, a in zarr.open_group(tmp_path / "x.zarr", mode="r").arrays()]
    assert 1 << 20 <= max(sizes) <= 4 << 20


@pytest.mark.parametrize(("name", "at"), [(NAMES[0], "save"), (NAMES[0], "first move"), (NAMES[0], "second move"), (NAMES[1], "save"), ("cube.json", "first move")])  # fmt: skip
def test_killed_writer(cube, tmp_path, name, at):
    """A killed job would take the cube with it that stood there before."""
    old, new = cube.select(prompt=0), cube.select(prompt=1)
    path = old.write(tmp_path / name)
    read = (lambda: Cube.read(path).data["mlp_out_norm"].values) if name != "cube.json" else (lambda: parsed(path))
    before, pid = read(), os.fork()
    if not pid:
        seen = []

        def die(*args, **kwargs):
            seen.extend([args] if at == "save" or os.path.dirname(args[0]) == str(tmp_path) else [])
            if len(seen) and (at != "second move" or len(seen) == 2 or not name.endswith("zarr")):
                os.kill(os.getpid(), signal.SIGKILL)
            return rename(*args, **kwargs)

        rename = os.rename
        os.rename = os.replace = die
        if at == "save":
            zarr.consolidate_metadata = die
        new.write(path)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    left = [p.name for p in tmp_path.iterdir() if p != path]
    assert left and path.exists() != (name == "cube.zarr" and at == "second move")
    assert np.array_equal(read(), before, equal_nan=True) if name != "cube.json" else read() == before
    new.write(path)
    assert [p.name for p in tmp_path.iterdir()] == [name], "the next writer cleans up"
    assert Cube.read(path).prompts == [PROMPTS[1]]


def test_replaced_while_open(cube, tmp_path):
    """Half of the numbers would silently be another cube's."""
    path = cube.write(tmp_path / "x.zarr")
    read = Cube.read(path)
    read.select(prompt=[1]).write(path)
    with pytest.raises(CubeError, match="was replaced or removed"):
        _ = read.data.pattern.values
    assert Cube.read(path).prompts == PROMPTS[1:]


class Trap:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("consolidated", [True, False])
@pytest.mark.parametrize("name", ["prompt", "pattern"])
def test_nothing_unpickled(cube, tmp_path, name, consolidated):
    """A cube from the web could run any program when it is opened."""
    path, mark = cube.write(tmp_path / "x.zarr"), tmp_path / "mark"
    meta = json.loads((path / name / ".zarray").read_text()) | {"dtype": "|O", "filters": [{"id": "pickle", "protocol": 5}], "compressor": None, "fill_value": None}  # fmt: skip
    (path / name / ".zarray").write_text(json.dumps(meta))
    for chunk in (path / name).glob("[0-9]*"):
        chunk.write_bytes(pickle.dumps(Trap(mark)))
    if consolidated:
        whole = json.loads((path / ".zmetadata").read_text())
        whole["metadata"][f"{name}/.zarray"] = meta
        (path / ".zmetadata").write_text(json.dumps(whole))
    else:
        (path / ".zmetadata").unlink()
    with pytest.raises(CubeError, match="'pickle'|type object|cannot be read"):
        Cube.read(path)
    meta |= {"dtype": "<f4", "filters": None, "compressor": {"id": "pickle", "protocol": 5}}
    (path / name / ".zarray").write_text(json.dumps(meta))
    (path / ".zmetadata").unlink(missing_ok=True)
    with pytest.raises(CubeError, match="'pickle'"):
        Cube.read(path)
    assert not mark.exists()
    pickle.loads(pickle.dumps(Trap(mark)))
    assert mark.exists(), "the trap works"


DAMAGE = {
    "no attribute": (lambda d: d.attrs.pop("format"), "no activation cube: its attribute 'format' is None"),
    "newer": (lambda d: d.attrs.update(format_version=9), "of format version 9, .* upgrade it"),
    "version": (lambda d: d.attrs.update(format_version="1"), "format_version is '1'"),
    "prompt": (lambda d: d.drop_vars("prompt_text"), "lacks the coordinate 'prompt_text'"),
    "position": (lambda d: d.drop_vars("position"), "lacks the coordinate 'position' of prompt × token"),
    "site": (lambda d: d.mlp_out_norm.attrs.pop("site"), "variable 'mlp_out_norm' has no attribute 'site'"),
    "axis": (lambda d: d.rename(head="heads"), "'pattern' has the axes prompt, layer, heads"),
    "order": (lambda d: d.transpose("layer", ...), "'feature_count' has the axes layer, prompt"),
    "type": (lambda d: d.assign_coords(prompt=np.array(["2020", "2021"], "M8[ns]").astype("c16")), "type complex128"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_not_a_cube(cube, tmp_path, damage, zarr_format):
    """Whoever opens another file, or one of tomorrow, would see a traceback of Zarr's, or wrong numbers."""
    change, says = DAMAGE[damage]
    data = cube.data.copy(deep=True)
    changed = change(data)
    data = changed if isinstance(changed, xr.Dataset) else data
    with warnings.catch_warnings(action="ignore"):
        data.to_zarr(tmp_path / "x.zarr", zarr_format=zarr_format)
    with pytest.raises(CubeError, match=says):
        Cube.read(tmp_path / "x.zarr")


def test_other_writers(cube, tmp_path):
    """A cube that another tool wrote as Zarr 3 could not be opened."""
    with warnings.catch_warnings(action="ignore"):
        cube.data.to_zarr(tmp_path / "x.zarr", zarr_format=3)
        read = Cube.read(tmp_path / "x.zarr")
        xr.testing.assert_equal(read.data.compute(), cube.data)


@pytest.mark.parametrize("name", NAMES)
def test_damaged(cube, tmp_path, name):
    """A download that broke off would be a traceback."""
    path = tmp_path / name
    with pytest.raises(CubeError, match=f"{name} cannot be read: FileNotFoundError"):
        Cube.read(path)
    cube.write(path)
    broken = path if path.is_file() else path / ".zmetadata"
    for cut in (0, 1, broken.stat().st_size // 2, broken.stat().st_size - 5):
        broken.write_bytes(broken.read_bytes()[:cut])
        with pytest.raises(CubeError, match="cannot be read"):
            Cube.read(path)


def test_missing_parts(cube, tmp_path):
    """Prompts that are not done, or a chunk that was lost, would pass for measured."""
    partly = Cube(cube.data.assign_coords(done=("prompt", [True, False])))
    with pytest.warns(UserWarning, match="1 of 2 prompts are there; the others are NaN"):
        Cube.read(partly.write(tmp_path / "x.zarr"))
    (cube.write(tmp_path / "y.zarr") / "mlp_out_norm" / "0.0.0").unlink()
    with pytest.warns(UserWarning, match="mlp_out_norm has 0 of its 1 chunks"):
        Cube.read(tmp_path / "y.zarr")


def test_other_model(cube, atlas, cnn, tmp_path):
    """Ablating in a model that the cube is not of would be taken for an answer."""
    path = cube.write(tmp_path / "x.zarr")
    assert Cube.read(path, atlas).model is atlas
    for other in (cnn, "atlas"):
        with pytest.raises(CubeError, match="captured from atlas with other weights"):
            Cube.read(path, other)


def test_where_it_cannot_be_written(cube, tmp_path):
    """A typing error in a name would cost a folder, or end in a traceback."""
    (tmp_path / "x.zarr").mkdir()
    (tmp_path / "x.zarr" / "thesis.txt").write_text("all of it")
    (tmp_path / "file").write_text("")
    for path, says in (("x.zarr", "is no Zarr store"), ("x.nc", "ends in .zarr"), ("file/x.zarr", "cannot be written"), ("x.json", "2 prompts: select one")):  # fmt: skip
        with pytest.raises(CubeError, match=says):
            cube.write(tmp_path / path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "x.zarr"] and list((tmp_path / "x.zarr").iterdir())
    with pytest.raises(CubeError, match="has no slash"):
        Cube(cube.data.rename(pattern="a/b")).write(tmp_path / "y.zarr")


def test_public_activity_cube(real_file, tmp_path):
    """The reader's own file would come back changed, or could not be opened at all."""
    path = real_file("activity_cube_gpt2.json")
    cube = Cube.read(path)
    assert dict(cube.data.sizes) == {"prompt": 1, "module": 113, "token": 2} and list(cube.metrics.values())[0] == (
        "module",
        "norm",
    )
    assert cube.data.token_id.values.tolist() == [[15496, 2159]]
    assert parsed(cube.write(tmp_path / "a.json")) == parsed(path)
    assert parsed(Cube.read(cube.write(tmp_path / "a.zarr")).write(tmp_path / "b.json")) == parsed(path)


def test_their_json(tmp_path):
    """Attention, raw tensors, missing metrics or keys of one's own would be lost on the way through a cube."""
    cube = Cube.read(put(tmp_path / "a.json", theirs()))
    assert parsed(cube.write(tmp_path / "b.json")) == theirs()
    assert np.isnan(cube["std"].values[0, 1]).all() and cube["entropy"].values[0, 1].tolist() == [2, 3]
    assert cube.data.pattern.dims == activity_json.ATTENTION and cube.raw == ["pattern", "hidden_states"]
    one = parsed(cube.select(token=1).write(tmp_path / "c.json"))
    assert (
        one["tokens"] == ["2159"]
        and one["layers"][1]["core_metrics"] == {"energy": [None], "entropy": [3]}
        and len(one["layers"]) == 2
    )
    other = parsed(Cube(cube.data.assign_attrs(kind="difference")).write(tmp_path / "d.json"))
    assert other["provenance"]["kind"] == "difference"


def test_ours_as_json(cube, atlas, pictures, tmp_path):
    """The tracer's visualizer, which indexes every entry by token and metric, could not draw what we capture."""
    document = parsed(cube.select(prompt=1).write(tmp_path / "a.json"))
    n = len(cube.tokens(1))
    assert document["tokens"] == cube.tokens(1) and [e["layer_index"] for e in document["layers"]] == list(range(12))
    for entry in document["layers"][:8]:
        assert [len(entry["core_metrics"][m]) for m in activity_json.OURS] == [n] * 3, entry["layer_name"]
    assert document["layers"][0]["layer_name"] == "blocks.0.hook_resid_post"
    assert document["layers"][0]["core_metrics"]["energy"] == cube["resid_post", "norm"].values[1, 0, :n].tolist()
    assert np.shape(document["layers"][8]["attention_scores"]) == (1, 4, n, n)
    assert {"feature_id", "pattern_norm"} <= set(document["provenance"]["left_out"])
    again = Cube.read(tmp_path / "a.json")
    where = [f"blocks.{i}.hook_resid_post" for i in range(4)]
    whole = again.data.hidden_states.sel(module=where).values[0], cube.data.resid_post.values[1, :, :n]
    assert np.array_equal(*whole), "raw tensors were asked for and are not in the file"
    assert parsed(again.write(tmp_path / "b.json")) == document and again.prompts == PROMPTS[1:]
    odd = capture(atlas, PROMPTS[0], "modules", ["kurtosis"])
    document = parsed(odd.write(tmp_path / "c.json"))
    assert (
        document["layers"][0]["core_metrics"]["energy"] == [None] * 11
        and "module: energy, mean_activation, std_activation" in document["provenance"]["left_out"]
    )
    with pytest.raises(CubeError, match="infinite numbers"):
        Cube(odd.data * np.inf, None).write(tmp_path / "d.json")
    with pytest.raises(CubeError, match="no tokens"):
        pictures.select(prompt=0).write(tmp_path / "e.json")


def changed(where, value):
    """A good document with one field replaced (or dropped)."""
    document = theirs()
    *path, last = where
    at = document
    for key in path:
        at = at[key]
    if value is None:
        del at[last]
    else:
        at[last] = value
    return document


CORE = ("layers", 0, "core_metrics")
MALFORMED = [
    ("", "cannot be read as JSON"), ("[" * 10**6, "nested too deeply"), ("[]", "the whole is not an object"), ("{}", "tokens is not there"),
    (changed(("tokens",), "ab"), "tokens is not a list"), (changed(("tokens", 1), 7), r"tokens\[1\] is not a text"), (changed(("tokens",), []), "tokens is empty"),
    (changed(("layers",), {}), "layers is not a list"), (changed(("layers",), []), "neither metrics nor attention"), (changed(("meta",), 3), "meta is not an object"),
    (changed(("layers", 1), "x"), r"layers\[1\] is not an object"), (changed(("layers", 0, "layer_name"), None), r"layers\[0\].layer_name is not there"),
    (changed(CORE, [1]), "core_metrics is not an object"), (changed((*CORE, "energy"), [1.0] * 5), r"layers\[0\].core_metrics.energy has 5 numbers for 2 tokens"),
    (changed((*CORE, "energy"), [1.0, "2"]), "energy is not a list of finite numbers"), (changed((*CORE, "energy"), 1.0), "energy is not a list of finite numbers"),
    (changed((*CORE, "energy"), [True, False]), "energy is not"), (changed((*CORE, "energy"), [[1], [2, 3]]), "energy is not"), (changed((*CORE, "energy"), [{}, 1]), "energy is not"),
    (json.dumps(theirs()).replace("1.5", "1e400"), "energy is not a list of finite"), (json.dumps(theirs()).replace("1.5", "9" * 400), "energy is not a list of finite"),
    (changed((*CORE, "norm"), [1, 2]), "has 'energy', no name of a metric or one that is there twice"), (changed((*CORE, "../x"), [1, 2]), "has '../x', no name"),
    (changed(("layers", 2, "attention_scores"), [[[[1.0]]]]), r"layers\[2\].attention_scores has 1 × 1 × 1 × 1 numbers for 2 tokens"),
    (changed(("layers", 2, "attention_scores"), [[[1.0]]]), "attention_scores is not lists in"),
    (changed(("layers", 0, "raw_tensors", "hidden_states"), [[[1.0]]]), "hidden_states has 1 × 1 × 1 numbers"),
]  # fmt: skip


@pytest.mark.parametrize(("document", "says"), MALFORMED, ids=[says[:40] for _, says in MALFORMED])
def test_malformed_json(tmp_path, document, says):
    """A file of a stranger's would end in a traceback that does not say what is wrong with it."""
    with pytest.raises(CubeError, match=says):
        Cube.read(put(tmp_path / "a.json", document))


values = st.recursive(st.none() | st.booleans() | st.floats(allow_subnormal=False) | st.integers() | st.text(max_size=3), lambda one: st.lists(one, max_size=3) | st.dictionaries(st.sampled_from(["layer_name", "core_metrics", "energy", "attention_scores", "raw_tensors", "hidden_states", "prompt"]), one, max_size=3), max_leaves=8)  # fmt: skip
PLACES = [("meta",), ("tokens",), ("layers",), ("provenance",), ("layers", 0), CORE, (*CORE, "energy"), ("layers", 2, "attention_scores"), ("layers", 0, "raw_tensors"), ("meta", "input_shape")]  # fmt: skip


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(PLACES), values)
def test_any_json(tmp_path_factory, where, value):
    """As above, for what nobody has thought of: a document is read and written, or refused in a sentence."""
    path = tmp_path_factory.getbasetemp() / "any.json"
    try:
        cube = Cube.read(put(path, changed(where, value)))
        cube.write(path)
    except CubeError as error:
        assert "\n" not in str(error)
