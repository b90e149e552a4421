"""The GPU tier against a Hub of our own: the real loading path, tiny random weights, every fault one sentence."""

import json
import os
import re
import subprocess
import sys
import time
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from hub_help import ANSWERS, FACT, FAULTS, GEMMA, MARKED, SCOPE, connected

import mi_workshop as mi
from mi_workshop.counterfactual import Experiment, InterventionError, Site, patch, scale, supernode, sweep
from mi_workshop.models import Model, ModelError, hub, pretrained

PROMPT, DONOR = FACT.format("state", "Dallas"), FACT.format("state", "Oakland")


@pytest.fixture(scope="session")
def gpt2(server, home):
    with connected(server, home):
        return mi.load("gpt2", device="cpu")


@pytest.fixture(scope="session")
def traced(gemma):
    return mi.trace(gemma, PROMPT)


@pytest.fixture
def broken(server, tmp_path, monkeypatch):
    """An empty cache, and faults that end with the test; the client waits for nothing."""
    import huggingface_hub.file_download as client
    import huggingface_hub.utils._http as http

    for module in (client, http):
        monkeypatch.setattr(module, "time", types.SimpleNamespace(**vars(time) | {"sleep": lambda s: None}))
    server.requests.clear()
    with connected(server, tmp_path):
        yield server
    server.fault, server.corrupt = "", ""


def fails(fault, *args, **options):
    with pytest.raises(ModelError) as error:
        mi.load(*(args or ("gemma-2-2b",)), **options)
    said = str(error.value)
    assert re.match(FAULTS[fault], said), said
    assert "\n" not in said and MARKED not in said
    assert error.value.__context__ is None or error.value.__suppress_context__, "the library's own error is shown, too"
    return said


# ------------------------------------------------------------ what it gives
def test_the_tiny_gemma_is_the_one_that_was_saved(gemma, files):
    """A wrong scale, norm or order of layers would give graphs of another model."""
    from transformers import AutoModelForCausalLM

    theirs = AutoModelForCausalLM.from_pretrained(files / GEMMA, attn_implementation="eager")
    for prompt, answer in ANSWERS.items():
        tokens = gemma.tokens(prompt)
        with torch.no_grad():
            torch.testing.assert_close(gemma.logits(tokens), theirs(tokens[None]).logits[0, -1], atol=1e-3, rtol=1e-3)
        assert gemma.top(prompt, 1)[0][0] == answer
    weights = np.load(next((files / SCOPE).rglob("layer_2/*/*/params.npz")))
    np.testing.assert_array_equal(gemma.replacement.transcoders[2].W_enc.numpy(), weights["W_enc"].T)
    assert gemma.transcoders == "plt" and gemma.source_set == "gemmascope-transcoder-16k" and gemma.world is None


def test_trace_is_circuit_tracers(gemma, traced):
    """Our graph must be circuit-tracer's, number by number, or the published ones cannot be compared with it."""
    from circuit_tracer.attribution.attribute import attribute

    raw = attribute(
        PROMPT, gemma.replacement, max_n_logits=10, desired_logit_prob=0.95, batch_size=256, max_feature_nodes=8192
    )
    ids = traced.nodes.node_id.tolist()
    row = {node: i for i, node in enumerate(ids)}
    matrix = np.zeros((len(ids), len(ids)), "f4")
    matrix[[row[t] for t in traced.links.target], [row[s] for s in traced.links.source]] = traced.links.weight
    np.testing.assert_allclose(matrix, raw.adjacency_matrix.numpy(), atol=1e-6)
    features = traced.nodes[traced.nodes.activation.notna()]
    np.testing.assert_allclose(features.activation, raw.activation_values[raw.selected_features].numpy(), rtol=1e-6)
    assert traced.answers.feature.tolist() == [t.vocab_idx for t in raw.logit_targets]
    np.testing.assert_allclose(traced.answers.token_prob, raw.logit_probabilities.numpy(), rtol=1e-6)
    assert traced.tokens == ["<bos>", "Fact", ":", *(f" {w}" for w in PROMPT.split()[1:])]
    assert traced.source_set == "gemmascope-transcoder-16k" and traced.top.token[0] == "Austin"


def test_half_the_batch_after_running_out_of_memory(gemma, monkeypatch):
    """A T4 would otherwise give up where it only needs to take smaller steps; and at one step it must say so."""
    import circuit_tracer.attribution.attribute as module

    asked, real = [], module.attribute
    limit = 128

    def attribute(*args, batch_size, **options):
        asked.append(batch_size)
        if batch_size > limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(*args, batch_size=batch_size, **options)

    monkeypatch.setattr(module, "attribute", attribute)
    assert mi.trace(gemma, PROMPT).top.token[0] == "Austin" and asked == [256, 128]
    limit = 0
    with pytest.raises(ModelError, match="memory does not hold the attribution of 11 tokens"):
        mi.trace(gemma, PROMPT)
    assert asked[-1] == 1


