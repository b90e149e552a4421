"""The answer key for features: if it were wrong, every feature of the course would be judged by a wrong judge."""

from html import escape

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.sparse import csc_array

import mi_workshop as mi
from mi_workshop import results
from mi_workshop.circuits.corpus import FeatureError, training_text, validation_text
from mi_workshop.concepts import concepts, holds_in
from mi_workshop.counterfactual import Experiment, Site, zero
from mi_workshop.dictionary import DictionaryError, ablations, activations, boosts, feature_key, units_of
from mi_workshop.dictionary.effects import log_probs
from mi_workshop.dictionary.key import FEW, match
from mi_workshop.dictionary.overview import Overview, measured, overview
from mi_workshop.dictionary.units import OTHERS, Units

HOOK = "blocks.1.hook_resid_post"


@pytest.fixture(scope="module")
def tiny(atlas):
    return mi.dictionary.train(atlas, 1, 96, k=6, steps=80, progress=False)


@pytest.fixture(scope="module")
def keyed(atlas, tiny):
    return feature_key(atlas, tiny)


def planted(atlas, acts, writes=None):
    """Units that fire as we say."""
    acts = csc_array(acts)
    units = Units("planted", atlas, 1, HOOK, lambda x: x, torch.zeros(acts.shape[1], 128) if writes is None else writes)
    units.acts = acts
    return units


def test_features_that_are_concepts_are_perfect(atlas):
    """A key that finds fault with a perfect dictionary measures something else."""
    known = concepts(atlas)
    key = feature_key(atlas, planted(atlas, 0.7 * known.holds))
    own = key.table.concept.to_numpy() == known.table.name[key.table.index].to_numpy()
    assert own.mean() > 0.95, "but for concepts that are the same on the half on which is chosen"
    assert (key.table.f1[own] == 1).all() and (key.table.weighted[own] > 0.999).all() and (key.table.chosen == 1).all()
    assert key.found > 0.95 and key.monosemanticity[0] > 0.98 and key.chance < 0.05


def test_random_units_are_at_chance(atlas):
    """What fires at random must not look like a feature, although the best of a thousand concepts is chosen for it."""
    density = np.diff(concepts(atlas).holds.indptr)[::4] / len(concepts(atlas).text.ids)
    noise = np.random.default_rng(1).random((len(concepts(atlas).text.ids), len(density))) < density
    key = feature_key(atlas, planted(atlas, noise.astype(np.float32)))
    assert key.monosemanticity[0] < key.chance + 0.02 and key.found < 0.01
    assert key.table.chosen.mean() > 2 * key.table.f1.mean(), "the half on which a concept is chosen flatters"


def test_shuffling_tokens_leaves_chance(atlas, keyed):
    """Scores that survive a shuffled key come from densities, not from meaning."""
    order = np.random.default_rng(3).permutation(keyed.of.acts.shape[0])
    shuffled = feature_key(atlas, planted(atlas, keyed.of.acts[order]))
    assert shuffled.monosemanticity[0] == pytest.approx(keyed.chance, abs=0.03)
    assert keyed.monosemanticity[0] > keyed.chance + 0.2


