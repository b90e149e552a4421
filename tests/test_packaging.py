"""The install path: what several files declare, pin and promise agrees, or somebody's installation breaks."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import mi_workshop
from mi_workshop.teach.doctor import CIRCUIT_TRACER_TESTED

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
DEPENDENCIES = [Requirement(text) for text in PROJECT["dependencies"]]
EXTRAS = [Requirement(text) for extra in PROJECT["optional-dependencies"].values() for text in extra]
MADE = {"dist", "build", "__pycache__"}
COLAB = dict(
    ipywidgets="7.7.1", ipython="7.34.0", anywidget="0.9.21", plotly="5.24.1", torch="2.11", numpy="2.1"
)  # 8/2026


@cache
def pins(python: str = "3.11") -> dict[str, str]:
    """constraints.txt as {name: version} for a Linux machine with that Python."""
    environment = {"python_version": python, "python_full_version": f"{python}.9", "sys_platform": "linux"}
    found = {}
    for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines():
        requirement = Requirement(line) if line and not line.startswith("#") else None
        if requirement and (requirement.marker is None or requirement.marker.evaluate(environment)):
            (specifier,) = requirement.specifier
            assert specifier.operator == "==", f"{requirement} is not pinned: two installations may differ"
            found[canonicalize_name(requirement.name)] = specifier.version
    return found


def environment(path: str) -> tuple[list[str], list[str]]:
    """The conda and the pip part of an environment file."""
    *conda, last = yaml.safe_load((ROOT / path).read_text("utf-8"))["dependencies"]
    return conda, last["pip"]


def project_files() -> Iterator[Path]:
    """The files of the project, without what is made from them."""
    for folder, folders, names in os.walk(ROOT):
        hidden = (".ci", ".devcontainer", ".github")
        folders[:] = [f for f in folders if f in hidden or not f.startswith(".") and f not in MADE]
        yield from (Path(folder) / name for name in names)


def tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_constraints_pin_what_pyproject_asks_for(python: str) -> None:
    for requirement in DEPENDENCIES + EXTRAS:
        pinned = pins(python).get(canonicalize_name(requirement.name))
        assert pinned, f"{requirement.name} is not in constraints.txt: two installations may get two versions"
        assert requirement.specifier.contains(pinned), f"pip would refuse {requirement}: the pin is {pinned}"


def test_constraints_hold_for_cpu_and_cuda_builds_of_torch() -> None:
    assert "+" not in pins()["torch"], "a local suffix in the pin shuts out every other build of torch"
    cuda = [name for name in pins() if name.startswith(("nvidia-", "cuda-"))]
    assert not cuda, f"{cuda} in constraints.txt shut out builds of torch for another CUDA"


@pytest.mark.parametrize("name", COLAB)
def test_colab_keeps_its_own_packages(name: str) -> None:
    (requirement,) = (r for r in DEPENDENCIES if r.name == name)
    assert requirement.specifier.contains(COLAB[name]), (
        f"{requirement}: Colab has {COLAB[name]} and would ask to restart"
    )
    if name in ("torch", "numpy"):
        assert not requirement.specifier, f"{requirement} could replace the build that a notebook service brings"


def test_binder_lists_every_dependency_with_its_pin_and_a_reason() -> None:
    _, pip = environment("binder/environment.yml")
    listed = {canonicalize_name(r.name): r for r in (Requirement(line) for line in pip if not line.startswith("-"))}
    lab = [Requirement(text) for text in PROJECT["optional-dependencies"]["lab"]]
    missing = {canonicalize_name(r.name) for r in DEPENDENCIES + lab} - set(listed)
    assert not missing, f"Binder installs the package without its dependencies, so {missing} must be listed"
    for name, requirement in listed.items():
        assert str(requirement.specifier) == f"=={pins()[name]}", f"Binder and constraints.txt differ in {name}"
    lines = (ROOT / "binder/environment.yml").read_text("utf-8").split("dependencies:\n")[1].splitlines()
    bare = [line for line in lines if not line.endswith("pip:") and not re.search(r"\S +# \w", line)]
    assert not bare, f"nobody will know why Binder has {bare}"


def test_environments_agree_on_python_constraints_and_the_index_of_torch() -> None:
    floor = PROJECT["requires-python"].removeprefix(">=")
    for path, constraints in (("environment.yml", "constraints.txt"), ("binder/environment.yml", "../constraints.txt")):
        conda, pip = environment(path)
        assert f"python={floor}" in conda, f"{path} has another Python than the oldest one supported, {floor}"
        assert f"--constraint {constraints}" in pip, f"{path} leaves the indirect dependencies unpinned"
        assert (ROOT / path).parent.joinpath(constraints).is_file(), (
            f"{path} names a constraints file that is not there"
        )
        index = f"--extra-index-url {tool('install').CPU_INDEX}"
        assert index in pip, f"{path} would download CUDA: it lacks {index}"
    assert "--editable .[lab,test]" in environment("environment.yml")[1], "conda users get no package"
    assert "--no-deps --editable ." in (ROOT / "binder/postBuild").read_text("utf-8"), "Binder gets no package"


def test_every_import_is_declared() -> None:
    provided = metadata.packages_distributions()
    always = {canonicalize_name(r.name) for r in DEPENDENCIES}
    lab = {canonicalize_name(Requirement(text).name) for text in PROJECT["optional-dependencies"]["lab"]}
    for path in (ROOT / "mi_workshop").rglob("*.py"):
        in_lab = path.name in ("preflight.py", "lab_files.py")  # which says what to install; which Lab runs
        declared = always | lab if in_lab else always
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            for top in {name.split(".")[0] for name in names} - sys.stdlib_module_names - {"mi_workshop"}:
                found = {canonicalize_name(name) for name in provided.get(top, [top])}
                assert found & declared, (
                    f"{path.name} imports {top}, which pip would not install: add it to pyproject.toml"
                )


def test_the_version_stands_in_one_place() -> None:
    version = mi_workshop.__version__
    assert metadata.version("mi-workshop") == version, "the installation is older than the code: run make again"
    literal = f'"{version}"'.encode()
    files = [p for p in project_files() if p.suffix in (".py", ".toml", ".yml") and literal in p.read_bytes()]
    names = [path.relative_to(ROOT).as_posix() for path in files]
    assert names == ["mi_workshop/__init__.py"], f"{names} would go on saying {version} after the next release"
    newest = re.search(r"^## \[([^]]+)]", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert newest and newest[1] == version, f"CHANGELOG.md says nothing about {version}"


def test_the_public_address_stands_in_one_file() -> None:
    """Built notebooks carry it too, but from here: notebooks/build.py reads it."""
    address = PROJECT["urls"]["Repository"].removeprefix("https://").encode()
    files = [p for p in project_files() if p.suffix != ".ipynb" and address in p.read_bytes()]
    names = [path.relative_to(ROOT).as_posix() for path in files]
    assert names == ["pyproject.toml"], f"moving the repository would leave wrong links in {names}"


def test_readme_begins_with_make_demo_and_make_test() -> None:
    blocks = re.findall(r"^```\w*\n(.*?)^```", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)
    commands = [line.split("#")[0].strip(" $") for block in blocks for line in block.splitlines() if line.strip()]
    assert commands[:2] == ["make demo", "make test"], f"a newcomer's first two commands would be {commands[:2]}"


def test_ci_runs_what_the_readme_says() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text("utf-8"))
    steps = [step.get("run") for job in workflow["jobs"].values() for step in job["steps"]]
    assert "bash .ci/run" in steps, "a change could land with .ci/run failing"
    lines = re.findall(r"^step (.+)$", (ROOT / ".ci/run").read_text("utf-8"), re.MULTILINE)
    assert lines[:2] == ["make demo", "make test"], "what a newcomer runs first is not what is tested"


def test_the_afternoons_reading_is_there_and_is_one() -> None:
    """Who starts with the files that CONTRIBUTING.md names finds them, and not many more lines than it says."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## To read first")[2].partition("\n## ")[0]
    files = re.findall(r"`(\w+(?:/\w+)*\.py)`", text)
    lines = sum(len((ROOT / "mi_workshop" / name).read_text(encoding="utf-8").splitlines()) for name in files)
    everything = sum(
        len(path.read_text(encoding="utf-8").splitlines()) for path in (ROOT / "mi_workshop").rglob("*.py")
    )
    said = [int(n.replace(",", "")) for n in re.findall(r"\d+,\d{3}|\d{4,}", text)]
    assert said == pytest.approx([everything, lines], rel=0.1)


