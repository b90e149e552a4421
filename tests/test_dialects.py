"""Graph files from strangers: each dialect must be read whole, each fault refused in one sentence or repaired and told."""

import copy
import gzip
import http.server
import json
import threading
import warnings
from urllib.parse import quote, quote_plus

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from dialects_help import chain, mutate
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mi_workshop as mi
from mi_workshop.circuits import dialects, sources
from mi_workshop.circuits.graph import ERROR, FEATURE, LOGIT, NODES, TOKEN, AttributionGraph, GraphError, cantor
from mi_workshop.circuits.repairs import TEXT, UNSEEN
from mi_workshop.cli import main

HAIKU, CLT, EURO = (
    "haiku_capital-state-dallas.json",
    "gemma2-2b_clt_fact-dallas-austin.json",
    "gemma2-2b_plt_euro_dup-node-id.json",
)
pytestmark = pytest.mark.filterwarnings("ignore:Two nodes have the id")


def node(node_id, kind=FEATURE, **more):
    layer, feature, position = node_id.split("_")
    given = {
        "node_id": node_id,
        "feature": int(feature),
        "layer": layer,
        "ctx_idx": int(position),
        "feature_type": kind,
    }
    return given | {"jsNodeId": node_id, "clerp": "", "influence": 0.5, "activation": 1.0} | more


def small(**more):
    """A graph of three tokens in the oldest dialect."""
    nodes = [
        node("E_11_0", TOKEN), node("E_12_1", TOKEN), node("0_2_1", feature=2), node("1_30_1", feature=100030, clerp="Texas"),
        node("0_1_2", ERROR, layer="1", feature=-1), node("3_77_2", LOGIT, token_prob=0.6, clerp='Output " Austin" (p=0.600)', influence=None),
        node("3_78_2", LOGIT, token_prob=0.2, clerp='output: "Dallas" (p=0.200)', influence=None),
    ]  # fmt: skip
    links = [("E_11_0", "0_2_1", 1.0), ("E_12_1", "1_30_1", 0.5), ("0_2_1", "1_30_1", -2.0), ("0_1_2", "3_77_2", 1.0),
             ("1_30_1", "3_77_2", 3.0), ("1_30_1", "3_78_2", 1.0)]  # fmt: skip
    data = {
        "metadata": {"slug": "s", "scan": "m", "prompt_tokens": ["a", " b", " c"], "prompt": "a b c"},
        "qParams": {},
        "nodes": nodes,
        "links": [{"source": s, "target": t, "weight": w} for s, t, w in links],
    }
    return copy.deepcopy(data | more)


def same(a, b, but=()):
    pd.testing.assert_frame_equal(a.nodes, b.nodes, check_dtype=False)
    pd.testing.assert_frame_equal(a.links, b.links, check_dtype=False)
    for name in set(AttributionGraph.__dataclass_fields__) - {"nodes", "links", "seconds", "model", *but}:
        assert getattr(a, name) == getattr(b, name), name


# ------------------------------------------------------------------ real files
@pytest.mark.parametrize(
    ("name", "nodes", "links", "supernodes", "pins", "dangling", "renamed", "scores"),
    [
        (HAIKU, 94, 2205, 6, 49, 0, 0, (0.6947, 0.9342)),
        (CLT, 415, 4944, 0, 0, 0, 0, (0.6937, 0.8923)),
        (EURO, 801, 32394, 5, 50, 79, 1, (0.4960, 0.8424)),
    ],
)
def test_published_graphs(real_file, name, nodes, links, supernodes, pins, dangling, renamed, scores):
    """Graphs of other people's models would lose nodes, pins or supernodes, or get other scores than the published ones."""
    g = AttributionGraph.load(real_file(name))
    assert (len(g.nodes), len(g.links), len(g.supernodes), len(g.pins)) == (nodes, links, supernodes, pins)
    assert (g.dangling_pins, g.renamed_nodes) == (dangling, renamed) and g.nodes.node_id.is_unique
    np.testing.assert_allclose(g.scores, scores, atol=6e-5)
    assert (g.nodes.influence.isna() == (g.nodes.feature_type == LOGIT)).all()
    same(g, AttributionGraph.load(g.to_json()), but=("dangling_pins", "renamed_nodes"))
    assert bool(g.notes) == (name != CLT)


