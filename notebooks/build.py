"""Build the notebooks of the course from their sources.

    python notebooks/build.py                  # build and execute every notebook
    python notebooks/build.py 00_start_here    # only this one
    python notebooks/build.py --text           # renew the text of built notebooks, and docs/glossary.md, without running a cell
    python notebooks/build.py --check          # do the built notebooks agree with their sources? exit code 1 if not

``notebooks/src/NAME.py``, in jupytext's percent format, is the one file to edit. It gives ``notebooks/NAME.ipynb`` for
learners and ``notebooks/solutions/NAME.ipynb`` for instructors. Tags say what becomes of a cell:

    setup       replaced by the badges and the one set-up cell, the same in every notebook
    exercise    holds the name of an exercise of mi_workshop.teach; replaced by its statement
    solution    only in the solution notebook
    instructor  only in the solution notebook, as a speaker note
    unstored    run, but what it shows is about one machine and is not stored

In a code cell the lines after "# solution" are only in the solution notebook. "{measured}" in the first cell becomes the
seconds and the memory that the run took, the larger of both copies. The first mention of a term of the glossary in prose becomes a link that shows its definition.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import shutil
import sys
import tempfile
import time
import tomllib
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
LEFT_OVERS = ("my_corpus", "my_cube*", "my_dictionary*")  # what notebooks write beside themselves
SETUP = """\
import sys
from pathlib import Path

if "google.colab" in sys.modules:  # on Colab: install first, before any other import
    %pip install -q git+{repository}
sys.path += [str(folder) for folder in Path.cwd().parents if (folder / "mi_workshop").is_dir()]  # in a clone
import mi_workshop as mi
print(f"mi-workshop {{mi.__version__}}, embedded tier: runs offline on the CPU")"""
BADGES = """\
[![Open this notebook in Google Colab]({up}badges/colab.svg)]({colab}/blob/main/{path})
[![Open this notebook on Binder]({up}badges/binder.svg)]({binder}/main?labpath={path})"""

HIDDEN = re.compile(r"```.*?```|`[^`]*`|!?\[[^]]*\](?:\([^)]*\)|\[[^]]*\])|<[^>]+>|https?://\S+", re.DOTALL)
PROSE = re.compile(r"(?!\s*(?:#|\||>|\[[\w-]+\]:|    |```))")  # not a heading, a table, a box, an address, code


def repository() -> str:
    """The project's public address, kept once, in pyproject.toml."""
    with open(ROOT / "pyproject.toml", "rb") as file:
        return str(tomllib.load(file)["project"]["urls"]["Repository"]).rstrip("/")


def target(source: Path, solutions: bool) -> Path:
    return (HERE / "solutions" if solutions else HERE) / f"{source.stem}.ipynb"


def setup_cells(path: Path, slideshow: dict[str, str] | None) -> list[NotebookNode]:
    """The badges of the notebook at ``path``, and the set-up cell, on a slide of the type that the source gives it."""
    address = repository()
    project = address.removeprefix("https://github.com/")
    badges = BADGES.format(
        up="../" * (len(path.relative_to(HERE).parts) - 1),
        colab=f"https://colab.research.google.com/github/{project}",
        binder=f"https://mybinder.org/v2/gh/{project}",
        path=path.relative_to(ROOT).as_posix(),
    )
    metadata = {"tags": ["setup"]} | ({"slideshow": slideshow} if slideshow else {})
    setup = new_code_cell(SETUP.format(repository=address), metadata=metadata)
    return [new_markdown_cell(badges, metadata={"tags": ["badges"]}), setup]


def exercise_cell(name: str) -> NotebookNode:
    """The statement of an exercise, as a cell."""
    from mi_workshop.teach import find

    return new_markdown_cell(find(name).markdown(), metadata={"tags": ["exercise"]})


def without_solution(code: str) -> str:
    """A code cell for learners: what follows the line "# solution" is theirs to write."""
    lines = code.splitlines()
    if "# solution" not in lines:
        return code
    return "\n".join([*lines[: lines.index("# solution")], "# write your code here"])


def read(source: Path, solutions: bool) -> NotebookNode:
    """The notebook that a source describes, not executed, with ids that depend on nothing but the cells' order."""
    notebook = new_notebook(metadata={"kernelspec": KERNEL, "language_info": {"name": "python"}})
    for cell in jupytext.read(source, fmt="py:percent").cells:
        tags = cell.metadata.get("tags", [])
        if not solutions and {"solution", "instructor"} & set(tags):
            continue
        if "instructor" in tags:
            cell.metadata["slideshow"] = {"slide_type": "notes"}
        if "setup" in tags:
            notebook.cells += setup_cells(target(source, solutions), cell.metadata.get("slideshow"))
        elif "exercise" in tags:
            notebook.cells.append(exercise_cell(cell.source))
        else:
            if cell.cell_type == "code" and not solutions:
                cell.source = without_solution(cell.source)
            notebook.cells.append(cell)
    link_terms(notebook, source.stem, "../" * (2 if solutions else 1) + "docs/glossary.md")
    for index, cell in enumerate(notebook.cells):
        cell.id = f"cell-{index:02d}"
    return notebook


