"""Interventions: the plumbing changes nothing by itself, the controls can fail, the verdict keeps its word, and the model is left as it was."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from transformer_lens import HookedTransformer, HookedTransformerConfig, patching

from mi_workshop.counterfactual import (
    Experiment,
    InterventionError,
    Site,
    add,
    hooked,
    mean,
    noise,
    patch,
    path_patch,
    resample,
    run,
    scale,
    set_to,
    supernode,
    sweep,
    zero,
)

DALLAS = "Fact: the capital of the state containing Dallas is"
OAKLAND = "Fact: the capital of the state containing Oakland is"
KINDS = (
    "resid_pre",
    "resid_mid",
    "resid_post",
    "attn_out",
    "mlp_out",
    "q",
    "k",
    "v",
    "z",
    "pattern",
    "neuron",
    "feature",
)
SUBSPACE = torch.linalg.qr(torch.randn(128, 16, generator=torch.Generator().manual_seed(1))).Q.T


@pytest.fixture(scope="module")
def tiny():
    """A TransformerLens model with layer norms and random weights."""
    config = HookedTransformerConfig(
        n_layers=2, d_model=16, n_ctx=12, d_head=4, n_heads=4, d_mlp=24, d_vocab=30, act_fn="gelu", seed=0
    )  # fmt: skip
    return HookedTransformer(config)


def state_of(model):
    module = getattr(model, "replacement", model)
    hooks = {n: len(m._forward_hooks) for n, m in module.named_modules()}
    return hooks, {n: p.detach().clone() for n, p in module.named_parameters()}


def same_state(a, b):
    return a[0] == b[0] and all(torch.equal(a[1][n], b[1][n]) for n in a[1])


def questions(world, n=8):
    """Capital questions about trained cities of states, and the same question about the next state."""
    places = [p for p in world.places.values() if p.kind == "state"]
    asked = [world.two_hop(p.cities[4]).prompt for p in places]
    return asked[:n], asked[n : 2 * n]


# ------------------------------------------------------------------ plumbing
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(KINDS), layer=st.integers(0, 3), position=st.integers(0, 10), basis=st.sampled_from([None, SUBSPACE]),
    freeze=st.booleans(), data=st.data(),
)  # fmt: skip
def test_own_values_change_nothing(atlas, kind, layer, position, basis, freeze, data):
    """For every kind of site: otherwise an effect could come from the plumbing."""
    units = data.draw(st.sampled_from([None, 1, [0, 2]])) if kind in ("z", "neuron", "feature", "resid_post") else None
    basis = basis if kind.startswith("resid") and units is None else None
    site = Site(kind, layer, position, units, basis)
    report = Experiment(site, scale(1.0), freeze_attention=freeze).run(atlas, DALLAS, controls=False)
    assert report.identity < 1e-4
    assert abs(report.table.lost[0]) < 1e-4


@pytest.mark.parametrize("kind", ["resid_post", "z"])
def test_agrees_with_transformer_lens(atlas, kind):
    """The batched sweep gives what TransformerLens' own patching gives, cell by cell."""
    m, (a, b) = atlas.replacement, (atlas.tokens(p)[None] for p in (DALLAS, OAKLAND))
    austin, sacramento = (atlas.token_id(t) for t in ("Austin", "Sacramento"))
    with torch.no_grad():
        _, cache = m.run_with_cache(b)
        setters = {"resid_post": patching.layer_pos_patch_setter, "z": patching.layer_pos_head_vector_patch_setter}
        axes = {"resid_post": ["layer", "pos"], "z": ["layer", "pos", "head"]}
        theirs = patching.generic_activation_patch(
            m,
            a,
            cache,
            lambda x: x[0, -1, austin] - x[0, -1, sacramento],
            setters[kind],
            kind,
            index_axis_names=axes[kind],
        )
    ours = sweep(atlas, DALLAS, OAKLAND, kind=kind, metric="logit_diff", progress=False).mean
    assert np.abs(ours - theirs.reshape(ours.shape).numpy()).max() < 1e-5