def test_scores_are_counts_of_the_other_half(atlas, keyed):
    """A score that nobody could count again is an opinion."""
    known = concepts(atlas)
    first = np.random.default_rng(9).random(len(known.text.sentences))[known.text.sentence] < 0.5
    table, found = match(keyed.of.acts, known, first)
    for unit in table.index[:: max(1, len(table) // 8)]:
        row = table.loc[unit]
        fires, holds = keyed.of.acts[:, [unit]].toarray()[:, 0] > 0, known.where(row.concept)
        assert row.precision == pytest.approx(holds[fires & ~first].mean() if (fires & ~first).any() else 0)
        assert row.recall == pytest.approx(fires[holds & ~first].mean())
        mine = 2 * (fires & holds & first).sum() / ((fires & first).sum() + (holds & first).sum())
        assert row.chosen == pytest.approx(mine)
        assert row.density == pytest.approx(fires.mean())
    best = found.iloc[found.f1.argmax()]
    assert best.tokens >= 2 * FEW and best.unit in table.index


def test_concepts_of_other_texts_are_those_of_the_training_text(atlas):
    """Validation questions judged by other concepts would say nothing about the features."""
    known = concepts(atlas)
    assert known.table.name.is_unique
    assert (holds_in(atlas, training_text(atlas)) != known.holds).nnz == 0
    text = validation_text(atlas)
    held = holds_in(atlas, text)
    for i in (0, 100, 400):
        question = text.sentences[i]
        place = atlas.world.home[question.slots["city"]].name
        column = known.table.index[known.table.name == f"{place} or a city of it"][0]
        here = held[text.start[i] : text.start[i] + len(text.words[i]), [column]].toarray()[:, 0]
        assert [w for w, h in zip(text.words[i], here, strict=True) if h] == [question.slots["city"]]
        assert question.stratum.endswith("validation")


def test_units_add_up_to_what_they_write(atlas, tiny):
    """Neurons whose contributions are not the MLP's would be compared unfairly."""
    neurons = units_of(atlas, tiny, "neurons")
    bias = atlas.replacement.blocks[1].mlp.old_mlp.b_out
    written = activations(atlas, HOOK) - activations(atlas, "blocks.1.hook_resid_mid")
    torch.testing.assert_close(
        torch.from_numpy(neurons.acts @ neurons.writes.numpy()) + bias, written, atol=1e-3, rtol=1e-3
    )
    x = activations(atlas, HOOK)
    for kind in ("coordinates", "PCA"):
        u = units_of(atlas, tiny, kind)
        torch.testing.assert_close(u.encode(x[:9]) @ u.writes + x.mean(0), x[:9], atol=1e-3, rtol=1e-3)


def test_rivals_are_no_straw_men(atlas, tiny, keyed):
    """Random directions that fire at half of all tokens would be beaten by anything."""
    random = units_of(atlas, tiny, "random")
    ours, theirs = (np.diff(u.acts.indptr) for u in (keyed.of, random))
    assert 0.8 < theirs.sum() / ours.sum() < 1.25 and not theirs[ours == 0].any()
    assert np.corrcoef(ours, theirs)[0, 1] > 0.9
    moved = units_of(atlas, tiny, "shuffled")
    live = ours > 0
    assert not (moved.writes[live] == keyed.of.writes[live]).all(1).any()
    assert (moved.acts != keyed.of.acts).nnz == 0


def test_log_probs_are_the_models_own(atlas):
    """Batches of sentences of several lengths must not change an answer."""
    text = training_text(atlas)
    rows = [3405, 0, 1700]
    found = log_probs(atlas, HOOK, training_text, rows)
    for row, s in zip(found, rows, strict=True):
        want = atlas.logits(atlas.tokens(text.sentences[s].prompt)).log_softmax(-1)
        torch.testing.assert_close(row, want, atol=1e-4, rtol=1e-4)


def test_a_planted_feature_is_specific(atlas):
    """A direction that carries one state, taken out of that state's tokens alone, must hurt nobody else."""
    known, x = concepts(atlas), activations(atlas, HOOK)
    names = [f"{place} or a city of it" for place in ("Texas", "Ohio", "France", "Japan")]
    here = np.stack([known.where(name) for name in names], 1).astype(np.float32)
    writes = torch.stack([x[h > 0].mean(0) - x.mean(0) for h in here.T])
    key = feature_key(atlas, planted(atlas, here, writes))
    found = ablations(key, list(range(4)), n=6)
    t = found.table
    assert t.concept.tolist() == names and (t.other == 0).all() and (t.specificity == 1).all()
    assert (t.own > 3 * t.random.clip(lower=0)).all() and (t.own > 0.1).all()
    boosted = boosts(key, n=6)
    assert set(boosted.place) == {"Texas", "Ohio", "France", "Japan"}
    assert (boosted.gain > boosted.random + 1).all() and (boosted.gain > boosted.other + 1).all()


def test_taking_a_feature_out_is_what_an_experiment_does(atlas, tiny, keyed):
    """Two ways to the same ablation must agree."""
    text, place = training_text(atlas), keyed.table[keyed.table.family == "place"]
    unit = int((place if len(place) else keyed.table).f1.idxmax())
    rows = np.flatnonzero(np.bincount(text.sentence, keyed.of.acts[:, [unit]].toarray()[:, 0]))
    s = int(rows[0])
    size = keyed.of.acts[text.start[s] : text.start[s] + len(text.words[s]), [unit]].toarray()
    after = log_probs(atlas, HOOK, training_text, [s], [-torch.from_numpy(size).float() * tiny.W_dec[unit]])[0]
    at = (np.flatnonzero(size[:, 0]) + 1).tolist()
    answer = text.sentences[s].answer
    report = Experiment(Site("resid_post", 1, at, units=[unit], basis=tiny), zero(), n_random=1).run(
        atlas, text.sentences[s].prompt, answers=[answer], controls=False
    )
    assert float(after.exp()[atlas.token_id(answer)]) == pytest.approx(report.table.prob.iloc[0], abs=1e-4)


def test_more_units_rebuild_more(atlas, tiny):
    """What others are rebuilt from must not be made worse than it is."""
    x = activations(atlas, HOOK)[::50]
    pca, errors = units_of(atlas, tiny, "PCA"), []
    for k in (1, 4, 16):
        errors.append(float((pca.rebuilt(x, k) - x).square().sum()))
    full = (x - activations(atlas, HOOK).mean(0)) @ pca.writes[:128].T
    best = full.square().sort(dim=1).values[:, :-16].sum()
    assert errors[0] > errors[1] > errors[2] == pytest.approx(float(best), rel=0.01)
    with pytest.raises(DictionaryError, match="only a part"):
        units_of(atlas, tiny, "neurons").rebuilt(x, 2)


def test_every_kind_has_a_row(atlas, tiny, keyed, tmp_path, monkeypatch):
    """The table of the notebook is made of these, and it draws what was stored."""
    monkeypatch.setattr(results, "HERE", tmp_path)
    rows = {"SAE 96": measured(keyed, 6, tiny, 6, 2)}
    rows["random"] = measured(feature_key(atlas, units_of(atlas, tiny, "random")), 6, None, 6, 2)
    table = pd.DataFrame(rows).T
    table.index = pd.MultiIndex.from_product([[1], table.index], names=["layer", "kind"])
    results.store("features", {"overview": table}, "python -m training.features", 1.0)
    shown = overview(1)
    assert isinstance(shown, Overview) and list(shown.table.index) == list(rows)
    assert "monosemanticity" in shown.words() and shown.save(tmp_path / "x.png").exists()
    assert rows["SAE 96"]["decoded"] > rows["random"]["recovered"]
    with pytest.raises(DictionaryError, match="measured"):
        overview(3)


def test_what_is_shown_has_words_and_a_figure(keyed, tmp_path):
    shown = ablations(keyed, 8, n=2)
    for result in (keyed, shown):
        assert "nan" not in result.words() and result.save(tmp_path / "x.png").exists()
    assert keyed.families.units.sum() == len(keyed.table)


def test_a_dictionary_feature_has_a_page(atlas, tiny, keyed):
    """A learner who asks what a feature is gets the key's answer and the text that it fires on."""
    unit = int(keyed.table.f1.idxmax())
    page = mi.feature(atlas, 1, unit, kind=tiny)
    assert page.label == keyed.table.concept[unit] and keyed.label(unit) == page.concept
    assert page.density == pytest.approx(keyed.table.density[unit])
    assert escape(page.label) in page.html() and set(page.neighbours.layer) <= {1}
    for layer, index, said in ((2, unit, "layer 1"), (1, 96, "0 to 95")):
        with pytest.raises(FeatureError, match=said):
            mi.feature(atlas, layer, index, kind=tiny)


def test_unknown_units_are_named(atlas, tiny):
    with pytest.raises(DictionaryError, match="neurons"):
        units_of(atlas, tiny, "axes")
    assert set(OTHERS) >= {"neurons", "PCA", "random"}
    with pytest.raises(DictionaryError, match="nothing to score"):
        feature_key(atlas, planted(atlas, np.zeros((len(concepts(atlas).text.ids), 3), np.float32)))
