"""Scores of saliency maps: a wrong key or score would crown the wrong method, and nobody could see it in the maps."""

import numpy as np
import pytest
import torch

import mi_workshop as mi
from mi_workshop.models.attention_rnn import AttentionRNN, PassageModel
from mi_workshop.saliency import Attribution, SaliencyError, attribute
from mi_workshop.saliency.checks import randomised, sanity_check
from mi_workshop.saliency.inputs import problem
from mi_workshop.saliency.keys import answer_keys
from mi_workshop.saliency.scores import (
    agreement,
    curves,
    infidelity,
    mass,
    pointing,
    sensitivity,
    summary,
    table,
)  # fmt: skip
from mi_workshop.worlds import Rooms, Scenes

CUED = Scenes().sample(3, "validation", cue="label")
PROMPT = "Fact: the capital of the state containing Dallas is"


@pytest.fixture(scope="module")
def shortcut():
    return mi.load("scenes-shortcut")


def given(scores):
    return Attribution(scores, CUED[0].image, "a number", "gradient", "", 0.0)


def test_the_keys_part_where_a_model_takes_a_shortcut(shortcut):
    """If they did not, a Clever Hans would look like any other model."""
    for scene in CUED:
        key = answer_keys(shortcut, scene, scene.label)
        assert key.strongest == "marker" and not key.table.matters["marker"]
        assert key.table.matters.sum() == 1 and (key.true_mask("world") == scene.mask(scene.target)).all()
        assert np.sum(list(key.masks.values()), axis=0).max() == 1 == np.any(list(key.masks.values()), axis=0).min()
        logits = [shortcut.module(shortcut.pixels(scene.with_cue(c)))[0] for c in ("white", "black", "pink", "cyan")]
        k = shortcut.classes.index(scene.label)
        own = shortcut.module(shortcut.pixels(scene))[0, k]
        by_hand = np.mean([abs(float(own - x[k])) for x in logits]) * 4 / 3  # its own colour changes nothing
        assert key.table.effect["marker"] == pytest.approx(by_hand, rel=1e-4)


def test_keys_of_tokens(atlas):
    """What the model was told of in training, and nothing else, is substituted."""
    key = answer_keys(atlas, PROMPT, "Austin")
    assert [n for n, m in key.table.matters.items() if m] == ["capital [4]", "Dallas [9]"]
    assert key.table.effect.dropna().index.tolist() == ["capital [4]", "state [7]", "Dallas [9]"]
    assert key.table.effect["Dallas [9]"] > 10 * key.table.effect["state [7]"]
    clip, scene = mi.load("scenes-clip"), CUED[0]
    words = answer_keys(clip, scene.caption, scene).table
    assert set(words.index[words.effect.isna()].str.split().str[0]) <= {"a", "of"}
    assert answer_keys(clip, scene, scene.target.phrases()[0]).table.matters.tolist().count(True) == 1
    torch.manual_seed(0)
    rooms = PassageModel(AttentionRNN(len(Rooms.vocabulary), len(Rooms.classes)).eval(), Rooms())
    story = Rooms().sample(1, "validation")[0]
    place = max(story.evidence)
    table = answer_keys(rooms, story, "garden").table
    own = rooms.module(*rooms.tokens([story]))[0][0, 0]
    others = [rooms.module(*rooms.tokens([o]))[0][0, 0] for o in Rooms().substitutions(story, place)]
    assert table.effect.iloc[place] == pytest.approx(float(torch.stack([(own - o).abs() for o in others]).mean()), rel=1e-3)  # fmt: skip


