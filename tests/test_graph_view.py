"""The interactive graph without a browser: its traits, acting on the model, errors, files and the stored fallback."""

import asyncio
import base64
import html
import json
import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import mi_workshop as mi
from mi_workshop.circuits import act
from mi_workshop.circuits.ablate import ablate
from mi_workshop.circuits.graph import FEATURE, LOGIT, TOKEN, AttributionGraph, GraphError
from mi_workshop.circuits.swap import swap
from mi_workshop.widgets import graph_view
from mi_workshop.widgets.graph_view import OPENING
from mi_workshop.widgets.standalone import embed

pytestmark = pytest.mark.usefixtures("no_loop")

PROMPT = "Fact: the capital of the state containing Dallas is"
TEXAS = "Texas @Dallas"


@pytest.fixture
def view(graph):
    return graph.show()


def zero(view, label=TEXAS):
    return {"nodes": view.supernodes[label], "label": label, "kind": "zero", "factor": 0.0, "to": ""}


@pytest.fixture(scope="session")
def node():
    """Node.js, to run the view's JavaScript without a browser."""
    found = shutil.which("node")
    if found is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("node is not installed")
    return found


SCORES = """
import { buildGraph, visible, scores } from "%s";
let text = "";
for await (const part of process.stdin) text += part;
const { nodes, links, thresholds } = JSON.parse(text), g = buildGraph(nodes, Buffer.from(links, "base64"));
console.log(JSON.stringify(thresholds.map((t) => { const shown = visible(g, t); return [[...shown], scores(g, shown)]; })));
"""


