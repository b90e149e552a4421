"""The notebooks as they are stored: they agree with their sources, are small, and show the same to everybody."""

import base64
import importlib.util
import io
import json
import re
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient.exceptions import CellExecutionError
from PIL import Image

from mi_workshop.lab_files import still
from mi_workshop.show import VIEW

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "notebooks" / "src").glob("*.py"))
BUILT = sorted(p for p in (ROOT / "notebooks").glob("**/*.ipynb") if ".ipynb_checkpoints" not in p.parts)
# a folder of somebody's machine, or an address in memory
MACHINE = re.compile(
    r"(?<![\w.:/])/(?:home|root|tmp|usr|opt|var|work|mnt|Users|content)/\w|[A-Z]:\\\\|\bat 0x[0-9a-f]{6,}"
)
BLOCKS = ("minutes", "## What could mislead you", "## Your turn", "## Key points", "## To discuss")
TALKS = {"live_demo": ("minutes", "## What could mislead you", "## Key points")}  # nobody does exercises in a talk
EXTERNAL = re.compile(r"!\[[^]]*\]\((?:https?:)?//|<img[^>]+src=[\"']?(?:https?:)?//", re.IGNORECASE)

spec = importlib.util.spec_from_file_location("build", ROOT / "notebooks" / "build.py")
build = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build)

each = pytest.mark.parametrize("path", BUILT, ids=lambda p: p.relative_to(ROOT).as_posix())


def cells(path, kind=None):
    found = nbformat.read(path, as_version=4).cells
    return [cell for cell in found if kind in (None, cell.cell_type)]


def outputs(path):
    return [output for cell in cells(path, "code") for output in cell.outputs]


class Images(HTMLParser):
    """The attributes of every <img>, and the text around them."""

    def __init__(self, text):
        super().__init__()
        self.found, self.text = [], ""
        self.feed(text)

    def handle_data(self, data):
        self.text += data

    def handle_starttag(self, tag, attributes):
        if tag == "img":
            self.found.append(dict(attributes))


# ------------------------------------------------------------------------------------------- what is stored
def test_built_and_sources_agree():
    assert build.check(SOURCES) == []


def test_nothing_is_built_without_a_source():
    assert {p.stem for p in BUILT} == {p.stem for p in SOURCES}


@each
def test_valid_and_small(path):
    nbformat.validate(nbformat.read(path, as_version=4))
    assert path.stat().st_size < 1_000_000
    assert "widgets" not in nbformat.read(path, as_version=4).metadata
    assert VIEW not in path.read_text(encoding="utf-8")


@each
def test_was_run_from_top_to_bottom_without_errors(path):
    ran = [cell.execution_count for cell in cells(path, "code") if cell.source.strip()]
    assert ran == list(range(1, len(ran) + 1)), "build it again: python notebooks/build.py"
    assert [o for o in outputs(path) if o.output_type == "error" or o.get("name") == "stderr"] == []


@each
def test_no_trace_of_the_machine_that_built_it(path):
    texts = [json.dumps({k: v for k, v in o.items() if k != "data"} | {"data": _text(o)}) for o in outputs(path)]
    assert [text for text in texts if MACHINE.search(text)] == []


def _text(output):
    """The data of an output without its pictures."""
    data = {k: v for k, v in output.get("data", {}).items() if not k.startswith("image/")}
    return json.loads(re.sub(r"data:image/[^\"'\\]*", "", json.dumps(data)))


@each
def test_code_cells_are_short(path):
    long = [cell.source for cell in cells(path, "code") if len(cell.source.splitlines()) > 8]
    assert long == []


@each
def test_links_lead_somewhere(path):
    """A reference that its own cell does not define is printed with its brackets."""
    for cell in cells(path, "markdown"):
        used, defined = (
            re.findall(r"\]\[([a-z][\w-]*)\]", cell.source),
            re.findall(r"^\[([\w-]+)\]: ", cell.source, re.MULTILINE),
        )
        assert set(used) == set(defined), cell.source


