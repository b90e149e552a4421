"""The interactive graph in a browser: every interaction by mouse and by keyboard, hostile labels, large and real graphs.

axe checks roles, names and contrast of what is an element; it cannot see into a canvas, so what is drawn there is tested by
keyboard and by what is announced, and looked at in the screenshots.
"""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from page_help import trait, until, violations

from mi_workshop.circuits.graph import ERROR, FEATURE, LOGIT, TOKEN, AttributionGraph

TEXAS = "Texas @Dallas"
DRAWN = """(function () {
    const canvas = document.querySelector('.mi-stage canvas'), pen = canvas.getContext('2d');
    return pen.getImageData(0, 0, canvas.width, canvas.height).data.some(x => x > 0);
})()"""
OVERLAPS = """Array.from(document.querySelectorAll('.mi-pill, .mi-answer')).filter(x => !x.hidden).map(x => x.getBoundingClientRect())
    .flatMap((a, i, all) => all.slice(i + 1).filter(b => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom)).length"""


INTERACT = """async ([from, to]) => {
    const frame = () => new Promise(requestAnimationFrame), ids = graphModel.get('nodes').id, groups = graphModel.get('supernodes');
    for (let i = from; i < to; i++) {
        graphModel.set('threshold', .3 + .1 * (i % 7));
        graphModel.set('selected', [ids[i % ids.length], ids[(7 * i) % ids.length]]);
        graphModel.set('clicked', ids[(3 * i) % ids.length]);
        graphModel.set('supernodes', i % 2 ? groups : {...groups, odd: [ids[i % ids.length]]});
        graphModel.save_changes();
        await frame();
    }
}"""


@pytest.fixture
def page(graph, open_html, tmp_path):
    with open_html(graph.save(tmp_path / "x.html")) as page:
        yield page


def said(page):
    return page.locator(".mi-live").text_content()


def settle(page):
    page.wait_for_timeout(300)  # ms; the picture is drawn again 150 ms after the last movement


def transform(page, label=TEXAS):
    return page.locator(f'.mi-pill[data-super="{label}"]').bounding_box()


def place_of(page, node_id):
    """Where a node is drawn, in pixels of the window."""
    return page.evaluate(
        """id => {
            const at = graphModel.get('nodes'), i = at.id.indexOf(id), meta = graphModel.get('meta'), stage = document.querySelector('.mi-stage');
            const em = parseFloat(getComputedStyle(document.querySelector('.mi-graph')).fontSize), box = stage.getBoundingClientRect();
            const W = Math.max(...meta.columns.map(c => c[1])), H = Math.max(...meta.rows.map(r => r[2]));
            const sx = (stage.clientWidth - 4.6 * em - 8) / W, sy = (stage.clientHeight - 2.6 * em - 8) / H;
            return [box.x + stage.clientLeft + 4.6 * em + at.x[i] * sx, box.y + stage.clientTop + 8 + (H - at.y[i]) * sy];
        }""",
        node_id,
    )


def test_first_look(page, graph):
    """Tokens, layers, answers, boxes, scores and what is hidden are there when it opens, and nothing overlaps."""
    text = page.locator(".mi-graph").inner_text()
    for word in (
        "Dallas",
        "layer 2",
        "Texas",
        "'capital' ×",
        "Austin 95",
        "replacement",
        "hidden by the threshold",
        "Circuit",
    ):
        assert word in text
    assert page.evaluate(DRAWN) and page.evaluate(OVERLAPS) == 0
    shares = page.locator(".mi-share.mi-chain").all_text_contents()
    chain = [f"{round(100 * share)} %" for _, share, _ in graph.path()]
    assert sorted(shares) == sorted(chain)