def test_features_agree_with_circuit_tracer(atlas):
    """Setting transcoder features is circuit-tracer's own intervention."""
    from mi_workshop.circuits.swap import activations

    layer, position, feature = (activations(atlas, DALLAS)[:3, 9:10] > 0).nonzero()[0].tolist()
    report = Experiment(Site("feature", layer, 9, [feature]), zero(), freeze_attention=True).run(
        atlas, DALLAS, controls=False
    )
    theirs, _ = atlas.replacement.feature_intervention(atlas.tokens(DALLAS), [(layer, 9, feature, 0.0)])
    assert report.table.prob[0] == pytest.approx(theirs[0, -1].softmax(-1)[atlas.token_id("Austin")].item(), abs=1e-5)


def test_hooks_come_off(atlas):
    """After an error, an interrupt and a nested experiment the model is the one that was loaded, and what was on it stays."""
    before, tokens = state_of(atlas), atlas.tokens(DALLAS)[None]
    seen = []
    with hooked(atlas, [("blocks.0.hook_resid_post", lambda x: seen.append(1))]):
        with pytest.raises(RuntimeError), hooked(atlas, [("blocks.1.hook_resid_post", lambda x: x / 0 @ x)]):
            atlas.replacement(tokens)
        Experiment(Site("mlp_out", 1, 9), zero(), n_random=2).run(atlas, DALLAS)  # nested
        assert seen
    for error in (KeyboardInterrupt, ZeroDivisionError):

        def fail(x, error=error):
            raise error

        with pytest.raises(error), hooked(atlas, [("blocks.2.hook_resid_post", fail)]):
            atlas.replacement(tokens)
    assert same_state(before, state_of(atlas))


def test_an_interrupt_keeps_what_is_done(atlas, monkeypatch):
    """A teacher presses stop: the finished cells are there, the others say that they are not."""
    forward, calls = atlas.replacement.forward, itertools.count()

    def stop_later(*args, **kwargs):
        if next(calls) > 4:
            raise KeyboardInterrupt
        return forward(*args, **kwargs)

    monkeypatch.setattr(atlas.replacement, "forward", stop_later)
    found = sweep(atlas, DALLAS, OAKLAND, memory=2**19)
    done = (~np.isnan(found.mean)).sum()
    assert 0 < done < found.mean.size
    assert f"{done} of {found.mean.size}" in found.words()


def test_sweep_is_the_experiment_at_each_site(atlas):
    """Also for changes that average or draw from reference prompts."""
    asked, donors = questions(atlas.world, 4)
    for change in (mean(donors), resample(donors[:1]), zero()):
        cells = sweep(atlas, asked, kind="z", positions=None, change=change, metric="kl", progress=False).values
        one = Experiment(Site("z", 2, None, 3), change).run(atlas, asked, controls=False).table.kl
        assert cells[2, 0, 3] == pytest.approx(one.to_numpy(), abs=1e-4)


def test_memory_bound_changes_nothing_else(atlas):
    small, large = (sweep(atlas, DALLAS, OAKLAND, memory=m, progress=False).values for m in (2**18, 2**30))
    assert np.abs(small - large).max() < 1e-5


def test_any_pytorch_model(tiny):
    """A plain TransformerLens model and a bare nn.Module take the same experiments."""
    tokens = torch.arange(8)
    donor = tokens.flip(0)
    report = Experiment(Site("resid_post", 1, -1), patch(), n_random=5).run(tiny, tokens, donor)
    assert report.table.recovered[0] == pytest.approx(1, abs=1e-4)  # everything that the answer sees
    net = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 4))
    x, y = torch.randn(2, 6, generator=torch.Generator().manual_seed(0))
    report = Experiment(Site("1"), patch(), n_random=5).run(net, x, y)
    assert report.table.kl[0] > 0
    assert report.controls == {} or "same answer" not in report.controls