def test_circuit_tracer_tested_is_the_one_pinned() -> None:
    assert pins()["circuit-tracer"] == CIRCUIT_TRACER_TESTED, "doctor would call the pinned circuit-tracer untested"


@pytest.mark.parametrize(("owner", "code"), [("OWNER", 1), ("ada", 0)])
def test_release_check_refuses_the_placeholder(owner: str, code: int, tmp_path: Path) -> None:
    urls = f'[project.urls]\nRepository = "https://github.com/{owner}/mi-workshop"\n'
    (tmp_path / "pyproject.toml").write_text(urls, "utf-8")
    command = [sys.executable, str(ROOT / "tools/release_check.py")]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == code, "a release would carry links to nowhere, or could never be made"
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("version", [(3, 9, 6), (3, 10, 13)])
def test_an_old_python_gets_a_sentence(version: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", version)
    with pytest.raises(SystemExit, match=r"needs Python 3\.11 or newer.*make PYTHON="):
        tool("install").check_python()


def test_an_intel_mac_gets_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    install = tool("install")
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(install.platform, "machine", lambda: "x86_64")
    with pytest.raises(SystemExit, match="Intel Macs"):
        install.check_python()


@pytest.mark.parametrize(
    ("platform", "gpu", "asked", "answers", "expected"),
    [
        ("linux", None, None, True, "https://download.pytorch.org/whl/cpu"),
        ("linux", None, None, False, None),
        ("linux", "/usr/bin/nvidia-smi", None, True, None),
        ("linux", "/usr/bin/nvidia-smi", "https://mirror.example/cpu", True, "https://mirror.example/cpu"),
        ("darwin", None, None, True, None),
        ("linux", None, "https://mirror.example/cpu", False, None),
    ],
)
def test_where_torch_comes_from(
    platform: str,
    gpu: str | None,
    asked: str | None,
    answers: bool,
    expected: str | None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    install = tool("install")

    def urlopen(url: str, timeout: float) -> object:
        assert timeout <= 10, "a machine without that index would wait for ever"
        if answers:
            return open(os.devnull)
        raise OSError("no route")

    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(install.shutil, "which", lambda name: gpu)
    monkeypatch.setattr(install.urllib.request, "urlopen", urlopen)
    monkeypatch.setenv("TORCH_INDEX", asked or "")
    assert install.torch_index() == expected, "somebody downloads CUDA for nothing, or gets no GPU build"
    said = capsys.readouterr().out
    assert ("ordinary package index" in said) == (not answers), "the user is not told where torch comes from"