def test_scores_and_counts_follow_the_threshold(page, graph):
    """With all shown they are the graph's; hidden features count as unexplained."""
    page.evaluate("graphModel.set('threshold', 1)")
    until(page, "document.querySelector('.mi-status').textContent.startsWith('All 433')")
    scores = page.evaluate(
        """async () => { const found = document.querySelector('.mi-scores').textContent.match(/[\\d.]+/g); return found.map(Number) }"""
    )
    np.testing.assert_allclose(scores, graph.scores, atol=0.0051)
    assert "weakest of these 32,754 links not drawn" in page.locator(".mi-status").text_content()
    slider = page.locator(".mi-slider input")
    slider.focus()
    page.keyboard.press("Home")
    until(page, "graphModel.get('threshold') === 0")
    until(page, "document.querySelector('.mi-scores').textContent.includes('replacement 0.0')")
    page.locator(".mi-graph").focus()
    page.keyboard.press("]")
    assert trait(page, "threshold") == 0.05
    page.keyboard.press("[")
    assert trait(page, "threshold") == 0
    until(page, "document.querySelector('.mi-live').textContent.includes('hidden by the threshold')")


def test_mouse_moves_the_picture(page):
    stage = page.locator(".mi-stage").bounding_box()
    x, y = stage["x"] + 120, stage["y"] + 120
    start = transform(page)
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 30, y + 10, steps=3)
    page.mouse.up()
    settle(page)
    assert transform(page)["x"] == pytest.approx(start["x"] + 30, abs=1.5)
    page.mouse.wheel(0, -400)
    settle(page)
    zoomed = transform(page)
    assert abs(zoomed["x"] - start["x"]) > 60, "the wheel zooms once the picture was clicked"
    page.get_by_role("button", name="Zoom out").click()
    settle(page)
    assert transform(page)["x"] != zoomed["x"]
    page.get_by_role("button", name="Fit").click()
    settle(page)
    assert transform(page) == start


def test_two_fingers_zoom(page):
    """On a tablet there is no wheel; and lifting the fingers must not select what lies below."""
    stage, start, devtools = (
        page.locator(".mi-stage").bounding_box(),
        transform(page),
        page.context.new_cdp_session(page),
    )
    x, y = stage["x"] + 300, stage["y"] + 200

    def touch(kind, *apart):
        points = [{"x": x + side * d, "y": y, "id": i} for d in apart for i, side in enumerate((-1, 1))]
        devtools.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", 40)
    for apart in (50, 60, 70, 80):
        touch("touchMove", apart)
    touch("touchEnd")
    settle(page)
    zoomed = transform(page)
    middle = [box["x"] + box["width"] / 2 for box in (start, zoomed)]
    assert middle[1] - x == pytest.approx(2 * (middle[0] - x), rel=0.05)
    assert trait(page, "selected") == [] and trait(page, "clicked") == ""


def test_wheel_leaves_the_page_alone_until_clicked(page):
    start = transform(page)
    stage = page.locator(".mi-stage").bounding_box()
    page.mouse.move(stage["x"] + 100, stage["y"] + 100)
    page.mouse.wheel(0, -200)
    settle(page)
    assert transform(page) == start


def test_mouse_hovers_clicks_and_frames(page, graph):
    node = graph.supernodes["'capital' @capital"]
    shown = graph.nodes.set_index("node_id").influence
    first, second = [i for i in node if shown[i] <= trait(page, "threshold")][:2]
    page.mouse.move(*place_of(page, first))
    tip = page.locator(".mi-tip")
    tip.wait_for()
    assert "feature in layer" in tip.text_content() and "activation" in tip.text_content()
    page.mouse.click(*place_of(page, first))
    assert trait(page, "clicked") == first and trait(page, "selected") == [first]
    details = page.locator(".mi-details")
    details.get_by_text("Strongest outputs").wait_for()  # drawn with the next frame
    assert "Strongest inputs" in details.text_content()
    page.keyboard.down("Shift")
    page.mouse.click(*place_of(page, second))
    page.keyboard.up("Shift")
    assert trait(page, "selected") == [first, second]
    details.get_by_role("button").first.click()
    assert trait(page, "clicked") not in ("", first)
    page.keyboard.press("Escape")
    assert trait(page, "selected") == []
    stage = page.locator(".mi-stage").bounding_box()
    page.keyboard.down("Shift")
    page.mouse.move(stage["x"] + 5, stage["y"] + 60)
    page.mouse.down()
    page.mouse.move(stage["x"] + stage["width"] - 5, stage["y"] + stage["height"] - 5, steps=4)
    page.mouse.up()
    page.keyboard.up("Shift")
    assert len(trait(page, "selected")) > 20


