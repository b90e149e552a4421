"""Many prompts: the numbers of one prompt at a time, nothing lost, nothing done twice, nobody let in."""

import errno
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from click.testing import CliRunner

import mi_workshop as mi
from mi_workshop import fleet
from mi_workshop.cli import main
from mi_workshop.fleet import cluster, jobs, store

DALLAS = "Fact: the capital of the state containing Dallas is"
OAKLAND = "Fact: the capital of the state containing Oakland is"
HERE = {"workers": 0, "progress": False}


@pytest.fixture(scope="module")
def prompts(atlas):
    return [s.prompt for s in atlas.world.facts]


@pytest.fixture(scope="module")
def edited():
    """Atlas with other weights: no installed package has them."""
    model = mi.load("atlas")
    with torch.no_grad():
        model.replacement.blocks[2].attn.W_O.mul_(1.5)
    return model


class Spy(fleet.Job):
    """Says who worked on a prompt, and kills its worker: once for a prompt with "once", always for one with "Austin"."""

    do = "spy"

    def one(self, model, item):
        marker = Path(self.options["folder"]) / "once"
        if "Austin" in item or ("Dallas" in item and not marker.exists()):
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return {
            "pid": os.getpid(),
            "object": id(model),
            "threads": torch.get_num_threads(),
            "top": model.top(item, 1)[0][0],
        }

    def keep(self, store, rows, data):
        everyone = [psutil.Process(), *psutil.Process().children(recursive=True)]
        listening = [c.laddr.ip for p in everyone for c in p.net_connections() if c.status == psutil.CONN_LISTEN]
        return [found | {"listening": listening} for found in data]


def lines(out):
    return [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]


def same(cube, plain):
    """All but the last bits of numbers, which depend on how many rows are multiplied at once."""
    for name, v in plain.data.variables.items():
        if v.dtype.kind == "f":
            np.testing.assert_allclose(cube.data[name].values, v.values, rtol=2e-5, atol=1e-6, err_msg=str(name))
        else:
            assert cube.data[name].values.tolist() == v.values.tolist(), name
        assert cube.data[name].dims == v.dims, name
    different = {k for k in plain.data.attrs if cube.data.attrs[k] != plain.data.attrs[k]}
    assert different <= {"date"}, different


def test_capture_equals_capture(atlas, prompts, tmp_path):
    """Numbers that depend on how prompts were put into batches could not be compared with anything."""
    some = prompts[:20] + prompts[-20:]
    how = {"sites": ["resid_post", "pattern"], "raw": "pattern", "features": 3}
    cube = fleet.capture(atlas, some, tmp_path / "a", **how, batch=16, **HERE)
    plain = mi.capture(atlas, some, **how)
    same(cube, plain)
    assert (
        cube.data.done.values.all() and cube.tokens(3) == plain.tokens(3) and list(cube.metrics) == list(plain.metrics)
    )
    back = fleet.capture(atlas, some[::-1], tmp_path / "b", batch=7, **HERE)
    np.testing.assert_allclose(back.data.resid_post_norm.values[::-1], cube.data.resid_post_norm.values, rtol=2e-5)


def test_trace_and_swap_equal_one_by_one(atlas, graph, tmp_path):
    """A table of a thousand graphs is worth nothing if a graph in it is not the one that the prompt has."""
    found = fleet.trace(atlas, [DALLAS, OAKLAND], tmp_path / "t", **HERE)
    assert found.graph(0).to_json() == mi.AttributionGraph.load(json.loads(json.dumps(graph.to_json()))).to_json()
    assert found.table.top.tolist() == ["Austin", "Sacramento"] and found.table.replacement_score[0] == pytest.approx(
        graph.scores.replacement
    )
    rows = [(DALLAS, "Texas", "California"), (OAKLAND, "California", "Texas")]
    swapped = fleet.swap(atlas, rows, out=tmp_path / "s", n_random=3, **HERE)
    assert swapped.table.after.tolist() == ["Sacramento", "Austin"]
    plain = json.loads(json.dumps(mi.swap(atlas, DALLAS, "Texas", "California", n_random=3).to_dict()))
    assert {k: v for k, v in swapped.rows[0].items() if k not in ("row", "status")} == plain
    with pytest.raises(fleet.FleetError, match="old place"):
        fleet.swap(atlas, DALLAS, "Texas", out=tmp_path / "x")