def test_what_is_said_before_a_long_trace(gemma):
    """A minute without a word looks like a hang."""
    from mi_workshop.circuits.trace import expectation

    said = expectation(gemma, gemma.tokens(PROMPT), 256, 8192)
    assert re.fullmatch(
        r"1,034 features are active at 11 tokens: 5 backward passes of 256 nodes, about \d+ s\.", said
    ), said


def test_everything_else_works_on_it(gemma, traced, tmp_path):
    """What a notebook does with Atlas it must be able to do with Gemma by changing the name alone."""
    chosen = traced.nodes[traced.nodes.activation.notna()].sort_values("influence").node_id.tolist()[:4]
    assert traced.show().nodes and traced.group("a group", chosen).flow.source.isin(["a group"]).any()
    assert mi.AttributionGraph.load(traced.save(tmp_path / "graph.json")).source_set == traced.source_set
    ablated = mi.ablate(gemma, PROMPT, chosen, n_random=5)
    report = Experiment(supernode(chosen), scale(0), freeze_attention=True, n_random=5).run(gemma, PROMPT)
    assert ablated.before[0]["token"] == " Austin" and ablated.nothing < 1e-4
    assert report.table.prob[0] == pytest.approx(ablated.prob, abs=1e-5), "two ways of setting features to zero"
    report = Experiment(Site("resid_post", 3, "last"), patch(), n_random=5).run(gemma, PROMPT, DONOR)
    assert report.table.donor_answer[0] == " Sacramento" and report.table.gained[0] == pytest.approx(1, abs=1e-4)
    assert sweep(gemma, PROMPT, DONOR, positions=["last"], progress=False).mean[-1, 0, 0] == pytest.approx(1, abs=1e-3)
    assert mi.logit_lens(gemma, PROMPT).prob("Austin").iloc[-1, -1] == pytest.approx(
        gemma.top(PROMPT, 1)[0][1], abs=1e-5
    )
    shares = mi.direct_logit_attribution(gemma, PROMPT, "Austin")
    assert shares.table.value.sum() == pytest.approx(shares.logit, abs=1e-3)
    assert mi.attention.patterns(gemma, PROMPT).pattern.shape == (4, 4, 11, 11)
    for call in (lambda: mi.swap(gemma, PROMPT, "Texas", "California"), lambda: mi.feature(gemma, 0, 1)):
        with pytest.raises(ValueError, match=r"^[^\n]+$"):
            call()


def test_interventions_are_circuit_tracers(gemma, traced):
    """GemmaScope's features are read after a norm and written before another: a wrong place gives other answers."""
    chosen = traced.nodes[traced.nodes.activation.notna()].sort_values("influence").node_id.tolist()[:6]
    values = dict(zip(traced.nodes.node_id, traced.nodes.activation, strict=True))
    todo = [(int(a), int(p), int(f), -2 * values[f"{a}_{f}_{p}"]) for a, f, p in (i.split("_") for i in chosen)]
    theirs, _ = gemma.replacement.feature_intervention(gemma.tokens(PROMPT), todo)
    report = Experiment(supernode(chosen), scale(-2), freeze_attention=True).run(gemma, PROMPT, controls=False)
    assert report.table.prob[0] == pytest.approx(float(theirs[0, -1].softmax(-1)[gemma.token_id("Austin")]), abs=1e-5)


def test_gpt2_has_no_transcoders(gpt2):
    """Lenses, attention and interventions must work on any TransformerLens model; a graph is refused in one sentence."""
    assert gpt2.words(gpt2.tokens(PROMPT))[:3] == ["<|endoftext|>", "Fact", ":"]
    with pytest.raises(ModelError, match="gpt2 has no transcoders, and an attribution graph is made of their features"):
        mi.trace(gpt2, PROMPT)
    with pytest.raises(ModelError, match="no transcoders"):
        mi.ablate(gpt2, PROMPT, ["0_1_2"])
    with pytest.raises(InterventionError, match="no transcoders"):
        Experiment(supernode(["0_1_2"]), scale(0)).run(gpt2, PROMPT)
    assert mi.logit_lens(gpt2, PROMPT).points[-1] == "layer 1"
    assert mi.attention.patterns(gpt2, PROMPT).silent.shape == (2, 4)
    report = Experiment(Site("resid_post", 1, "last"), patch(), n_random=3).run(
        gpt2, PROMPT, PROMPT.replace("Dallas", "Texas")
    )
    assert report.identity < 1e-5


