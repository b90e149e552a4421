"""doctor() says what is there and what to do, quickly, without the network and without giving anything away."""

from __future__ import annotations

import importlib
import json
import socket
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import pytest

from mi_workshop.teach.doctor import Doctor, Row, doctor

module = importlib.import_module("mi_workshop.teach.doctor")


def row(report: Doctor, name: str) -> Row:
    (found,) = (row for row in report.rows if row.name == name)
    return found


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    attempts: list[str] = []

    def refuse(host: object, *args: object, **kwargs: object) -> None:
        attempts.append(str(host))
        raise OSError("cut off")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", lambda self, address: refuse(address))
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)
    return attempts


@pytest.fixture
def versions(monkeypatch: pytest.MonkeyPatch) -> dict[str, str | None]:
    """Packages that the report shall find in another version, or not at all."""
    changed: dict[str, str | None] = {}
    real = metadata.version

    def version(name: str) -> str:
        found = changed[name] if name in changed else real(name)
        if found is None:
            raise metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(module.metadata, "version", version)
    return changed


def test_it_is_quick_and_imports_nothing_heavy() -> None:
    code = (
        "import sys; from mi_workshop.teach.doctor import doctor; print(doctor()); "
        "heavy = {'torch', 'transformers', 'transformer_lens', 'circuit_tracer'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, f"a first look at the machine would take seconds: {result.stderr}"
    start = time.process_time()  # of this process: a busy machine is not the doctor's fault
    doctor()
    assert time.process_time() - start < 0.5, "a report on the machine keeps the reader waiting"


def test_the_network_is_tried_only_when_asked(no_network: list[str]) -> None:
    report = doctor()
    assert not no_network, f"the embedded tier promises never to call anybody, and called {no_network}"
    for name in module.HOSTS:
        assert row(report, name).ok is None and "not tried" in row(report, name).detail


def test_a_network_that_is_cut_off_is_said_in_a_sentence(no_network: list[str]) -> None:
    report = doctor(network=True)
    assert {"www.neuronpedia.org", "huggingface.co"} <= set(no_network), "asked to try the network, it did not"
    for name in module.HOSTS:
        assert row(report, name).ok is False and row(report, name).todo, "the user is not told what to do"
    assert row(report, "embedded tier").ok == row(doctor(), "embedded tier").ok, "the embedded tier needs no network"


@pytest.mark.parametrize("place", ["variable", "file", "home"])
def test_a_token_is_found_and_never_shown(place: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    secret = "hf_averysecrettoken"
    for variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH", "HF_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert row(doctor(), "Hugging Face token").ok is None, "a token is reported that is not there"
    if place == "variable":
        monkeypatch.setenv("HF_TOKEN", secret)
    else:
        folder = tmp_path / "huggingface" if place == "file" else tmp_path / "elsewhere"
        folder.mkdir()
        (folder / "token").write_text(secret)
        if place == "home":
            monkeypatch.setenv("HF_HOME", str(folder))
    report = doctor()
    assert row(report, "Hugging Face token").ok, "the user is sent to get a token that is there already"
    shown = str(report) + report._repr_html_() + json.dumps(report.to_dict())
    assert secret not in shown, "the token would be stored in a notebook's output"


def test_another_circuit_tracer_is_called_untested(versions: dict[str, str | None]) -> None:
    versions["circuit-tracer"] = "0.5.7"
    found = row(doctor(), "circuit-tracer")
    assert found.ok is None and "untested" in found.detail, "an untested version passes for a tested one"
    assert module.CIRCUIT_TRACER_TESTED in found.todo


@pytest.mark.parametrize(("name", "version"), [("plotly", None), ("transformers", "5.0.0"), ("circuit-tracer", None)])
def test_a_package_missing_or_too_new_is_named(name: str, version: str | None, versions: dict[str, str | None]) -> None:
    versions[name] = version
    report = doctor()
    found = row(report, "packages")
    assert found.ok is False and name in found.detail and name in found.todo, f"nobody is told to install {name}"
    assert row(report, "embedded tier").ok is False, f"the embedded tier is called ready without {name}"


def test_weights_that_are_missing_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "WEIGHTS", tmp_path)
    report = doctor()
    assert row(report, "weights").ok is False and str(tmp_path) in row(report, "weights").detail
    assert row(report, "embedded tier").ok is False, "the embedded tier is called ready without a model"


def test_too_little_memory_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MEMORY_GB", 1e9)
    found = row(doctor(), "memory")
    assert found.ok is False and found.todo, "a notebook will be killed without a warning"


@pytest.mark.parametrize("home", ["/nonexistent/home", None])
def test_a_user_without_a_home(home: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a shared server that gives its users no home, or no name, the report on the machine is a traceback."""
    for variable in ("XDG_CACHE_HOME", "MI_WORKSHOP_CACHE", "HF_HOME", "HF_TOKEN_PATH", "HOME"):
        monkeypatch.delenv(variable, raising=False)
    if home:
        monkeypatch.setenv("HOME", home)
    else:
        monkeypatch.setattr(module.os.path, "expanduser", lambda path: path)  # what it says of a user without a name
    found = row(doctor(), "disk")
    assert found.ok is not None and row(doctor(), "Hugging Face token").ok is None


def test_tiers_that_this_version_lacks_are_not_promised(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even to a machine that has all they will need."""
    monkeypatch.setattr(module, "_host", lambda name, url, network: Row(name, True, "answers"))
    monkeypatch.setattr(module, "_gpu", lambda: Row("GPU", True, "found"))
    monkeypatch.setenv("HF_TOKEN", "hf_x")
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", "tcp://scheduler:8786")
    tiers = {row.name: row for row in doctor().tiers}
    assert list(tiers) == ["embedded tier", "hosted tier", "GPU tier", "cluster tier"]
    assert tiers["hosted tier"].ok and tiers["GPU tier"].ok
    lacking = tiers["cluster tier"]
    assert lacking.ok is False and lacking.todo, "the cluster tier is promised by a version that does not have it"


def test_this_installation_is_ready() -> None:
    tier = row(doctor(), "embedded tier")
    assert tier.ok, f"the embedded tier does not work on this machine: {doctor()}"


def test_the_report_shows_itself_as_text_and_never_as_markup() -> None:
    report = Doctor((Row("a<b>", None, "<script>alert(1)</script>", 'x"y'),), (Row("embedded tier", True, "ready"),))
    html = report._repr_html_()
    assert "<script>" not in html and "&lt;script&gt;" in html, "what a file or variable says would run as markup"
    assert "OK  embedded tier  ready" in str(report)
    assert json.loads(json.dumps(report.to_dict()))["tiers"][0]["ok"] is True