def test_mouse_groups_renames_dissolves_and_undoes(page, graph):
    page.locator(f'.mi-pill[data-super="{TEXAS}"]').click()
    assert set(trait(page, "selected")) == set(graph.supernodes[TEXAS])
    name = page.get_by_label("Name of the supernode")
    name.fill("the state")
    name.press("Enter")
    assert "the state" in trait(page, "supernodes") and TEXAS not in trait(page, "supernodes")
    page.get_by_role("button", name="Dissolve").click()
    assert "the state" not in trait(page, "supernodes")
    page.get_by_role("button", name="Group", exact=True).click()
    assert set(trait(page, "supernodes")["group 1"]) == set(graph.supernodes[TEXAS])
    for _ in range(3):
        page.get_by_role("button", name="Undo").click()
    assert trait(page, "supernodes") == graph.supernodes
    page.get_by_role("button", name="Redo").click()
    assert "the state" in trait(page, "supernodes")
    page.get_by_role("button", name="Group by token and concept").click()
    assert trait(page, "supernodes") == graph.supernodes


def test_keyboard_does_everything(page, graph):
    root = page.locator(".mi-graph")
    assert root.get_attribute("tabindex") == "0" and root.get_attribute("data-lm-suppress-shortcuts") == "true"
    root.focus()
    page.keyboard.press("ArrowUp")
    assert "Austin" in said(page)
    page.locator(".mi-ring").wait_for()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.keyboard.press("Space")
    (first,) = trait(page, "selected")
    answer = graph.nodes.sort_values("token_prob").node_id.iloc[-1]
    into = graph.links[graph.links.target == answer].set_index("source").weight.abs().sort_values(ascending=False)
    nodes = graph.nodes.set_index("node_id")
    assert first == next(i for i in into.index if not nodes.influence[i] > trait(page, "threshold"))
    assert trait(page, "clicked") == first
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert len(trait(page, "selected")) == 2
    page.keyboard.press("g")
    assert len(trait(page, "supernodes")["group 1"]) == 2 and "group 1" in said(page)
    page.keyboard.press("r")
    page.keyboard.type("mine")
    page.keyboard.press("Enter")
    assert len(trait(page, "supernodes")["mine"]) == 2
    page.keyboard.press("z")
    assert "no model" in said(page) and trait(page, "interventions") == []
    page.keyboard.press("d")
    assert "mine" not in trait(page, "supernodes")
    page.keyboard.press("Control+z")
    assert "mine" in trait(page, "supernodes")
    page.keyboard.press("Control+Shift+z")
    assert "mine" not in trait(page, "supernodes")
    start = transform(page, "'capital' @capital")
    page.keyboard.press("+")
    settle(page)
    assert transform(page, "'capital' @capital") != start
    page.keyboard.press("0")
    settle(page)
    page.keyboard.press("-")
    page.keyboard.press("0")
    settle(page)
    page.keyboard.press("/")
    page.keyboard.type("Texas")
    until(page, "document.querySelector('.mi-live').textContent.includes('found')")
    page.keyboard.press("Enter")
    assert "Texas" in said(page)
    page.keyboard.press("Escape")
    assert page.get_by_label("Search label, token or node id").input_value() == ""
    page.keyboard.press("?")
    page.locator("dialog[open]").wait_for()
    page.keyboard.press("Escape")
    page.locator("dialog[open]").wait_for(state="hidden")
    page.keyboard.press("Escape")
    assert trait(page, "selected") == [] and trait(page, "clicked") == ""
    page.locator(".mi-ring").wait_for(state="hidden")