# ------------------------------------------------------------------- changes
def test_changes_do_what_they_say(atlas):
    tokens = atlas.tokens(DALLAS)
    site = Site("resid_post", 1, 9)
    _, (own,) = run(atlas, tokens[None], read=[site])
    own = own[0, 9]

    def after(change, donors=None):
        from mi_workshop.counterfactual.changes import plan

        return plan(atlas, site, change, DALLAS, donors).values.new

    donor = run(atlas, atlas.tokens(OAKLAND)[None], read=[site])[1][0][0, 9]
    assert torch.equal(after(zero()), torch.zeros_like(own))
    assert torch.equal(after(patch(), OAKLAND), donor)
    assert torch.allclose(after(mean([DALLAS, OAKLAND])), (own + donor) / 2)
    assert torch.equal(after(resample([OAKLAND])), donor)
    assert torch.equal(after(scale(-2.0)), -2 * own)
    assert torch.equal(after(add(torch.ones(128), 3.0)), own + 3)
    assert torch.equal(after(set_to(torch.ones(128))), torch.ones_like(own))
    assert 0.5 < (after(noise(1.0)) - own).std() / own.std() < 1.5


def test_a_subspace_and_its_complement_make_the_whole(atlas):
    """Interchange touches only the given directions."""
    full = torch.linalg.qr(torch.randn(128, 128, generator=torch.Generator().manual_seed(2))).Q.T
    at = {"position": 9, "layer": 1}
    whole = Experiment(Site("resid_post", **at)).run(atlas, DALLAS, OAKLAND, controls=False).table.logit_diff[0]
    both = Experiment([Site("resid_post", basis=full[:50], **at), Site("resid_post", basis=full[50:], **at)])
    assert both.run(atlas, DALLAS, OAKLAND, controls=False).table.logit_diff[0] == pytest.approx(whole, abs=1e-3)


def test_features_of_any_dictionary(atlas):
    """A sparse autoencoder is a basis too: what it does not explain stays as it was."""

    class Dictionary:
        W_dec = torch.linalg.qr(torch.randn(128, 128, generator=torch.Generator().manual_seed(3))).Q

        def encode(self, x):
            return (x @ self.W_dec.T).relu()

    sae, at = Dictionary(), {"kind": "resid_post", "layer": 1, "position": 9}
    _, (own,) = run(atlas, atlas.tokens(DALLAS)[None], read=[Site("resid_post", 1)])
    on = int((own[0, 9, 0] @ sae.W_dec.T).argmax())
    report = Experiment(Site(**at, units=[on], basis=sae), zero(), n_random=9).run(atlas, DALLAS)
    less = own[0, 9, 0] - (own[0, 9, 0] @ sae.W_dec[on]) * sae.W_dec[on]
    same = Experiment(Site(**at), set_to(less)).run(atlas, DALLAS, controls=False)
    assert report.table.kl[0] == pytest.approx(same.table.kl[0], abs=1e-4)
    assert report.random_kind == "other units"


def test_path_patching_is_the_direct_path(atlas):
    """With everything else held, what a head sends to the end is its change through W_O, and nothing more."""
    m, (a, b) = atlas.replacement, (atlas.tokens(p)[None] for p in (DALLAS, OAKLAND))
    found = path_patch(
        atlas, DALLAS, OAKLAND, [Site("z", 2, None, h) for h in range(4)], [Site("resid_post", 3)], "prob"
    )
    with torch.no_grad():
        (_, x), (_, y) = m.run_with_cache(a), m.run_with_cache(b)
        z = "blocks.2.attn.hook_z"
        change = torch.einsum("phw,hwd->hpd", (y[z] - x[z])[0], m.blocks[2].attn.W_O)  # [head, position, d_model]
        logits = m.unembed(m.ln_final(x["blocks.3.hook_resid_post"] + change))[:, -1]
    assert found == pytest.approx(logits.softmax(-1)[:, atlas.token_id("Austin")].tolist(), abs=1e-4)
    assert max(found) - min(found) > 0.01


# ------------------------------------------------------------------ controls
def test_random_changes_match_in_size(atlas):
    """The reference has the same number, layer, position and size: a bigger push would prove nothing."""
    from mi_workshop.counterfactual.changes import plan
    from mi_workshop.counterfactual.controls import random_values, sizes

    for site in (
        Site("neuron", 1, 9, [3, 4, 5]),
        Site("resid_post", 1, 9),
        Site("z", 2, -1, 1),
        Site("resid_post", 1, 9, basis=SUBSPACE),
        Site("feature", 1, 9),
    ):
        p = plan(atlas, site, patch(), DALLAS, OAKLAND)
        drawn, _ = random_values(atlas, p, patch(), 5, torch.Generator().manual_seed(0))
        for v in drawn:
            assert torch.allclose(sizes(atlas, v), sizes(atlas, p.values)[: len(v.unit)], rtol=1e-3, atol=1e-5)
            assert sorted(v.position.tolist()) == sorted(p.values.position.tolist())
            if site.kind == "neuron":
                assert not set(v.unit.tolist()) & {3, 4, 5}


