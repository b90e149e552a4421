"""The places where the course is read: a wheel anywhere, Colab, Binder, VS Code and Codespaces, and the newest versions each month."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import nbformat
import pytest
import yaml
from click.testing import CliRunner
from test_packaging import PROJECT, ROOT, tool

from mi_workshop import cli

NOTEBOOKS = sorted(ROOT.glob("notebooks/*.ipynb")) + sorted(ROOT.glob("notebooks/solutions/*.ipynb"))
COLAB = """
import google.colab, json, os, sys
from importlib.util import find_spec
from IPython.core.interactiveshell import InteractiveShell
def pip(line):  # what the installation of our wheel does
    print("PIP", json.dumps([line, sorted({"torch", "numpy", "ipywidgets", "plotly"} & set(sys.modules))]))
    sys.path.insert(0, os.environ["WHEEL"])
sys.path[:] = [path for path in sys.path if path not in ("", os.environ["CLONE"])]  # where an editable installation is
assert find_spec("mi_workshop") is None
shell = InteractiveShell.instance()
shell.register_magic_function(pip, "line", "pip")
for cell in json.load(open(sys.argv[1], encoding="utf-8"))["cells"]:
    if cell["cell_type"] == "code":
        shell.run_cell("".join(cell["source"])).raise_error()
print("FROM", sys.modules["mi_workshop"].__file__)
"""


@pytest.fixture(scope="session")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist of this tree, the wheel built from it, and site/: that wheel as pip unpacks it."""
    pytest.importorskip("hatchling", reason="hatchling is not installed: pip install -e .[test]")
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as archive:
        archive.extractall(folder / "site")
    return folder


def test_wheel_and_sdist_are_complete_and_small(dist: Path) -> None:
    """`pip install` brings no notebooks, or somebody's left-over files, or more than a conference network carries."""
    assert tool("check_package").problems(dist) == []


def test_the_check_finds_what_is_missing_and_what_was_left_behind(tmp_path: Path) -> None:
    """A wheel without its notebooks is released."""
    with zipfile.ZipFile(tmp_path / "x.whl", "w") as archive:
        archive.writestr("mi_workshop/course/notebooks/my_cube.zarr.zip", "")
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as archive:
        archive.add(ROOT / "LICENSE", "x/training/artifacts/x.json")
    found = "; ".join(tool("check_package").problems(tmp_path))
    for said in ("my_cube.zarr.zip was left behind", "x.json was left behind", "Makefile is missing in the sdist"):
        assert said in found
    assert "LICENSE is missing in the wheel" in found and "00_start_here.ipynb is missing in the wheel" in found


def test_lab_from_the_wheel_gives_the_course_anywhere(dist: Path, tmp_path: Path) -> None:
    """Who has no clone gets an empty JupyterLab, notebooks whose links lead nowhere, or no talk before the stage."""
    (tmp_path / "jupyterlab.py").write_text("import sys; print('LAB', *sys.argv[1:])", "utf-8")
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(dist / "site")])}
    code = "from mi_workshop.teach.preflight import TALK as t; print(t, t.is_file()); import mi_workshop.cli as c; c.main()"
    said = subprocess.run([sys.executable, "-c", code, "lab"], cwd=tmp_path, env=env, capture_output=True, text=True)
    folder = tmp_path / "mi-workshop-notebooks"
    assert f"{dist}/site/mi_workshop/course/notebooks/live_demo.ipynb True\n" in said.stdout, said.stderr
    left = "--ServerApp.contents_manager_class=mi_workshop.lab_files.Notebooks"
    assert f"LAB --LabApp.default_url=/lab/tree/notebooks {left} {folder.name}\n" in said.stdout, said.stderr
    assert len(list(folder.glob("notebooks/**/*.ipynb"))) == len(NOTEBOOKS)
    for path in folder.glob("notebooks/**/*.ipynb"):
        text = "\n".join(c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "markdown")
        links = [link for link in re.findall(r"\]\(([^)#\s]+)", text) if ":" not in link]
        assert all((path.parent / link).exists() for link in links), f"{path.name} links to what the wheel lacks"


def test_lab_never_overwrites_what_a_learner_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An afternoon's answers are gone after the next `mi-workshop lab`."""
    opened: list[str] = []
    monkeypatch.setattr(cli.subprocess, "call", lambda command: opened.append(command[-1]) or 0)

    def lab(*arguments: object) -> str:
        result = CliRunner().invoke(cli.main, ["lab", *map(str, arguments)])
        assert result.exit_code == 0
        return result.output

    folder = tmp_path / "my course ü"
    assert "kept" not in lab(folder) and opened[-1] == str(folder)
    mine = folder / "notebooks" / "00_start_here.ipynb"
    original = mine.read_bytes()
    mine.write_bytes(b"my answers")
    assert f"kept, as you have changed them: {mine.name} (--fresh" in lab(folder)
    for _ in range(2):  # the second time there is nothing new to put there
        lab("--fresh", folder)
        assert mine.read_bytes() == b"my answers" and mine.with_stem("00_start_here-2").read_bytes() == original
    assert len(list(mine.parent.glob("*.ipynb"))) == len(list(ROOT.glob("notebooks/*.ipynb"))) + 1
    assert lab() == "" and opened[-1] == str(ROOT), "a clone opens its own notebooks"