def test_python_moves_the_view(page, graph):
    """Setting a trait, as the kernel does, is enough."""
    page.evaluate(f"graphModel.set('selected', {graph.supernodes[TEXAS]})")
    page.wait_for_selector(".mi-pill.mi-selected")
    page.evaluate("graphModel.set('can_act', true)")
    page.evaluate(f"graphModel.set('swaps', {{'{TEXAS}': ['California', 'Ohio']}})")
    page.wait_for_selector(".mi-act select:not([hidden])")
    page.get_by_label("Swap for").select_option("Ohio")
    page.get_by_role("button", name="Swap").click()
    page.get_by_role("button", name="×2").click()
    (one,) = trait(page, "interventions")
    assert one | {"nodes": set(one["nodes"])} == {
        "nodes": set(graph.supernodes[TEXAS]), "label": TEXAS, "kind": "scale", "factor": 2, "to": "",
    }  # fmt: skip
    page.evaluate(
        """graphModel.set('answers', {before: [{token: 'Austin', prob: .9}], after: [{token: 'Columbus', prob: .8}], expected: 'Columbus',
            controls: [{name: 'random sets', token: 'Austin', prob: .7, note: 'mean of 20 of 100'}], running: true, error: ''})"""
    )
    page.wait_for_selector("text=Controls (running")
    text = page.locator(".mi-answers").inner_text()
    assert all(word in text for word in ("Columbus", "expected", "random sets", "×2"))
    assert "now Columbus" in said(page)
    page.evaluate(
        "graphModel.set('answers', {before: [], after: [], controls: [], running: false, error: 'It went wrong.'})"
    )
    page.get_by_role("alert").get_by_text("It went wrong.", exact=True).wait_for()
    page.get_by_role("button", name="Reset").click()
    assert trait(page, "interventions") == []
    page.evaluate("graphModel.set('size', 'stage')")
    page.wait_for_selector(".mi-big")


@pytest.mark.parametrize("scheme", ["light", "dark", "grey", "stage", "narrow", "zoomed", "forced"])
def test_pictures(graph, chromium, tmp_path, artifacts, scheme):
    """To be looked at; no label may lie on another, and nothing may stick out sideways."""
    context = chromium.new_context(
        viewport={"width": 700 if scheme == "narrow" else 600 if scheme == "zoomed" else 1200, "height": 1000},
        color_scheme="dark" if scheme == "dark" else "light", device_scale_factor=2 if scheme == "zoomed" else 1,
        forced_colors="active" if scheme == "forced" else "none",
    )  # fmt: skip
    page = context.new_page()
    view = graph.show(size="stage" if scheme == "stage" else "normal", selected=graph.supernodes[TEXAS])
    page.goto(view.save(tmp_path / "x.html").as_uri())
    if scheme == "grey":
        page.add_style_tag(content="html { filter: grayscale(1) }")
    settle(page)
    page.screenshot(path=artifacts / f"graph-view-{scheme}.png", full_page=True)
    assert page.evaluate(OVERLAPS) == 0
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    context.close()


def test_answers_are_the_likeliest(page):
    """A panel that leaves out the second answer, or a word that is a blank, tells another story than the model."""
    words = [
        ("Austin", 0.5),
        (" Austin", 0.2),
        (" ", 0.1),
        ("Dallas", 0.05),
        ("Waco", 0.04),
        ("El Paso", 0.03),
        ("x", 0.02),
    ]
    page.evaluate(
        "w => graphModel.set('answers', {before: w.map(([token, prob]) => ({token, prob})), after: [], controls: [], error: ''})",
        words,
    )
    until(page, "document.querySelectorAll('.mi-answer-row').length === 5")
    rows = page.locator(".mi-answer-row bdi").all_text_contents()
    assert rows == ["Austin", "␣Austin", "␣", "Dallas", "Waco"]


