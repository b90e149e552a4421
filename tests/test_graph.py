"""The graph: what it shows must be what circuit-tracer computed, and must survive every file and every display."""

import io
import json
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import mi_workshop as mi
from mi_workshop.circuits.graph import ERROR, FEATURE, LOGIT, TOKEN, AttributionGraph, GraphError
from mi_workshop.plots import new_figure, png

PROMPT = "Fact: the capital of the state containing Dallas is"


@pytest.fixture(scope="module")
def raw(atlas):
    from circuit_tracer import attribute

    return attribute(atlas.tokens(PROMPT), atlas.replacement, batch_size=256, desired_logit_prob=0.95)


def test_nodes_and_links_are_circuit_tracers(graph, raw):
    """A link lost or turned round would put a wrong arrow on the wall."""
    n = raw.adjacency_matrix.shape[0]
    assert len(graph.nodes) == n
    matrix = np.zeros((n, n))
    row = {node: i for i, node in enumerate(graph.nodes.node_id)}
    assert len(row) == n, "two nodes share an id"
    matrix[graph.links.target.map(row), graph.links.source.map(row)] = graph.links.weight
    np.testing.assert_allclose(matrix, raw.adjacency_matrix.numpy(), atol=1e-6)


def test_scores_and_pruning_are_circuit_tracers(graph, raw):
    from circuit_tracer.graph import compute_graph_scores, prune_graph

    np.testing.assert_allclose(graph.scores, compute_graph_scores(raw), atol=1e-4)
    for node_threshold, edge_threshold in ((0.8, 0.98), (0.5, 0.9), (0.95, 0.7)):
        theirs = prune_graph(raw, node_threshold, edge_threshold)
        ours = graph.prune(node_threshold, edge_threshold)
        assert set(ours.nodes.node_id) == set(graph.nodes.node_id[theirs.node_mask.numpy()])
        assert len(ours.links) == int(theirs.edge_mask.sum())
        assert ours.hidden == (len(graph.nodes) - len(ours.nodes), len(graph.links) - len(ours.links))


def test_json_comes_back_equal(graph, tmp_path):
    for g in (graph, graph.prune(), graph.group("mine", list(graph.nodes.node_id[:3]))):
        back = AttributionGraph.load(g.save(tmp_path / "g.json"))
        pd.testing.assert_frame_equal(back.nodes, g.nodes, check_dtype=False)
        pd.testing.assert_frame_equal(back.links, g.links.reset_index(drop=True), check_dtype=False)
        assert (back.prompt, back.tokens, back.supernodes, back.hidden) == (g.prompt, g.tokens, g.supernodes, g.hidden)
        np.testing.assert_allclose(back.scores, g.scores)


def test_json_is_valid_for_circuit_tracers_frontend(graph):
    from circuit_tracer.frontend.graph_models import Model

    Model(**json.loads(json.dumps(graph.to_json())))


def test_influence_is_cumulative(graph):
    ranked = graph.nodes[graph.nodes.feature_type != LOGIT].influence.sort_values()
    assert ranked.iloc[-1] == pytest.approx(1) and ranked.is_monotonic_increasing
    assert graph.nodes[graph.nodes.feature_type == LOGIT].influence.isna().all()


def test_a_node_belongs_to_one_supernode(graph):
    label, ids = next(iter(graph.supernodes.items()))
    regrouped = graph.group("mine", ids[:1])
    assert regrouped.supernodes["mine"] == ids[:1] and ids[0] not in regrouped.supernodes.get(label, [])
    assert "mine" not in regrouped.group("mine", []).supernodes
    with pytest.raises(GraphError, match="no node '9_9_9'"):
        graph.group("mine", ["9_9_9"])


def test_flow_accounts_for_all_input(graph):
    """Shares are of everything that reaches a target, so what is not grouped cannot be forgotten."""
    shares = graph.flow.assign(share=lambda f: f.share.abs()).groupby("target").share.sum()
    assert (shares <= 1 + 1e-9).all() and len(shares)


