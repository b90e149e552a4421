"""The tools behind docs/endurance.md and docs/room.md: they see what fails, and keep what was measured."""

import sys
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))
import endurance
import measure_room
from kernels import Kernel, Ran, Table

CELLS = ["import sys", "x = 1", "print(x)", "import time; time.sleep(0.3)", "print(id(object()), time.time())"]


@pytest.fixture
def page(tmp_path):
    path = tmp_path / "page.md"
    path.write_text("before\n<!-- a -->\n<!-- end a -->\nafter\n", "utf-8")
    return path


def test_a_table_grows_row_by_row(page):
    """A run that was cut short begins again, or writes over the text around its table."""
    first = Table(page, "a", "what | seconds")
    first.add("b c", 1.25, caption=lambda table: f"{len(table.rows)} rows.")
    again = Table(page, "a", "what | seconds")
    assert "b c" in again and again.cells() == [["b c", "1.2"]] and "1 rows." in page.read_text("utf-8")
    again.add("d", "x\ny | z")
    text = page.read_text("utf-8")
    assert text.startswith("before\n") and text.endswith("<!-- end a -->\nafter\n") and "| `d` | x y \\| z |" in text
    assert not Table(page, "a", "what | minutes").rows and not Table(page, "a", "what | seconds", fresh=True).rows


def test_one_notebook_through_every_part(tmp_path, page):
    """An error, a name that is missing or a text that changes is not seen, and the tables say that all is well."""
    book = tmp_path / "00_tiny.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell(cell) for cell in CELLS]), book)
    page.write_text("".join(f"<!-- {part} -->\n<!-- end {part} -->\n" for part in endurance.COLUMNS), "utf-8")
    for part in ("course", "thrice", "order"):
        table = Table(page, part, endurance.COLUMNS[part])
        getattr(endurance, part)(book, table)
        (row,) = table.cells()
        if part == "course":
            assert 0 < float(row[1]) < 60 and 20 < int(row[2]) < 500 and row[4] == "0"
        elif part == "thrice":
            assert len(row[2].split()) == 3 and row[3:5] == ["0", "1"]
        else:
            assert row[1:6] == ["4", "2", "2", "0", "0"] and row[6:] == ["0", "no model", "0", "0"]


def test_errors_are_told_apart(tmp_path):
    """A traceback from deep inside passes for a sentence to the learner; a hanging cell holds the whole run."""
    with Kernel(tmp_path, {"MI_WORKSHOP_CACHE": None}) as kernel:
        assert endurance.sort(kernel.run("nothing")) == "NameError" and endurance.sort(kernel.run("1")) == "ran"
        assert endurance.sort(kernel.run("import json; json.loads('{')")) == "obscure"
        ours = kernel.run("from mi_workshop.teach import hint\nhint('no such exercise')")
        assert endurance.sort(ours) == "sentence", ours
        assert kernel.run("import time; time.sleep(30)", interrupt=0.5).error.startswith("KeyboardInterrupt")
        assert "no answer" in kernel.run("time.sleep(30)", timeout=0.5).error
        assert kernel.uss() > 10
    assert endurance.failures([Ran(1), Ran(1, "E: x")]) == "1 (cell 1, E: x)"


def test_the_room_says_what_was_measured(page, monkeypatch):
    """A number of learners is extrapolated and called measured; a run that stopped early counts as one that fitted."""
    done = measure_room.room(["x = 1", "1 / 0"], 2, minutes=2)
    assert done["failed"] == 2 and done["kernels"] == 2 and done["peak"] > done["USS"] > 10
    monkeypatch.setattr(measure_room, "RESERVE", 10**9)
    assert "under" in str(measure_room.room(["x = 1"], 1)["failed"])
    table = Table(page, "a", measure_room.COLUMNS)
    table.add(4, 600, 620, 2500, 9000, 100, 0, 0.5)
    assert "Extrapolated" in measure_room.verdict(table, "n") and "18.1 GB" in measure_room.verdict(table, "n")
    table.add(31, 600, 620, 19000, 300, 100, "7, stopped: under 2 GB left", 0.5)
    assert "Extrapolated" in measure_room.verdict(table, "n")
    table.add(30, 600, 620, 18600, 2500, 100, 0, 0.5)
    assert "**Measured:** 30 kernels" in measure_room.verdict(table, "n")
    monkeypatch.undo()
    assert measure_room.fitting(1e9) <= 0 < measure_room.fitting(1)


def test_as_many_as_fit_is_what_the_memory_allows(tmp_path, monkeypatch):
    """The last row has more kernels than the machine bears, or is measured again each time."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "room.md").write_text("<!-- measured -->\n<!-- end measured -->\n", "utf-8")
    asked = []

    def room(cells, n, minutes):
        asked.append(n)
        return dict.fromkeys(("USS", "PSS", "left", "seconds"), 1.0) | {"peak": 700.0 * n, "failed": 0, "load": 0.5}

    monkeypatch.setattr(measure_room, "room", room)
    monkeypatch.setattr(measure_room, "ROOT", tmp_path)
    monkeypatch.setattr(measure_room.psutil, "virtual_memory", lambda: SimpleNamespace(available=24e9))
    monkeypatch.setattr(sys, "argv", ["measure_room.py"])
    measure_room.main()
    measure_room.main()  # nothing is left to do
    assert asked == [1, 2, 4, 8, 30] and "**Measured:** 30" in (tmp_path / "docs" / "room.md").read_text("utf-8")
