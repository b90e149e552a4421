"""The talk and what it needs on a stage: nothing here may fail in front of a room."""

from __future__ import annotations

import functools
import io
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import nbformat
import pytest
from IPython.core.interactiveshell import InteractiveShell
from nbformat.v4 import new_code_cell, new_notebook
from PIL import Image

import mi_workshop as mi
from mi_workshop.cli import main
from mi_workshop.teach import preflight, stage
from mi_workshop.teach.preflight import LIVE, TALK

NOTES = TALK.parent / "solutions" / TALK.name
CUT = """
import os, socket
def refuse(host, *rest):
    open(os.environ["TRIED"], "a").write(f"{host}\\n")
    raise OSError("cut off")
real = socket.socket.connect
def connect(self, address):
    local = not isinstance(address, tuple) or str(address[0]).startswith("127.") or address[0] in ("localhost", "::1")
    return real(self, address) if local else refuse(address)
found = socket.getaddrinfo
socket.getaddrinfo = lambda host, *rest, **k: found(host, *rest, **k) if host in (None, "", "localhost", "127.0.0.1") else refuse(host)
socket.socket.connect = connect
"""


def cells(path, kind):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == kind]


@pytest.fixture
def shell(monkeypatch):
    """An IPython, as in a notebook."""
    shell = InteractiveShell()
    for module in ("IPython.core.getipython", "IPython"):
        monkeypatch.setattr(f"{module}.get_ipython", lambda: shell)
    monkeypatch.setattr(stage, "get_ipython", lambda: shell)
    yield shell
    stage._undo.clear()
    stage._weights.clear()


# ---------------------------------------------------------------------------------------------------------- the talk
def test_the_speaker_s_minutes_add_up():
    """The speaker would be cut off before the end."""
    notes = [cell for cell in cells(NOTES, "markdown") if "instructor" in cell.metadata.get("tags", [])]
    assert {cell.metadata.slideshow.slide_type for cell in notes} == {"notes"}, "the room would read along"
    text = "\n".join(cell.source for cell in notes)
    marks = [(int(a), int(b)) for a, b in re.findall(r"\*\*Minutes (\d+)–(\d+):", text)]
    assert marks[0][0] == 0 and marks[-1][1] == 22 == sum(stage.PARTS.values())
    assert all(end == start for (_, end), (start, _) in zip(marks, marks[1:], strict=False)), marks
    begins = 0
    for name, minutes in stage.PARTS.items():
        assert begins in [start for start, _ in marks], f"no note when {name!r} begins"
        begins += minutes


def test_every_live_cell_has_a_plan_b_that_can_be_shown():
    """A cell fails on stage, and there is nothing to show."""
    live = [LIVE.match(cell.source)[1] for cell in cells(TALK, "code") if LIVE.match(cell.source)]
    assert len(live) == len(set(live)) >= 8
    assert sorted(live) == sorted({Path(name).stem for name in zipfile.ZipFile(stage.PLAN_B).namelist()})
    for name in live:
        with zipfile.ZipFile(stage.PLAN_B) as file:
            picture, alt = Image.open(io.BytesIO(file.read(f"{name}.png"))), file.read(f"{name}.txt").decode()
        picture.load()
        assert picture.format == "PNG" and picture.width >= 600, f"{name} cannot be read from the back of a room"
        assert len(alt.split()) > 5 and not alt.startswith("<")
        assert 'alt="' in stage.plan_b(name).data and "Plan B" in stage.plan_b(name).data, "passed off as live"
    assert stage.PLAN_B.stat().st_size < 600_000
    with pytest.raises(ValueError, match="choose .*swap"):
        stage.plan_b("<script>")


def test_a_live_cell_that_fails_shows_its_plan_b_by_itself(shell, monkeypatch):
    """The speaker would search for the picture with everybody looking."""
    shown = []
    monkeypatch.setattr(stage, "display", shown.append)
    stage.begin()
    stage.begin()  # a second time, and it is still shown once
    shell.run_cell("# live: swap\n1 / 0")
    shell.run_cell("# live: graph\nraise KeyboardInterrupt")
    shell.run_cell("# live: graph\n1 + 1")
    shell.run_cell("1 / 0")
    assert len(shown) == 2 and "Sacramento" in shown[0].data


def test_reset_really_resets(shell, atlas):
    """The second talk of the day would begin with what was left of the first."""
    prompt = "Fact: the capital of the state containing Dallas is"
    shell.user_ns.update(model=atlas, prompt=prompt)
    stage.begin(atlas)
    clock, box = stage.timer(22), stage.Audience(atlas, "Oakland")
    view = stage.show(mi.trace(atlas, prompt))
    answer, layer, before = box.answer.value, atlas.replacement.blocks[3].hook_resid_post, atlas.top(prompt)
    shell.run_cell("prompt = 'something else'; left_over = 1; del model")
    clock.play.playing = True
    clock.play.value, box.city.value, view.selected, view.threshold = 700, "Paris", [view.nodes["id"][0]], 0.3
    box.place.value = "Egypt"
    layer.add_hook(lambda x, hook: x * 0)
    weight = next(atlas.replacement.parameters())
    weight.data += 1
    assert atlas.top(prompt) != before
    stage.reset()
    assert atlas.top(prompt) == before, "a hook or a changed weight is still there"
    assert shell.user_ns["prompt"] == prompt and shell.user_ns["model"] is atlas and "left_over" not in shell.user_ns
    assert clock.play.value == 0 and not clock.play.playing and "0:00" in clock.text.value
    assert (box.city.value, box.place.value, box.answer.value) == ("Oakland", "", answer)
    assert view.selected == [] and view.threshold != 0.3