def test_the_city_is_both_and_something_else_is_not(atlas):
    """The verdict finds the one place that carries the city, and nothing at a token before it."""
    asked, donors = questions(atlas.world)
    found = Experiment(Site("resid_post", 1, "{city}"), n_random=19).run(atlas, asked, donors)
    assert found.verdict == "both"
    assert found.controls["same answer"]["kept"] > 0.9
    assert found.controls["third answer"]["gained"] < 0.1
    assert found.effect["gained"][1] > 0.5
    nothing = Experiment(Site("resid_post", 1, 3), n_random=19).run(atlas, asked, donors)
    assert nothing.verdict == "no evidence"


def test_failed_controls_stand_behind_the_verdict():
    """A patch that only takes a fault out is believed to have put the right answer in; or a donor that the model answers otherwise is
    counted as one of the prompt's own answer."""
    from mi_workshop.teach.capstone import capstone

    exam, world = capstone(3)[0], capstone(3)[0].world
    prompts = [world.two_hop("Bandung", a).prompt for a in ("capital", "language", "currency")]
    donors = [p.replace("Bandung", world.home["Bandung"].cities[0]) for p in prompts]
    found = Experiment(Site("mlp_out", 1, "{city}"), n_random=19).run(exam, prompts, donors)
    assert found.verdict == "both" and "same answer" not in found.controls
    assert found.against == ["a donor of a third answer brings the donor's answer, too"]
    assert found.words().endswith(f"sufficient. But {found.against[0]}.")
    sound = Experiment(Site("resid_post", 1, "{city}"), n_random=19).run(exam, donors, prompts)
    assert sound.against == [] and sound.controls["same answer"]["kept"] > 0.9


def test_the_wrong_prompt_is_caught(atlas):
    """An intervention "works" when the answer was there before: the unedited run of the same prompt shows it."""
    report = Experiment(Site("mlp_out", 0, 3), zero()).run(atlas, OAKLAND)
    assert report.before[0]["token"] == report.after[0]["token"] == "Sacramento"
    assert report.verdict == "no evidence"


def test_false_positives_on_dead_units(atlas):
    """Units that do nothing are called necessary in no more than the stated share of cases."""
    from mi_workshop.circuits.swap import activations

    silent = (activations(atlas, DALLAS)[1, 9] == 0).nonzero()[:, 0].tolist()
    verdicts = [
        Experiment(Site("feature", 1, 9, silent[i : i + 3]), zero(), n_random=19, seed=i).run(atlas, DALLAS).verdict
        for i in range(0, 60, 3)
    ]
    assert verdicts.count("no evidence") >= 19  # of 20


def test_sweep_significance(atlas):
    """Cells that carry the city are found among all, with the chance of one false cell held; and too few prompts say so."""
    asked, donors = questions(atlas.world, 10)
    found = sweep(atlas, asked, donors, progress=False)
    cells = found.significant(0.05)
    assert cells[0, 9, 0] and cells[3, 10, 0]
    assert not cells[:, :9].any()
    with pytest.raises(InterventionError, match="cannot give a p"):
        sweep(atlas, asked[:2], donors[:2], progress=False).significant()
    with pytest.raises(InterventionError, match="cannot give a p"):
        found.significant(0.001, draws=100)


def test_supernodes_are_features(atlas):
    sites = supernode(["1_5_9", "1_7_9", "2_3_10"])
    assert [(s.layer, s.position, s.units) for s in sites] == [(1, 9, [5, 7]), (2, 10, [3])]
    with pytest.raises(InterventionError, match="layer_feature_position"):
        supernode(["Texas"])