def link_terms(notebook: NotebookNode, name: str, page: str) -> None:
    """Link the first mention of terms in the text that both notebooks have (exercises are instructions: left alone)."""
    left = {"exercise", "solution", "instructor", "badges"}
    prose = [c for c in notebook.cells if c.cell_type == "markdown" and not left & set(c.metadata.get("tags", []))]
    for cell, text in zip(prose, linked([c.source for c in prose], name, page), strict=True):
        cell.source = text


def linked(texts: list[str], notebook: str, page: str, most: int = 8) -> list[str]:
    """Markdown cells with the first mention of a term in prose made a link to ``page`` that shows its definition when pointed at; at most
    ``most``, those that the notebook introduces before others. Headings, tables, boxes, code and links are left alone."""
    from mi_workshop.teach.glossary import Entry, spellings

    words = sorted(spellings(), key=len, reverse=True)
    pattern = re.compile(rf"(?<![\w-])(?:{'|'.join(map(re.escape, words))})s?(?![\w-])", re.IGNORECASE)
    first: dict[Entry, tuple[int, int, int]] = {}  # cell, start, end
    for i, text in enumerate(texts):
        hidden = [m.span() for m in HIDDEN.finditer(text)]
        start = 0
        for line in text.splitlines(keepends=True):
            for m in pattern.finditer(line) if PROSE.match(line) else ():
                a, b = start + m.start(), start + m.end()
                word = m.group().lower()
                entry = spellings().get(word) or spellings()[word[:-1]]
                if not any(x < b and a < y for x, y in hidden):
                    first.setdefault(entry, (i, a, b))
            start += len(line)
    chosen = sorted(first, key=lambda e: (e.notebook != notebook, first[e]))[:most]
    texts = list(texts)
    for e in sorted(chosen, key=lambda e: first[e], reverse=True):
        i, a, b = first[e]
        texts[i] = f'{texts[i][:a]}[{texts[i][a:b]}]({page}#{e.anchor} "{e.definition}"){texts[i][b:]}'
    return texts


def glossary_page() -> str:
    """docs/glossary.md."""
    from mi_workshop.teach.glossary import entries

    lines = [
        "# Glossary",
        "",
        "The words of the field as this course uses them. Made from `mi_workshop/teach/glossary.tsv` by `python notebooks/build.py --text`.",
        "",
    ]
    for e in sorted(entries(), key=lambda e: e.term.lower()):
        source = f" Source: {e.source}." if e.source else ""
        lines += [f'<a id="{e.anchor}"></a>**{e.term}**: {e.definition} *Introduced in `{e.notebook}`.*{source}', ""]
    return "\n".join(lines)


def execute(notebook: NotebookNode, folder: Path) -> tuple[float, int]:
    """Run every cell with this very Python, offline; an error in a cell is raised. Returns the seconds and the megabytes that it took. What an
    earlier run wrote into ``folder`` is removed first: a notebook would go on where that one stopped."""
    from mi_workshop.lab_files import still
    from mi_workshop.show import VIEW
    from mi_workshop.teach.preflight import MEMORY

    for old in [path for pattern in LEFT_OVERS for path in folder.glob(pattern)]:
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    notebook.cells.append(new_code_cell(MEMORY))
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as ipython:  # nobody's start-up files
        environment = os.environ | {
            "MI_WORKSHOP_OFFLINE": "1",
            "MI_WORKSHOP_CACHE": ipython,
            "HF_HUB_OFFLINE": "1",
            "PYTHONHASHSEED": "0",
            "IPYTHONDIR": ipython,
        }
        NotebookClient(
            notebook,
            kernel_name="python3",
            resources={"metadata": {"path": str(folder)}},
            timeout=600,
            store_widget_state=False,
            record_timing=False,
            coalesce_streams=True,
            extra_arguments=["--log-level=ERROR"],
        ).execute(env=environment)
    seconds = time.perf_counter() - start
    megabytes = int(notebook.cells.pop().outputs[0].text)
    notebook.metadata.pop("widgets", None)
    notebook.metadata["language_info"] = {"name": "python"}
    for cell in notebook.cells:
        if cell.cell_type == "code":  # a stored widget is dead: its picture and its sentence stay
            still(cell.outputs)
            for output in cell.outputs:
                data = output.get("data", {})
                if data.pop(VIEW, None) and re.match(r".*\d%\|", data.get("text/plain", "")):
                    data.clear()  # a progress bar, at 0 %
            unstored = "unstored" in cell.metadata.get("tags", [])
            cell.outputs = [] if unstored else [output for output in cell.outputs if output.get("data", True)]
    return seconds, megabytes


