"""Attention as lines, and the attention brush, in a browser: mouse, touch, keyboard, hostile words, JupyterLab."""

import numpy as np
import pytest
import torch
from page_help import trait, until, violations

from mi_workshop.attention import Attention, brush, patterns
from mi_workshop.models.attention_rnn import AttentionRNN, PassageModel
from mi_workshop.worlds import Rooms

STORY = "Sandra went to the garden. John moved to the office. Where is Sandra?"
EVIL = [
    "</script><script>window.hit = 1</script>",
    "<img src=x onerror='window.hit = 1'>",
    "\u202eevil\u2066",
    "x" * 5000,
]
STUCK = "document.documentElement.scrollWidth <= innerWidth"
LINES = ".mi-lines > svg line"


@pytest.fixture(scope="module")
def rooms():
    torch.manual_seed(0)
    return PassageModel(AttentionRNN(len(Rooms.vocabulary), 6, width=8).eval(), Rooms())


# ---------------------------------------------------------------------- as lines
@pytest.fixture
def heads(atlas, open_html, tmp_path):
    view = patterns(atlas, "Mr Dursley met Mrs Potter. Mr").show(mode="lines", layer=3, head=2)
    with open_html(view.save(tmp_path / "x.html")) as page:
        yield page


def test_lines_are_the_weights(atlas, heads):
    """One line for each weight of a per cent or more; its opacity is the weight, its ends are query and key."""
    weights = patterns(atlas, "Mr Dursley met Mrs Potter. Mr").pattern[3, 2]
    drawn = heads.evaluate(
        f"[...document.querySelectorAll('{LINES}')].map(l => [+l.getAttribute('y1'), +l.getAttribute('y2'), +l.getAttribute('stroke-opacity')])"
    )
    expected = {((q + 0.5) / 8, (k + 0.5) / 8): weights[q, k] for q, k in np.argwhere(weights >= 0.01)}
    assert {(y1, y2): pytest.approx(w, abs=0.006) for y1, y2, w in drawn} == expected
    assert heads.locator(".mi-head-button svg:visible").count() == 16, "the model view has a picture for each head"


def test_a_token_shows_only_its_lines(heads):
    """Under the pointer, by keyboard, pinned by a click; weights as numbers on the other side, so that opacity is not all there is."""
    all_lines = heads.locator(LINES).count()
    looks, seen = heads.get_by_role("group", name="looks"), heads.get_by_role("group", name="is looked at")
    looks.get_by_role("button", name="Mr [7]").hover()
    assert 0 < heads.locator(LINES).count() < all_lines
    assert "92 %" in seen.get_by_role("button", name="Dursley [2]").inner_text()
    heads.mouse.move(5, 5)
    assert heads.locator(LINES).count() == all_lines
    looks.get_by_role("button", name="met [3]").click()
    heads.mouse.move(5, 5)
    assert heads.locator(LINES).count() < all_lines and trait(heads, "query") == 3
    looks.get_by_role("button", name="<bos> [0]").focus()
    heads.keyboard.press("ArrowDown")
    assert heads.evaluate("document.activeElement.textContent").startswith("Mr [1]")
    heads.keyboard.press("Tab")
    assert heads.evaluate("document.activeElement.textContent").startswith("<bos> [0]")
    heads.keyboard.press("Enter")
    assert "<bos> [0] is looked at by" in heads.get_by_role("status").text_content()