def test_poisoned_prompts_are_recorded_and_retried(atlas, prompts, tmp_path, monkeypatch):
    """One bad line of a corpus would cost all the others."""
    bad = [prompts[0], "Fact: the capital of Atlantis is", prompts[1], "", prompts[2]]
    cube = fleet.capture(atlas, bad, tmp_path / "a", **HERE)
    assert cube.data.done.values.tolist() == [True, False, True, False, True] and cube.prompts == bad
    assert np.isfinite(cube.data.resid_post_norm.values[[0, 2, 4], :, 0]).all()
    assert np.isnan(cube.data.resid_post_norm.values[[1, 3]]).all() and (cube.data.token_id.values[[1, 3]] == -1).all()
    failed = fleet.Results(tmp_path / "a").failed
    assert failed.index.tolist() == [1, 3] and "Atlantis" in failed.error[1] and "empty" in failed.error[3]
    size = (tmp_path / "a/results.jsonl").stat().st_size
    fleet.capture(atlas, bad, tmp_path / "a", **HERE)
    assert (tmp_path / "a/results.jsonl").stat().st_size == size, "what has failed is not tried again unasked"
    monkeypatch.setattr(jobs, "capture", lambda model, some, **options: mi.capture(model, [prompts[3] if p in ("", bad[1]) else p for p in some], **options))  # fmt: skip
    cube = fleet.capture(atlas, bad, tmp_path / "a", retry_failed=True, **HERE)
    assert cube.data.done.values.all() and fleet.Results(tmp_path / "a").failed.empty
    with pytest.raises(fleet.FleetError, match="none of these prompts"):
        fleet.capture(atlas, ["", "Atlantis"], tmp_path / "b", **HERE)


