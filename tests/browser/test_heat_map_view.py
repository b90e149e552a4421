"""The heat map and the head browser in a browser: mouse, keyboard, hostile labels, pictures, JupyterLab."""

import numpy as np
import pytest
from page_help import trait, until, violations

from mi_workshop.attention import patterns
from mi_workshop.widgets.heat_map import HeatMap

ROWS = [f"layer {i}" for i in range(4)]
COLUMNS = ["<bos>", "Fact", ":", "the", "capital", "of", "the", "state", "containing", "Dallas", "is"]
EVIL = [
    "</script><script>window.hit = 1</script>",
    "<img src=x onerror='window.hit = 1'>",
    "\u202eevil\u2066",
    "x" * 5000,
    "<!-- <script>",
]
STUCK = "document.documentElement.scrollWidth <= innerWidth"
CHART = """(function () {
    const canvas = document.querySelector('.mi-chart > :not([hidden]) canvas');
    return Boolean(canvas) && canvas.width > 50 && canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.some(x => x > 0);
})()"""


def made(diverging=True, **more):
    values = np.round(np.random.default_rng(0).normal(size=(4, 11)), 3)
    values[3, 4:] = np.nan
    answer = {
        "text": "The state arises at the city.", "before": [{"token": "Austin", "prob": 0.95}], "after": [{"token": "Salem", "prob": 0.8}],
        "controls": [{"name": "random donor", "token": "Austin", "prob": 0.9, "note": "mean of 20"}],
    }  # fmt: skip
    view = HeatMap(
        values, ROWS, COLUMNS, "Patching resid_post", "change of logit difference", lambda *c: answer, diverging=diverging, **more
    )  # fmt: skip
    view.selected = [1, 9]
    return view


@pytest.fixture
def page(open_html, tmp_path):
    """A saved map that may ask: what Python would answer is set by the test."""
    with open_html(made().save(tmp_path / "x.html")) as page:
        page.evaluate("graphModel.set('can_ask', true)")
        yield page


def cell(page, row, column):
    return page.get_by_role("gridcell", name=f"{ROWS[row]}, {COLUMNS[column]}:").first


def test_first_look(page):
    """Numbers, names, legend and what is missing are there; layers go up."""
    text = page.locator(".mi-heat").inner_text()
    for word in ("Dallas", "layer 3", "37 of 44 cells computed", "change of logit difference", "not computed"):
        assert word in text
    assert cell(page, 1, 9).inner_text() == f"{made().values[1, 9]:.2f}".replace("-", "−")
    heights = [cell(page, row, 0).bounding_box()["y"] for row in range(4)]
    assert heights == sorted(heights, reverse=True)
    answer = page.locator(".mi-side").inner_text()
    assert all(word in answer for word in ("The state arises", "Salem", "80 %", "random donor", "mean of 20"))


def test_mouse(page):
    cell(page, 0, 3).click()
    assert trait(page, "selected") == [0, 3]
    page.locator(".mi-side", has_text="Computing").wait_for()
    page.evaluate("graphModel.set('answer', {cell: [0, 3], text: 'It does nothing here.', error: ''})")
    page.locator(".mi-side", has_text="It does nothing here.").wait_for()
    assert page.get_by_role("status").text_content() == "It does nothing here."
    page.evaluate("graphModel.set('answer', {cell: [0, 3], error: 'The kernel says no.'})")
    assert page.get_by_role("alert").text_content() == "The kernel says no."


def test_keyboard(page):
    grid = page.get_by_role("grid")
    assert grid.get_attribute("tabindex") == "0"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement === document.querySelector('.mi-grid')")
    assert page.evaluate("getComputedStyle(document.querySelector('.mi-here')).outlineStyle") != "none"
    for key in ("ArrowUp", "ArrowRight", "Enter"):
        page.keyboard.press(key)
    assert trait(page, "selected") == [2, 10]
    active = page.locator(f"#{grid.get_attribute('aria-activedescendant')}")
    assert active.get_attribute("aria-label").startswith("layer 2, is:")
    assert active.get_attribute("aria-selected") == "true"
    page.keyboard.press("Control+Home")
    page.keyboard.press("Space")
    assert trait(page, "selected") == [3, 0]
    page.keyboard.press("Escape")
    assert trait(page, "selected") == []


def test_python_moves_the_map(page):
    page.evaluate("graphModel.set('selected', [2, 2])")
    assert cell(page, 2, 2).get_attribute("aria-selected") == "true"
    page.evaluate("graphModel.set('cells', graphModel.get('cells').map(row => row.map(() => .5)))")
    page.locator(".mi-status", has_text="All 44 cells computed").wait_for()
    page.evaluate("graphModel.set('size', 'stage')")
    page.locator(".mi-big").wait_for()


def test_a_saved_page_says_why_it_cannot_answer(open_html, tmp_path):
    with open_html(made().save(tmp_path / "x.html")) as page:
        cell(page, 0, 0).click()
        page.locator(".mi-side", has_text="no model to ask").wait_for()


@pytest.mark.parametrize("scheme", ["light", "dark", "grey", "stage", "narrow", "zoomed", "forced", "large"])
def test_pictures(chromium, tmp_path, artifacts, scheme):
    """To be looked at; nothing may stick out sideways."""
    context = chromium.new_context(
        viewport={"width": 700 if scheme == "narrow" else 600 if scheme == "zoomed" else 1200, "height": 700},
        color_scheme="dark" if scheme == "dark" else "light", device_scale_factor=2 if scheme == "zoomed" else 1,
        forced_colors="active" if scheme == "forced" else "none",
    )  # fmt: skip
    page = context.new_page()
    view = made(size="stage" if scheme == "stage" else "normal")
    if scheme == "large":
        values = np.random.default_rng(0).random((26, 40))
        view = HeatMap(
            values, [f"layer {i}" for i in range(26)], [f"token {i}" for i in range(40)], "Large", "KL (nats)"
        )
    page.goto(view.save(tmp_path / "x.html").as_uri())
    if scheme == "grey":
        page.add_style_tag(content="html { filter: grayscale(1) }")
    page.get_by_role("grid").focus()
    page.wait_for_timeout(200)  # ms, to paint
    page.screenshot(path=artifacts / f"heat-map-{scheme}.png", full_page=True)
    assert page.evaluate(STUCK)
    context.close()