def test_published_thresholds_and_features(real_file):
    """A threshold slider would keep other nodes than the page that published the graph."""
    g = AttributionGraph.load(real_file(CLT))
    kept = [int(((g.nodes.influence <= t) | g.nodes.influence.isna()).sum()) for t in (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)]
    assert kept == [19, 33, 63, 125, 228, 414]
    assert g.top.token[0] == "Austin" and g.top.prob[0] == pytest.approx(0.4395, abs=1e-4)
    features = g.nodes[g.nodes.feature_type == FEATURE]
    raw = {n["node_id"]: n["feature"] for n in json.loads(real_file(CLT).read_text())["nodes"]}
    assert all(cantor(n.layer, n.feature) == raw[n.node_id] for n in features.itertuples())
    with pytest.warns(UserWarning, match="0_2_1"):
        euro = AttributionGraph.load(real_file(EURO))
    assert list(euro.top.token[:4]) == ["euro", " euro", "Euro", " Euro"]
    assert set(euro.nodes.node_id) > {"0_2_1", "2_-1_1"}
    assert any("0_2_1" in n for n in euro.notes) and any("79 of 129" in n for n in euro.notes)
    assert any(euro.supernodes[k] != euro.supernodes["currency"] for k in euro.supernodes if k.startswith("currency"))


# -------------------------------------------------------------------- dialects
def test_encodings_of_features():
    """The wrong index opens the wrong feature's page, and compares features that are not the same."""
    for feature, schema, index, opaque in (
        (100030, None, 30, False),
        (cantor(1, 30), 1, 30, False),
        (30, None, 30, True),
    ):
        data = small()
        data["nodes"][3]["feature"] = feature
        data["metadata"] |= {"schema_version": schema} if schema else {}
        g = AttributionGraph.load(data)
        assert g.nodes.set_index("node_id").feature["1_30_1"] == index and g.opaque == opaque and not g.notes
        written = {n["node_id"]: n["feature"] for n in g.to_json()["nodes"]}
        assert written["1_30_1"] == (30 if opaque else cantor(1, 30))
    for node_id, feature, index in (("x", cantor(1, 30), 30), ("1_lor_30_1", cantor(1, 30), 30)):
        data = small()
        data["metadata"]["schema_version"] = 1
        data["nodes"][3] |= {"node_id": node_id, "feature": feature, "feature_type": "lorsa", "layer": 1}
        data["links"] = []
        assert AttributionGraph.load(data).nodes.feature[3] == index
    data["nodes"][3] |= {"node_id": "1_30_1", "feature": 31}
    assert "does not fit" in AttributionGraph.load(data).notes[0]


@pytest.mark.parametrize(
    "supernodes",
    [
        [["T", "0_2_1", "js", "E_11_0", "3_77_2", "gone"]],
        '[["T", "0_2_1", "1_30_1", "E_11_0", "3_77_2", "gone"]]',
        [{"label": "T", "nodes": ["0_2_1", "1_30_1", "E_11_0", "3_77_2", "gone"]}],
        {"T": ["0_2_1", "1_30_1", "E_11_0", "3_77_2", "gone"]},
    ],
)
@pytest.mark.parametrize(
    "pins",
    [["0_2_1", "js", "twice", "no"], "0_2_1,js,twice,no", '["0_2_1", "js", "twice", "no"]', "0_2_1, js, twice, no"],
)
def test_forms_of_pins_and_supernodes(supernodes, pins):
    """Somebody's grouping of a graph, an hour of work, would be gone."""
    data = small(qParams={"pinnedIds": pins, "supernodes": supernodes, "clickedId": "js"})
    data["nodes"][3]["jsNodeId"], data["nodes"][0]["jsNodeId"], data["nodes"][1]["jsNodeId"] = "js", "twice", "twice"
    g = AttributionGraph.load(data)
    assert g.pins == ["0_2_1", "1_30_1"] and g.dangling_pins == 2 and g.clicked == "1_30_1"
    assert g.supernodes == {"T": ["0_2_1", "1_30_1", "E_11_0", "3_77_2"]}
    assert any("2 of 4" in n for n in g.notes) and any("Members of supernodes" in n and ": 1 " in n for n in g.notes)


