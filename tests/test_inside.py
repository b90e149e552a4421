"""Subspaces, probes and edits of weights: what can be read, what is used, and what an edit leaves behind."""

import pytest
import torch

import mi_workshop as mi
from mi_workshop.answer_key import AT_CITY, model_key, questions, token_scores, universality
from mi_workshop.counterfactual import Experiment, InterventionError, Site
from mi_workshop.counterfactual.rank_one import rank_one, second_moment
from mi_workshop.counterfactual.subspace import Probe, activations, learn_subspace, overlap, principal

DALLAS = "Fact: the capital of the state containing Dallas is"


def subspace(k, seed):
    return torch.linalg.qr(torch.randn(128, k, generator=torch.Generator().manual_seed(seed))).Q.T


@pytest.fixture(scope="module")
def wired():
    return mi.load("atlas-wired")


def gained(model, basis, rank=0):
    asked, donors, _ = questions(model.world, rank)
    site = Site(AT_CITY.kind, AT_CITY.layer, AT_CITY.position, basis=basis)
    return float(Experiment(site).run(model, asked, donors, controls=False).table.gained.mean())


def test_overlap_is_a_share():
    """1 for the same space in other coordinates, about k / d for random ones, 0 for what stands at right angles."""
    a, turn = subspace(16, 0), torch.linalg.qr(torch.randn(16, 16, generator=torch.Generator().manual_seed(1))).Q
    assert overlap(a, turn @ a) == pytest.approx(1, abs=1e-4)
    assert overlap(a, subspace(16, 2)) == pytest.approx(16 / 128, abs=0.05)
    full = torch.linalg.qr(torch.cat([a, torch.randn(112, 128)]).T).Q.T
    assert overlap(a, full[16:]) == pytest.approx(0, abs=1e-4)


def test_readable_is_not_used(atlas):
    """The lesson of the notebook: a random subspace reads the state of unseen cities, and exchanging it does nothing."""
    learn, _, places = questions(atlas.world, 4)
    test, _, _ = questions(atlas.world, 0)
    random = subspace(16, 99)
    probe = Probe(activations(atlas, learn, AT_CITY) @ random.T, places)
    assert probe.accuracy(activations(atlas, test, AT_CITY) @ random.T, places) > 0.8
    assert gained(atlas, random) < 0.1


def test_what_is_learned_by_interchange_carries_to_held_out_cities(atlas):
    asked, donors, _ = questions(atlas.world, 4)
    found = learn_subspace(atlas, asked, donors, AT_CITY, 16, steps=60)
    assert torch.allclose(found @ found.T, torch.eye(16), atol=1e-4)
    assert gained(atlas, found) > 0.4


def test_a_learned_subspace_leaves_the_model_alone(atlas):
    """No gradient stays behind, no hook."""
    asked, donors, _ = questions(atlas.world, 4)
    learn_subspace(atlas, asked[:4], donors[:4], AT_CITY, 2, steps=2)
    assert all(p.grad is None for p in atlas.replacement.parameters())


def test_power_in_the_wire_and_silence_beside_it(wired):
    """Where the inside is known: the verdict finds it, and calls nothing at right angles to it sufficient more often than stated."""
    asked, donors, _ = questions(wired.world, 0)
    truth = wired.wired.subspace

    def verdict(basis):
        site = Site(AT_CITY.kind, AT_CITY.layer, AT_CITY.position, basis=basis)
        return Experiment(site, n_random=19).run(wired, asked[:6], donors[:6]).verdict

    assert verdict(truth) == "both"
    beside = [subspace(16, seed) for seed in range(20)]
    beside = [torch.linalg.qr((b - b @ truth.T @ truth).T).Q.T for b in beside]
    assert [verdict(b) for b in beside].count("no evidence") >= 19


def test_interchange_comes_nearer_to_the_wire_than_a_probe(wired):
    asked, donors, places = questions(wired.world, 4)
    x = activations(wired, asked, AT_CITY)
    learned = overlap(learn_subspace(wired, asked, donors, AT_CITY, 16, steps=60), wired.wired.subspace)
    assert learned > overlap(Probe(x, places).subspace(16), wired.wired.subspace)


def test_the_key_and_what_it_scores(atlas):
    """The model key names the words that change the answer; methods are scored against it, and none is called perfect untested."""
    asked, _, _ = questions(atlas.world, 0)
    key = model_key(atlas, asked[:2])
    assert key["city"] > 0.9 and key["attribute"] > 0.9 and key["kind"] < 0.1
    table = token_scores(atlas, asked[:4], key)
    assert table.iloc[:, 0].between(0.3, 1).all()


def test_an_edit_edits_and_goes_away_again(atlas):
    """To the bit, also after an error inside."""
    moment = second_moment(atlas, [s.prompt for s in atlas.world.training_text(0)][::20], 3)
    edit = rank_one(atlas, DALLAS, "Boston", 3, "last", moment)
    before = {n: p.detach().clone() for n, p in atlas.replacement.named_parameters()}
    with edit.on(atlas):
        assert atlas.top(DALLAS, 1)[0][0] == "Boston"
        assert atlas.top(DALLAS.replace("Dallas", "Oakland"), 1)[0][0] == "Sacramento"
    with pytest.raises(ZeroDivisionError), edit.on(atlas):
        raise ZeroDivisionError
    assert all(torch.equal(before[n], p) for n, p in atlas.replacement.named_parameters())
    assert torch.linalg.matrix_rank(edit.change) == 1


def test_bad_edits_and_subspaces_are_one_sentence(atlas):
    with pytest.raises(InterventionError, match="one token of each prompt"):
        rank_one(atlas, DALLAS, "Boston", 3, None, torch.eye(256))
    with pytest.raises(InterventionError, match="does not know"):
        rank_one(atlas, DALLAS, "Gotham", 3, "last", torch.eye(256))
    with pytest.raises(InterventionError, match="one position"):
        activations(atlas, [DALLAS], Site("resid_post", 1))


def test_twins_share_features_and_shuffled_text_does_not(atlas):
    found = universality(atlas, mi.load("atlas-twin"), passages=60)
    assert (found["best match"] > found["shuffled"] + 0.2).all()


def test_principal_directions_are_orthonormal():
    found = principal(torch.randn(40, 128, generator=torch.Generator().manual_seed(0)), 5)
    assert torch.allclose(found @ found.T, torch.eye(5), atol=1e-4)
