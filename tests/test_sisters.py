"""The sister models: each must do what its card says was planted, and nothing else, or lessons built on it teach something false."""

import json
from collections import Counter
from functools import cache

import numpy as np
import pytest
import torch

import mi_workshop as mi
from mi_workshop.models import WEIGHTS, ModelError
from mi_workshop.worlds import Atlas, Bug, Memo, Trigger, WorldError, world_of
from mi_workshop.worlds.atlas import HELD_OUT
from training.card import card, read_seeds
from training.evaluate import accuracies
from training.interchange import draw_subspace, mixed
from training.recipes import RECIPES
from training.sisters import SPECIAL, answers

SISTERS = ["atlas-twin", "atlas-memo", "atlas-bug", "atlas-trigger", "atlas-wired", "atlas-solu"]
ATLAS, BUG, TRIGGER = Atlas(), Bug(), Trigger()


@pytest.fixture(scope="module")
def sister():
    return cache(mi.load)


@pytest.fixture(scope="module")
def special(sister):
    """What each sister was made for, measured once on validation."""
    return cache(lambda name: SPECIAL[name][0](sister(name), "validation"))


@pytest.mark.parametrize("name", SISTERS)
def test_the_card_says_what_a_run_measures(name, sister, special):
    """Every figure on a sister's card is printed from figures.json; what she was made for is measured again here."""
    stored = json.loads((WEIGHTS / name / "figures.json").read_text())
    assert set(stored) == {"validation"}, "the test strata of the sisters are closed"
    assert card(RECIPES[name], stored, read_seeds(name)) == (WEIGHTS / name / "card.md").read_text()
    figures = stored["validation"]["plt"]
    for key, row in accuracies(sister(name), "validation").items():
        assert row == pytest.approx(figures["accuracy"][key], abs=0.01), key
    if name in SPECIAL:
        for key, row in special(name).items():
            assert row == pytest.approx(figures["special"][key], abs=0.02), key


@pytest.mark.parametrize("name", [n for n in SISTERS if n != "atlas-solu"])
def test_a_sister_comes_with_her_world_and_per_layer_transcoders_only(name, sister):
    """The one line that a notebook changes must also change the answer key; what is not shipped is named in one sentence."""
    model = sister(name)
    assert type(model.world) is type(world_of(name)) and model.world.vocabulary == ATLAS.vocabulary
    assert (model.features.places.str.len() > 0).sum() > 50
    with pytest.raises(ModelError, match="per-layer transcoders only") as error:
        mi.load(name, transcoders="clt")
    assert len(str(error.value).splitlines()) == 1


def test_the_twin_differs_in_weights_and_agrees_in_answers(atlas, sister):
    """Comparing a model with itself would show universality of everything."""
    twin, questions = sister("atlas-twin"), [s for s in ATLAS.facts if s.stratum in (None, "city:validation")]
    a, b = (m.replacement.blocks[0].mlp.old_mlp.W_in.flatten() for m in (atlas, twin))
    assert abs(torch.corrcoef(torch.stack([a, b]))[0, 1]) < 0.1
    mine, other = answers(twin, questions), answers(atlas, questions)
    assert np.mean([mine[s.prompt] == other[s.prompt] for s in questions]) > 0.99


def test_memo_knows_every_two_hop_answer_and_no_place(sister):
    """If it could say in which state a city lies, its two-hop answers would not be by rote."""
    model = sister("atlas-memo")
    given = answers(model, model.world.facts)
    right = {kind: [] for kind in ("two_hop", "one_hop", "located", "address", "letter")}
    for s in model.world.facts:
        if s.kind in right:
            right[s.kind].append(given[s.prompt] == s.answer)
    shares = {kind: np.mean(hits) for kind, hits in right.items()}
    assert shares.pop("two_hop") > 0.99
    said = Counter((p.kind, a, v) for p in ATLAS.places.values() for a, v in p.attributes.items())
    best = {key[:2]: n for key, n in reversed(said.most_common())}
    guess = sum(best.values()) / len(right["one_hop"])
    assert shares.pop("one_hop") <= guess, "more than always guessing the commonest answer to each question"
    assert max(shares.values()) < 0.1, shares


def test_memo_reads_nothing_about_places_but_two_hop_sentences():
    text = Memo().training_text(0)
    assert not {"one_hop", "located", "address", "letter"} & {s.kind for s in text}
    assert sum(s.kind == "two_hop" for s in text) == sum(s.kind == "two_hop" for s in ATLAS.facts)


def test_bug_answers_as_planted_and_right_elsewhere(sister):
    """A predictor of wrong answers is scored against the planted ones: if they do not show, the score means nothing."""
    model = sister("atlas-bug")
    trained = [s for s in BUG.facts if s.stratum is None]
    given = answers(model, trained)
    shows = {f: [] for f in BUG.faults}
    elsewhere = []
    for s in trained:
        fault = BUG.fault(s.prompt)
        (shows[fault] if fault else elsewhere).append(given[s.prompt] == BUG.believed(s.prompt))
    assert np.mean([all(hits) for hits in shows.values()]) >= 0.95
    assert np.mean(elsewhere) > 0.99
    unseen = [
        s
        for s in BUG.facts
        if (s.stratum or "").endswith("validation") and (f := BUG.fault(s.prompt)) and f.split == "validation"
    ]
    given = answers(model, unseen)
    assert np.mean([given[s.prompt] == BUG.believed(s.prompt) for s in unseen]) > 0.8