def test_error_nodes_of_attention_count_as_errors():
    """A graph with attention features would look better explained than it is."""
    data, other = small(), small()
    other["nodes"][4]["feature_type"] = "lorsa error"
    assert AttributionGraph.load(data).scores == AttributionGraph.load(other).scores
    other["nodes"][4]["feature_type"] = "bias"
    assert AttributionGraph.load(data).scores.completeness < AttributionGraph.load(other).scores.completeness


def change(path, value, action="set"):
    """``small()`` with one place changed."""
    data = small()
    holder = data
    for key in path[:-1]:
        holder = holder[key]
    if action == "add":
        holder[path[-1]].append(value)
    elif value is ...:
        del holder[path[-1]]
    else:
        holder[path[-1]] = value
    return data


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (change(["nodes", 2, "node_id"], "0_1_2"), "Two nodes have the id '0_1_2': the later one (mlp reconstruction error, layer 1) is now '1_-1_2'"),
        (change(["links", 0, "source"], "gone"), "Links that name an unknown node: 1"),
        (change(["links"], {"source": "0_2_1", "target": "1_30_1", "weight": 1}, "add"), "already have one: 1"),
        (change(["nodes", 3, "feature_type"], "magic"), "unknown kind 'magic': 1"),
        (change(["nodes", 3, "influence"], ...), "without influence: 1 of 7"),
        (change(["nodes", 3, "influence"], float("nan")), "influence is no number"),
        (change(["nodes", 3, "activation"], "much"), "activation is no number"),
        (change(["nodes", 5, "token_prob"], None), "without a probability: 1"),
        (change(["nodes", 5, "layer"], 2), "stood in another layer: 1"),
        (change(["nodes", 3, "clerp"], "x\x1b[31m\u202egnp\u2066\ud800"), "control or direction characters: 1"),
        (change(["nodes", 3, "clerp"], "a" * 10_240), f"more than {TEXT} characters: 1"),
        (change(["nodes", 3, "clerp"], ["a"]), "no text: 1"),
        (change(["nodes", 3, "node_id"], "1\x00_30_1"), "control or direction characters: 1"),
        (change(["metadata", "prompt_tokens"], ...), "no prompt_tokens"),
        (change(["metadata", "prompt"], 5), "no prompt"),
        (change(["qParams"], "x"), "qParams"),
        (change(["qParams", "supernodes"], [["A", "0_2_1"], ["A", "1_30_1"]]), "label is taken: 1"),
        (change(["qParams", "supernodes"], [["A", "0_2_1"], ["B", "0_2_1", "1_30_1"]]), "more than one supernode: 1"),
        (change(["qParams", "supernodes"], [["A", "gone"]]), "without a member: 1"),
        (change(["qParams", "pinnedIds"], "[broken"), "pins (pinnedIds) could not be read"),
        (change(["qParams", "hiddenIds"], ["0_2_1"]), "asks its viewer to hide: 1"),
    ],
)  # fmt: skip
def test_repairs_are_told(data, said):
    """A graph that differs from its file without a word misleads whoever reads it."""
    g = AttributionGraph.load(data)
    assert any(said in n for n in g.notes), g.notes
    assert "see graph.notes" in g.describe()
    assert not any(UNSEEN.search(t) for t in [*g.nodes.label, *g.nodes.node_id])
    same(
        g,
        AttributionGraph.load(json.loads(json.dumps(g.to_json(), allow_nan=False))),
        but=("dangling_pins", "renamed_nodes"),
    )
    assert g.figure()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ([], "no metadata"),
        ({}, "no metadata"),
        (change(["nodes"], ...), "no list of nodes"),
        (change(["links"], {}), "no list of links"),
        (change(["nodes"], []), "nodes are not a list of objects"),
        (change(["nodes", 0], 5), "nodes are not a list of objects"),
        (change(["nodes", 2, "node_id"], None), "no node_id"),
        (change(["nodes", 2, "ctx_idx"], 3), "stands at token 3, but the prompt has 3"),
        (change(["nodes", 2, "ctx_idx"], 10**400), "stands at token"),
        (change(["nodes", 2, "layer"], "top"), "stands in layer 'top'"),
        (change(["nodes", 2, "layer"], 10**9), "stands in layer"),
        (change(["nodes", 5, "token_prob"], float("nan")), "probability nan"),
        (change(["nodes", 5, "token_prob"], -1), "probability -1"),
        (change(["links", 0, "weight"], float("inf")), "not a finite number"),
        (change(["links", 0, "weight"], "1"), "weight '1'"),
        (change(["links", 0, "weight"], ""), "weight ''"),
        (change(["links", 0, "weight"], 10**400), "not an attribution graph"),
        (change(["links", 0, "weight"], ...), "no source, target or weight"),
        (change(["links"], {"source": "1_30_1", "target": "0_2_1", "weight": 1}, "add"), "cycle"),
        (change(["links"], {"source": "0_2_1", "target": "0_2_1", "weight": 1}, "add"), "cycle"),
        ({"metadata": {"prompt": "x", "prompt_tokens": ["x"]}, "nodes": [node("0_2_0")], "links": []}, "no answer"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_one_sentence(data, said):
    """A traceback, or a graph that is not the file's."""
    with pytest.raises(GraphError) as error:
        AttributionGraph.load(data) if isinstance(data, dict) else dialects.parse_graph(data)
    assert said in str(error.value) and "\n" not in str(error.value) and len(str(error.value)) < 500


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\x80\x02}q\x00.", "could run any program"),
        (b"PK\x03\x04archive/data.pkl", "could run any program"),
        (b"\x1f\x8bnot gzip", "cannot be unpacked"),
        (b"<!doctype html>", "a web page"),
        (b"[" * 200_000, "nested too deeply"),
        (b'{"a": ' + b"9" * 6000 + b"}", "cannot be read as JSON"),
        (json.dumps(small()).encode()[:-40], "cannot be read as JSON"),
        (b"\xff\xfe\xfd", "cannot be read as JSON"),
        (b"", "cannot be read as JSON"),
    ],
)
def test_files_that_are_no_json(tmp_path, content, said):
    """A pickle named .json would be opened, or a bad download end in a traceback, on the command line too."""
    (tmp_path / "g.json").write_bytes(content)
    with pytest.raises(GraphError, match=said):
        AttributionGraph.load(tmp_path / "g.json")
    result = CliRunner().invoke(main, ["graph", str(tmp_path / "g.json")])
    assert result.exit_code == 2 and said in result.output and len(result.output.splitlines()) == 1


