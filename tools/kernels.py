"""Kernels that run cells and are measured, and tables that are written row by row: for measure_room.py and endurance.py."""

from __future__ import annotations

import os
import re
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import psutil
from jupyter_client.manager import KernelManager

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"
sys.path.insert(0, str(ROOT))

from mi_workshop.teach.preflight import MEMORY  # noqa: E402

FRAME = re.compile(r"(?:File (\S[^\n]*?):\d+|(Cell In))")  # of a traceback, as IPython prints it
COLOUR = re.compile(r"\x1b\[[\d;]*m")
OFFLINE = {"MI_WORKSHOP_OFFLINE": "1", "HF_HUB_OFFLINE": "1", "PYTHONHASHSEED": "0", "PYTHONPATH": str(ROOT)}


@dataclass(frozen=True)
class Ran:
    """What running a cell gave: seconds, ``error`` ("" if none), the file of the innermost frame ("" is the cell), what it said, when it ended."""

    seconds: float
    error: str = ""
    where: str = ""
    text: str = ""
    stderr: str = ""
    ended: float = 0.0


class Kernel:
    """A kernel of this Python in ``folder``, offline, with caches and IPython folder of its own; a context manager.

    ``changes`` to the environment; None takes a variable out. With ``wait`` false, call `ready` before the first cell.
    """

    def __init__(
        self, folder: Path = NOTEBOOKS, changes: Mapping[str, str | None] | None = None, wait: bool = True
    ) -> None:
        self.home = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        wanted = (
            os.environ | OFFLINE | {"MI_WORKSHOP_CACHE": self.home.name, "IPYTHONDIR": self.home.name} | (changes or {})
        )
        self.start, self.manager = time.perf_counter(), KernelManager(kernel_name="python3")
        env = {name: value for name, value in wanted.items() if value is not None}
        self.manager.start_kernel(cwd=str(folder), env=env, extra_arguments=["--log-level=ERROR"])
        self.process = psutil.Process(self.manager.provisioner.pid)
        self.client = self.manager.blocking_client()
        self.client.start_channels()
        if wait:
            self.ready()

    def ready(self, timeout: float = 180) -> None:
        try:
            self.client.wait_for_ready(timeout=timeout)
        except RuntimeError:
            self.close()
            raise

    def run(self, code: str, interrupt: float | None = None, timeout: float = 300) -> Ran:
        """Run a cell; ``interrupt`` it after so many seconds. A cell that does not come back is an error."""
        said: dict[str, list[str]] = {"stdout": [], "stderr": []}
        errors: list[Any] = []

        def heard(message: dict[str, Any]) -> None:
            kind, content = message["msg_type"], message["content"]
            if kind == "stream":
                said[content["name"]].append(content["text"])
            elif kind in ("execute_result", "display_data"):
                said["stdout"].append(content["data"].get("text/plain", "") + "\n")
            elif kind == "error":
                errors.append(content)

        timer = threading.Timer(interrupt or 0, self.process.send_signal, [signal.SIGINT])
        start = time.perf_counter()
        if interrupt is not None:
            timer.start()
        try:
            self.client.execute_interactive(code, allow_stdin=False, timeout=timeout, output_hook=heard)
        except TimeoutError:
            errors.append({"ename": "TimeoutError", "evalue": f"no answer in {timeout:.0f} s", "traceback": []})
        timer.cancel()
        error = " ".join(f"{errors[0]['ename']}: {errors[0]['evalue']}".split()) if errors else ""
        frames = FRAME.findall(COLOUR.sub("", "\n".join(errors[0]["traceback"]))) if errors else []
        text, stderr, end = "".join(said["stdout"]), "".join(said["stderr"]), time.perf_counter()
        return Ran(end - start, error, frames[-1][0] if frames else "", text, stderr, end)

    def uss(self) -> float:
        """MB that this process alone holds."""
        return float(self.process.memory_full_info().uss / 1e6)

    def peak(self) -> int:
        """MiB, the most that this process ever had (RSS): the measure of the notebooks' boxes and of the pre-flight."""
        return int(self.run(MEMORY).text or 0)

    def close(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)
        self.home.cleanup()

    def __enter__(self) -> Kernel:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def code_cells(path: Path) -> list[str]:
    """The code of a notebook; the first is the set-up cell."""
    return [c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code" and c.source.strip()]


class Table:
    """A table between ``<!-- name -->`` and ``<!-- end name -->`` of a page, written after each row; rows already there are kept."""

    def __init__(self, page: Path, name: str, columns: str, fresh: bool = False) -> None:
        self.page, self.marks, self.columns = page, (f"<!-- {name} -->", f"<!-- end {name} -->"), columns
        there = self._page()[1]
        lines = [line for line in there.splitlines() if line.startswith("| ")][1:]
        same = columns in there and not fresh
        self.rows = {line.split(" | ")[0].strip("|` "): line for line in lines} if same else {}

    def __contains__(self, key: object) -> bool:
        return str(key) in self.rows

    def add(self, key: object, *values: object, caption: Callable[[Table], str] = lambda table: "") -> None:
        """Write a row, and under the table the day, the cores and what ``caption`` says."""
        shown = [f"{v:.1f}" if isinstance(v, float) else " ".join(str(v).split()).replace("|", "\\|") for v in values]
        self.rows[str(key)] = f"| `{key}` | {' | '.join(shown)} |"
        print(self.rows[str(key)], flush=True)
        below = f"{time.strftime('%d %B %Y')}, {os.cpu_count()} cores. {caption(self)}".strip()
        head = f"| {self.columns} |\n{'|---' * (self.columns.count(' | ') + 1)}|\n"
        table = head + "\n".join(self.rows.values()) + f"\n\n{below}\n"
        before, _, after = self._page()
        self.page.write_text(f"{before}{self.marks[0]}\n{table}{self.marks[1]}{after}", encoding="utf-8")

    def _page(self) -> tuple[str, str, str]:
        """What stands before the marks, between and after them now: another part may write its own table meanwhile."""
        before, _, rest = self.page.read_text(encoding="utf-8").partition(self.marks[0])
        there, _, after = rest.partition(self.marks[1])
        return before, there, after

    def cells(self) -> list[list[str]]:
        return [[cell.strip("|` ") for cell in row.split(" | ")] for row in self.rows.values()]


def load() -> float:
    """Processes that ran or waited to, mean of the last minute (a kernel measured just before counts)."""
    return os.getloadavg()[0]