@pytest.mark.parametrize("name", ["atlas", "haiku*", "*clt*", "*plt_euro*"])
def test_the_screens_scores_are_the_librarys(node, graph, request, name):
    """Two numbers for one graph: nobody would know which to believe."""
    if name != "atlas":
        (path,) = request.getfixturevalue("real_data").glob(f"{name}.json")
        graph = AttributionGraph.load(path)
    view, thresholds = graph.show(), [0.2, 0.5, 0.8, 0.95, 1.0]
    sent = {"nodes": view.nodes, "links": base64.b64encode(view.links).decode(), "thresholds": thresholds}
    code = SCORES % (Path(graph_view.__file__).parent / "graph_view.js").as_uri()
    done = subprocess.run(
        [node, "--input-type=module", "-e", code], input=json.dumps(sent), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    for shown, found in json.loads(done.stdout):
        expected = graph.scores_of(graph.nodes.node_id[np.array(shown, bool)])
        np.testing.assert_allclose([found["replacement"], found["completeness"]], expected, atol=1e-4)
    np.testing.assert_allclose(expected, graph.scores)


def test_javascript(node):
    """The logic behind the picture (hit test, search, scores, undo, walking) is tested in JavaScript."""
    folder = Path(__file__).parent / "js"
    done = subprocess.run([node, "--test", *map(str, sorted(folder.glob("*.mjs")))], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_view_carries_the_graph(graph, view):
    """Columns and links that part from the tables would draw another circuit."""
    assert view.nodes["id"] == graph.nodes.node_id.tolist()
    m = len(view.links) // 12
    source, target = np.frombuffer(view.links, "<i4", 2 * m).reshape(2, m)
    weight = np.frombuffer(view.links, "<f4", m, 8 * m)
    ids = graph.nodes.node_id.to_numpy()
    sent = {(ids[s], ids[t]): w for s, t, w in zip(source, target, weight, strict=True)}
    assert len(sent) == len(graph.links)
    for link in graph.links.itertuples():
        assert sent[link.source, link.target] == pytest.approx(link.weight, rel=1e-5, abs=1e-7)
    json.dumps(view.nodes, allow_nan=False)  # a browser reads no NaN


def test_layout_puts_tokens_across_and_layers_up(graph, view):
    table = graph.nodes.assign(x=view.nodes["x"], y=view.nodes["y"])
    below = table[table.feature_type != LOGIT]
    for position, (left, right) in enumerate(view.meta["columns"]):
        assert below.x[below.ctx_idx == position].between(left, right).all()
    for layer, low, high in view.meta["rows"]:
        assert table.y[table.layer == layer].between(low, high).all()
    assert not table.duplicated(["x", "y"]).any(), "two nodes in one place"


def test_a_large_graph_opens_readable(graph, view):
    counted = graph.nodes[~graph.nodes.feature_type.isin((TOKEN, LOGIT))].influence <= view.threshold
    assert 0 < counted.sum() <= OPENING
    assert graph.prune().show().threshold == 1 and list(graph.prune().show().meta["hidden"]) == list(
        graph.prune().hidden
    )


def test_zeroing_is_what_ablate_says(atlas, view):
    """Another number in the picture than from the library would make both worthless."""
    view.interventions = [zero(view)]
    result = ablate(atlas, PROMPT, view.supernodes[TEXAS])
    for mine, theirs in zip(view.answers["after"][:5], result.after, strict=True):
        assert mine["token"] == theirs["token"] and mine["prob"] == pytest.approx(theirs["prob"], abs=1e-5)
    controls = {c["name"]: c for c in view.answers["controls"]}
    assert controls["random sets"]["prob"] == pytest.approx(np.mean(result.random_probs), abs=1e-4)
    assert controls["values put back"]["prob"] == pytest.approx(view.answers["before"][0]["prob"], abs=1e-4)
    assert view.answers["running"] is False and view.answers["error"] == ""


def test_swapping_is_what_swap_says(atlas, view):
    view.interventions = [zero(view) | {"kind": "swap", "to": "California"}]
    result = swap(atlas, PROMPT, "Texas", "California", at="city", n_random=1)
    assert view.answers["expected"] == result.expected
    for mine, theirs in zip(view.answers["after"][:5], result.after, strict=True):
        assert mine["token"] == theirs["token"] and mine["prob"] == pytest.approx(theirs["prob"], abs=1e-5)
    assert {c["name"] for c in view.answers["controls"]} == {"values put back", "same place", "random sets"}


def test_scaling_by_one_changes_nothing_and_reset_takes_off(view):
    view.interventions = [zero(view) | {"kind": "scale", "factor": 1.0}]
    before, after = view.answers["before"], view.answers["after"]
    assert {a["token"] for a in before} == {a["token"] for a in after}, "a bar without its partner would read as 0 %"
    assert [a["token"] for a in before] == [a["token"] for a in after]
    np.testing.assert_allclose([a["prob"] for a in before], [a["prob"] for a in after], atol=1e-4)
    view.interventions = []
    assert view.answers["after"] == [] and view.answers["controls"] == []


def test_a_newer_intervention_ends_the_controls_of_the_older(view):
    """Else the bars of one question would stand beside the controls of another."""

    async def two():
        view.interventions = [zero(view)]
        assert view.answers["running"] and view.answers["after"] and not view.answers["controls"]
        first = view._task
        await asyncio.sleep(0)
        view.interventions = [zero(view) | {"kind": "swap", "to": "California"}]
        second = view._task
        await asyncio.gather(first, second, return_exceptions=True)
        assert first.cancelled() and not second.cancelled()

    asyncio.run(two())
    assert view.answers["expected"] == "Sacramento" and not view.answers["running"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"nodes": ["<img src=x onerror=alert(1)>"]}, "no active feature"),
        ({"nodes": ["0_-1_3"]}, "only features"),
        ({"nodes": ["99_99_99"]}, "only features"),
        ({"nodes": []}, "Nothing is selected"),
        ({"nodes": None}, "no intervention"),
        ({"kind": "explode"}, "choose zero, scale or swap"),
        ({"kind": "swap", "to": "Atlantis"}, "Atlantis"),
        ({"factor": "many", "kind": "scale"}, "no intervention"),
    ],
)
def test_errors_are_sentences_in_the_picture(view, change, said):
    """An error in a callback is shown nowhere else."""
    view.interventions = [zero(view) | change]
    assert said in view.answers["error"] and not view.answers["running"]


def test_errors_of_the_controls_are_not_lost(view, monkeypatch):
    monkeypatch.setattr(act, "random_edits", lambda *a: 1 / 0)
    view.interventions = [zero(view)]
    assert "division by zero" in view.answers["error"] and view.answers["after"] and not view.answers["running"]


def test_a_graph_from_a_file_says_why_it_cannot_act(graph, tmp_path):
    view = AttributionGraph.load(graph.save(tmp_path / "g.json")).show()
    assert not view.can_act and view.swaps == {}
    view.interventions = [zero(view)]
    assert "no model" in view.answers["error"]


