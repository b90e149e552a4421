"""Every notebook in a real JupyterLab as stored, and some run from top to bottom."""

from pathlib import Path

import pytest

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
BUILT = sorted(
    p.relative_to(NOTEBOOKS).as_posix() for p in NOTEBOOKS.glob("**/*.ipynb") if ".ipynb_checkpoints" not in p.parts
)
RUN_ALL = "jupyterapp.commands.execute('notebook:run-all-cells')"
CELLS = "jupyterapp.shell.currentWidget.context.model.toJSON().cells"
# plotly keeps an empty <img> without a source beside each of its figures
IMAGES = """Array.from(document.querySelectorAll('.jp-Notebook img:not(.plot-img:not([src]))')).map(
    image => ({alt: image.alt, loaded: image.complete && image.naturalWidth > 0, shown: image.src.slice(0, 80)}))"""
OPEN = """async path => {
    window.shown = await jupyterapp.commands.execute('docmanager:open', {path, factory: 'Notebook'});
    await Promise.all([shown.revealed, shown.sessionContext.ready]);
}"""
SHOWN = """shown.content.widgets.every(cell => cell.model.type !== 'markdown' || cell.node.classList.contains('jp-mod-rendered'))
    && [...shown.node.querySelectorAll('img[src]')].every(image => image.complete)"""
CLOSE = """async () => {
    const {id} = shown.sessionContext.session;
    shown.dispose();
    await jupyterapp.serviceManager.sessions.shutdown(id);
}"""
# Run to the end in the front end, for the views that no other test here shows in Lab: the sliders of the toy model and of SoLU with plotly
# drawn live, and the talk (timer, audience, the graph for a projector). Graphs, heat maps, heads, the brush, the scrubber, the saliency
# controls and the activity are clicked in Lab by tests of their own in this folder; nbval runs every cell of every notebook.
RUN = ("solutions/04b_superposition.ipynb", "solutions/live_demo.ipynb")
LONGEST = 16_000  # pixels of a screenshot, Chromium's limit for a page


def screenshot(page, file):
    """The whole notebook, not only what fits the window."""
    height = page.evaluate("document.querySelector('.jp-WindowedPanel-outer').scrollHeight")
    page.set_viewport_size({"width": 1200, "height": min(int(height) + 150, LONGEST)})
    page.evaluate("document.querySelector('.jp-WindowedPanel-outer').scrollTo(0, 0)")
    page.wait_for_timeout(300)  # ms, to paint
    page.screenshot(path=file)


def check_images(page):
    images = page.evaluate(IMAGES)
    assert images, "not even the badges are shown"
    assert [image for image in images if not (image["alt"].strip() and image["loaded"])] == []


@pytest.fixture(scope="module")
def reader(lab):
    with lab.reader() as page:
        yield page


@pytest.mark.parametrize("path", BUILT)
def test_as_stored(reader, path):
    """Whoever opens a notebook would see holes in place of pictures; requests to elsewhere and errors are counted when all were open."""
    reader.evaluate(OPEN, path)
    reader.wait_for_function(SHOWN)
    assert reader.locator(".jp-Notebook").count() == 1
    check_images(reader)
    reader.evaluate(CLOSE)


@pytest.mark.parametrize("path", RUN)
def test_runs(lab, artifacts, path):
    """A cell that only a front end fails would be met by learners."""
    with lab.notebook(path) as page:
        page.evaluate(RUN_ALL)
        screenshot(page, artifacts / f"{path.removesuffix('.ipynb').replace('/', '-')}.png")
        code = [cell for cell in page.evaluate(CELLS) if cell["cell_type"] == "code"]
        assert [output for cell in code for output in cell["outputs"] if output["output_type"] == "error"] == []
        assert [cell["source"] for cell in code if cell["source"].strip() and not cell["execution_count"]] == []
        check_images(page)


def test_a_cell_that_fails_is_seen(lab):
    """The test above would notice an error."""
    with lab.cells("1 / 0") as page:
        page.evaluate(f"{RUN_ALL}.catch(() => null)")
        kinds = [output["output_type"] for cell in page.evaluate(CELLS) for output in cell["outputs"]]
        assert kinds == ["error"]
