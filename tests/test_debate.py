"""The debate on attention: an experiment that measures something else than it says would decide it wrongly, and nobody could see it in the table."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from mi_workshop import debate, results
from mi_workshop.debate_verdicts import CLAIMS, PUBLISHED, f1_table, key_table, stored_correlations, trade_off, verdicts
from mi_workshop.models.attention_rnn import train, uniform
from mi_workshop.saliency import answer_keys, attribute
from mi_workshop.worlds import Anemia, Rooms


@pytest.fixture(scope="module")
def anemia():
    return train(Anemia(), n=800, epochs=2, progress=False)


@pytest.fixture(scope="module")
def rooms():
    return train(Rooms(), n=300, epochs=1, progress=False)


@pytest.fixture(scope="module")
def notes():
    return Anemia().sample(25, "validation")


def test_distances_have_their_ends():
    """A divergence beyond ln 2, or a variation beyond 1, would be drawn off the figure and read as a finding."""
    a, b = torch.tensor([1.0, 0, 0]), torch.tensor([0, 0.5, 0.5])
    assert debate.divergence(a, b) == pytest.approx(np.log(2)) and debate.variation(a, b) == 1
    assert debate.divergence(a, a) == debate.variation(b, b) == debate.relative_entropy(b, b) == 0
    assert debate.divergence(a, b) == pytest.approx(float(debate.divergence(b, a)))


def test_attention_agrees_with_itself(anemia, notes):
    """If τ of a thing with itself is not 1, no τ in the table means anything; padding must not count."""
    weights = anemia.weights(notes)
    assert debate.rank_agreement(weights, weights, notes) == pytest.approx(1)
    assert debate.rank_agreement(weights, -weights, notes) == pytest.approx(-1)
    found = debate.correlations(anemia, notes, anemia)
    assert found.means.loc["attention of two seeds", "Anemia"] == pytest.approx(1)
    assert (found.counts.sum(axis=1) == len(notes)).all() and (found.means.abs() < 1 + 1e-6).all(axis=None)
    assert np.isnan(debate.rank_agreement(uniform(notes), weights, notes)).all()


def test_importance_is_that_of_the_definition(anemia, rooms, notes):
    """Both measures, one word at a time by hand and by the saliency module, must be what a batch gives."""
    for model, p in ((anemia, notes[0]), (rooms, Rooms().sample(1, "validation")[0])):
        own = model.predict([p])[0]
        loo = debate.leave_one_out(model, [p, *Rooms().sample(3, "test")] if model is rooms else notes)[0]
        without = dataclasses.replace(p, words=p.words[:2] + p.words[3:])
        assert loo[2] == pytest.approx(float(debate.variation(model.predict([without])[0], own)), abs=1e-6)
        held = dataclasses.replace(model, guide=model.weights)  # weights that no gradient goes through
        logit = int(own.argmax())
        slopes = [attribute(held, p, c, "gradient_x_input").scores for c in range(len(model.world.classes))]
        by_hand = own[0, logit].item() * (
            slopes[logit] - sum(q.item() * s for q, s in zip(own[0], slopes, strict=True))
        )
        np.testing.assert_allclose(debate.gradients(model, [p])[0], abs(by_hand), atol=1e-6)


def test_permuted_weights_are_the_same_weights(anemia, notes):
    """A permutation that lost weight to the padding would change predictions for that reason alone."""
    own, weights = anemia.predict(notes)
    shuffled, tvd = debate.permuted(anemia, notes, n=7)
    torch.testing.assert_close(shuffled.sum(-1), torch.ones(7, len(notes)))
    torch.testing.assert_close(shuffled.sort(-1).values, weights.sort(-1).values.expand(7, -1, -1))
    assert not torch.equal(shuffled[0], weights) and (shuffled[:, weights == 0] == 0).all()
    torch.testing.assert_close(tvd[3], debate.variation(anemia.predict(notes, shuffled[3])[0], own))


def test_an_adversary_leaves_the_prediction(anemia, rooms, notes):
    """Adversarial weights that move the prediction would make the strongest claim of the debate true by mistake."""
    for model, passages in ((anemia, notes), (rooms, Rooms().sample(8, "validation"))):
        found = debate.adversarial(model, passages, k=2, steps=40)
        assert (found.tvd <= debate.EPSILON + 1e-5).all()
        own, other = found.weights
        torch.testing.assert_close(other.sum(-1), torch.ones(len(passages)))
        assert (other[own == 0] == 0).all() and (found.jsd >= 0).all() and found.jsd.max() > 0.2
        torch.testing.assert_close(found.probabilities[1], model.predict(passages, other)[0])
    impossible = debate.adversarial(anemia, notes, k=1, epsilon=-1, steps=3)
    assert torch.equal(*impossible.weights) and impossible.jsd.max() == 0


def test_a_trained_adversary_looks_elsewhere(anemia, notes):
    """λ pulls attention away from the base model's; without it the loss is the predictions alone."""
    far, near = (debate.train_adversary(anemia, s, n=400, epochs=2, progress=False) for s in (1.0, 0.0))
    jsd = [debate.compare(m, anemia, notes).jsd.mean() for m in (far, near, anemia)]
    assert jsd[0] > 0.5 > jsd[1] and jsd[2] == 0