def test_heads_together_and_a_click_in_the_model_view(heads, artifacts):
    few = heads.locator(LINES).count()
    heads.get_by_role("button", name="0", exact=True).click()
    assert trait(heads, "also") == [0] and heads.locator(LINES).count() > few
    assert len({c for c in heads.evaluate(f"[...document.querySelectorAll('{LINES}')].map(l => l.getAttribute('class'))")}) == 2  # fmt: skip
    heads.screenshot(path=artifacts / "lines-light.png", full_page=True)
    heads.get_by_role("radio", name="head 2.1").click()
    assert (trait(heads, "layer"), trait(heads, "head")) == (2, 1)
    assert "head 2.1" in heads.locator(".mi-chart h2:visible").inner_text()
    heads.get_by_label("Show as").select_option("pattern")
    until(heads, "document.querySelectorAll('.mi-chart canvas').length === 1")
    assert trait(heads, "mode") == "pattern" and not heads.locator(".mi-lines").is_visible()
    heads.get_by_label("Show as").select_option("lines")
    assert heads.locator(".mi-chart > :not([hidden])").count() == 1
    heads.emulate_media(color_scheme="dark")
    heads.set_viewport_size({"width": 600, "height": 900})
    heads.screenshot(path=artifacts / "lines-dark-600.png", full_page=True)
    assert heads.evaluate(STUCK)


def test_axe_finds_nothing_in_the_lines(heads):
    heads.get_by_role("button", name="Dursley [2]").first.click()
    assert violations(heads, ".mi-attention") == []


def test_hostile_tokens_are_text(open_html, tmp_path):
    found = Attention(np.full((1, 2, 4, 4), 0.25), EVIL, np.zeros((1, 2), bool), kind=EVIL[0])
    for more in ({"mode": "lines"}, {}):
        with open_html(found.show(**more).save(tmp_path / "x.html")) as page:
            page.wait_for_timeout(200)  # ms, for an image to fail
            assert page.evaluate("window.hit") is None and page.evaluate(STUCK)
            assert page.locator(".mi-attention img, .mi-attention script").count() == 0


# ---------------------------------------------------------------------- the brush
@pytest.fixture
def bars(rooms, open_html, tmp_path):
    with open_html(brush(rooms, STORY).save(tmp_path / "x.html")) as page:
        yield page


def bar(page, name):
    return page.get_by_role("slider", name=name)


def test_brush_by_keyboard(bars, rooms):
    own = trait(bars, "own")
    panel = bars.locator(".mi-side")
    assert "prediction by 0.00" in panel.inner_text() and "no model to ask" in panel.inner_text()
    bars.get_by_role("button", name="Reset").focus()
    bars.keyboard.press("Tab")
    bars.keyboard.press("ArrowRight")
    bars.keyboard.press("ArrowUp")
    now = trait(bars, "weights")
    assert now[1] == pytest.approx(own[1] + 0.05) and sum(now) == pytest.approx(1)
    assert "prediction by" not in panel.inner_text(), "a saved page does not know what the prediction is now"
    assert now[2] / now[0] == pytest.approx(own[2] / own[0])
    assert bar(bars, "went [1]").get_attribute("aria-valuenow") == str(round(100 * now[1]))
    bars.keyboard.press("End")
    assert trait(bars, "weights")[1] == pytest.approx(1)
    bars.keyboard.press("-")
    assert trait(bars, "weights")[0] == pytest.approx(0.05 / 11)
    bars.get_by_role("button", name="Uniform").click()
    assert trait(bars, "weights") == pytest.approx([1 / 12] * 12)
    bars.get_by_role("button", name="Reset").click()
    bars.get_by_role("button", name="Permute").click()
    assert sorted(trait(bars, "weights")) == pytest.approx(sorted(own))


def test_brush_by_mouse(bars, artifacts):
    """Upwards gives a word more; onto another word gives that all it had."""
    own = trait(bars, "own")
    box = bar(bars, "garden [4]").locator(".mi-well").bounding_box()
    bars.mouse.move(box["x"] + 8, box["y"] + box["height"] - 5)
    bars.mouse.down()
    bars.mouse.move(box["x"] + 8, box["y"] + 20, steps=4)
    until(bars, f"graphModel.get('weights')[4] > {own[4] + 0.05}")
    bars.mouse.up()
    start = trait(bars, "weights")
    other = bar(bars, "office [10]").bounding_box()
    bars.mouse.move(box["x"] + 8, box["y"] + box["height"] - 5)
    bars.mouse.down()
    bars.mouse.move(other["x"] + 8, other["y"] + 40, steps=4)
    until(bars, "graphModel.get('weights')[4] === 0")
    assert bars.locator(".mi-target").count() == 1
    bars.screenshot(path=artifacts / "brush-drag.png", full_page=True)
    bars.mouse.up()
    assert trait(bars, "weights")[10] == pytest.approx(start[4] + start[10])
    bars.mouse.move(5, 5)
    assert trait(bars, "weights")[4] == 0 and bars.locator(".mi-target").count() == 0