def write(notebook: NotebookNode, path: Path) -> None:
    """Write beside the place, then move into it."""
    path.parent.mkdir(exist_ok=True)
    part = path.with_suffix(".part")
    nbformat.write(notebook, part)
    os.replace(part, path)


def disagreement(notebook: NotebookNode, path: Path) -> str | None:
    """What tells the built notebook at ``path`` from what its source says now, as a sentence; None if nothing does."""
    name = path.relative_to(ROOT).as_posix()
    if not path.exists():
        return f"{name} is not built"
    built = nbformat.read(path, as_version=4)
    notebook.cells[0].source = notebook.cells[0].source.replace("{measured}", built.metadata.get("measured", ""))
    for index, cells in enumerate(zip(notebook.cells, built.cells, strict=False)):
        if cells[0].source != cells[1].source:
            return f"{name}: the text of cell {index} differs from its source"
        if any(cells[0].get(key) != cells[1].get(key) for key in ("cell_type", "id", "metadata")):
            return f"{name}: type, id or tags of cell {index} differ from its source"
    if len(notebook.cells) != len(built.cells):
        return f"{name} has {len(built.cells)} cells, its source gives {len(notebook.cells)}"
    return None


def check(sources: list[Path]) -> list[str]:
    """Every disagreement between sources and built notebooks; none is an empty list."""
    found = [disagreement(read(source, s), target(source, s)) for source in sources for s in (False, True)]
    return [sentence for sentence in found if sentence]


def build(source: Path, run: bool = True) -> None:
    """Build both notebooks of a source; the box of both says what the one that took more took."""
    paths, notebooks, took = [target(source, s) for s in (False, True)], [read(source, s) for s in (False, True)], []
    for path, notebook in zip(paths, notebooks, strict=True):
        path.parent.mkdir(exist_ok=True)
        if run:
            took.append(execute(notebook, path.parent))
    for path, notebook in zip(paths, notebooks, strict=True):
        if took:
            seconds, megabytes = map(max, zip(*took, strict=True))
            measured = f"{5 * math.ceil(seconds / 5)} s, {100 * math.ceil(megabytes / 100)} MB of memory"
            notebook.metadata["measured"] = measured
            notebook.cells[0].source = notebook.cells[0].source.replace("{measured}", measured)
        write(notebook, path)
        print(f"{path.relative_to(ROOT).as_posix()}: {len(notebook.cells)} cells, {path.stat().st_size / 1024:.0f} kB")


def renew(source: Path) -> str | None:
    """Put the markdown of a source into its built notebooks and leave outputs as they are; a sentence where the code has changed, too."""
    for solutions in (False, True):
        path, new = target(source, solutions), read(source, solutions)
        if not path.exists():
            return disagreement(new, path)
        built = nbformat.read(path, as_version=4)
        code = [[(c.id, c.source if c.cell_type == "code" else "") for c in n.cells] for n in (built, new)]
        if code[0] != code[1]:
            return f"{path.relative_to(ROOT).as_posix()}: cells were added or code has changed"
        for old, cell in zip(built.cells, new.cells, strict=True):
            if cell.cell_type == "markdown":
                old.source, old.metadata = (
                    cell.source.replace("{measured}", built.metadata.get("measured", "")),
                    cell.metadata,
                )
        write(built, path)
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the notebooks from notebooks/src.")
    parser.add_argument("names", nargs="*", help="notebooks to build (all, if none is named)")
    parser.add_argument("--check", action="store_true", help="build nothing, say where built and source disagree")
    parser.add_argument("--text", action="store_true", help="renew the text of built notebooks, run nothing")
    parser.add_argument("--no-execute", action="store_true", help="build without running the cells")
    options = parser.parse_args()
    sources = {source.stem: source for source in sorted((HERE / "src").glob("*.py"))}
    if unknown := [name for name in options.names if name not in sources]:
        parser.error(f"there is no notebooks/src/{unknown[0]}.py; there are {', '.join(sources)}")
    chosen = [sources[name] for name in options.names or sources]
    if options.check:
        if sentences := check(chosen):
            sys.exit("\n".join([*sentences, "Build again: python notebooks/build.py"]))
        return
    if options.text:
        (ROOT / "docs" / "glossary.md").write_text(glossary_page(), encoding="utf-8")
        if sentences := [sentence for source in chosen if (sentence := renew(source))]:
            sys.exit("\n".join([*sentences, "Build again: python notebooks/build.py"]))
        return
    for source in chosen:
        build(source, run=not options.no_execute)


sys.path.insert(0, str(ROOT))  # the exercises come from the package beside the notebooks
if __name__ == "__main__":
    main()
