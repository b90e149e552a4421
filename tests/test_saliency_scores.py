"""Scores of saliency maps: a wrong key or score would crown the wrong method, and nobody could see it in the maps."""

import numpy as np
import pandas as pd
import pytest
import torch

import mi_workshop as mi
from mi_workshop import results
from mi_workshop.models.attention_rnn import AttentionRNN, PassageModel
from mi_workshop.saliency import Attribution, SaliencyError, attribute
from mi_workshop.saliency.checks import label_check, permuted, randomised, sanity_check
from mi_workshop.saliency.compare import Sanity, compare_curves, compare_sanity, overview
from mi_workshop.saliency.inputs import problem
from mi_workshop.saliency.keys import Key, Pairs, _together, answer_keys
from mi_workshop.saliency.limits import dose, more_hurts, zero_matters
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
from mi_workshop.saliency.verdicts import exposes, named, verdicts
from mi_workshop.worlds import Rooms, Scenes
from mi_workshop.worlds.rooms import UNSEEN

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


def test_pairs_are_substituted_together(shortcut):
    """A part that matters only with another would be called unimportant."""
    scene = CUED[2]
    key = answer_keys(shortcut, scene, scene.label, pairs=5)
    table, p = key.pairs.table, problem(shortcut, scene, scene.label)
    assert len(table) == len(key.table) * (len(key.table) - 1) / 2 and (table.substitutions <= 5).all()
    assert table.equals(answer_keys(shortcut, scene, scene.label, pairs=5).pairs.table)
    large = next(iter(scene.substitutions(scene.objects[0])))
    both = _together(shortcut, scene, p, scene.with_cue("cyan"), large)
    assert both.cue == "cyan" and both.objects == large.objects and both.seed == scene.seed
    # by hand, all four corners of every substitution of marker and large object
    name = key.table.index[0]
    every = answer_keys(shortcut, scene, scene.label, pairs=100).pairs.table.loc[(name, "marker")]
    assert every.substitutions == every.of == 57
    number = lambda s: float(p.forward(shortcut.pixels(s)))  # noqa: E731
    own, changes = number(scene), []
    for cue in ("white", "black", "pink", "cyan"):
        if cue == scene.cue:
            continue
        for other in scene.substitutions(scene.objects[0]):
            together = own - number(other.with_cue(cue))
            changes.append(abs(together - (own - number(other)) - (own - number(scene.with_cue(cue)))))
    assert every.interaction == pytest.approx(np.mean(changes), rel=1e-3)


def test_pairs_that_matter_only_together():
    """An exclusive or is the plainest case: neither word alone changes anything, both do. Nothing that training does not say is substituted."""
    torch.manual_seed(0)
    rooms = PassageModel(AttentionRNN(len(Rooms.vocabulary), len(Rooms.classes)).eval(), Rooms())
    key = answer_keys(
        rooms, "John went to the bedroom. Sandra moved to the bedroom. Where is John?", "bedroom", pairs=9
    )
    assert ("Sandra [6]", "bedroom [10]") in key.pairs.table.index
    p = problem(rooms, "John went to the bedroom. Sandra moved to the bedroom. Where is John?", "bedroom")
    story = Rooms().parse("John went to the bedroom. Sandra moved to the bedroom. Where is John?")
    made = [
        _together(rooms, story, p, a, b)
        for a in Rooms().substitutions(story, 6) for b in Rooms().substitutions(story, 10)
    ]  # fmt: skip
    said = [(q.words[6], q.words[10]) for q in made if q]
    assert 0 < len(said) < len(made) and UNSEEN.isdisjoint(said)
    assert {q.answer for q in made if q} > {"bedroom"}  # together they change the right answer, each alone does not
    table = pd.DataFrame(
        {"one": [0.0, 1.0], "other": [0.1, 0.0], "both": [1.0, 1.0], "interaction": [1.0, 0.0]}, ["xor", "alone"]
    )
    assert Pairs(table, "number", "model").only_together().index.tolist() == ["xor"]