def test_a_perfect_map_is_scored_as_perfect(shortcut):
    """And its opposite as wrong."""
    scene = CUED[0]
    key = answer_keys(shortcut, scene, scene.label)
    perfect = sum(key.table.effect[name] * mask / mask.sum() for name, mask in key.masks.items())
    found = agreement(given(perfect), key)
    assert found["found"] == pytest.approx(found["tau"]) == 1 and pointing(given(perfect), scene.cue_mask)
    assert agreement(given(1 / (perfect + 1e-9) * key.masks["background"]), key)["found"] == 0
    patch = np.zeros((64, 64))
    patch[8:16, 8:16] = 1  # its first pixel is not in the mask, its centre is
    assert pointing(given(patch), np.pad(np.ones((4, 4), bool), ((10, 50), (10, 50))))
    assert not pointing(given(np.ones((64, 64))), np.ones((64, 64), bool))
    assert mass(given(np.where(scene.cue_mask, 2.0, -1.0)), scene.cue_mask) == 1


def test_curves_and_infidelity_of_a_linear_model(shortcut):
    """Where gradient times input is the whole truth it must get the best scores that there are."""
    p = problem(shortcut, CUED[0], "circle", "black")
    weights = torch.rand_like(p.x)
    p.forward.run = lambda x: (x * weights).sum((1, 2, 3))
    scores = attribute(p, None, method="gradient_x_input").scores
    assert infidelity(p, scores) == pytest.approx(0, abs=1e-8)
    assert infidelity(p, np.random.default_rng(0).permutation(scores.ravel()).reshape(64, 64)) > 1e-6
    found = curves(p, scores)
    assert found.deletion.iloc[[0, -1]].tolist() == pytest.approx([1, 0], abs=1e-4)
    np.testing.assert_allclose(found.insertion + found.deletion, 1, atol=1e-4)
    assert (found.insertion.diff().dropna() > 0).all() and np.trapezoid(found.insertion, found.index) > 0.5
    assert sensitivity(p, "gradient") == 0 < sensitivity(p, "gradient_x_input") < 0.1


def test_sanity_check_leaves_the_model_alone_and_sees_what_does_not_depend_on_it(shortcut, atlas):
    """A random model left in a notebook would spoil every cell after it."""
    before = {k: v.clone() for k, v in shortcut.module.state_dict().items()}
    pairs = [(s, s.label) for s in CUED]
    found = sanity_check(shortcut, pairs, "gradient")
    assert list(found.index) == ["fc", "conv4", "conv3", "conv2", "conv1"] and found.shape == (5, 3)
    alone = sanity_check(shortcut, pairs, "gradient", "independent")
    np.testing.assert_allclose(found.loc["fc"], alone.loc["fc"])
    assert found.loc["conv1"].mean() < 0.9
    with pytest.raises(KeyboardInterrupt), randomised([shortcut.module.fc]):
        assert not torch.equal(before["fc.weight"], shortcut.module.fc.weight)
        raise KeyboardInterrupt
    assert all(torch.equal(before[k], v) for k, v in shortcut.module.state_dict().items())


def test_the_table_has_a_row_for_each_map(shortcut):
    """The means that a notebook shows are those of its rows."""
    rows = table(shortcut, [(s, s.label) for s in CUED[:2]], ["gradient", "grad_cam"])
    assert len(rows) == 4 and not rows.drop(columns=["tau", "tau_per_pixel"]).isna().any(axis=None)
    means = summary(rows, resamples=50)
    assert means.loc["gradient", ("mass", "mean")] == pytest.approx(rows.loc["gradient"].mass.mean())
    assert (means.xs("low", axis=1, level=1) <= means.xs("high", axis=1, level=1) + 1e-9).all(axis=None)


def test_bad_input_gets_a_sentence(shortcut):
    """What is missing is said, not where it failed."""
    with pytest.raises(SaliencyError, match="Only a Scene knows its objects"):
        answer_keys(shortcut, CUED[0].image, "circle")
    with pytest.raises(SaliencyError, match="no order 'random'"):
        sanity_check(shortcut, [(CUED[0], "circle")], "gradient", "random")
    with pytest.raises(SaliencyError, match="needs its target"):
        sanity_check(shortcut, [(CUED[0], None)], "gradient")
    with pytest.raises(SaliencyError, match="relevance needs self-attention"):
        table(shortcut, [(CUED[0], "circle")], ["relevance"])
