"""How many learners does a shared server hold? Runs kernels with one notebook at once and writes the table of docs/room.md.

    python tools/measure_room.py                     # 1, 2, 4, 8 kernels of 07_dallas_to_austin, then as many as fit
    python tools/measure_room.py 1 4 --notebook 01_saliency
    python tools/measure_room.py fit                 # only as many as fit; rows that are there are kept, unless --fresh

USS is what a process alone holds and gives back when it ends; PSS adds its share of what several hold together (libraries, mapped
files). Linux only. Kernels start four at a time; each runs the whole notebook, then stays open, as a learner's does. A run ends early,
and its row says so, where less than 2 GB of the machine's memory are left, or when the time is over.
"""

from __future__ import annotations

import argparse
import time

import psutil
from kernels import NOTEBOOKS, ROOT, Kernel, Table, code_cells, load

SERVER, AIM = 24_000, 30  # MB, learners
RESERVE = 2_000  # MB that are always left free
TOGETHER = 4  # kernels that start at the same time
COLUMNS = "kernels at once | USS each, MB | PSS each, MB | peak of all, MB | least left, MB | seconds | failed cells | load before"


class Stop(Exception):
    """Why a run ended early."""


def room(cells: list[str], n: int, minutes: float = 40) -> dict[str, object]:
    """Run the cells in ``n`` kernels at once: MB of USS and PSS for each at the end (mean), the peak sum of PSS, seconds, failed cells."""
    kernels: list[Kernel] = []
    peak, left, failed, stopped, start, before = 0.0, float("inf"), 0, "", time.perf_counter(), load()

    def look() -> None:
        nonlocal peak, left
        left = min(left, psutil.virtual_memory().available / 1e6)
        peak = max(peak, sum(kernel.process.memory_full_info().pss for kernel in kernels) / 1e6)
        if left < RESERVE:
            raise Stop(f"stopped: under {RESERVE / 1000:.0f} GB left")
        if time.perf_counter() - start > 60 * minutes:
            raise Stop(f"stopped after {minutes:.0f} minutes")

    try:
        while len(kernels) < n:
            wave = [
                Kernel(changes={"OMP_NUM_THREADS": "1"}, wait=False) for _ in range(min(TOGETHER, n - len(kernels)))
            ]
            kernels += wave
            for kernel in wave:
                kernel.ready()
            look()
        waiting = {kernel: {kernel.client.execute(cell) for cell in cells} for kernel in kernels}
        while waiting:
            for kernel in list(waiting):
                while kernel.client.iopub_channel.msg_ready():
                    kernel.client.get_iopub_msg()
                while kernel.client.shell_channel.msg_ready():
                    reply = kernel.client.get_shell_msg()
                    waiting[kernel].discard(reply["parent_header"].get("msg_id"))
                    failed += reply["content"].get("status") != "ok"
                if not kernel.process.is_running() or kernel.process.status() == psutil.STATUS_ZOMBIE:
                    raise Stop("stopped: a kernel died")
                if not waiting[kernel]:
                    del waiting[kernel]
            look()
            time.sleep(0.5 + n / 10)  # to look costs 3 ms for each kernel
    except (Stop, RuntimeError) as error:
        stopped = str(error)
    seconds = time.perf_counter() - start
    try:
        memory = [kernel.process.memory_full_info() for kernel in kernels]
        uss, pss = (sum(getattr(m, kind) for m in memory) / max(len(memory), 1) / 1e6 for kind in ("uss", "pss"))
    except psutil.Error:
        uss = pss = float("nan")
    for kernel in kernels:
        kernel.close()
    found = {"kernels": n, "USS": uss, "PSS": pss, "peak": peak, "left": left, "seconds": seconds, "load": before}
    return found | {"failed": f"{failed}, {stopped}" if stopped else failed}


def fitting(peak_each: float) -> int:
    """Kernels that fit into the memory that is free now, with ``peak_each`` MB and a little more for each."""
    return int((psutil.virtual_memory().available / 1e6 - RESERVE) / (1.03 * peak_each))


def whole(table: Table) -> list[list[float]]:
    """Kernels, USS, PSS, peak and least left of the rows that ran to the end."""
    return [[float(cell) for cell in row[:5]] for row in table.cells() if "stopped" not in row[6]]


def verdict(table: Table, notebook: str) -> str:
    """The sentences under the table."""
    n, uss, pss, peak, left = max(whole(table), default=[0, 0, 0, 0, 0])
    said = f"`{notebook}`, one thread each. *Least left*: the machine's free memory; *load before*: the mean of the minute before the row.\n\n"
    if n >= AIM:
        return said + (
            f"**Measured:** {n:.0f} kernels at once held {peak / 1000:.1f} GB at most, with {left / 1000:.1f} GB left; nothing is extrapolated."
        )
    need, most = AIM * uss + (pss - uss) * n, AIM * peak / max(n, 1)
    said += f"**Extrapolated, not measured:** {AIM} learners hold {AIM} × {uss:.0f} MB and what they share once, {need / 1000:.1f} GB; "
    return said + f"if all were at their peak at once, {most / 1000:.1f} GB (of {SERVER / 1000:.0f})."


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure memory per learner.")
    parser.add_argument("kernels", nargs="*", default=["1", "2", "4", "8", "fit"], help="how many at once, or 'fit'")
    parser.add_argument("--notebook", default="07_dallas_to_austin")
    parser.add_argument("--minutes", type=float, default=40, help="for all rows together (default: 40)")
    parser.add_argument("--fresh", action="store_true", help="measure rows again that are there")
    options = parser.parse_args()
    cells, end = code_cells(NOTEBOOKS / f"{options.notebook}.ipynb"), time.monotonic() + 60 * options.minutes
    table = Table(ROOT / "docs" / "room.md", "measured", COLUMNS, options.fresh)
    for wanted in options.kernels:
        peaks = [peak / n for n, _, _, peak, _ in whole(table)]
        n = fitting(peaks[-1] if peaks else 700) if wanted == "fit" else int(wanted)
        if n in table or (wanted == "fit" and max(whole(table), default=[0])[0] >= n):
            continue
        r = room(cells, n, (end - time.monotonic()) / 60)
        shown = [f"{r[key]:.0f}" for key in ("USS", "PSS", "peak", "left", "seconds")]
        table.add(n, *shown, r["failed"], r["load"], caption=lambda table: verdict(table, options.notebook))


if __name__ == "__main__":
    main()