def test_pairs_of_queries_and_prompts(atlas):
    """Both words are another at once, and the rest of the prompt is as it was."""
    key = answer_keys(atlas, PROMPT, "Austin", pairs=4)
    assert list(key.pairs.table.index) == [
        ("capital [4]", "state [7]"),
        ("capital [4]", "Dallas [9]"),
        ("state [7]", "Dallas [9]"),
    ]
    p, ids = problem(atlas, PROMPT, "Austin"), atlas.tokens
    one, other = PROMPT.replace("Dallas", "Oakland"), PROMPT.replace("capital", "region")
    assert torch.equal(_together(atlas, PROMPT, p, ids(one), ids(other)), ids(one.replace("capital", "region")))
    clip, scene = mi.load("scenes-clip"), CUED[0]
    assert answer_keys(clip, "a large red circle", scene, pairs=4).pairs.table.both.min() > 0
    with pytest.raises(SaliencyError, match="no two parts"):
        answer_keys(clip, "a circle", scene, pairs=4)


def test_more_of_a_positive_part_can_hurt_and_a_cold_one_can_decide(shortcut):
    """The two counterexamples of the course: were they gone, the notebook would claim what its own figures deny."""
    pairs = [(s, s.label) for s in Scenes().sample(8, "validation", cue="label")]
    honest = mi.load("scenes-cnn")
    worst = more_hurts(honest, pairs[3:4]).iloc[0]
    assert worst.name == (0, "background") and worst.attribution > 0.5 and worst.rises < -0.2
    curve = dose(honest, *pairs[3], "background").curve
    assert (curve[curve.index >= 1].diff().dropna() < 0).all() and curve[0.0] < curve[1.0]
    assert curve[1.0] == pytest.approx(float(problem(honest, *pairs[3]).forward(honest.pixels(pairs[3][0]))), abs=1e-4)
    whites = [(s, label) for s, label in pairs if s.cue == "white"]
    cold = zero_matters(shortcut, whites[:2], ["integrated_gradients"], "white").iloc[0]
    assert cold.name[2] == "marker" and cold.highest < 0.15 and cold.effect > 8
    assert zero_matters(shortcut, whites[:1], ["integrated_gradients"], "grey").highest.min() > 0.5
    with pytest.raises(SaliencyError, match="no part 'sky'"):
        dose(shortcut, *pairs[0], "sky")


def test_random_labels_are_dealt_out_anew(shortcut):
    """The control would be none if the labels were still those of the texts, or other than theirs in number."""
    world, dealt = Rooms(), permuted(Rooms())
    own, other = world.sample(60), dealt.sample(60)
    assert [p.words for p in own] == [p.words for p in other] and sorted(p.answer for p in own) == sorted(
        p.answer for p in other
    )
    assert sum(a.answer == b.answer for a, b in zip(own, other, strict=True)) < 30
    assert [p.answer for p in world.sample(60)] == [p.answer for p in own]
    pairs = [(s, s.label) for s in CUED[:2]]
    found = label_check(shortcut, {"itself": shortcut, "honest": mi.load("scenes-cnn")}, pairs, "gradient")
    assert found.shape == (2, 2) and found.loc["itself"].min() > 0.99 > found.loc["honest"].max()
    with pytest.raises(SaliencyError, match="needs its target"):
        label_check(shortcut, {}, [(CUED[0], None)], "gradient")


def test_random_weights_are_not_those_that_training_began_with():
    """They were, where both began with the same seed: a map of the "random" embedding was the trained one's to .99."""
    torch.manual_seed(0)
    embed = torch.nn.Embedding(50, 16)
    before = embed.weight.detach().clone()
    with randomised([embed], seed=0):
        assert abs(np.corrcoef(before.ravel(), embed.weight.detach().ravel())[0, 1]) < 0.2
    assert torch.equal(before, embed.weight)


def noise_key():
    masks = {"object": np.zeros((8, 8), bool), "marker": np.zeros((8, 8), bool)}
    masks["object"][:, 2:6], masks["marker"][0, 0] = True, True
    masks["background"] = ~(masks["object"] | masks["marker"])
    table = pd.DataFrame({"effect": [1.0, 2.0, 0.5], "matters": [True, False, False]}, list(masks))
    return Key(table, masks, "a number", "model")


