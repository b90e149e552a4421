"""What a course goes through in a room: writes the tables of docs/endurance.md, row by row.

    python tools/endurance.py                        # every part, rows that are missing
    python tools/endurance.py course talk            # seconds and memory of each notebook; the talk's pre-flight
    python tools/endurance.py thrice order places    # three rounds in one kernel; cells out of order; odd folders and homes
    python tools/endurance.py course --only 07_dallas_to_austin --fresh

Linux, without the network. ``places`` needs root, to become a user who may write in few places. Kernels at once: tools/measure_room.py.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from kernels import NOTEBOOKS, OFFLINE, ROOT, Kernel, Ran, Table, code_cells, load

from mi_workshop import course_files

PAGE = ROOT / "docs" / "endurance.md"
COLUMNS = {
    "course": "notebook | seconds | peak, MiB | USS at the end, MB | failed cells | load before",
    "talk": "cell | live | cold, s | warm, s | wrong",
    "thrice": "notebook | seconds, rounds 1–3 | USS after rounds 1–3, MB | failed cells | differ | load before",
    "order": "notebook | cells | alone: ran | NameError | sentence | obscure | again | model | check first | interrupted",
    "places": "place | trace | demo | doctor | 00 | 07 | 08",
}
OTHER = {"atlas": "atlas-twin", "scenes-cnn": "scenes-shortcut", "atlas-bug": "atlas-trigger"}
FIRST = re.compile(rf'mi\.load\("({"|".join(OTHER)})"\)')
RESET = """\
import sys
_ns = get_ipython().user_ns
[_ns.pop(name) for name in list(_ns) if name not in sys._kept]
_ns.update(sys._kept)"""
ANSWERS = """\
from mi_workshop.teach import check, hint, solution
from mi_workshop.teach.exercises import EXERCISES
for name in [e.name for e in EXERCISES.values() if e.notebook == {0!r}]:
    print([check(name)] + [check(name, x) for x in (None, 0, -1.5, "", "x", [], {{}}, object())] + [hint(name), solution(name)])"""
RUN = ("00", "07", "08")  # notebooks that are run in each place
USER = 61234  # nobody's number: a user without a name, as on some shared servers


def failures(done: list[Ran]) -> str:
    """How many cells failed, and the first error."""
    wrong = [f"cell {i}, {ran.error:.150}" for i, ran in enumerate(done) if ran.error]
    return f"{len(wrong)} ({wrong[0]})" if wrong else "0"


def course(path: Path, table: Table) -> None:
    before = load()
    with Kernel(path.parent, {"OMP_NUM_THREADS": None}) as kernel:
        done = [kernel.run(cell) for cell in code_cells(path)]
        seconds = done[-1].ended - kernel.start
        table.add(path.stem, seconds, kernel.peak(), round(kernel.uss()), failures(done), before, caption=threads)


def threads(table: Table) -> str:
    return "OMP_NUM_THREADS is not set, as on a learner's machine: torch takes a thread for each core."


def talk(table: Table) -> None:
    from mi_workshop.teach.preflight import preflight

    report = preflight()
    said = f"{report.memory} MB at most; load {load():.1f} after it."
    for i, cell in enumerate(report.cells):
        name = f"{i + 1} {cell['name'].removeprefix('live: ')}"
        times = (f"{cell[kind]:.2f}" for kind in ("cold", "warm"))
        table.add(name, "live" if cell["live"] else "", *times, cell["error"] or "no", caption=lambda table: said)


def thrice(path: Path, table: Table) -> None:
    before, cells = load(), code_cells(path)
    seconds, memory, rounds = [], [], []
    with Kernel(path.parent) as kernel:
        for _ in range(3):
            rounds.append([kernel.run(cell) for cell in cells])
            seconds.append(f"{sum(ran.seconds for ran in rounds[-1]):.0f}")
            memory.append(f"{kernel.uss():.0f}")
    differ = [i for i, (a, b) in enumerate(zip(*rounds[1:], strict=True)) if a.text != b.text]
    for i in differ:
        pairs = zip(rounds[1][i].text.splitlines(), rounds[2][i].text.splitlines(), strict=False)
        first = next((pair for pair in pairs if pair[0] != pair[1]), ("another number of lines",))
        print(f"  cell {i}:", *(f"{line:.1000}" for line in first), sep="\n    ")
    table.add(path.stem, " ".join(seconds), " ".join(memory), failures(sum(rounds, [])), len(differ), before)


def sort(ran: Ran) -> str:
    """What a cell says that is run alone."""
    if not ran.error:
        return "ran"
    name, _, said = ran.error.partition(": ")
    if name == "NameError":
        return "NameError" if not ran.where else "obscure"
    ours = "mi_workshop" in ran.where and (name.endswith("Error") and said.rstrip().endswith((".", "?")))
    return "sentence" if ours else "obscure"


def order(path: Path, table: Table) -> None:
    cells = code_cells(path)
    half = len(cells) // 2
    with Kernel(path.parent) as kernel:
        kernel.run(cells[0])
        first = [kernel.run(ANSWERS.format(path.stem))]
        kernel.run("import sys; sys._kept = dict(get_ipython().user_ns)")
        alone = []
        for i, cell in enumerate(cells[1:], 1):
            kernel.run(RESET)
            alone.append(kernel.run(cell))
            if sort(alone[-1]) not in ("ran", "NameError"):
                print(f"  {path.stem}, cell {i} alone: {alone[-1].error:.300} [{alone[-1].where}]", flush=True)
        kernel.run(RESET)
        whole = [kernel.run(cell) for cell in cells]
        again = [kernel.run(cell) for cell in [*cells[:half], cells[-1]]]
        loads = next((i for i, cell in enumerate(cells) if FIRST.search(cell)), None)
        model = []
        if loads is not None:
            other = FIRST.sub(lambda m: f'mi.load("{OTHER[m[1]]}")', cells[loads])
            model = [kernel.run(cell) for cell in [other, *cells[max(half, loads + 1) :]]]
            for ran in model:
                if ran.error:
                    print(f"  {path.stem}, another model: {ran.error:.300} [{ran.where}]", flush=True)
        # in a shorter cell the signal may meet the kernel at work between two
        long = [i for i, ran in enumerate(whole) if ran.seconds > 0.2]
        slowest = sorted(long, key=lambda i: whole[i].seconds)[-3:]
        for i in sorted(slowest):
            kernel.run(cells[i], interrupt=whole[i].seconds / 2, timeout=60)
        after = [kernel.run(cell) for cell in cells]
    sorts = Counter(map(sort, alone))
    counts = [sorts[name] for name in ("ran", "NameError", "sentence", "obscure")]
    rest = (failures(whole + again), failures(model) if model else "no model", failures(first), failures(after))
    table.add(path.stem, len(alone), *counts, *rest)


# ------------------------------------------------------------------------------------------------------------ places
def run(path: Path) -> None:
    """``run NOTEBOOK``, in the place where `places` has put it: what came out, as JSON."""
    with Kernel(
        path.parent, {name: os.environ.get(name) for name in ("PYTHONPATH", "MI_WORKSHOP_CACHE", "IPYTHONDIR")}
    ) as kernel:
        done = [kernel.run(cell) for cell in code_cells(path)]
        here = kernel.run("print(mi.__file__)").text.startswith(os.environ["PYTHONPATH"])
    print(json.dumps([failures(done) if here else "another package ran", "".join(ran.stderr for ran in done)]))


def user() -> list[str]:
    """The command that makes the rest of it run as an ordinary user, who may read everything here."""
    if os.getuid() == 0:
        rights = [f"--{kind}=-all,+dac_read_search" for kind in ("bounding-set", "inh-caps", "ambient-caps")]
        return ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", *rights]
    sys.exit("places: run this part as root; it becomes an ordinary user by itself.")


def places(table: Table) -> None:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        top = Path(folder)
        top.chmod(0o755)
        odd, plain = top / "Mein Kürs ★ 課程", top / "plain"
        for name, changes, at, locked in (
            ("spaces and other letters", {"HOME": odd / "home", "TMPDIR": odd / "tmp"}, odd, []),
            ("home is read-only", {}, plain, ["home"]),
            ("home does not exist", {"HOME": "/nonexistent"}, plain, []),
            ("HOME is not set, the user has no name", {"HOME": None}, plain, []),
            ("cache folder is read-only", {"XDG_CACHE_HOME": plain / "cache"}, plain, ["cache"]),
            ("course is read-only", {}, plain, ["course/notebooks"]),
        ):  # fmt: skip
            if name not in table:
                table.add(name, *place(at, changes, locked))


def place(at: Path, changes: dict[str, object], locked: list[str]) -> list[str]:
    """Put the package and the course into ``at`` for `user`, lock folders, and run commands and notebooks: what each said."""
    env = (
        os.environ
        | OFFLINE
        | {"HOME": at / "home", "TMPDIR": at / "tmp", "JUPYTER_RUNTIME_DIR": at / "tmp", "PYTHONPATH": at / "site"}
    )
    env = {name: str(value) for name, value in (env | changes).items() if value is not None and name != "MPLCONFIGDIR"}
    if not (at / "site").exists():
        package = at / "site" / "mi_workshop"
        shutil.copytree(ROOT / "mi_workshop", package, ignore=shutil.ignore_patterns("__pycache__"))
        for folder in (package / "course", at / "course"):  # as in the wheel, and as mi-workshop lab copies it
            course_files.copy(folder)
    for name in ("home", "tmp", "cache"):
        (at / name).mkdir(exist_ok=True)
    for path in [at, *at.glob("**/*")]:
        writable = at / "site" not in (path, *path.parents)
        os.chown(path, *((USER, USER) if writable else (0, 0)))
        path.chmod((0o555 if path.relative_to(at).as_posix() in locked else 0o755) if path.is_dir() else 0o644)
    said = []
    cli = [sys.executable, "-c", "from mi_workshop.cli import main; main()"]
    prompt = "Fact: the capital of the state containing Dallas is"
    for command in (["trace", prompt], ["demo", "--out", str(at / "tmp" / "a picture ü.html")], ["doctor"]):
        done = subprocess.run([*user(), *cli, *command], cwd=at / "course", env=env, capture_output=True, text=True)
        said.append(spoken(done.stdout.strip()[-200:] if done.returncode else "0", done.stderr))
    for number in RUN:
        command = [*user(), sys.executable, str(Path(__file__).resolve()), "run"]
        notebook = next((at / "course" / "notebooks").glob(f"{number}_*.ipynb"))
        done = subprocess.run([*command, str(notebook)], env=env, cwd=at, capture_output=True, text=True)
        failed, stderr = (
            json.loads(done.stdout.splitlines()[-1])
            if done.returncode == 0
            else (f"Jupyter does not start ({done.stderr.strip().splitlines()[-1]:.100})", "")
        )
        said.append(spoken(failed, stderr))
    return said


def spoken(failed: str, stderr: str) -> str:
    lines = [line for line in stderr.splitlines() if line.strip() and "%|" not in line]  # progress bars are no warnings
    print("\n".join(f"    {line:.300}" for line in lines[-30:]), flush=True)
    advice = ", advice" * any("MPLCONFIGDIR" in line for line in lines)
    rest = [line for line in lines if "matplotlib" not in line.lower()]
    return f"ok{advice}" if failed == "0" and not rest else f"failed: {failed}; {len(rest)} lines on stderr{advice}"


def main() -> None:
    if sys.argv[1:2] == ["run"]:
        return run(Path(sys.argv[2]))
    parser = argparse.ArgumentParser(description="Measure what the course endures.")
    parser.add_argument("parts", nargs="*", help=f"{', '.join(COLUMNS)} (all, if none is named)")
    parser.add_argument("--only", nargs="+", default=[], help="names of notebooks")
    parser.add_argument("--fresh", action="store_true", help="measure rows again that are there")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(COLUMNS):
        parser.error(f"there is no part {sorted(unknown)[0]}; there are {', '.join(COLUMNS)}")
    for part in options.parts or COLUMNS:
        table = Table(PAGE, part, COLUMNS[part], options.fresh and not options.only)
        if part in ("talk", "places"):
            if not table.rows or part == "places":
                {"talk": talk, "places": places}[part](table)
            continue
        for path in sorted(NOTEBOOKS.glob("*.ipynb")):
            if (options.fresh or path.stem not in table) and path.stem in (options.only or [path.stem]):
                {"course": course, "thrice": thrice, "order": order}[part](path, table)


if __name__ == "__main__":
    main()