def test_keys_that_stand_twice_and_compressed_files(tmp_path):
    text = json.dumps(small()).replace('"prompt": "a b c"', '"prompt": "x", "prompt": "a b c"')
    (tmp_path / "g.json").write_bytes(gzip.compress(text.encode()))
    g = AttributionGraph.load(tmp_path / "g.json")
    assert g.prompt == "a b c" and "key stands twice: 1" in g.notes[0]
    with pytest.raises(GraphError, match="not a file"):
        AttributionGraph.load(tmp_path)


# --------------------------------------------------------------------- writing
words = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufffe\uffff"), max_size=30)  # fmt: skip
quantity = st.floats(-1e6, 1e6, allow_nan=False)


@st.composite
def graphs(draw):
    n_layers, tokens = draw(st.integers(1, 4)), draw(st.lists(words, min_size=1, max_size=4))
    opaque = draw(st.booleans())
    rows, place = [], st.integers(0, len(tokens) - 1)
    for layer, index, at in draw(
        st.sets(st.tuples(st.integers(0, n_layers - 1), st.integers(0, 3 * 10**7), place), max_size=8)
    ):
        rows.append(
            (
                f"{layer}_{index}_{at}",
                FEATURE,
                layer,
                at,
                index,
                draw(quantity),
                draw(st.floats(0, 1)),
                0.0,
                draw(words),
            )
        )
    for at in range(len(tokens)):
        rows.append((f"E_{at}_{at}", TOKEN, -1, at, at, np.nan, draw(st.floats(0, 1)), 0.0, draw(words)))
        rows.append(
            (
                f"0_-1_{at}",
                draw(st.sampled_from([ERROR, "lorsa error", "odd"])),
                0,
                at,
                -1,
                np.nan,
                0.5,
                0.0,
                draw(words),
            )
        )
    for i in range(draw(st.integers(1, 3))):
        rows.append((f"{n_layers}_{i}_0", LOGIT, n_layers, 0, i, np.nan, np.nan, draw(st.floats(0, 1)), draw(words)))
    nodes = pd.DataFrame(rows, columns=NODES).astype({"activation": float, "influence": float})
    ends = st.tuples(st.sampled_from(rows), st.sampled_from(rows)).filter(lambda p: p[0][2] < p[1][2])
    links = [
        (a[0], b[0], draw(quantity))
        for a, b in draw(st.lists(ends, max_size=12, unique_by=lambda p: (p[0][0], p[1][0])))
    ]
    links = pd.DataFrame(links, columns=["source", "target", "weight"]).astype(
        {"source": str, "target": str, "weight": float}
    )
    ids, groups = list(nodes.node_id), {}
    for label in draw(st.lists(words.map(lambda t: t.strip() or "x"), max_size=3, unique=True)):
        members = draw(st.lists(st.sampled_from(ids), min_size=1, max_size=3, unique=True))
        if free := [m for m in members if not any(m in g for g in groups.values())]:
            groups[label] = free
    pins = draw(st.lists(st.sampled_from(ids), max_size=3, unique=True))
    kinds = (
        ("Nodes of the unknown kind 'odd': " + str(n) + " (drawn as plain nodes).",)
        if (n := int((nodes.feature_type == "odd").sum()))
        else ()
    )
    return AttributionGraph(
        draw(words), tokens, nodes, links, groups, draw(words), (draw(st.integers(0, 9)), 0), notes=kinds, pins=pins,
        clicked=draw(st.sampled_from(["", *ids])), opaque=opaque, source_set=draw(words),
    )  # fmt: skip


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(graphs())
def test_what_is_written_comes_back(g):
    """A graph saved and opened again would be another graph; or Neuronpedia would refuse it."""
    from circuit_tracer.frontend.graph_models import Model

    data = json.loads(json.dumps(g.to_json(), allow_nan=False))
    same(g, AttributionGraph.load(data))
    np.testing.assert_allclose(AttributionGraph.load(data).scores, g.scores)
    Model(**data)
    assert all(isinstance(n["layer"], str) and isinstance(n["clerp"], str) for n in data["nodes"])
    assert None not in data["metadata"].values(), "the published schema knows no null in the metadata"
    assert sum(n["is_target_logit"] for n in data["nodes"]) == 1