def test_the_theme_knows_the_view():
    """A class renamed in the view: the graph is higher than the slide again, and its answers are below the fold."""
    widgets = Path(stage.__file__).parents[1] / "widgets"
    text = "".join(file.read_text(encoding="utf-8") for file in (*widgets.glob("*.js"), Path(stage.__file__)))
    text = text.replace(stage.THEME, "")
    known = set(re.findall(r"[a-z-]+", " ".join(re.findall(r'["`](.*?)["`]', text))))
    unknown = {name for name in re.findall(r"\.(mi-[a-z]+)", stage.THEME) if not {name, name[3:]} & known}
    assert unknown <= {"mi-talk"}


def test_the_clock_names_the_part_and_says_when_time_is_over():
    """A speaker who looks up sees another part than the one that should be on."""
    clock = stage.timer(22)
    for seconds, expected in ((0, "0:00</b> Why ex"), (60 * 8, "Seeing the reasoning path, until 18"), (1325, "over")):
        clock.play.value = 1 if seconds == 0 else 0
        clock.play.value = seconds
        assert expected in clock.text.value
    assert "22 minutes" in clock.describe()
    with pytest.raises(ValueError, match="add up to 22"):
        stage.timer(25)


def test_the_code_leads_to_the_one_address():
    """The audience's phones would open somebody else's page, or none."""
    import segno

    found = stage.follow()
    project = (Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    assert found.address == re.search(r'^Repository = "(.+?)/?"', project, re.MULTILINE)[1]
    assert found.code() == segno.make(found.address, error="m", micro=False)
    assert found.code() != segno.make(found.address + "x", error="m", micro=False)
    assert found.figure().axes[0].images[0].get_array().shape[0] == found.code().symbol_size(border=4)[0]
    assert found.address in found.words()


HOSTILE = (
    "<script>alert(1)</script>", "Parris", "   ", "{city}", "$\\frac{1}{0}$", "x" * 100_000, "\x00\u202e\n", "🙂", "is", "%s",
)  # fmt: skip


def test_whatever_is_called_out_gets_a_sentence(atlas):
    """A traceback, or somebody's markup, on the screen in front of a room."""
    box = stage.Audience(atlas)
    for field in (box.place, box.city):
        for typed in HOSTILE:
            field.value = typed
            said = box.answer.value
            assert 'role="alert"' in said and ("did you mean" in said or "for example" in said), typed
            assert "<script>" not in said and "\x00" not in said and "\u202e" not in said and len(said) < 400
    box.place.value, box.city.value = "", "  new   ORLEANS "
    assert "Baton Rouge" in box.answer.value and "<img" in box.answer.value
    box.place.value = "texas"
    assert "With Texas in place of Louisiana. Expected: Austin" in box.answer.value
    box.place.value = "Louisiana"
    assert 'role="alert"' in box.answer.value, "a swap of a place for itself"


# --------------------------------------------------------------------------------------------------------- pre-flight
def test_pre_flight_finds_what_would_go_wrong(tmp_path):
    """The speaker would find out on stage."""
    live = {
        "slow": "import time; time.sleep(.5)",
        "broken": "1 / 0",
        "bare": "import ipywidgets\nipywidgets.IntSlider()",
        "good": "1",
    }
    sources = [f"# live: {name}\n{code}" for name, code in live.items()] + ["import time; time.sleep(.5)"]
    nbformat.write(new_notebook(cells=[new_code_cell(s) for s in sources]), tmp_path / "talk.ipynb")
    report = preflight.preflight(tmp_path / "talk.ipynb", limit=0.4)
    wrong = {row.name: row.detail for row in report.checks if row.ok is False}
    assert set(wrong) == {"live: slow", "live: broken", "live: bare"} and not report.ok
    assert (
        "over 0.4 s" in wrong["live: slow"]
        and "ZeroDivisionError" in wrong["live: broken"]
        and "no picture" in wrong["live: bare"]
    )
    assert json.loads(json.dumps(report.to_dict()))["cells"][0]["warm"] >= 0.5


def test_pre_flight_passes_for_our_talk_with_the_network_cut(tmp_path, monkeypatch):
    """The conference's network is down, and the talk with it. (Seconds are the machine's: no limit here.)"""
    (tmp_path / "sitecustomize.py").write_text(CUT, encoding="utf-8")
    monkeypatch.setenv("TRIED", str(tmp_path / "tried"))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{':'.join(sys.path)}")
    probe = "import socket; socket.create_connection(('example.org', 80))"
    assert "cut off" in subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True).stderr
    (tmp_path / "tried").unlink()
    monkeypatch.setattr(preflight, "_run", functools.cache(preflight._run))  # once is enough here
    report = preflight.preflight(limit=600)
    assert report.ok, str(report)
    assert not (tmp_path / "tried").exists(), (tmp_path / "tried").read_text()
    assert report.memory < 1000 and {"live: graph", "live: city", "live: swap"} <= {
        cell["name"] for cell in report.cells
    }


def test_a_talk_that_is_not_there_is_one_sentence(monkeypatch, tmp_path):
    """Who installed the package without the notebooks gets a traceback."""
    from click.testing import CliRunner

    monkeypatch.setattr(preflight, "TALK", tmp_path / "live_demo.ipynb")
    result = CliRunner().invoke(main, ["doctor", "--stage"])
    assert result.exit_code == 1 and "live_demo.ipynb is not beside the package" in result.output
    assert json.loads(CliRunner().invoke(main, ["doctor", "--stage", "--json"]).output)["ok"] is False
