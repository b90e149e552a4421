"""Before a talk: run it twice in kernels of its own, and say how long each cell took. ``mi-workshop doctor --stage``."""

from __future__ import annotations

import os
import re
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from mi_workshop.course_files import HOME
from mi_workshop.show import VIEW
from mi_workshop.teach.doctor import Doctor, Row

TALK = HOME / "notebooks" / "live_demo.ipynb"
WIDGETS = Path(__file__).parents[1] / "widgets"
LIVE = re.compile(r"# live: ([\w-]+)$", re.MULTILINE)  # the first line of a live cell
LIMIT = 2.0  # seconds in which a live cell shall answer
MEMORY = """\
try:  # the kernel of Linux knows the most that this process had; getrusage tells the most of the one that started it
    print(next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) // 1024)
except OSError:
    import resource, sys
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024**2 if sys.platform == "darwin" else 1024))"""
GET = 'pip install "mi-workshop[lab]"'


@dataclass(frozen=True)
class Preflight(Doctor):
    """``checks``: one row for each part and each code cell; ``cells``: name, live, cold and warm (seconds), error; ``memory`` in MB."""

    cells: tuple[dict[str, Any], ...] = ()
    memory: int = 0

    def to_dict(self) -> dict[str, Any]:
        checks = [asdict(row) for row in self.checks]
        return {"ok": self.ok, "memory_mb": self.memory, "cells": list(self.cells), "checks": checks}


def preflight(notebook: str | Path | None = None, limit: float = LIMIT) -> Preflight:
    """Run ``notebook`` (the talk) in a fresh kernel (cold: all is read from the disk) and in another (warm: what the speaker will see).

    ``ok`` is false if a cell fails or shows a widget without a picture beside it, or if a live cell takes more than ``limit`` seconds
    when warm. No network is needed, and the kernels are told to use none.
    """
    path = Path(notebook or TALK)
    if not path.is_file():
        todo = "Install mi-workshop again, or name a notebook."
        return Preflight((Row("the talk", False, f"{path.name} is not beside the package", todo),), ())
    try:
        (cold, _), (warm, memory) = _run(path), _run(path)
    except ImportError as error:
        return Preflight((Row("Jupyter", False, f"{error.name} is not installed", GET),), ())
    rows, cells = [], []
    for before, cell in zip(cold, warm, strict=True):
        live, seconds = cell["live"], cell["seconds"]
        slow = f"over {limit:g} s" if live and seconds > limit else ""
        wrong = cell["error"] or ("a widget has no picture beside it" if cell["bare"] else slow)
        todo = "Until it is mended: stage.plan_b shows its picture." if live else "Look at this cell."
        detail = f"cold {before['seconds']:5.2f} s, warm {seconds:5.2f} s{wrong and ': ' + wrong}"
        rows.append(Row(cell["name"], not wrong, detail, todo if wrong else ""))
        cells.append({"name": cell["name"], "live": live, "cold": before["seconds"], "warm": seconds, "error": wrong})
    load, cores = psutil.getloadavg()[0], psutil.cpu_count() or 1
    busy = "Close other programs and run this again: they take the seconds." if load > cores + 1 else ""
    machine = Row("machine", None if busy else True, f"load {load:.1f} on {cores} cores; {memory} MB at most", busy)
    return Preflight((*_parts(), machine, *rows), (), tuple(cells), memory)


def _run(path: Path) -> tuple[list[dict[str, Any]], int]:
    """Each code cell's name, seconds, error ("" if none) and whether a widget stands alone; and the peak memory in MB."""
    import nbformat
    from nbclient import NotebookClient

    book = nbformat.read(path, as_version=4)
    found: list[dict[str, Any]] = []
    book.cells.append(nbformat.v4.new_code_cell(MEMORY))

    def begin(cell: Any, cell_index: int) -> None:
        live = LIVE.match(cell.source)
        name = f"live: {live[1]}" if live else f"cell {cell_index}: {cell.source.splitlines()[0][:32]}"
        found.append({"name": name, "live": bool(live), "seconds": time.perf_counter()})

    def end(cell: Any, cell_index: int, execute_reply: Any) -> None:
        reply, data = execute_reply["content"], [output.get("data", {}) for output in cell.outputs]
        found[-1] |= {
            "seconds": round(time.perf_counter() - found[-1]["seconds"], 3),
            "error": f"{reply['ename']}: {reply['evalue']:.80}" if reply["status"] == "error" else "",
            "bare": any(VIEW in shown and "image/png" not in shown for shown in data),
        }

    NotebookClient(
        book, kernel_name="python3", timeout=120, allow_errors=True, store_widget_state=False, extra_arguments=["--log-level=ERROR"],
        resources={"metadata": {"path": str(path.parent)}}, on_cell_execute=begin, on_cell_executed=end,
    ).execute(env=os.environ | {"MI_WORKSHOP_OFFLINE": "1", "HF_HUB_OFFLINE": "1"})  # fmt: skip
    memory = int(book.cells.pop().outputs[0].text)
    return found[:-1], memory


def _parts() -> list[Row]:
    """Is there what runs in the browser: JupyterLab's part of the widgets, ours, and the deck?"""
    from jupyter_core.paths import jupyter_path

    found = [
        f.parent.relative_to(root).as_posix()
        for root in jupyter_path("labextensions")
        for f in Path(root).glob("**/package.json")
    ]
    missing = sorted({"@jupyter-widgets/jupyterlab-manager", "anywidget"} - set(found))
    missing += [name for name in ("common.js", "graph_view.js", "heat_map.js") if not (WIDGETS / name).is_file()]
    deck = "jupyterlab-slideshow" in found
    return [
        Row("widgets", not missing, "missing: " + ", ".join(missing) if missing else "their JavaScript is there", GET if missing else ""),
        Row("slides", deck or None, "the deck is there" if deck else "no deck: scroll", "" if deck else GET),
    ]  # fmt: skip