@each
def test_every_figure_says_in_words_what_it_shows(path):
    """JupyterLab gives image/png no alt text at all, so a picture needs an <img alt>, or a text that says it all, in text/html."""
    for output in outputs(path):
        data = output.get("data", {})
        page = Images("".join(data.get("text/html", "")))
        images = page.found
        assert all(image.get("alt", "").strip() for image in images), "an <img> without alt text"
        if any(kind.startswith("image/") for kind in data):
            assert images or len(page.text) > 500, "a picture with neither an <img alt> nor a text beside it"
        if images:
            sentence = data.get("text/plain", "").strip()
            assert sentence and not sentence.startswith("<"), "a picture without a sentence beside it"


@each
def test_no_alt_text_could_stand_for_another_picture(path):
    """What is read out in place of a picture is a sentence about it, and another one for each picture of a notebook."""
    seen = {}
    for output in outputs(path):
        for image in Images("".join(output.get("data", {}).get("text/html", ""))).found:
            alt, data = image["alt"].strip(), base64.b64decode(image["src"].partition("base64,")[2])
            assert len(alt) > 40 and " " in alt and not re.search(r"\.(png|svg|jpe?g)\b", alt, re.IGNORECASE), alt
            small = np.asarray(Image.open(io.BytesIO(data)).convert("L").resize((48, 48)), float)
            apart = float(
                np.abs(small - seen.setdefault(alt, small)).mean()
            )  # of 255; the same picture in another size: under 4
            assert apart < 4, f"two pictures with the words {alt!r}"


@each
def test_markdown_pictures_have_alt_text_and_come_from_here(path):
    text = "\n\n".join(cell.source for cell in cells(path, "markdown"))
    assert not re.search(r"!\[\s*\]", text)
    assert not EXTERNAL.search(text), "opening the notebook would ask another host for a picture"


@each
def test_links_to_files_lead_somewhere(path):
    text = "\n\n".join(cell.source for cell in cells(path, "markdown"))
    local = [link for link in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in link]
    assert [link for link in local if not (path.parent / link).exists()] == []


@each
def test_one_set_up_cell_the_same_everywhere(path):
    setup = [cell.source for cell in cells(path, "code") if "setup" in cell.metadata.get("tags", [])]
    assert setup == [build.SETUP.format(repository=build.repository())]
    assert "setup" in cells(path, "code")[0].metadata.get("tags", [])


@each
def test_the_blocks_of_a_lesson_are_there(path):
    text = "\n".join(cell.source for cell in cells(path, "markdown"))
    for block in TALKS.get(path.stem, BLOCKS):
        assert block in text, f"no {block!r}"
    assert text.startswith("# ")


def test_each_notebook_leads_to_the_next():
    """Who studies alone and follows the links never meets half of the course."""
    course = [path.stem for path in SOURCES if path.stem not in TALKS]
    for name, following in zip(course, course[1:], strict=False):
        (line,) = re.findall(
            r"^# \*\*Next:\*\*.*$", (ROOT / f"notebooks/src/{name}.py").read_text("utf-8"), re.MULTILINE
        )
        assert re.search(r"\]\((\S+)\.ipynb\)", line)[1] == following, f"{name} leads elsewhere"


# ---------------------------------------------------------------------------------------------- the pipeline
TOY = """\
# %% [markdown] slideshow={"slide_type": "slide"}
# # Toy

# %% tags=["setup"]
import mi_workshop as mi

# %% [markdown] tags=["instructor"]
# Speak slowly.

# %%
import ipywidgets

ipywidgets.IntSlider()

# %% [markdown] tags=["exercise"]
# the missing step

# %%
step = ...
# solution
step = "Florida"

# %% tags=["nbval-check-output"]
step

# %% tags=["solution"]
print("only here")

# %% tags=["unstored"]
print("of this machine")
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with one small notebook, and a way to call its build.py, which gives the exit code."""
    folder = tmp_path / "notebooks"
    (folder / "src").mkdir(parents=True)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (folder / "src" / "toy.py").write_text(TOY, encoding="utf-8")
    monkeypatch.setattr(build, "ROOT", tmp_path)
    monkeypatch.setattr(build, "HERE", folder)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["build.py", *arguments])
        try:
            build.main()
        except SystemExit as leaving:
            return leaving.code

    return folder, run