def test_full_disk_keeps_what_is_finished(atlas, prompts, tmp_path, monkeypatch):
    """A night's work lost to the last gigabyte."""
    some, real, calls = prompts[:30], store.fill, []

    def full(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(*arguments)

    monkeypatch.setattr(jobs, "fill", full)
    with pytest.raises(fleet.FleetError, match="disk is full.*10 of 30 prompts done"):
        fleet.capture(atlas, some, tmp_path, batch=10, **HERE)
    done = lines(tmp_path)
    with (tmp_path / "results.jsonl").open("a") as file:
        file.write('{"row": 11, "sta')  # as a disk leaves it
    cube = fleet.capture(atlas, some, tmp_path, batch=10, **HERE)
    assert len(calls) == 4 and cube.data.done.values.all()
    assert fleet.Results(tmp_path).counts == (30, 0, 30) and [r["row"] for r in fleet.Results(tmp_path).rows] == list(
        range(30)
    )
    assert (tmp_path / "results.jsonl").read_text().startswith("".join(json.dumps(line) + "\n" for line in done))


def test_other_folders_are_refused(atlas, edited, prompts, tmp_path):
    """Two jobs in one folder would be one wrong cube."""
    some = prompts[:3]
    fleet.capture(atlas, some, tmp_path / "a", **HERE)
    for what, model, texts, how in (
        ("prompts", atlas, prompts[1:4], {}), ("weights", edited, some, {}), ("metrics", atlas, some, {"metrics": "max"}), ("metrics", atlas, some, {"metrics": {"norm": lambda x: x[..., 0]}}),
    ):  # fmt: skip
        with pytest.raises(fleet.FleetError, match=f"another job: {what}"):
            fleet.capture(model, texts, tmp_path / "a", **how, **HERE)
    with pytest.raises(fleet.FleetError, match="another job: do"):
        fleet.trace(atlas, some, tmp_path / "a", **HERE)
    (tmp_path / "b").mkdir()
    (tmp_path / "b/thesis.tex").write_text("mine")
    with pytest.raises(fleet.FleetError, match="thesis.tex"):
        fleet.capture(atlas, some, tmp_path / "b", **HERE)
    with pytest.raises(fleet.FleetError, match="no job.json"):
        fleet.read(tmp_path / "b")
    with pytest.raises(mi.cube.CubeError, match="no site"):
        fleet.capture(atlas, some, tmp_path / "c", sites="resid_pots", **HERE)
    assert fleet.capture(atlas, some, tmp_path / "c", sites="resid_post", **HERE).data.done.values.all()
    with pytest.raises(fleet.FleetError, match="at least one prompt"):
        fleet.capture(atlas, [], tmp_path / "d", **HERE)


def test_unreachable_scheduler(atlas, tmp_path):
    """A wrong address would look like a run that has not begun yet."""
    start = time.perf_counter()
    for address in ("tcp://127.0.0.1:9", "nowhere"):
        with pytest.raises(fleet.FleetError, match="no Dask scheduler at"):
            fleet.trace(atlas, [DALLAS], tmp_path / "a", scheduler=address, progress=False)
    assert time.perf_counter() - start < 60


def test_workers_are_killed_and_nobody_else_gets_in(edited, prompts, tmp_path):
    """A worker that dies costs its own prompt at most; other users of the machine reach no port; an edited model is the one that runs."""
    some = [DALLAS, "Fact: the capital of the state containing Austin is", *prompts[:6]]
    assert len(pickle.dumps((jobs.Recipe("atlas", "plt", torch.float32, "cpu", "sha256:0"), fleet.Job(), some))) < 5000
    found = fleet.run(
        edited, some, Spy({"folder": str(tmp_path)}, batch=4), tmp_path / "out", workers=1, progress=False
    )
    assert (tmp_path / "once").exists() and found.counts == (7, 1, 8)
    assert found.failed.index.tolist() == [1] and "killed" in found.failed.error[1]
    done = [row for row in found.rows if row["status"] == "done"]
    assert [row["row"] for row in done] == [0, 2, 3, 4, 5, 6, 7]
    ours = {ip for row in done for ip in row["listening"]}
    assert ours == {"127.0.0.1"}, ours
    assert all(len({r["object"] for r in done if r["pid"] == pid}) == 1 for pid in {r["pid"] for r in done}), (
        "one model in a process"
    )
    assert os.getpid() not in {r["pid"] for r in done} and {r["threads"] for r in done} == {cluster.CPU_COUNT}
    assert [row["top"] for row in done] == [edited.top(some[row["row"]], 1)[0][0] for row in done]


def test_killed_program_goes_on(atlas, prompts, tmp_path):
    """Whoever stops the program, or loses the machine, does the work again."""
    some, out = prompts[:1200], tmp_path / "out"
    (tmp_path / "prompts.txt").write_text("\n\n".join(some))
    command = [sys.executable, "-c", "from mi_workshop.cli import main; main()", "batch", str(tmp_path / "prompts.txt"), "--out", str(out), "--workers", "1"]  # fmt: skip
    with subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
        while run.poll() is None and not ((out / "results.jsonl").exists() and lines(out)):
            time.sleep(0.01)
        os.killpg(run.pid, signal.SIGKILL)
    before = (out / "results.jsonl").read_bytes()
    done, _, n = fleet.Results(out).counts
    assert 0 < done < n == 1200, done
    chunk = out / "cube.zarr/resid_post_norm/0.0.0"
    written = chunk.stat().st_mtime_ns
    cube = fleet.capture(atlas, some, out, **HERE)
    assert chunk.stat().st_mtime_ns == written and (out / "results.jsonl").read_bytes().startswith(
        before[: before.rfind(b"\n") + 1]
    )
    assert sorted(line["row"] for line in lines(out)) == list(range(1200)), "each prompt is done once"
    whole = fleet.capture(atlas, some, tmp_path / "whole", **HERE)
    same(cube, whole)


def test_command_line(tmp_path):
    """A typing error would end in a traceback."""
    (tmp_path / "p.txt").write_text(f"{DALLAS}\n\nFact: the capital of Atlantis is\n", encoding="utf-8")
    (tmp_path / "latin.txt").write_bytes("Fact: café".encode("latin-1"))

    def run(*arguments, **more):
        return CliRunner().invoke(main, ["batch", *map(str, arguments), "--workers", "0"], **more)

    result = run(tmp_path / "p.txt", "--out", tmp_path / "o", "--do", "swap", "--swap", "Texas", "California", "--json")
    assert result.exit_code == 0 and "Atlantis" in result.stderr
    assert {k: json.loads(result.stdout)[k] for k in ("prompts", "done", "failed")} == {
        "prompts": 2,
        "done": 1,
        "failed": 1,
    }
    result = run("-", "--out", tmp_path / "i", "--sites", "mlp_out,resid_post", "--metrics", "max", input=DALLAS)
    assert result.exit_code == 0 and "1 prompt in" in result.stdout and set(fleet.read(tmp_path / "i").metrics) == {"mlp_out_max", "resid_post_max"}  # fmt: skip
    for arguments, why in (
        ((tmp_path / "latin.txt", "--out", tmp_path / "x"), "not UTF-8"), ((tmp_path / "p.txt", "--out", tmp_path / "x", "--do", "swap"), "go together"),
        ((tmp_path / "p.txt", "--out", tmp_path / "x", "--metrics", "nrom"), "no metric"), ((tmp_path / "p.txt", "--out", tmp_path), "holds other things"),
        ((tmp_path / "p.txt", "--out", tmp_path / "p.txt"), "no folder"), ((tmp_path / "p.txt", "--out", tmp_path / "x", "--model", "atlsa"), "atlas"), ((tmp_path / "none.txt", "--out", tmp_path), "none.txt"),
    ):  # fmt: skip
        result = run(*arguments)
        assert result.exit_code == 2 and why in result.stderr and "Traceback" not in result.output, (why, result.output)


def test_a_worker_that_dask_gave_up_is_asked_for_again(atlas, prompts):
    """A worker that needs more than 15 s to start again, as on a busy laptop, would leave the run waiting for ever."""
    recipe = jobs.Recipe("atlas", "plt", torch.float32, "cpu", fleet.weights_hash(fleet.network(atlas)), 1)
    batches = iter([([row], [prompt]) for row, prompt in enumerate(prompts[:12])])
    with cluster.connected(1, None, False) as client:
        asked = cluster.results(client, recipe, fleet.Job(), batches)
        first = next(asked)[0]
        nanny = client.cluster.workers.pop(0)  # what Dask does after those 15 s
        client.cluster.sync(nanny.close)
        assert sorted([*first, *(rows[0] for rows, _ in asked)]) == list(range(12))
