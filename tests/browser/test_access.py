"""Everything that can be operated in a notebook, all at once in one JupyterLab: axe in both themes, reached and left by Tab alone, with a name and a focus to be seen.

What the keys do in our own views is tested view by view; here it is that lists and buttons of ipywidgets answer to them in JupyterLab, and that a change is said.
"""

import pytest
from page_help import until, violations
from test_lab import RUN_ALL

SHOWN = {
    "graph": "graph = mi.trace(atlas, 'Fact: the capital of the state containing Dallas is')\ngraph.show()",
    "heat map": "cube = mi.capture(atlas, [graph.prompt], features=4)\ncube.heat('norm', 'resid_post')",
    "heads": "patterns(atlas, 'Mr Dursley met Mrs Potter. Mr').show(mode='lines', layer=3, head=2)",
    "brush": "brush(rooms, 'Sandra went to the garden. Where is Sandra?')",
    "saliency": "scene = mi.worlds.Scenes().sample(1, 'test')[0]\nmi.saliency.explore(mi.load('scenes-cnn'), scene, scene.label, 'occlusion')",
    "upload": "mi.saliency.picture_upload(mi.load('scenes-clip'), 'a red circle', scene)",
    "cube": "cube.scrub()",
    "toy": "from mi_workshop.superposition import explore_toy\nexplore_toy()",
    "solu": "from mi_workshop import solu\nsolu.explore((4, 1, 4, 1))",
    "guess": "from mi_workshop.teach.guess_the_concept import guess_the_concept\nguess_the_concept(atlas, rounds=1, layer=1)",
    "clock": "from mi_workshop.teach import stage\nstage.timer()",
    "audience": "stage.Audience(atlas)",
    "lens": "mi.logit_lens(atlas, graph.prompt)",
    "feature": "mi.feature(atlas, *atlas.features[atlas.features.label == 'Texas'].index[-1])",
    "exercise": "from mi_workshop.teach import *\nfrom mi_workshop.teach.exercises import EXERCISES\ndisplay(check(next(iter(EXERCISES)), 0), hint(next(iter(EXERCISES))), glossary('feature'), progress())",
}  # fmt: skip
BEGIN = """import mi_workshop as mi, torch
from mi_workshop.attention import brush, patterns
from mi_workshop.models.attention_rnn import AttentionRNN, PassageModel
atlas = mi.load('atlas')
torch.manual_seed(0)
rooms = PassageModel(AttentionRNN(len(mi.worlds.Rooms.vocabulary), 6, width=8).eval(), mi.worlds.Rooms())"""
WHERE = """() => { const at = document.activeElement, style = getComputedStyle(at), cell = at.closest('.jp-CodeCell');
    return [[...document.querySelectorAll('.jp-CodeCell')].indexOf(cell), Boolean(at.closest('.jp-OutputArea-output')), style.outlineStyle !== 'none' || style.boxShadow !== 'none' || style.borderColor] }"""


@pytest.fixture(scope="module")
def page(lab):
    with lab.cells(BEGIN, *SHOWN.values()) as page:
        page.evaluate(RUN_ALL)
        code = page.evaluate("jupyterapp.shell.currentWidget.context.model.toJSON().cells")
        assert [o.get("evalue") for cell in code for o in cell["outputs"] if o["output_type"] == "error"] == []
        until(page, "document.querySelectorAll('.mi-graph .mi-pill, .noUi-handle').length > 12")
        yield page


@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark"])
def test_axe_finds_nothing(page, theme):
    """Roles, names and contrast of each, in Lab's two themes."""
    page.evaluate("theme => jupyterapp.commands.execute('apputils:change-theme', { theme })", theme)
    until(page, f"document.body.dataset.jpThemeName === '{theme}'")
    page.wait_for_timeout(500)  # ms, for the style sheets of the theme
    page.evaluate(
        "document.querySelectorAll('.jp-CodeCell').forEach((cell, i) => { cell.querySelector('.jp-Cell-outputArea').id = `output-${i}` })"
    )
    assert violations(page, {"include": [[f"#output-{i}"] for i, _ in enumerate(SHOWN, 1)]}) == []


def test_tab_alone_reaches_and_leaves_each(page):
    """A trap ends the lesson for who has no mouse; a stop without a name or a ring is a stop in the dark."""
    page.evaluate(
        "jupyterapp.shell.currentWidget.content.activeCellIndex = 1; document.querySelectorAll('.jp-Cell')[1].focus()"
    )
    devtools, stops = page.context.new_cdp_session(page), {}
    for _ in range(250):
        page.keyboard.press("Tab")
        cell, inside, ring = page.evaluate(WHERE)
        if cell < 0 and stops:
            break
        if inside:
            this = devtools.send("Runtime.evaluate", {"expression": "document.activeElement"})["result"]["objectId"]
            node = devtools.send("Accessibility.getPartialAXTree", {"objectId": this, "fetchRelatives": False})[
                "nodes"
            ][0]
            stops.setdefault([*SHOWN][cell - 1], []).append((node["role"]["value"], node["name"]["value"], bool(ring)))
    else:
        pytest.fail(f"still in the notebook after 250 presses, in {list(stops)[-1]}")
    assert set(stops) >= {*SHOWN} - {"lens", "feature", "exercise"}, (
        "these have nothing to press; the lens says on hover what its words and its table say too"
    )
    assert {
        name: bad for name, found in stops.items() if (bad := [s for s in found if not s[1].strip() or not s[2]])
    } == {}


def test_lists_and_buttons_answer_to_keys_and_a_change_is_said(page):
    """JupyterLab takes ↓ and Enter for itself unless it is told not to: a list could not be changed without a mouse."""
    cell = page.locator(".jp-CodeCell").nth([*SHOWN].index("cube") + 1)
    chosen = cell.locator("select")
    before = chosen.input_value()
    chosen.focus()
    page.keyboard.press("ArrowDown")
    assert chosen.input_value() != before and chosen.evaluate("e => e === document.activeElement")
    cell.get_by_role("status").get_by_text("layer 0 (1 of 4)").wait_for(state="attached")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("ArrowRight")
    cell.get_by_role("status").get_by_text("layer 1 (2 of 4)").wait_for(state="attached")
    guess = page.locator(".jp-CodeCell").nth([*SHOWN].index("guess") + 1)
    guess.get_by_role("button", name="Show weak activations").focus()
    page.keyboard.press("Enter")
    guess.get_by_role("button", name="Show the answer").wait_for()
    assert page.locator(".jp-CodeCell").count() == len(SHOWN) + 1


def test_a_button_that_does_its_work_keeps_the_focus(page):
    """One that is made anew, or switched off, would throw a reader back to the top of the page at each press."""
    heads = page.locator(".jp-CodeCell").nth([*SHOWN].index("heads") + 1).get_by_role("button", name="0", exact=True)
    heads.focus()
    page.keyboard.press("Enter")
    assert heads.get_attribute("aria-pressed") == "true" and heads.evaluate("e => e === document.activeElement")
    graph = page.locator(".jp-CodeCell").nth([*SHOWN].index("graph") + 1)
    graph.get_by_label("Influence threshold").focus()
    page.keyboard.press("ArrowLeft")
    graph.get_by_role("button", name="Undo").focus()
    page.keyboard.press("Enter")
    until(page, "document.querySelector('[aria-label=Undo]').disabled")
    page.wait_for_timeout(100)  # ms; the browser takes the focus off a button after it has painted it
    assert page.evaluate("Boolean(document.activeElement.closest('.mi-graph'))")