def test_build_gives_a_learner_and_a_solution_notebook_and_the_same_again(project):
    folder, run = project
    assert "toy.ipynb is not built" in run("--check")
    run()
    learner, solution = (nbformat.read(folder / p, as_version=4) for p in ("toy.ipynb", "solutions/toy.ipynb"))
    text = (folder / "toy.ipynb").read_text(encoding="utf-8")
    assert not any(hidden in text for hidden in ("Florida", "only here", "Speak slowly"))
    assert "# write your code here" in text and "### Exercise: the missing step" in text
    tagged = {tag: cell for cell in solution.cells for tag in cell.metadata.get("tags", [])}
    assert tagged["nbval-check-output"].outputs[0]["data"]["text/plain"] == "'Florida'"
    assert tagged["instructor"].metadata.slideshow.slide_type == "notes"
    assert tagged["unstored"].outputs == [] and tagged["unstored"].execution_count
    assert solution.cells[0].metadata.slideshow.slide_type == "slide"
    assert "embedded tier" in tagged["setup"].outputs[0]["text"]
    assert "(../badges/colab.svg)" in tagged["badges"].source
    assert learner.metadata.measured == solution.metadata.measured  # the box says the same in both
    assert learner.metadata.kernelspec.name == "python3" and "widgets" not in solution.metadata
    slider = next(cell for cell in solution.cells if "IntSlider" in cell.source)
    assert list(slider.outputs[0]["data"]) == ["text/plain"]
    assert list(folder.glob("**/*.part")) == []
    assert run("--check") is None

    def stored():  # but for the seconds, which differ on a busy machine
        return {path: re.sub(r'"measured": ".*"', "", path.read_text(encoding="utf-8")) for path in folder.glob("**/*.ipynb")}  # fmt: skip

    first = stored()
    (folder / "my_corpus").mkdir()
    (folder / "solutions" / "my_cube.json").write_text("of an earlier run", encoding="utf-8")
    run("toy")
    assert stored() == first and not list(folder.glob("**/my_*"))


def test_check_finds_an_edited_source_and_an_edited_notebook(project):
    folder, run = project
    run("--no-execute")
    assert run("--check") is None
    source, built = folder / "src" / "toy.py", folder / "toy.ipynb"
    source.write_text(TOY.replace("# Toy", "# Tony"), encoding="utf-8")
    assert "toy.ipynb: the text of cell 0 differs" in run("--check")
    source.write_text(TOY + "\n# %%\nstep\n", encoding="utf-8")
    assert "toy.ipynb has 8 cells, its source gives 9" in run("--check")
    source.write_text(TOY, encoding="utf-8")
    built.write_text(built.read_text(encoding="utf-8").replace("nbval-check-output", "nbval-skip"), encoding="utf-8")
    assert "toy.ipynb: type, id or tags" in run("--check")


def test_an_error_in_a_cell_stops_the_build_and_keeps_the_old_notebook(project):
    folder, run = project
    run("--no-execute")
    before = (folder / "toy.ipynb").read_bytes()
    (folder / "src" / "toy.py").write_text("# %%\n1 / 0\n", encoding="utf-8")
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        run()
    assert (folder / "toy.ipynb").read_bytes() == before


def test_an_unknown_notebook_is_named(project, capsys):
    _, run = project
    assert run("nope") == 2
    assert "there is no notebooks/src/nope.py; there are toy" in capsys.readouterr().err


def test_a_strangers_view_becomes_a_picture_and_no_markup():
    """Whoever opens a notebook that somebody sent would run what its sender wrote into a picture's data, words or width."""
    evil = '"><script>alert(1)</script>'
    output = {"data": {VIEW: {}, "image/png": [evil], "text/plain": [evil]}, "metadata": {"image/png": {"width": evil}}}
    plain = {"data": {VIEW: {}, "text/plain": "a button"}, "metadata": {}}
    still([output, plain, {"output_type": "stream", "text": "x"}])
    seen = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attributes: seen.append((tag, dict(attributes)))
    parser.feed(output["data"]["text/html"])
    assert [(tag, attributes["alt"]) for tag, attributes in seen] == [("img", evil)] and VIEW not in output["data"]
    assert VIEW in plain["data"], "a widget without a picture stays what it is"