def test_f1_by_hand():
    """The notes are scored by the F1 of the sick, Rooms by the mean over places: a table that mixed them up would compare nothing."""
    answers, said = [0, 0, 1, 1, 1], [0, 1, 1, 1, 0]
    model = SimpleNamespace(world=Anemia(), labels=lambda p: torch.tensor(answers), predict=lambda p: (torch.eye(2)[said], None))  # fmt: skip
    assert debate.f1(model, range(5)) == pytest.approx(2 / 3)
    model.world, model.predict = SimpleNamespace(classes=("a", "b", "c")), lambda p: (torch.eye(3)[said], None)
    assert debate.f1(model, range(5)) == pytest.approx((0.5 + 2 / 3 + 0) / 3)


def test_the_key_of_a_story_is_that_of_saliency(rooms):
    """Attention is scored against the same model key as every saliency map, also where a guide gives the weights."""
    story = Rooms().sample(2, "validation")[1]
    for model in (rooms, dataclasses.replace(rooms, guide=uniform)):
        table = answer_keys(model, story).table
        np.testing.assert_allclose(debate.effects(model, story), table.effect.fillna(0), atol=1e-5)
    blind = debate.pointing(dataclasses.replace(rooms, guide=uniform), [story])
    sentences = len(story.words) // debate.SENTENCE
    assert (blind.loc["attention"] == 1 / sentences).all(axis=None), (
        "equal weights must not point to the first sentence"
    )
    assert debate.pointing(rooms, [story]).isin([0, 1]).all(axis=None)


def test_auc_of_planted_words(notes):
    """1 where all planted words score above all others, 0.5 where nothing is known."""
    width = max(len(p.words) for p in notes)
    perfect = torch.tensor([[float(i in p.evidence) for i in range(width)] for p in notes])
    assert debate.auc(perfect, notes) == pytest.approx(1) and debate.auc(-perfect, notes) == pytest.approx(0)
    assert debate.auc(uniform(notes), notes) == pytest.approx(0.5)


def test_figures_show_themselves(anemia, notes):
    """What a notebook stores is a picture with alt text that names the numbers."""
    pair = debate.adversarial(anemia, notes, k=1, steps=20)
    for shown in (debate.correlations(anemia, notes, anemia), pair, debate.compare(anemia, anemia, notes, shown=3)):
        data, _ = shown._repr_mimebundle_()
        assert set(data) == {"text/html", "image/png", "text/plain"} and any(c.isdigit() for c in data["text/plain"])


def test_verdicts_follow_from_the_numbers():
    """The same claims must come out true, false or mixed as the numbers are: a conclusion that cannot change was not measured."""
    columns = sorted({c for claim in CLAIMS for c in claim.figure})
    index = pd.MultiIndex.from_product([["Rooms", "Anemia"], range(3)], names=["world", "seed"])
    claim = next(c for c in CLAIMS if len(c.figure) == 1 and c.sign == "<")
    said = []
    for values in ([0.1, 0.11, 0.12], [0.9, 0.91, 0.92], [0.1, 0.5, 0.9]):
        runs = pd.DataFrame(0.0, index, columns)
        runs[claim.figure[0]] = values * 2
        said.append(verdicts(results.Results({"runs": runs}, {})).loc[claim.text])
    assert [row.verdict for row in said] == ["supported", "not supported", "mixed"]
    runs.loc["Rooms", claim.figure[0]] = np.nan
    assert verdicts(results.Results({"runs": runs}, {})).loc[claim.text, "Rooms"] == "–"


def test_the_stored_table_is_what_the_notebook_shows():
    """Five seeds on four data sets, on the test split, with every claim decided, and the published numbers marked as others'."""
    stored = results.read("debate")
    assert stored["runs"].shape[0] == 20 and stored.provenance["split"] == "test"
    found = verdicts(stored)
    assert len(found) == len(CLAIMS) and found.verdict.isin(["supported", "not supported", "mixed"]).all()
    pd.testing.assert_frame_equal(stored["published"], PUBLISHED)
    for table in (f1_table(stored), f1_table(stored, few=True), key_table(stored)):
        assert not table.isna().all(axis=1).any()
    assert len(trade_off(stored)._repr_mimebundle_()[0]["image/png"]) > 5000
    assert stored_correlations(stored).means.shape == (4, 4)


def test_a_cell_of_the_stored_table_again():
    """The stored numbers are those that the code gives: one of them is measured again here."""
    stored = results.read("debate")["runs"].loc[("Anemia", 0), "F1, few: MLP, uniform"]
    world = Anemia()
    model = train(world, 0, attention="uniform", encoder="mlp", n=600, progress=False)
    assert debate.f1(model, world.sample(1000, "test")) == pytest.approx(stored, abs=0.02)