def test_hostile_labels_are_text(graph, open_html, tmp_path):
    """A graph file from a stranger must not run in the reader's browser."""
    evil = [
        "</script><script>window.hit = 1</script>", "<img src=x onerror='window.hit = 1'>", "<!-- <script>", "\u202eevil\u2066",
        "x" * 10_000, "${window.hit=1}", "javascript:window.hit=1",
    ]  # fmt: skip
    labels = [evil[i % len(evil)] for i in range(len(graph.nodes))]
    nodes = graph.nodes.assign(label=labels)
    groups = {e: [i] for e, i in zip(evil, graph.supernodes[TEXAS] + list(nodes.node_id[:9]), strict=False)}
    bad = replace(graph, prompt=evil[0], tokens=(evil * 2)[: len(graph.tokens)], nodes=nodes, supernodes=groups)
    with open_html(bad.save(tmp_path / "x.html")) as page:
        page.locator(".mi-graph").focus()
        for key in ("ArrowUp", "ArrowDown", "Enter", "Space", "g", "ArrowDown", "Space", "?", "Escape"):
            page.keyboard.press(key)
        page.evaluate(
            "graphModel.set('answers', {before: [{token: '<img src=x onerror=window.hit=1>', prob: 1}], after: [], controls: [], error: '<b>'})"
        )
        settle(page)
        assert page.evaluate("window.hit") is None
        assert page.locator(".mi-graph img, .mi-graph script, .mi-graph b b").count() == 0
        assert page.evaluate(DRAWN) and page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.filterwarnings("ignore:two nodes have the id")
@pytest.mark.parametrize(
    "name",
    ["haiku_capital-state-dallas", "gemma2-2b_clt_fact-dallas-austin", "gemma2-2b_plt_euro_dup-node-id"],
)
def test_real_graphs(real_file, open_html, tmp_path, artifacts, name):
    graph = AttributionGraph.load(real_file(f"{name}.json"))
    with open_html(graph.save(tmp_path / "x.html")) as page:
        settle(page)
        page.screenshot(path=artifacts / f"graph-view-{name}.png")
        page.evaluate("graphModel.set('threshold', 1)")
        until(page, f"document.querySelector('.mi-status').textContent.startsWith('All {len(graph.nodes)}')")
        scores = page.evaluate("document.querySelector('.mi-scores').textContent.match(/[\\d.]+/g).map(Number)")
        np.testing.assert_allclose(scores, graph.scores, atol=0.0051)
        assert page.evaluate(DRAWN) and page.evaluate(OVERLAPS) == 0


def synthetic(n=5_000, m=100_000, layers=24, positions=24):
    """A graph of this size with random links upwards."""
    rng = np.random.default_rng(0)
    layer = np.r_[np.full(positions, -1), rng.integers(0, layers, n - positions - 10), np.full(10, layers)]
    ctx = np.r_[np.arange(positions), rng.integers(0, positions, n - positions - 10), np.full(10, positions - 1)]
    kind = np.where(layer < 0, TOKEN, np.where(layer == layers, LOGIT, np.where(rng.random(n) < 0.2, ERROR, FEATURE)))
    ids = np.array([f"{a}_{i}_{p}" for i, (a, p) in enumerate(zip(layer, ctx, strict=True))])
    nodes = pd.DataFrame({
        "node_id": ids, "feature_type": kind, "layer": layer, "ctx_idx": ctx, "feature": np.arange(n), "activation": rng.random(n),
        "influence": np.where(kind == LOGIT, np.nan, rng.random(n)), "token_prob": np.where(kind == LOGIT, 0.09, 0.0), "label": [f"feature {i}" for i in range(n)],
    })  # fmt: skip
    pairs = rng.integers(0, n, (3 * m, 2))
    pairs = np.unique(pairs[layer[pairs[:, 0]] < layer[pairs[:, 1]]], axis=0)
    pairs = pairs[rng.permutation(len(pairs))[:m]]
    links = pd.DataFrame(
        {"source": ids[pairs[:, 0]], "target": ids[pairs[:, 1]], "weight": rng.normal(size=len(pairs))}
    )
    return AttributionGraph(
        "synthetic", [f"word{p}" for p in range(positions)], nodes, links, {"a group": list(ids[100:110])}
    )