def test_swaps_follow_the_features_not_the_name(view):
    assert "California" in view.swaps[TEXAS] and "Texas" not in view.swaps[TEXAS]
    view.supernodes = {"renamed": view.supernodes[TEXAS], "'capital' @capital": view.supernodes["'capital' @capital"]}
    assert set(view.swaps) == {"renamed"}
    with pytest.raises(GraphError, match="stand for no place"):
        act.combine(view.graph.model, PROMPT, [zero(view, "'capital' @capital") | {"kind": "swap", "to": "Ohio"}])


def test_graph_has_the_grouping_of_the_view(graph, view):
    ids = list(graph.nodes.node_id[graph.nodes.feature_type == FEATURE][:2])
    view.supernodes = {"mine": [*ids, "not there"], "gone": ["not there"]}
    assert view.graph.supernodes == {"mine": ids} and view.graph.model is graph.model


def test_supernodes_that_feed_each_other_end(graph):
    """Groups made by hand may form a circle; the chain must not run round it for ever."""
    kept = graph.nodes[graph.nodes.feature_type == FEATURE]
    odd, even = (kept.node_id[kept.layer % 2 == k].tolist() for k in (1, 0))
    assert replace(graph, supernodes={"odd": odd, "even": even}).path()


def test_details_come_from_the_feature_page(view, monkeypatch):
    """Whoever clicks a feature wants to know what fires it; an error must be told, not swallowed by the kernel."""
    nodes = view.graph.nodes[view.graph.nodes.feature_type == FEATURE]
    feature, other = nodes.node_id.head(2)
    view.clicked = feature
    layer, index = map(int, feature.split("_")[:2])
    assert view.details == {feature: mi.feature(view.graph.model, layer, index).html(compact=True)}
    monkeypatch.setattr("mi_workshop.circuits.feature_page.detail_html", lambda *a: 1 / 0)
    view.clicked = other
    assert "division by zero" in view.details[other] and feature in view.details
    for strange in ("", "<script>", "E_1_0", "nothing"):
        view.clicked = strange
    assert len(view.details) == 2


def test_a_view_is_rebuilt_from_its_traits(graph, view):
    """After a reload of the page the browser has nothing but the traits."""
    view.selected = view.supernodes[TEXAS]
    view.size = "stage"
    state = view.get_state()
    for name in (
        "nodes",
        "links",
        "meta",
        "selected",
        "threshold",
        "supernodes",
        "interventions",
        "clicked",
        "details",
        "answers",
    ):
        assert name in state
    again = graph.show(selected=view.selected, size="stage", threshold=0.5)
    assert (again.selected, again.size, again.threshold) == (view.selected, "stage", 0.5)
    with pytest.raises(TypeError, match="no trait 'colour'"):
        graph.show(colour="red")


def test_stored_notebooks_keep_a_picture_and_a_sentence(graph, view, monkeypatch):
    """On a code host, untrusted or in a viewer, no widget runs. HTML would win over the widget, so there is none."""
    data, metadata = view._repr_mimebundle_()
    assert set(data) == {"application/vnd.jupyter.widget-view+json", "image/png", "text/plain"}
    assert data["text/plain"] == graph.describe() == metadata["image/png"]["alt"]
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda *a, **k: shown.append((a, k)))
    view._ipython_display_()
    assert shown[0][0][0].keys() == data.keys() and shown[0][1]["raw"] is True


def test_code_travels_with_every_view_and_stays_small(view):
    assert len(view._esm) + len(view._css) < 100_000
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", view._esm + view._css)
    assert view._esm.count("innerHTML") == 1, "only details, which the kernel escapes, are HTML"


def test_embedded_data_cannot_leave_its_element():
    hostile = "</script><!--<script>&\u2028"
    text = embed({"x": hostile})
    assert not set("<>&\u2028") & set(text) and json.loads(text) == {"x": hostile}


def test_saved_page(graph, view, tmp_path):
    text = view.save(tmp_path / "x.html").read_text(encoding="utf-8")
    assert "default-src 'none'" in text and "<noscript><img alt=" in text
    assert "Texas" in graph.words() and html.escape(graph.words()) in text
    assert len(text) < 3_000_000
    assert view.save(tmp_path / "x.json").exists()


def test_unknown_types_are_said(graph):
    nodes = graph.nodes.copy()
    nodes.loc[nodes.index[0], "feature_type"] = "bias"
    view = replace(graph, nodes=nodes).show()
    assert any("bias" in note for note in view.meta["notes"])