def test_report_shows_itself(atlas):
    """A picture, its sentence, and no markup from tokens."""
    report = Experiment(Site("resid_post", 1, "{city}"), n_random=5).run(atlas, DALLAS, OAKLAND)
    data, _ = report._repr_mimebundle_()
    assert {"image/png", "text/plain", "text/html"} <= set(data)
    for part in ("Austin", "Sacramento", "attention free", "own values", "Verdict"):
        assert part in data["text/plain"]


# ----------------------------------------------------------------- bad input
BAD = {
    "unknown site": (Site("resid_pots", 1), zero(), {}, "did you mean"),
    "unknown layer": (Site("mlp_out", 7), zero(), {}, "no layer 7"),
    "no layer": (Site("mlp_out"), zero(), {}, "Say in which layer"),
    "unknown head": (Site("z", 1, units=9), zero(), {}, "no unit 9"),
    "position outside": (Site("mlp_out", 1, 40), zero(), {}, "outside the prompt"),
    "token not there": (Site("mlp_out", 1, "Houston"), zero(), {}, "no token 'Houston'"),
    "slot not there": (Site("mlp_out", 1, "{place}"), zero(), {}, "no slot"),
    "no donor": (Site("mlp_out", 1), patch(), {}, "give donors"),
    "NaN": (Site("mlp_out", 1), set_to(float("nan")), {}, "NaN"),
    "wrong width": (Site("mlp_out", 1), set_to(torch.ones(3)), {}, "as wide as the site"),
    "unequal": (Site("mlp_out", 1, 4), patch(), {"donors": "Fact: the capital of Texas is"}, "part at token"),
    "two tokens": (Site("mlp_out", 1), zero(), {"answers": ["Austin Dallas"]}, "one token"),
    "unknown word": (Site("mlp_out", 1), zero(), {"answers": ["Gotham"]}, "does not know"),
    "donors": (Site("mlp_out", 1), patch(), {"donors": [OAKLAND, OAKLAND]}, "one donor for each"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence_and_leaves_the_model(atlas, name):
    site, change, options, said = BAD[name]
    before = state_of(atlas)
    with pytest.raises(InterventionError, match=said) as error:
        Experiment(site, change, n_random=2).run(atlas, DALLAS, **options)
    assert "\n" not in str(error.value)
    assert same_state(before, state_of(atlas))


def test_a_broken_plumbing_is_refused(atlas):
    """Another hook that answers differently each time would make any effect meaningless."""
    g = torch.Generator().manual_seed(0)
    with (
        hooked(atlas, [("blocks.1.hook_resid_post", lambda x: x + torch.randn(x.shape, generator=g))]),
        pytest.raises(InterventionError, match="own values"),
    ):
        Experiment(Site("mlp_out", 2, 9), zero(), n_random=2).run(atlas, DALLAS)


def test_aligned_prompts(atlas):
    """A pair of unequal length can be aligned where the tokens correspond."""
    short = "The capital of the state containing Oakland is"
    report = Experiment(Site("resid_post", 1, 9), align=True).run(atlas, DALLAS, short, controls=False)
    assert report.after[0]["token"] == "Sacramento"


def test_gradients_are_the_models_own(atlas):
    """circuit-tracer's model stops gradients where it linearises: taken as they are, saliency and learned subspaces are of another model."""
    from mi_workshop.counterfactual.run import differentiable, hooked, true_gradients

    tokens, kept = atlas.tokens("Fact: the capital of the state containing Dallas is")[None], []

    def shifted(step):
        with torch.no_grad(), hooked(atlas, [("hook_embed", lambda x: x + step)]) as module:
            return float(module(tokens)[0, -1].max())

    def leaf(x):
        kept.append(x.detach().requires_grad_())
        return kept[0]

    with differentiable(atlas, [("hook_embed", leaf)]) as module:
        (gradient,) = torch.autograd.grad(module(tokens)[0, -1].max(), kept)
    step = 1e-4 * gradient / gradient.norm()
    slope = (shifted(step) - shifted(-step)) / 2e-4
    assert slope == pytest.approx(float(gradient.norm()), rel=0.02)
    plain = atlas.logits(tokens[0])
    with true_gradients(atlas):
        assert torch.equal(plain, atlas.logits(tokens[0])), "what the model computes changed"