def test_words_and_tokens(gemma):
    """A leading space decides which token is meant: the answer " Austin" is not the word "Austin"."""
    assert gemma.words([gemma.token_id("Austin")]) == gemma.words([gemma.token_id(" Austin")]) == [" Austin"]
    assert gemma.words([gemma.token_id(":")]) == [":"]
    assert gemma.tokens("<bos>" + PROMPT).tolist() == gemma.tokens(PROMPT).tolist(), "two <bos>"
    for bad, said in (
        (lambda: gemma.token_id("Austin Texas"), "tokens of gemma-2-2b"),
        (lambda: gemma.tokens(""), "empty"),
    ):
        with pytest.raises(ModelError, match=said):
            bad()
    with pytest.raises(ModelError, match="The prompt has 81 tokens, and gemma-2-2b is loaded for 64: shorten it"):
        gemma.tokens(" the" * 80)
    with pytest.raises(InterventionError, match="tokens of gemma-2-2b"):
        Experiment(Site("resid_post", 1), scale(0)).run(gemma, PROMPT, answers=["Austin Texas"])


def test_half_precision(server, home):
    """On a GPU everything runs in bfloat16: no step may need float32, and rounding must not look like an effect."""
    with connected(server, home):
        model = mi.load("gemma-2-2b", device="cpu", dtype="bfloat16")
    graph = mi.trace(model, PROMPT)
    assert (
        model.dtype == torch.bfloat16
        and graph.top.token[0] == "Austin"
        and graph.top.prob[0] == pytest.approx(0.87, abs=0.03)
    )
    chosen = graph.nodes[graph.nodes.activation.notna()].sort_values("influence").node_id.tolist()[:4]
    assert mi.ablate(model, PROMPT, chosen, n_random=3).before[0]["token"] == " Austin"
    Experiment([Site("z", 1, "last", [0]), *supernode(chosen)], scale(0), n_random=3).run(model, PROMPT)
    mi.direct_logit_attribution(model, PROMPT)
    mi.logit_lens(model, PROMPT)


def test_nnsight_or_a_sentence(server, home):
    """Models that TransformerLens does not know go through nnsight: the same graph, or the version that is needed."""
    with connected(server, home):
        try:
            model = mi.load("gemma-2-2b", device="cpu", backend="nnsight")
        except ModelError as error:
            assert re.match(
                r"circuit-tracer 0.5 works with nnsight 0.6, and [\d.]+ is installed: pip install", str(error)
            ), error
            pytest.skip(str(error))
        assert mi.trace(model, PROMPT).top.token[0] == "Austin"
        with pytest.raises(ModelError, match="feature_intervention"):
            mi.ablate(model, PROMPT, ["0_1_2"])


# ------------------------------------------------------------------- faults
def test_gated(broken):
    """Gemma needs a token and a click on its licence: whoever lacks one must read which."""
    broken.fault = "gated"
    fails("no token")
    os.environ["HF_TOKEN"] = MARKED
    fails("licence not accepted")
    broken.fault = "bad token"
    fails("bad token")
    assert any(token == MARKED for *_, token in broken.requests), "the token was never sent"


def test_a_broken_download_goes_on(broken, capfd, monkeypatch):
    """Five gigabytes are not downloaded twice."""
    from huggingface_hub import constants

    monkeypatch.setattr(
        constants, "DOWNLOAD_CHUNK_SIZE", 100
    )  # what is kept of a broken download are whole pieces of this size
    broken.fault = "cut"
    fails("broken off")
    broken.fault = ""
    broken.requests.clear()
    model = mi.load("gemma-2-2b", device="cpu")
    assert model.top(PROMPT, 1)[0][0] == " Austin"
    starts = [r for method, path, r, _ in broken.requests if method == "GET" and path.endswith("model.safetensors")]
    assert starts and all(int(re.match(r"bytes=(\d+)-", r)[1]) > 0 for r in starts), starts
    assert "Downloading google/gemma-2-2b" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("name", "fault"), [("model.safetensors", "damaged weights"), ("params.npz", "damaged transcoder")]
)
def test_a_damaged_file_is_named(broken, name, fault):
    broken.fault, broken.corrupt = "corrupt", name
    said = fails(fault)
    broken.fault = ""
    assert fails(fault) == said, "it is still there"
    for blob in Path(re.search(r"delete (\S+) ", said)[1]).parent.iterdir():
        blob.unlink()
    assert mi.load("gemma-2-2b", device="cpu").top(PROMPT, 1)[0][0] == " Austin"