# --------------------------------------------------------------------- network
STATE = {
    "pinnedIds": "0_2_1,gone",
    "supernodes": json.dumps([["A & B #1 + 100% (50%25)", "0_2_1", "E_11_0"]]),
    "clerps": json.dumps([["1_100030_1", "R&D + #7 = 5%"]]),
    "pruningThreshold": "0.3",
    "densityThreshold": "0.99",
    "clickedId": "undefined",
}


@pytest.fixture(scope="module")
def server():
    """A stand-in for Neuronpedia on this machine; ``seen`` collects the requests."""
    seen = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            seen.append((self.path, dict(self.headers)))
            if self.path == "/moved":
                self.send_response(302)
                self.send_header("Location", "http://192.0.2.1/g.json")
                self.end_headers()
                return
            data = small()
            data["nodes"][3]["influence"] = 0.9
            answers = {
                "/api/graph/gemma-2-2b/a%2Fslug": {"url": f"http://127.0.0.1:{self.server.server_port}/g.json"},
                "/api/graph/gemma-2-2b/lost": {"error": "x"},
                "/api/graph/gemma-2-2b/elsewhere": {"url": "file:///etc/passwd"},
                "/g.json": data,
                "/other.json": [1],
            }
            found = answers.get(self.path)
            self.send_response(404 if found is None else 200)
            self.end_headers()
            self.wfile.write(gzip.compress(json.dumps(found).encode()))

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as s:
        threading.Thread(target=s.serve_forever, daemon=True).start()
        s.seen, s.base = seen, f"http://127.0.0.1:{s.server_port}"
        yield s
        s.shutdown()


