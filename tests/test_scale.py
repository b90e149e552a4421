"""What tracing costs: the formulas must count what circuit-tracer really holds, and the page must say what was measured."""

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.filterwarnings("ignore:Full backward hook is firing")


def tool(name):
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


page = tool("scale")
scale = tool("scale_formulas")
GEMMA = scale.Shape(3, 64, 16, 4, 2, 256, 301, 32, post_norms=True, masks=2, features=200)
LLAMA = replace(GEMMA, post_norms=False, masks=1, reads_normalized=False)
SHAPES = {
    "gemma": GEMMA,
    "gemma-clt": replace(GEMMA, clt=True, reads_normalized=False),
    "llama": LLAMA,
    "qwen": replace(LLAMA, qk_norm=True, reads_normalized=True),
    "gpt2": replace(LLAMA, norm="LN", gated=False, rotary=False, n_kv=4),
}
ACTIVE = (150, 90, 40)


@pytest.fixture(scope="module", params=SHAPES)
def traced(request):
    """A tiny random model of this architecture, its run on paper, circuit-tracer's graph of it, and what was held meanwhile."""
    measure, make = tool("measure_scale"), tool("random_model")
    run = scale.Run(SHAPES[request.param], tokens=12, kept=60, batch=8, active=ACTIVE)
    model = make.random_model(run.shape)
    measured = measure.measure(model, run, "cpu")
    run = replace(run, active=tuple(active_by_layer(model, run)))
    return model, run, measured


def active_by_layer(model, run):
    context = model.setup_attribution(torch.arange(run.tokens))
    return torch.bincount(context.activation_matrix.indices()[0], minlength=run.shape.n_layers).tolist()


def test_weights_and_transcoders_are_counted_exactly(traced):
    """A wrong count sends a user to a GPU on which the model does not fit, or away from one on which it does."""
    model, run, _ = traced
    theirs = sum(p.numel() for p in model.transcoders.parameters())
    assert theirs == run.shape.transcoder_parameters
    assert sum(p.numel() for p in model.parameters()) - theirs == run.shape.parameters
    buffers = {b.untyped_storage().data_ptr(): b.untyped_storage().nbytes() for b in model.buffers()}
    assert sum(buffers.values()) - run.shape.buffers(2) == 4 * run.shape.n_layers  # TransformerLens' own scalar, IGNORE


def test_offloading_is_counted_exactly(traced):
    """It is what a user turns on when the model does not fit: it must free what the page says."""
    model, run, _ = traced
    targets = (
        model.get_offload_targets_phase0(),
        model.get_offload_targets_phase1(),
        model.get_offload_targets_phase2(),
    )
    freed = [sum(p.numel() * 2 for m in modules for p in m.parameters()) for modules in targets]
    assert freed == list(run.moved)


def test_features_are_forced(traced):
    """Otherwise the simulated prompt would not be the published one."""
    _, run, measured = traced
    assert measured["active"] == run.n_active == pytest.approx(sum(ACTIVE), rel=0.05)


def test_nodes_and_backward_passes(traced, monkeypatch):
    """The matrix grows with the square of the nodes, the time with the passes: both are what the page is read for."""
    model, run, measured = traced
    from circuit_tracer.attribution import attribute as module
    from circuit_tracer.attribution.context_transformerlens import AttributionContext

    passes, compute = [], AttributionContext.compute_batch
    monkeypatch.setattr(AttributionContext, "compute_batch", lambda *a, **k: passes.append(1) or compute(*a, **k))
    raw = module.attribute(
        torch.arange(run.tokens), model, batch_size=run.batch, max_feature_nodes=run.kept, max_n_logits=run.logits,
        desired_logit_prob=1.0,
    )  # fmt: skip
    assert raw.adjacency_matrix.shape == (run.nodes, run.nodes) and measured["nodes"] == run.nodes
    assert raw.adjacency_matrix.dtype == torch.float32
    assert len(passes) == run.batches


