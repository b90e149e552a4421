"""The same answers on a GPU as on a CPU: ``pytest -m cuda`` on a machine with one (skipped elsewhere)."""

import hub_help
import pytest
import torch

import mi_workshop as mi
from mi_workshop.counterfactual import Experiment, Site, patch, scale, supernode, sweep
from mi_workshop.counterfactual.subspace import activations, learn_subspace

pytestmark = [pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")]
PROMPT = "Fact: the capital of the state containing Dallas is"
DONOR = PROMPT.replace("Dallas", "Oakland")


@pytest.fixture(scope="module", params=["plt", "clt"])
def pair(request):
    return tuple(mi.load("atlas", request.param, device=device) for device in ("cpu", "cuda"))


def test_trace_and_swap(pair):
    cpu, gpu = (mi.trace(model, PROMPT) for model in pair)
    assert gpu.model.device.type == "cuda" and gpu.scores == pytest.approx(cpu.scores, abs=1e-3)
    assert gpu.top.token.tolist() == cpu.top.token.tolist() and gpu.top.prob.tolist() == pytest.approx(
        cpu.top.prob.tolist(), abs=1e-3
    )
    for at in ("city", "state"):
        cpu, gpu = (mi.swap(model, PROMPT, "Texas", "California", at=at, n_random=20) for model in pair)
        assert gpu.after[0]["prob"] == pytest.approx(cpu.after[0]["prob"], abs=1e-3) and gpu.supported == cpu.supported
        assert gpu.controls["random"]["mean_prob"] == pytest.approx(cpu.controls["random"]["mean_prob"], abs=0.05)


def test_ablations_and_views(pair):
    graphs = [mi.trace(model, PROMPT) for model in pair]
    some = graphs[0].nodes[graphs[0].nodes.activation.notna()].sort_values("influence").node_id.tolist()[:4]
    cpu, gpu = (mi.ablate(model, PROMPT, some, n_random=20) for model in pair)
    assert gpu.prob == pytest.approx(cpu.prob, abs=1e-3) and gpu.nothing < 1e-3
    assert graphs[1].show().can_act
    cpu, gpu = (mi.logit_lens(model, PROMPT).logprobs for model in pair)
    torch.testing.assert_close(gpu, cpu, atol=1e-2, rtol=1e-2)
    cpu, gpu = (mi.attention.patterns(model, PROMPT).pattern for model in pair)
    torch.testing.assert_close(torch.tensor(gpu), torch.tensor(cpu), atol=1e-3, rtol=1e-3)
    cpu, gpu = (mi.direct_logit_attribution(model, PROMPT, "Austin") for model in pair)
    assert gpu.table.value.tolist() == pytest.approx(cpu.table.value.tolist(), abs=1e-2)


@pytest.mark.parametrize("kind", ["resid_post", "z", "pattern", "neuron", "feature", "mlp_out", "q"])
def test_experiments(pair, kind):
    units = {"resid_post": None, "mlp_out": None, "feature": list(range(20))}.get(kind, [0, 1])
    for change in (patch(), scale(-2)):
        site = Site(kind, 1, "{city}", units)
        cpu, gpu = (Experiment(site, change, n_random=10).run(model, PROMPT, DONOR) for model in pair)
        for name in ("prob", "donor_prob", "kl"):
            assert gpu.table[name][0] == pytest.approx(cpu.table[name][0], abs=2e-3)


def test_sweeps_and_subspaces(pair):
    cpu, gpu = (sweep(model, PROMPT, DONOR, progress=False).mean for model in pair)
    torch.testing.assert_close(torch.tensor(gpu), torch.tensor(cpu), atol=1e-2, rtol=1e-2)
    gpu, site = pair[1], Site("resid_post", 1, "{city}")
    basis = learn_subspace(gpu, [PROMPT, DONOR], [DONOR, PROMPT], site, 2, steps=3)
    assert activations(gpu, [PROMPT], site).device.type == "cpu"
    Experiment(Site("resid_post", 1, "{city}", basis=basis), patch(), n_random=3).run(gpu, PROMPT, DONOR)


@pytest.mark.parametrize("offload", [None, "cpu", "disk"])
def test_gemma_in_half_precision(server, home, offload):
    with hub_help.connected(server, home):
        model = mi.load("gemma-2-2b", offload=offload)
    assert model.dtype == torch.bfloat16 and model.device.type == "cuda"
    graph = mi.trace(model, PROMPT)
    assert graph.top.token[0] == "Austin" and graph.top.prob[0] == pytest.approx(0.87, abs=0.04)
    some = graph.nodes[graph.nodes.activation.notna()].sort_values("influence").node_id.tolist()[:4]
    ablated = mi.ablate(model, PROMPT, some, n_random=20)
    report = Experiment(supernode(some), scale(0), freeze_attention=True, n_random=20).run(model, PROMPT)
    assert report.table.prob[0] == pytest.approx(ablated.prob, abs=0.03)
    assert mi.logit_lens(model, PROMPT).prob("Austin").iloc[-1, -1] == pytest.approx(0.87, abs=0.04)
