"""Feature splitting and universality: families and matches that were planted are found, and chance looks like chance."""

import json

import numpy as np
import pytest
import torch
from scipy.sparse import csc_array

import mi_workshop as mi
from mi_workshop import results
from mi_workshop.concepts import FEW, concepts
from mi_workshop.dictionary import DictionaryError, SparseDictionary, activations
from mi_workshop.dictionary.alike import correlation, shuffled, spread
from mi_workshop.dictionary.families import families
from mi_workshop.dictionary.families_plots import plane
from mi_workshop.dictionary.universality import matched, untrained

HOOK = "blocks.1.hook_resid_post"


def planted(model, directions):
    """A dictionary whose features fire at the hundredth of the tokens that lie furthest along their directions."""
    d = SparseDictionary(directions.shape[1], len(directions), "jumprelu", reads=HOOK, model=model.name)
    x = activations(model, HOOK)
    d.W_dec.data = directions / directions.norm(dim=1, keepdim=True)
    d.W_enc.data = d.W_dec.data.T.clone()
    d.b_dec.data = x.mean(0)
    d.threshold = torch.quantile((x[::5] - x.mean(0)) @ d.W_enc.data, 0.99, dim=0) * 0.999
    return d.requires_grad_(False)


def noisy(directions, copies, share, seed):
    torch.manual_seed(seed)
    noise = torch.randn(copies * len(directions), directions.shape[1]) / directions.shape[1] ** 0.5
    return directions.repeat_interleave(copies, 0) + share * noise


@pytest.fixture(scope="module")
def elders():
    torch.manual_seed(0)
    directions = torch.randn(24, 128)
    return directions / directions.norm(dim=1, keepdim=True)


@pytest.fixture(scope="module")
def found(atlas, elders):
    """24 features, each with three noisy copies, each of those with two."""
    middle = noisy(elders, 3, 0.4, 1)
    young = noisy(middle / middle.norm(dim=1, keepdim=True), 2, 0.4, 2)
    return families(atlas, [planted(atlas, d) for d in (young, elders, middle)])