def test_what_a_forward_pass_leaves(traced):
    """These bytes grow with batch × tokens: they decide which batch a GPU can take."""
    model, run, _ = traced
    tokens = torch.arange(run.tokens)
    with tool("measure_scale").LiveBytes(model) as live:
        context = model.setup_attribution(tokens)
        before = live.now
        model.run_forward_pass(tokens, run.batch, context)
    assert before == pytest.approx(run.context, rel=0.03)
    assert live.now - before == pytest.approx(run.retained, rel=0.01)


def test_peak(traced):
    """A peak that is told too low ends in an out-of-memory error in front of the class."""
    _, run, measured = traced
    assert measured["peak"] == pytest.approx(run.cpu_peak, rel=0.06)


def test_operations(traced):
    """On a GPU, launching many small operations takes longer than computing them: a count too low promises too much."""
    _, run, measured = traced
    assert 0.7 <= measured["operations"] / run.operations <= 1.02


def test_features_dominate_the_peak_of_a_long_prompt():
    """The page tells users to lower the batch first: the term behind that advice must be what is held."""
    measure = tool("measure_scale")
    shape = replace(GEMMA, d_mlp=64, d_vocab=64)
    run = scale.Run(shape, tokens=24, kept=2000, batch=16, active=(1500, 300, 200), logits=4)
    assert run.phases["backward"] == run.peak > 2 * run.weights
    model = tool("random_model").random_model(shape)
    assert measure.measure(model, run, "cpu")["peak"] == pytest.approx(run.cpu_peak, rel=0.06)


def test_the_unembedding_is_held_twice():
    """At full size this copy is the peak of a short prompt, more than a gigabyte."""
    shape = replace(GEMMA, d_vocab=20_000)
    run = scale.Run(shape, tokens=8, kept=10, batch=2, active=(10, 10, 10), logits=2)
    assert run.phases["setup"] == run.cpu_peak
    measured = tool("measure_scale").measure(tool("random_model").random_model(shape), run, "cpu")
    assert measured["peak"] == pytest.approx(run.cpu_peak, rel=0.01)


def test_published_sizes():
    """Files that others publish, as a check from outside: Gemma's parameters, a layer of the Llama transcoders (1.08 GB)."""
    models = scale.MODELS
    gemma = scale.GEMMA.parameters - scale.GEMMA.d_vocab * scale.GEMMA.d_model
    assert gemma == pytest.approx(2_614_341_888, rel=0.001)
    llama = models["llama-3.2-1b, 131k per layer"]
    assert llama.download[1] / llama.n_layers == pytest.approx(1.08e9, rel=0.01)
    assert models["gemma-2-2b, 426k CLT"].n_layers * scale.GEMMA.features == pytest.approx(426_000, rel=0.001)
    assert len(scale.GEMMA_L0) == scale.GEMMA.n_layers


def test_page_is_made_of_the_measured_file():
    """A number typed by hand, or left over from another version, would be believed."""
    costs = json.loads((ROOT / "docs/costs.json").read_text())
    assert (ROOT / "docs/costs.md").read_text(encoding="utf-8") == page.page(costs), "run python tools/scale.py"


def test_a_full_size_measurement_agrees_with_the_formula():
    """The tiny model could agree by luck: at full size the terms are in their real proportions."""
    costs = json.loads((ROOT / "docs/costs.json").read_text())
    assert costs["gemma"]
    for row in costs["gemma"]:
        run = page.of(row)
        expected = run.cpu_peak if row["device"].startswith("CPU") else run.peak
        assert row["peak"] == pytest.approx(expected, rel=0.01 if row["device"].startswith("CPU") else 0.1)
        assert row["nodes"] == run.nodes and row["active"] == pytest.approx(run.n_active, rel=0.05)


def test_what_no_machine_has_measured_is_labelled():
    """A guess must not be read as a measurement."""
    assert page.t4_seconds(scale.gemma_run(11, 1024, 64), [1.0], 1e-5).endswith("EXTRAPOLATED")
    costs = json.loads((ROOT / "docs/costs.json").read_text())
    assert ("No GPU has been measured" in page.page(costs)) == all(
        r["device"].startswith("CPU") for r in costs["gemma"]
    )