def test_a_large_graph_draws(open_html, tmp_path, artifacts):
    graph = synthetic()
    with open_html(graph.show(threshold=1).save(tmp_path / "x.html")) as page:
        settle(page)
        page.screenshot(path=artifacts / "graph-view-synthetic.png")
        assert page.evaluate(DRAWN)
        assert f"{len(graph.links) - 3000:,} weakest" in page.locator(".mi-status").text_content()


def test_in_a_notebook(lab, artifacts):
    """Trace, show, click, group, zero, new answers with controls: in a real JupyterLab, two views of one widget in step."""
    cells = [
        "import mi_workshop as mi\nmodel = mi.load('atlas')\n"
        "view = mi.trace(model, 'Fact: the capital of the state containing Dallas is').show()",
        "view", "view",
    ]  # fmt: skip
    with lab.cells(*cells) as page:
        page.evaluate("jupyterapp.commands.execute('notebook:run-all-cells')")
        until(page, "document.querySelectorAll('.mi-graph .mi-pill').length > 4")
        one, two = page.locator(".mi-graph").all()
        pill = f'.mi-pill[data-super="{TEXAS}"]'
        one.locator(pill).click()
        two.locator(f"{pill}.mi-selected").wait_for()
        page.keyboard.press("d")
        two.locator(pill).wait_for(state="detached")
        page.keyboard.press("g")
        two.locator('.mi-pill[data-super="group 1"]').wait_for()
        page.keyboard.press("z")
        for view in (one, two):
            view.locator(".mi-control", has_text=re.compile(r"mean of (\d+) of \1;")).wait_for()
            assert "before and now" in view.locator(".mi-answers").inner_text()
        assert page.locator(".jp-Notebook .jp-Cell").count() == len(cells), "a key reached the notebook"
        one.get_by_label("Influence threshold").focus()
        for key in ("ArrowLeft", "a", "b"):
            page.keyboard.press(key)
        one.get_by_text("0.94", exact=True).wait_for()
        one.get_by_role("button", name="Fit").focus()
        for key in ("a", "x"):
            page.keyboard.press(key)
        assert page.locator(".jp-Notebook .jp-Cell").count() == len(cells), "a key reached the notebook"
        one.get_by_label("Swap for").select_option("California")
        one.get_by_role("button", name="Swap").click()
        two.locator(".mi-answers small", has_text="expected").wait_for()
        two.locator("h3", has_text="Controls (running").wait_for(state="detached")
        assert "Sacramento" in two.locator(".mi-answers").inner_text()
        one.scroll_into_view_if_needed()
        page.screenshot(path=artifacts / "graph-view-lab.png")
        two.get_by_role("button", name="Reset").click()
        one.locator(".mi-control").first.wait_for(state="detached")


def test_memory_stays_flat(page):
    """A talk clicks for half an hour: a leak of every picture would bring the tab down."""
    devtools = page.context.new_cdp_session(page)

    def used():
        devtools.send("HeapProfiler.collectGarbage")
        return devtools.send("Runtime.getHeapUsage")["usedSize"] / 1e6  # MB

    page.evaluate(INTERACT, [0, 150])
    before = used()
    page.evaluate(INTERACT, [150, 650])
    after = used()
    print(f"{before:.1f} MB, after 500 interactions more {after:.1f} MB")
    assert after < before + 3


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(page, scheme):
    """Roles, names and contrast: without them a screen reader, or a pale projector, shows nothing."""
    page.emulate_media(color_scheme=scheme)
    page.locator('.mi-pill[data-super="Texas @Dallas"]').click()
    assert violations(page, ".mi-graph") == []