def test_brush_by_touch(chromium, rooms, tmp_path):
    """A finger sends pointer events of its own kind, and must not scroll the page instead."""
    context = chromium.new_context(viewport={"width": 420, "height": 900}, has_touch=True)
    page = context.new_page()
    page.goto(brush(rooms, STORY).save(tmp_path / "x.html").as_uri())
    own = trait(page, "own")
    box = bar(page, "garden [4]").locator(".mi-well").bounding_box()
    session = context.new_cdp_session(page)
    for kind, y in (("touchStart", 90), ("touchMove", 60), ("touchMove", 20), ("touchEnd", None)):
        points = [] if y is None else [{"x": box["x"] + 8, "y": box["y"] + y}]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    until(page, f"graphModel.get('weights')[4] > {own[4] + 0.05}")
    assert page.evaluate(STUCK)
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_in_the_brush(bars, scheme, artifacts):
    bars.emulate_media(color_scheme=scheme)
    bar(bars, "garden [4]").focus()
    bars.screenshot(path=artifacts / f"brush-{scheme}.png", full_page=True)
    assert violations(bars, ".mi-brush") == []


def test_hostile_words_in_the_brush_are_text(rooms, open_html, tmp_path):
    view = brush(rooms, STORY)
    view.words, view.title = [*EVIL, *view.words[4:]], EVIL[0]
    view.answer = {"text": EVIL[1], "error": EVIL[0], "after": [{"token": EVIL[1], "prob": 1.0}]}
    with open_html(view.save(tmp_path / "x.html")) as page:
        page.wait_for_timeout(200)  # ms, for an image to fail
        assert page.evaluate("window.hit") is None and page.evaluate(STUCK)
        assert page.locator(".mi-brush img, .mi-brush script").count() == 0


def test_brush_in_a_notebook(lab, artifacts):
    """A key moves a weight, the kernel answers, both views follow, an error is a sentence, and no key reaches the notebook."""
    cells = [
        "import torch\nfrom mi_workshop.attention import brush\n"
        "from mi_workshop.models.attention_rnn import AttentionRNN, PassageModel\nfrom mi_workshop.worlds import Rooms\n"
        "torch.manual_seed(0)\nmodel = PassageModel(AttentionRNN(len(Rooms.vocabulary), 6, width=8).eval(), Rooms())\n"
        f"view = brush(model, {STORY!r})\nview",
        "view",
    ]  # fmt: skip
    with lab.cells(*cells) as page:
        page.evaluate("jupyterapp.commands.execute('notebook:run-all-cells')")
        until(page, "document.querySelectorAll('.mi-brush').length === 2")
        one, two = page.locator(".mi-brush").all()
        one.get_by_role("slider", name="garden [4]").focus()
        page.keyboard.press("End")
        for view in (one, two):
            view.locator(".mi-side", has_text="The weights have moved by 0.9").wait_for()
        page.keyboard.press("b")
        assert page.locator(".jp-Notebook .jp-Cell").count() == len(cells), "a key reached the notebook"
        page.screenshot(path=artifacts / "brush-lab.png")
        page.evaluate(
            "jupyterapp.shell.currentWidget.sessionContext.session.kernel.requestExecute({code: 'model.predict = None'}).done"
        )
        one.get_by_role("button", name="Uniform").click()
        two.locator(".mi-error", has_text="not callable").wait_for()