def test_the_rule_by_which_a_map_names_a_part():
    """The verdict on every method hangs on it: size must not decide, and what lowers the number is not what is named."""
    key, scores = noise_key(), np.full((8, 8), 0.1)
    scores[0, 0] = 1
    assert named(given(scores), key) == "marker" and named(given(scores), key, "sum") != "marker"
    assert named(given(np.where(key.masks["marker"], -5.0, 0.1)), key) != "marker"
    assert named(given(np.where(key.masks["marker"], -5.0, 0.1)), key, "absolute mean") == "marker"
    with pytest.raises(SaliencyError, match="no rule 'best'"):
        named(given(scores), key, "best")


def stored(**rates):
    rows = {
        (model, "agreeing marker", method, "names_marker"): {"mean": m, "low": m - 0.1, "high": m + 0.1, "n": 30}
        for method, (cheat, honest) in rates.items() for model, m in (("scenes-shortcut", cheat), ("scenes-cnn", honest))
    }  # fmt: skip
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis(["model", "inputs", "method", "score"])
    return results.Results({"scores": table}, {})


def test_verdicts_need_the_control():
    """A method that calls every marker a shortcut would be praised for finding this one."""
    found = verdicts(stored(good=(0.9, 0.1), blind=(0.2, 0.0), loud=(0.95, 0.9), unsure=(0.55, 0.1), hasty=(0.9, 0.45)))
    assert found.verdict.to_dict() == {"good": "exposes", "blind": "misses", "loud": "cries wolf", "unsure": "undecided", "hasty": "cries wolf"}  # fmt: skip
    assert exposes(stored(good=(0.9, 0.1), loud=(0.95, 0.9))) == ["good"]


def test_methods_side_by_side(shortcut):
    """Pictures for the wall: they must show the means that the scores have, the better ones dark."""
    pairs = [(s, s.label) for s in CUED[:2]]
    found = compare_curves(shortcut, pairs, ["gradient", "grad_cam"])
    by_hand = [curves(p := problem(shortcut, *pair), attribute(p, None, method="gradient").scores) for pair in pairs]
    assert found.areas.loc["gradient", "deletion"] == pytest.approx(np.mean([np.trapezoid(c.deletion, c.index) for c in by_hand]))  # fmt: skip
    assert found.tables["gradient"].deletion.iloc[[0, -1]].tolist() == pytest.approx([1, 0], abs=1e-4)
    checked = compare_sanity(shortcut, pairs, ["gradient"])
    assert checked.table.gradient["conv1"] == pytest.approx(
        sanity_check(shortcut, pairs, "gradient").loc["conv1"].mean()
    )
    whole = overview(summary(table(shortcut, pairs[:1], ["gradient", "grad_cam"]), 20))
    assert whole.falls("deletion") and not whole.falls("mass") and "deletion" in whole.means
    for shown in (
        found,
        checked,
        whole,
        dose(shortcut, *pairs[0], "marker"),
        answer_keys(shortcut, *pairs[0], pairs=2).pairs,
    ):
        assert len(shown.words()) > 40 and shown.figure().axes
    with pytest.raises(SaliencyError, match="at least one input"):
        compare_curves(shortcut, [], ["gradient"])
    with pytest.raises(SaliencyError, match="no model 'atlas'"):
        overview(stored(good=(0.9, 0.1))["scores"], "atlas")
    with pytest.raises(SaliencyError, match="Choose a score"):
        overview(stored(good=(0.9, 0.1))["scores"])


def test_stored_results_say_what_the_notebook_says():
    """The published table must have every method that fits, every model, and a control that could have failed."""
    found = results.read("saliency")
    scores_of = found["scores"]
    assert len(scores_of.index.droplevel(["method", "score"]).unique()) == 11 and found.provenance["split"] == "test"
    fit = {"gradient", "smoothgrad", "integrated_gradients", "guided_backprop", "grad_cam", "occlusion", "kernel_shap"}
    assert fit | {"(noise)", "(edges)"} <= set(scores_of.loc["scenes-cnn"].index.get_level_values("method"))
    assert (scores_of.low <= scores_of["mean"] + 1e-5).all() and (scores_of["mean"] <= scores_of.high + 1e-5).all()
    assert (
        verdicts(found).loc["(edges)", "verdict"] != "exposes"
        and verdicts(found).loc["(noise)", "verdict"] != "exposes"
    )
    assert Sanity.of(found["sanity"], "scenes-cnn", "cascading").table.index[0] == "fc"
    assert overview(scores_of, score="mass").means.loc["integrated_gradients"].notna().all()