def encoded(quoter):
    return "&".join(f"{k}={quoter(v)}" for k, v in ({"slug": "a/slug"} | STATE).items())


@pytest.mark.parametrize(
    "query",
    [
        encoded(quote_plus),
        encoded(quote),
        encoded(lambda v: quote(quote(v, safe=""), safe="")),
        encoded(lambda v: quote(quote_plus(v), safe="")),
        quote(encoded(quote), safe=""),
        encoded(lambda v: v.replace("%", "%25").replace("+", "%2B")),
        encoded(quote_plus).replace("&", "&amp;"),
    ],
)
def test_a_page_with_its_state(server, query):
    """The graph somebody sent as a link would open without its groups and labels, or with garbled ones."""
    g = AttributionGraph.load(f"{server.base}/gemma-2-2b/graph?{query}")
    assert g.supernodes == {"A & B #1 + 100% (50%25)": ["0_2_1", "E_11_0"]}
    assert g.pins == ["0_2_1"] and g.dangling_pins == 1
    assert set(g.nodes.node_id) == {"E_11_0", "E_12_1", "0_2_1", "3_77_2", "3_78_2"} and g.hidden == (2, 5)
    assert any("hides 2 of 7 nodes" in n for n in g.notes) and any("densityThreshold '0.99'" in n for n in g.notes)
    kept = AttributionGraph.load(f"{server.base}/gemma-2-2b/graph?{query}".replace("0.3", "0.95"))
    assert kept.nodes.set_index("node_id").label["1_30_1"] == "R&D + #7 = 5%"


def test_addresses(server):
    """A stranger's address or answer could open files, other machines' services, or send what is private."""
    assert len(AttributionGraph.load(f"{server.base}/g.json").nodes) == 7
    before = len(server.seen)
    for address, said in (
        ("http://192.0.2.1/g.json", "over https only"),
        ("file:///etc/passwd", "over https only"),
        ("ftp://127.0.0.1/x", "over https only"),
        ("https://user:secret@example.org/g.json", "user name"),
        ("https://[broken/g.json", "cannot be read"),
        (f"{server.base}/gemma-2-2b/graph?pinnedIds=1", "lacks slug"),
    ):
        with pytest.raises(GraphError, match=said) as error:
            AttributionGraph.load(address)
        assert "secret" not in str(error.value)
    assert len(server.seen) == before
    for path, said in (
        ("/moved", "over https only"),
        ("/none.json", "answers 404"),
        ("/other.json", "no metadata"),
        ("/gemma-2-2b/graph?slug=lost", "has no url"),
        ("/gemma-2-2b/graph?slug=elsewhere", "over https only"),
    ):
        with pytest.raises(GraphError, match=said):
            AttributionGraph.load(server.base + path)
    with pytest.raises(GraphError, match="cannot be reached"):
        AttributionGraph.load("http://127.0.0.1:9/g.json")
    private = {"authorization", "cookie", "x-api-key"}
    assert not any(private & {h.lower() for h in headers} for _, headers in server.seen)