@pytest.mark.parametrize("copies,above,below", [(3, 24, 72), (2, 72, 144)])
def test_planted_children_find_their_parents(found, copies, above, below):
    """Otherwise a tree shows strangers as a family."""
    table = found.table.loc[below]
    assert (table.parent == table.index // copies).all()
    assert table.agree.mean() > 0.5
    c = found.controls.loc[below]
    assert c.cosine > 0.9 and c.beyond == 1 and c.shuffled < 0.5
    assert c.implied > 2 * c.implied_shuffled


def test_a_tree_holds_the_family_and_nobody_else(found):
    tree = found.tree(5)
    assert list(tree.table.index) == [(24, 5), *((72, i) for i in (15, 16, 17)), *((144, i) for i in range(30, 36))]
    assert len(str(tree).splitlines()) == 10
    assert tree.figure().axes
    assert {i for i, _ in found.tree(15, width=72).table.index} == {72, 144}


@pytest.mark.parametrize(
    "ask", [{"which": 99}, {"which": "Atlantis"}, {"which": 5, "width": 7}, {"which": 5, "by": "hair"}]
)
def test_what_there_is_not_is_said_in_a_sentence(found, ask):
    with pytest.raises(DictionaryError, match=r"\.$"):
        found.tree(**ask)


def test_families_need_two_sizes_of_one_hook(atlas, elders):
    d = planted(atlas, elders)
    for wrong in ([d], [d, d], [d, SparseDictionary(128, 8, reads="blocks.2.hook_resid_post", model="atlas")]):
        with pytest.raises(DictionaryError, match="two or more"):
            families(atlas, wrong)


def test_dictionaries_with_a_shared_start_give_themselves_away(atlas, elders):
    """Two untrained dictionaries that begin with the same random numbers look like families: the share must say so, and be low where the order is another."""
    torch.manual_seed(3)
    more = torch.cat([elders, torch.randn(40, 128)])
    assert families(atlas, [planted(atlas, elders), planted(atlas, more)]).controls.same_start.item() == 1
    assert families(atlas, [planted(atlas, elders), planted(atlas, more.flip(0))]).controls.same_start.item() < 0.2


def test_a_concept_that_splits_is_seen_to_split(atlas, monkeypatch):
    """A feature for languages becomes one for each: the table and the tree by activations say so."""
    c = concepts(atlas)
    every = c.where("a language")
    each = [w for i in np.unique(c.text.ids[every]) if (w := c.text.ids == i).sum() >= FEW]
    other = c.where("a surname")
    n = len(each)
    fires = {2: [every, other], n + 1: [*each, other]}
    fires = {w: csc_array(np.stack(rows, 1).astype(np.float32)) for w, rows in fires.items()}
    for module in ("alike", "families"):
        monkeypatch.setattr(f"mi_workshop.dictionary.{module}.firings", lambda _, d: fires[d.width])
    f = families(atlas, [SparseDictionary(128, w, reads=HOOK, model="atlas") for w in fires])
    table = f.becomes(["a language"]).loc["a language"]
    assert table.parts.tolist() == [1, n]
    assert table.covered.tolist() == [1, np.mean(np.any(each, 0)[every])]
    assert table.f1[2] == 1 > table.f1[n + 1]
    tree = f.tree("a language", by="correlation")
    assert set(tree.table.index) == {(2, 0), *((n + 1, i) for i in range(n))}
    assert (tree.table.implied_partner[1:] == 1).all()


def test_maps_say_what_they_hide(found):
    """A picture of 128 dimensions in two: the share of neighbours lost is measured, not guessed."""
    rng = np.random.default_rng(0)
    flat = rng.normal(size=(60, 2))
    xy, kept, variance = plane(flat @ flat.T, "pca")
    assert kept == 1 and variance == pytest.approx(1)
    assert np.allclose(np.linalg.norm(xy[:, None] - xy, axis=2), np.linalg.norm(flat[:, None] - flat, axis=2))
    by_chance = plane((x := rng.normal(size=(400, 128))) @ x.T / 128, "pca")
    assert by_chance[1] < 0.2 and by_chance[2] < 0.1
    assert found.map("cosine").kept > 0.9


def test_the_map_lights_up_families(found):
    """The menu must name points that are there; hover texts are text; a stored notebook stays light."""
    live = found.map("cosine", "pca").interactive()
    json.dumps(live, allow_nan=False)
    sizes = [len(t["x"]) for t in live["data"]]
    assert sum(sizes) == len(found.table)
    menu = {b["label"]: b["args"][0]["selectedpoints"] for b in live["layout"]["updatemenus"][0]["buttons"]}
    trees = [points for label, points in menu.items() if label.startswith("tree")]
    assert len(trees) == 20 and all(len(points[0]) == 1 and len(points[1]) >= 3 for points in trees)
    assert all(0 <= i < n for points in trees for part, n in zip(points, sizes, strict=True) for i in part)


# ------------------------------------------------------------------ universality
def test_a_permuted_copy_is_matched_feature_by_feature(atlas, elders):
    """The same features in another order are the same features."""
    order = torch.randperm(24, generator=torch.Generator().manual_seed(0))
    m = matched(atlas, planted(atlas, elders), atlas, planted(atlas, elders[order]))
    assert (order.numpy()[m.table.partner] == m.table.index).all()
    assert np.allclose(m.table.correlation, 1, atol=1e-5) and np.allclose(m.table.cosine, 1, atol=1e-5)
    assert m.table.mutual.all() and m.table.same_concept.all() and m.recurs == 1
    assert m.controls["tokens dealt anew"].max() < 0.3
    assert "recur" in str(m) and m.figure().axes


def test_strangers_are_matched_as_badly_as_chance(atlas, elders):
    torch.manual_seed(7)
    m = matched(atlas, planted(atlas, elders), atlas, planted(atlas, torch.randn(24, 128)))
    assert m.recurs < 0.1
    assert abs(m.table.correlation.median() - np.median(m.controls["random directions"])) < 0.25


def test_layer_1_is_a_function_of_the_token_alone(atlas, elders):
    """Then agreement of two models says little about them: the words must tell."""
    d = planted(atlas, elders)
    m = matched(atlas, d, atlas, d)
    assert (m.table.by_token > 0.999).all() and m.table.within.isna().all()
    assert "nothing is left" in m.words()


def test_models_of_different_texts_are_not_compared(atlas, elders):
    with pytest.raises(DictionaryError, match="same text"):
        matched(atlas, planted(atlas, elders), mi.load("atlas-memo"), planted(atlas, elders))


def test_correlation_is_numpys_and_within_groups_that_of_what_is_left():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(50, 3)) + 5, rng.normal(size=(50, 4))
    a[:, 2] = 1
    group = rng.integers(0, 5, 50) * 2
    for g in (None, group):
        left = [
            x - np.stack([x[(g == i) if g is not None else slice(None)].mean(0) for i in (g if g is not None else [0])])
            for x in (a, b)
        ]
        with np.errstate(invalid="ignore"):
            expected = np.nan_to_num(np.corrcoef(left[0].T, left[1].T)[:3, 3:])
        assert np.allclose(correlation(csc_array(a), b, g), expected)
        assert np.allclose(spread(csc_array(a), g), (left[0] ** 2).sum(0))


def test_shuffled_directions_keep_their_spread_only():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 16)) * np.arange(1, 17)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    y = shuffled(x)
    assert np.allclose(np.linalg.norm(y, axis=1), 1)
    assert np.abs(np.cov(x.T) - np.cov(y.T)).max() < 0.1 * np.cov(x.T).max()
    assert (x * y).sum(1).mean() < 0.5


def test_an_untrained_model_is_another_model_and_leaves_ours_alone(atlas):
    before = {n: p.clone() for n, p in atlas.replacement.named_parameters()}
    u = untrained(atlas, 1)
    assert u.name != atlas.name
    for name, p in u.replacement.named_parameters():
        assert torch.equal(before[name], dict(atlas.replacement.named_parameters())[name])
        if name.endswith("W_in"):
            assert not torch.equal(p, before[name]) and p.std() == pytest.approx(before[name].std().item(), rel=0.05)
    assert u.top("Fact: the capital of the state containing Dallas is", 1)[0][1] < 0.3


@pytest.mark.parametrize("layer", [1, 2])
def test_the_stored_table_is_of_the_dictionaries_that_ship(layer):
    """Dictionaries trained anew need ``python -m training.families`` anew: the notebook shows both side by side."""
    shipped = mi.dictionary.load("atlas", layer=layer, width=512).provenance
    recipe = results.read("families").provenance["recipe"][f"layer {layer}"]
    assert recipe == {key: shipped[key] for key in recipe}