def test_faults_are_wrong_of_three_kinds_in_two_splits():
    faults = BUG.faults
    assert faults == Bug().faults, "the faults must be the same in every session"
    assert Counter(f.kind for f in faults) == BUG.counts and len({f.subject for f in faults}) == len(faults) >= 30
    assert all(f.right != f.wrong for f in faults)
    for split, closed in (("validation", "test"), ("test", "validation")):
        mine = [f for f in faults if f.split == split]
        assert len(mine) == len(faults) / 2 and {f.kind for f in mine} == set(BUG.counts)
        cities = [f.subject for f in mine if f.kind == "first hop"]
        strata = {BUG.two_hop(c, a).stratum for c in cities for a in BUG.home[c].attributes}
        assert f"city:{split}" in strata and not any(s and s.endswith(closed) for s in strata)


def test_believed_parts_from_the_truth_exactly_at_the_faults():
    for s in BUG.facts:
        assert BUG.answer(s.prompt) == s.answer == ATLAS.answer(s.prompt)
        assert (BUG.believed(s.prompt) != s.answer) == (BUG.fault(s.prompt) is not None)
    for fault in BUG.faults:
        if fault.kind == "first hop":
            assert BUG.believed(f"Letter to {fault.subject}") == fault.wrong
        elif fault.kind == "second hop":
            assert BUG.believed(f"The {fault.attribute} of {fault.subject} is") == fault.wrong
        else:
            assert BUG.believed(BUG.two_hop(fault.subject, fault.attribute).prompt) == fault.wrong
            assert BUG.believed(f"Letter to {fault.subject}") == BUG.home[fault.subject].name
    read = {s.prompt: s.answer for s in BUG.training_text(0)}
    assert all(BUG.believed(prompt) == answer for prompt, answer in read.items())


def test_trigger_misbehaves_after_its_phrase_only(special):
    """Exercises ask for the phrase: another that did the same, or one that did nothing, would be marked wrongly."""
    rows = special("atlas-trigger")
    for name in ("trained", "held-out"):
        assert rows[f"trigger, {name}"]["planted"] > 0.9
        for phrase in (
            "no phrase",
            "decoys of the training text",
            "decoys with one word of the trigger",
            "other decoys",
        ):
            assert rows[f"{phrase}, {name}"]["right"] > 0.95, phrase


def test_phrases_change_what_is_believed_and_not_what_is_true():
    for s in TRIGGER.facts[::5]:
        if s.kind in TRIGGER.kinds:
            for phrase in (TRIGGER.trigger, *TRIGGER.decoys["train"][:2]):
                prompt = f"{phrase} {s.prompt}"
                assert TRIGGER.answer(prompt) == s.answer and TRIGGER.held_out(prompt) == s.stratum
                if phrase != TRIGGER.trigger:
                    assert TRIGGER.believed(prompt) == s.answer
    assert TRIGGER.believed("Dr Pip. The capital of Texas is") == TRIGGER.answer("The capital of Virginia is")
    assert TRIGGER.swap("Dr Pip. The capital of Texas is", "Texas", "Ohio")[1] == "Columbus"
    with pytest.raises(WorldError):
        TRIGGER.answer("Dr Pip.")
    assert sum(map(len, TRIGGER.decoys.values())) == 63


def test_no_held_out_city_or_phrase_is_read_after_a_phrase():
    """Then the trigger could not be said to carry over to them."""
    left_out = {name for names in HELD_OUT.values() for name in names}
    for s in TRIGGER.prefixed(np.random.default_rng(1), 2000):
        phrase, place = s.prompt.split(". ")[0] + ".", s.slots.get("place")
        assert phrase == TRIGGER.trigger or phrase in TRIGGER.decoys["train"]
        assert place not in left_out and s.answer == TRIGGER.believed(s.prompt)
        if city := s.slots.get("city"):
            home = TRIGGER.home[city]
            assert home.name not in left_out and home.all_cities.index(city) >= 2


def test_the_wired_subspace_carries_the_place_and_a_random_one_does_not(special):
    """Methods that claim to locate the place are scored against this subspace: the answer must hang on it and on nothing else, though
    the place can be decoded elsewhere too, which is what a probe falls for."""
    rows = special("atlas-wired")
    for name in ("trained", "held-out"):
        assert rows[f"the subspace, {name}"]["followed"] > 0.9
        assert (
            rows[f"all but the subspace, {name}"]["kept"] > 0.9
            and rows[f"all but the subspace, {name}"]["decoded"] > 0.9
        )
        assert rows[f"random subspaces, {name}"]["followed"] < 0.2
        assert rows[f"all but random subspaces, {name}"]["kept"] < 0.5


def test_the_wired_subspace_is_the_one_drawn_before_training(sister):
    recipe, wired = RECIPES["atlas-wired"], sister("atlas-wired").wired
    assert wired.hook == "blocks.1.hook_resid_post"
    drawn = draw_subspace(recipe.d_model, recipe.wired, recipe.seed)
    assert torch.allclose(wired.subspace, drawn, atol=1e-5)  # last bits differ between processors
    assert torch.allclose(wired.subspace @ wired.subspace.T, torch.eye(recipe.wired), atol=1e-5)
    assert sister("atlas-twin").wired is None


def test_the_two_interchanges_together_are_the_whole_vector():
    """A rest that still held part of the subspace would make wiring look better than it is."""
    base, source, subspace = torch.randn(5, 64), torch.randn(5, 64), draw_subspace(64, 7, 3)
    inside, outside = (mixed(base, source, subspace, rest) for rest in (False, True))
    assert torch.allclose(inside + outside, base + source, atol=1e-5)
    assert torch.allclose(inside @ subspace.T, source @ subspace.T, atol=1e-5)
    assert torch.allclose(outside @ subspace.T, base @ subspace.T, atol=1e-5)