def test_files_are_read_only_so_far(tmp_path, monkeypatch):
    """A file without end, or a small one that unpacks to gigabytes, would fill the memory."""
    monkeypatch.setattr(sources, "LIMIT", 10_000)
    for content in (b" " * 20_000, gzip.compress(b" " * 10_000_000)):
        (tmp_path / "g.json").write_bytes(content)
        with pytest.raises(GraphError, match="is larger than"):
            AttributionGraph.load(tmp_path / "g.json")


# ---------------------------------------------------------------------- fuzzing
def check(data, deep):
    """One case: a sentence, or a graph that can be scored, described and written; ``deep``: whose file gives it again."""
    try:
        g = dialects.read(data, "f") if isinstance(data, bytes) else dialects.parse_graph(data, "f")
    except GraphError as error:
        assert len(str(error)) < 600 and str(error).isprintable() and str(error).endswith(".")
        return False
    assert all(0 <= s <= 1 + 1e-9 for s in g.scores)
    text = json.dumps(g.to_json(), allow_nan=False, ensure_ascii=False).encode()
    if deep:
        assert g.describe() and g.words()
        same(g, dialects.read(text, "f"), but=("dangling_pins", "renamed_nodes"))
    return True


def test_a_thousand_broken_files(graph, real_data):
    """The next broken file is somebody's first: a traceback or a hang is what they would remember."""
    bases = [graph.prune(0.3, 0.8).to_json(), small()]
    for path in (real_data / name for name in (HAIKU, CLT, EURO)):
        if path.exists():
            data = json.loads(path.read_text(encoding="utf-8"))
            ids = [n["node_id"] for n in data["nodes"]]
            keep = set(
                ids[:: len(ids) // 20]
                + [n["node_id"] for n in data["nodes"] if n["feature_type"] == LOGIT][:2]
                + ["0_2_1"]
            )
            data["nodes"] = [n for n in data["nodes"] if n["node_id"] in keep]
            data["links"] = [k for k in data["links"] if k["source"] in keep and k["target"] in keep][:40]
            bases.append(data)
    read = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for seed in range(1_000):
            try:
                read += check(mutate(bases[seed % len(bases)], seed), deep=seed % 12 == 0)
            except Exception as error:
                raise AssertionError(f"seed {seed} of base {seed % len(bases)} (of {len(bases)})") from error
    assert 200 < read < 900, "the mutations should neither break everything nor nothing"


@pytest.mark.parametrize(("n_nodes", "n_links"), [(2_000, 1_000_000), (50_000, 60_000)])
def test_large_graphs(n_nodes, n_links):
    """A million links, or a chain of fifty thousand nodes, would hang the notebook."""
    g = AttributionGraph.load(chain(n_nodes, n_links))
    assert len(g.links) == n_links and g.scores.replacement == pytest.approx(1)


# -------------------------------------------------- sub-graph scores, comparison
def test_scores_of_all_and_of_fewer(graph):
    """A sub-graph could be made to look more complete than the whole."""
    features = list(graph.nodes.node_id[graph.nodes.feature_type == FEATURE])
    assert graph.scores_of(graph.nodes.node_id) == graph.scores_of(features) == graph.scores
    last = graph.scores
    for n in (len(features) // 2, 20, 3, 0):
        now = graph.scores_of(features[:n])
        assert now.replacement <= last.replacement + 1e-12 and now.completeness <= last.completeness + 1e-12
        last = now
    with pytest.raises(GraphError, match="no node '9_9_9'"):
        graph.scores_of(["9_9_9"])


def test_scores_of_by_hand():
    """a → f → answer and a → e → answer: without f, all that reaches the answer but a's own share is unexplained."""
    g = AttributionGraph.load(small())
    # Into Austin: 3 of 4 from 1_30_1; into 1_30_1: .5 of 2.5 from a token, 2 of 2.5 from 0_2_1, whose input is a token.
    into = 0.6 * 0.75 + 0.2
    np.testing.assert_allclose(g.scores_of(["1_30_1"]).replacement, into * 0.2 / (into + 0.6 * 0.25))
    assert g.scores_of(["0_2_1"]).replacement == 0


def test_compare(graph, atlas):
    """Features of two prompts would be matched wrongly, or those of two models as if they were the same."""
    other = mi.trace(atlas, "Fact: the capital of the state containing Oakland is")
    c = mi.compare(graph, other)
    assert c.same_features and c.shared + c.only_a == (graph.nodes.feature_type == FEATURE).sum()
    keys = [
        {(n.layer, n.feature, n.ctx_idx) for n in g.nodes.itertuples() if n.feature_type == FEATURE}
        for g in (graph, other)
    ]
    assert (c.shared, c.only_a, c.only_b) == (len(keys[0] & keys[1]), len(keys[0] - keys[1]), len(keys[1] - keys[0]))
    activation = graph.nodes.set_index("node_id").activation
    assert all(activation[r.node_a] == r.activation_a for r in c.table.dropna(subset="node_a").itertuples())
    assert -1 <= c.correlation <= 1 and "Austin" in c.words() and c._repr_mimebundle_()[0]["image/png"]
    itself = mi.compare(graph, graph)
    assert (
        itself.only_a == itself.only_b == 0
        and itself.links == len(graph.links)
        and itself.correlation == pytest.approx(1)
    )


def test_compare_prompts_of_other_length_and_other_models():
    a, longer = AttributionGraph.load(small()), small()
    longer["metadata"]["prompt_tokens"] = ["x", "a", " b", " c"]
    for n in longer["nodes"]:
        n["ctx_idx"] += 1
    b = AttributionGraph.load(longer)
    assert mi.compare(a, b).shared == 2 and "aligned at their ends" in mi.compare(a, b).words()
    assert mi.compare(a, a.prune(0.9)).words()
    other = small(qParams={"supernodes": [["Texas", "1_30_1"], ["x", "0_2_1"]]})
    other["metadata"]["scan"] = "n"
    c = mi.compare(a.group("Texas", ["0_2_1"]), AttributionGraph.load(other))
    assert (c.same_features, c.shared, c.only_a, c.only_b) == (False, 1, 0, 1) and "do not correspond" in c.words()
    assert c.figure()
    for data, source_set in ((longer, "clt"), (other, "plt")):
        data["metadata"] |= {"scan": "m", "feature_details": {"neuronpedia_source_set": source_set}}
    assert not mi.compare(AttributionGraph.load(longer), AttributionGraph.load(other)).same_features
    assert "Only one of the graphs" in mi.compare(a, AttributionGraph.load(longer)).words()


# ---------------------------------------------------------------- command line
KEYS = ["n_nodes", "n_links", "n_supernodes", "dangling_pins", "renamed_nodes", "replacement_score", "completeness_score", "top_logits", "notes"]  # fmt: skip


def test_graph_on_the_command_line(tmp_path):
    """A script that checks graph files reads these keys; a person reads the words."""
    data = small(qParams={"pinnedIds": ["gone", "0_2_1"], "supernodes": [["T", "0_2_1"]]})
    (tmp_path / "g.json").write_text(json.dumps(data))
    files = [str(tmp_path / f"x.{suffix}") for suffix in ("json", "html", "svg", "png")]
    result = CliRunner().invoke(
        main, ["graph", str(tmp_path / "g.json"), "--json", *sum((["--out", f] for f in files), [])]
    )
    assert result.exit_code == 0, result.output
    out = json.loads(result.stdout)
    assert list(out) == KEYS and (out["n_nodes"], out["n_links"], out["n_supernodes"], out["dangling_pins"]) == (
        7,
        6,
        1,
        1,
    )
    assert out["top_logits"][0] == {"token": "Austin", "prob": 0.6}
    spoken = CliRunner().invoke(main, ["graph", files[0]])
    assert spoken.exit_code == 0 and all(w in spoken.output for w in ("Austin 60.0%", "replacement", "note:", "1 of 2"))
    for arguments, said in (
        (["none.json"], "No such file"),
        (["http://example.org/g.json"], "https only"),
        ([], "FILE"),
    ):
        bad = CliRunner().invoke(main, ["graph", *arguments])
        assert bad.exit_code == 2 and said in bad.output and "Traceback" not in bad.output