def test_hostile_labels_are_text(open_html, tmp_path):
    """A prompt or a model's vocabulary from a stranger must not run in the reader's browser."""
    parts = {"text": EVIL[0], "after": [{"token": EVIL[1], "prob": 0.5}], "controls": [{"name": EVIL[0], "token": EVIL[1], "prob": 1, "note": EVIL[1]}], "error": EVIL[0]}  # fmt: skip
    view = HeatMap(np.ones((5, 5)), EVIL, EVIL, EVIL[0], EVIL[1], on_click=lambda *c: parts)
    view.selected = [0, 0]
    with open_html(view.save(tmp_path / "x.html")) as page:
        page.get_by_role("grid").focus()
        page.wait_for_timeout(200)  # ms, for an image to fail
        assert page.evaluate("window.hit") is None and page.evaluate(STUCK)
        assert page.locator(".mi-heat img, .mi-heat script").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(page, scheme):
    """Roles, names and contrast: without them a screen reader, or a pale projector, shows nothing."""
    page.emulate_media(color_scheme=scheme)
    page.get_by_role("grid").focus()
    assert violations(page, ".mi-heat") == []


# --------------------------------------------------------------- the browser of heads
@pytest.fixture
def heads(atlas, open_html, tmp_path):
    """``open_html`` fails for any request, so CircuitsVis must draw from what the page holds."""
    with open_html(patterns(atlas, "Mr Dursley met Mrs Potter. Mr").save(tmp_path / "x.html")) as page:
        until(page, CHART)
        yield page


def test_heads_by_mouse_and_keyboard(heads, artifacts):
    side = heads.locator(".mi-side")
    heads.get_by_role("radio", name="head 3.2").click()
    assert (trait(heads, "layer"), trait(heads, "head")) == (3, 2)
    assert "Dursley [2]" in side.locator(".mi-answer-row").first.inner_text()
    until(heads, CHART)
    heads.keyboard.press("ArrowDown")
    heads.keyboard.press("ArrowLeft")
    assert (trait(heads, "layer"), trait(heads, "head")) == (2, 1)
    assert heads.evaluate("document.activeElement.getAttribute('aria-label')") == "head 2.1"
    assert heads.locator(".mi-live").text_content().startswith("head 2.1: Mr [7] looks at")
    heads.get_by_label("From token").select_option("2")
    assert trait(heads, "query") == 2 and "Mr [1]" in side.locator(".mi-answer-row").first.inner_text()
    heads.evaluate("graphModel.set('layer', 0)")
    assert "writes nothing" in side.inner_text()
    assert heads.locator(".mi-chart > :not([hidden])").count() == 1
    heads.screenshot(path=artifacts / "heads-light.png", full_page=True)
    heads.emulate_media(color_scheme="dark")
    heads.set_viewport_size({"width": 700, "height": 900})
    heads.wait_for_timeout(300)  # ms, for the chart to follow
    heads.screenshot(path=artifacts / "heads-dark-700.png", full_page=True)
    assert heads.evaluate(STUCK)


def test_axe_finds_nothing_in_the_heads(heads):
    assert violations(heads, ".mi-attention") == []


def test_in_a_notebook(lab, artifacts):
    """Click, compute, an error, two views in step; CircuitsVis comes from the kernel once, and nothing from elsewhere."""
    cells = [
        "from mi_workshop.widgets.heat_map import HeatMap\n"
        "def ask(row, column):\n    return f'{1 / row:.2f} in column {column}'\n"
        "map = HeatMap([[.1, .2], [.3, .4]], ['a', 'b'], ['c', 'd'], title='Map', on_click=ask)\nmap",
        "map",
        "import mi_workshop as mi\nfrom mi_workshop.attention import patterns\n"
        "found = patterns(mi.load('atlas'), 'Mr Dursley met Mrs Potter. Mr')\nfound",
        "found",
    ]  # fmt: skip
    with lab.cells(*cells) as page:
        page.evaluate("jupyterapp.commands.execute('notebook:run-all-cells')")
        until(page, "document.querySelectorAll('.mi-heat .mi-cell').length === 8")
        one, two = page.locator(".mi-heat").all()
        one.get_by_role("gridcell", name="b, d").click()
        for view in (one, two):
            view.locator(".mi-side", has_text="1.00 in column 1").wait_for()
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        two.locator(".mi-error", has_text="division by zero").wait_for()
        page.keyboard.press("b")
        assert page.locator(".jp-Notebook .jp-Cell").count() == len(cells), "a key reached the notebook"
        until(page, "document.querySelectorAll('.mi-chart canvas').length === 2")
        until(page, CHART)
        page.locator(".mi-attention").first.scroll_into_view_if_needed()
        page.screenshot(path=artifacts / "heads-lab.png")
        page.get_by_role("radio", name="head 2.1").first.click()
        page.keyboard.press("b")
        assert page.locator(".jp-Notebook .jp-Cell").count() == len(cells), "a key reached the notebook"
        stored = page.evaluate("JSON.stringify(jupyterapp.shell.currentWidget.context.model.toJSON()).length")
        assert stored < 1_000_000, "CircuitsVis was written into the notebook"