def test_words_name_the_answer(graph):
    assert f"answer {graph.top.token[0]!r}" in graph.words()
    assert graph.top.token[0] in graph.describe()


@pytest.mark.parametrize("suffix", ["html", "svg"])
def test_saved_pictures_ask_for_nothing_and_hold_no_markup(graph, tmp_path, suffix):
    """A label that came as markup would run in the reader's browser."""
    evil = '<script>alert("x")</script>&$\\alpha$'
    nodes = graph.nodes.assign(
        label=[
            evil if t in (LOGIT, TOKEN) else x for t, x in zip(graph.nodes.feature_type, graph.nodes.label, strict=True)
        ]
    )
    bad = AttributionGraph(evil, [evil] * len(graph.tokens), nodes, graph.links, {evil: list(nodes.node_id[:2])})
    text = bad.save(tmp_path / f"x.{suffix}").read_text(encoding="utf-8")
    scripts = re.findall("<script[^>]*>", text.lower())
    page = ['<script type="application/json" id="mi-graph-state">', '<script type="module">']
    assert scripts == (page if suffix == "html" else []), "the page's own data and code, nothing else"
    addresses = re.findall(r'(?:src|href)\s*=\s*"(?!#|data:)([^"]+)"|url\((?!#|data:|"#)([^)]+)\)', text)
    assert not addresses, addresses
    if suffix == "svg":
        ElementTree.fromstring(text)


@pytest.mark.parametrize("width", [11.15, 7.33, 4.6])
def test_stored_pictures_are_as_wide_as_they_were_drawn(width):
    """A picture whose width was rounded otherwise than matplotlib rounds it would be stored sheared, line by line."""
    figure = new_figure(width, 2)
    figure.add_axes((0, 0, 0.5, 1)).set_facecolor("black")
    columns = np.asarray(Image.open(io.BytesIO(png(figure))).convert("L"))[5:-5, 5:-5].astype(int)
    assert np.ptp(columns, axis=0).max() == 0 and np.ptp(columns) == 255


def test_png_and_display(graph, tmp_path):
    assert graph.save(tmp_path / "x.png").read_bytes()[:4] == b"\x89PNG"
    shown, _ = graph._repr_mimebundle_()
    assert 'alt="Attribution graph of' in shown["text/html"] and "<script" not in shown["text/html"]
    assert len(shown["text/html"]) < 400_000, "stored notebooks stay under 1 MB"


def test_a_failed_write_leaves_the_old_file(graph, tmp_path, monkeypatch):
    path = graph.save(tmp_path / "g.json")
    before = path.read_bytes()
    monkeypatch.setattr("os.replace", lambda *a: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        graph.prune().save(path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_bad_files_and_arguments_get_one_sentence(graph, tmp_path):
    (tmp_path / "other.json").write_text('{"layers": []}')
    (tmp_path / "cut.json").write_text(json.dumps(graph.to_json())[:1000])
    for call, said in (
        (lambda: AttributionGraph.load(tmp_path / "other.json"), "not an attribution graph"),
        (lambda: AttributionGraph.load(tmp_path / "cut.json"), "cannot be read as JSON"),
        (lambda: AttributionGraph.load(tmp_path / "none.json"), "No such file"),
        (lambda: AttributionGraph.load(tmp_path / "x.pt"), "could run any program"),
        (lambda: graph.save(tmp_path / "x.gif"), ".json, .html, .svg or .png"),
        (lambda: graph.prune(node_threshold=2), "between 0 and 1"),
    ):
        with pytest.raises(GraphError, match=said):
            call()


def test_cross_layer_transcoders_trace_too(atlas_clt):
    graph = mi.trace(atlas_clt, PROMPT)
    assert set(graph.nodes.feature_type) == {FEATURE, ERROR, TOKEN, LOGIT}
    assert not torch.tensor(graph.scores).isnan().any()