def test_lab_says_what_is_in_its_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user gets a traceback instead of the one command to type."""
    (tmp_path / "file").write_text("")
    blocked = CliRunner().invoke(cli.main, ["lab", str(tmp_path / "file")])
    assert blocked.exit_code == 2 and "file" in blocked.output
    monkeypatch.setattr(cli.importlib.util, "find_spec", lambda name: None)
    result = CliRunner().invoke(cli.main, ["lab"])
    assert result.exit_code == 2 and 'pip install "mi-workshop[lab]"' in result.output


def test_the_first_notebook_on_colab(dist: Path, tmp_path: Path) -> None:
    """A package is imported before it is replaced (and Colab asks for a restart), or something needs the clone. Colab is emulated: an
    empty folder, a module google.colab, our wheel in place of the address; versions and Python are those of the tests."""
    for folder in ("content", "site/google/colab"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "site/google/colab/__init__.py").touch()
    own = {"WHEEL": str(dist / "site"), "CLONE": str(ROOT), "IPYTHONDIR": str(tmp_path), "MI_WORKSHOP_OFFLINE": "1"}
    env = os.environ | own | {"PYTHONPATH": str(tmp_path / "site")}
    command = [sys.executable, "-c", COLAB, str(NOTEBOOKS[0])]
    result = subprocess.run(command, cwd=tmp_path / "content", env=env, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    installed = [json.loads(line[4:]) for line in result.stdout.splitlines() if line.startswith("PIP ")]
    assert installed == [[f"install -q git+{PROJECT['urls']['Repository']}", []]], "something else, or after an import"
    assert f"FROM {dist}" in result.stdout, "the notebook ran on another package than the one installed"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_only_badges_and_set_up_spell_the_address(path: Path) -> None:
    """A link in the text leads to the old place after a move: build.py renews only these two cells."""
    project = PROJECT["urls"]["Repository"].removeprefix("https://github.com/")
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if project in cell.source]
    assert [cell.metadata.tags for cell in cells] == [["badges"], ["setup"]]
    assert cells[0].source.count(path.relative_to(ROOT).as_posix()) == 2, "a badge opens another notebook"


def test_binder_starts_with_few_threads_and_stops_at_the_first_error() -> None:
    """Binder builds an image without the package, or kernels take a thread for each core of a shared machine."""
    started = subprocess.run(["bash", str(ROOT / "binder/start"), "env"], capture_output=True, text=True).stdout
    assert "OMP_NUM_THREADS=1\n" in started
    for path in (ROOT / "binder/postBuild", ROOT / "binder/start"):
        assert "set -e" in path.read_text("utf-8").splitlines() and os.access(path, os.X_OK)


def test_containers_and_workflows_name_what_exists_pinned_and_without_secrets() -> None:
    """A codespace without packages; a workflow that fails for a slip of the pen a month later, or prints a token."""
    commands = [json.loads((ROOT / ".devcontainer/devcontainer.json").read_text("utf-8"))["postCreateCommand"]]
    for path in ROOT.glob(".github/workflows/*.yml"):
        workflow = yaml.safe_load(text := path.read_text("utf-8"))
        steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
        assert all(re.search(r"@v\d+$", step["uses"]) for step in steps if "uses" in step)
        assert workflow["permissions"] == {"contents": "read"} and "secrets." not in text
        commands += [step["run"] for step in steps if "run" in step]
    targets = (ROOT / "Makefile").read_text("utf-8").replace("\n$(STAMP):", "\n.venv/.installed:")
    for first, second, *_ in map(str.split, commands):
        there = (
            f"\n{second}:" in targets if first == "make" else first == ".venv/bin/python" or (ROOT / second).is_file()
        )
        assert there, f"nothing here is called {second}"


def test_the_monthly_run_takes_the_newest_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    """It tests the pinned versions again, or a newcomer gets untested ones."""
    run: list[list[str]] = []
    install = tool("install")
    monkeypatch.setattr(install, "torch_index", lambda: None)
    monkeypatch.setattr(install.subprocess, "check_call", run.append)
    (job,) = yaml.safe_load((ROOT / ".github/workflows/monthly.yml").read_text("utf-8"))["jobs"].values()
    assert job["strategy"]["matrix"]["python"] == ["3.11", "3.13"]
    for newest in ("", job["env"]["NEWEST"]):
        monkeypatch.setenv("NEWEST", newest)
        install.main("nowhere")
        assert ("--constraint" in run[-1]) is not bool(newest)