def test_a_slow_link(broken, capfd):
    """A download of minutes must show that it is going on, and must not be given up."""
    broken.fault, broken.delay = "slow", 0.002
    assert mi.load("gpt2", device="cpu").name == "gpt2" and "Fetching" in capfd.readouterr().err


def test_out_of_reach(broken, gemma, home, tmp_path):
    """Without a network the cache is enough; without either there is a sentence."""
    gone = types.SimpleNamespace(address="http://127.0.0.1:9")
    with connected(gone, tmp_path / "empty"):
        fails("no network")
    with connected(gone, tmp_path / "empty", offline=True):
        fails("switched off")
    for offline in (True, False):
        with connected(gone, home, offline=offline):
            assert mi.load("gemma-2-2b", device="cpu").top(PROMPT, 1)[0][0] == " Austin"


def test_before_anything_is_downloaded(broken, monkeypatch):
    """What cannot work must be said before five gigabytes have come."""
    broken.fault = "large"
    fails("no GPU")
    with monkeypatch.context() as patched:
        patched.setattr(hub.shutil, "disk_usage", lambda path: types.SimpleNamespace(free=3e9))
        fails("disk full", device="cpu")
    assert not [
        path for method, path, *_ in broken.requests if method == "GET" and path.endswith((".safetensors", ".npz"))
    ]
    broken.fault = "down"
    fails("server error")
    broken.fault = ""
    if not torch.cuda.is_available():
        fails("no CUDA", "gemma-2-2b", device="cuda")
    fails("no such repository", "gemma-2-2b", "nobody/nothing", device="cpu")
    fails("pickled weights", "pythia-14m", device="cpu")
    fails("unknown name", "gemma-2-2")
    for options in ({"dtype": "int8"}, {"backend": "jax"}, {"offload": "tape"}, {"transcoders": "nothing"}):
        with pytest.raises(ModelError, match=r"^[^\n]+$"):
            mi.load("gemma-2-2b", device="cpu", **options)


@pytest.mark.parametrize(
    ("error", "fault"), [(torch.OutOfMemoryError("CUDA"), "GPU memory"), (ImportError("no x"), "library versions")]
)
def test_what_libraries_raise(server, home, monkeypatch, error, fault):
    def raise_it(*args):
        raise error

    monkeypatch.setattr(pretrained, "_network", raise_it)
    with connected(server, home):
        fails(fault, device="cpu")


def test_otherwise(broken, capsys):
    """A notebook goes on with Atlas where Gemma cannot be had, and says why."""
    broken.fault = "gated"
    model = mi.load("gemma-2-2b", otherwise="atlas")
    said = capsys.readouterr().out
    assert isinstance(model, Model) and model.name == "atlas"
    assert re.match(FAULTS["no token"], said) and said.endswith("Going on with atlas.\n")


def test_a_process_of_its_own_and_the_token_nowhere(server, tmp_path):
    """What a learner runs, from the environment alone; a saved notebook or cache with a token in it gives the token away."""
    code = (
        "import mi_workshop as mi, sys, logging; logging.basicConfig(level=logging.DEBUG)\n"
        "model = mi.load('gemma-2-2b', device='cpu'); graph = mi.trace(model, sys.argv[1])\n"
        "graph.save('graph.json'); graph.save('graph.html'); print(graph.describe(), model, graph.show())\n"
        "mi.load('google/gemma-2-2b', transcoders='nobody/nothing', device='cpu')"
    )
    environment = os.environ | server.environment(tmp_path / "home") | {"HF_TOKEN": MARKED, "HF_HUB_VERBOSITY": "debug"}
    environment["PYTHONPATH"] += os.pathsep + str(Path(mi.__file__).parents[1])
    run = subprocess.run(
        [sys.executable, "-c", code, PROMPT], env=environment, capture_output=True, text=True, cwd=tmp_path
    )
    assert "the answer is 'Austin'" in run.stdout, run.stderr
    assert run.returncode == 1 and re.search(FAULTS["no such repository"], run.stderr)
    assert any(token == MARKED for *_, token in server.requests), "the token was never sent"
    assert MARKED not in run.stdout + run.stderr
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and MARKED.encode() in p.read_bytes()]
    details = json.loads((tmp_path / "graph.json").read_text())["metadata"]["feature_details"]
    assert details["neuronpedia_source_set"] == "gemmascope-transcoder-16k"


def test_every_fault_is_tested():
    """The page of faults is made from this list: a sentence that no test has seen may be wrong."""
    text = Path(__file__).read_text()
    assert not [fault for fault in FAULTS if f'"{fault}"' not in text]
