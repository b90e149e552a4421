"""A kernel that dies while somebody looks at a view, in a real JupyterLab."""

import os
import signal

from test_lab import CELLS, RUN_ALL

SOURCE = [
    "import os, mi_workshop as mi\nprint(os.getpid())",
    "graph = mi.trace(mi.load('atlas'), 'Fact: the capital of the state containing Dallas is')\nview = graph.show()\nview",
    "len(view.selected)",
]
SESSION = "jupyterapp.shell.currentWidget.sessionContext"
RUN_LAST = "(async () => {const nb = jupyterapp.shell.currentWidget.content; nb.activeCellIndex = 2; await jupyterapp.commands.execute('notebook:run-cell')})()"


def selected(page):
    page.evaluate(RUN_LAST)
    return page.evaluate(CELLS)[2]["outputs"][0]["data"]["text/plain"]


def test_a_kernel_dies_under_a_view(lab, artifacts):
    """The machine runs out of memory in the middle of a talk: the picture is gone, the page is full of errors, or running all again
    does not bring the view back."""
    with lab.cells(*SOURCE) as page:
        page.evaluate(RUN_ALL)
        pills = page.locator(".mi-graph .mi-pill")
        pills.first.click()
        page.wait_for_timeout(500)
        assert selected(page) != "0"
        before = pills.count()
        os.kill(int(page.evaluate(CELLS)[0]["outputs"][0]["text"]), signal.SIGKILL)
        page.get_by_text("appears to have died").wait_for()
        page.screenshot(path=artifacts / "killed-dialog.png")
        page.get_by_role("button", name="Ok", exact=True).click()
        assert pills.count() == before, "the picture went with the kernel"
        pills.nth(1).click()
        page.locator(".mi-graph .mi-selected").first.wait_for()
        page.screenshot(path=artifacts / "killed.png")
        assert page.get_by_text("Error displaying widget").count() == 0
        page.wait_for_function(f"{SESSION}.session?.kernel?.status === 'idle'")
        page.evaluate(RUN_ALL)
        pills.first.click()
        page.wait_for_timeout(500)
        assert selected(page) != "0"


def test_a_notebook_that_was_left(lab, artifacts):
    """A learner comes back the next day to "Error displaying widget" in place of each view, or a page loaded again loses its live views."""
    with lab.cells(*SOURCE) as page:
        path = page.url.rpartition("/")[2].partition("?")[0]
        page.evaluate(RUN_ALL)
        page.locator(".mi-graph .mi-pill").first.wait_for()
        page.evaluate("jupyterapp.commands.execute('docmanager:save')")
        assert "widget-view" in (lab.folder / path).read_text()
        page.reload()
        page.locator(".mi-graph .mi-pill").first.wait_for()
    with lab.notebook(path) as page:
        picture = page.locator(".jp-OutputArea-output img")
        picture.wait_for()
        assert picture.get_attribute("alt") and page.locator(".mi-graph").count() == 0
        page.screenshot(path=artifacts / "left.png")
        assert page.get_by_text("Error displaying widget").count() == 0
        page.evaluate(RUN_ALL)
        page.locator(".mi-graph .mi-pill").first.wait_for()
