"""Rooms, Reviews and the notes: the key that attention is compared with must be the rule, and the models must need the order of words."""

from collections import Counter

import pytest
import torch

from mi_workshop.models.attention_rnn import train, uniform
from mi_workshop.worlds import Anemia, Diabetes, Reviews, Rooms, WorldError
from mi_workshop.worlds.rooms import HELD_OUT

WORLDS = [Rooms(), Reviews(), Anemia(), Diabetes()]
EVIDENCE = WORLDS[1:]


def name(world):
    return type(world).__name__


@pytest.fixture(scope="module")
def anemia():
    return train(Anemia(), n=1200, epochs=3, progress=False)


@pytest.mark.parametrize("world", WORLDS, ids=name)
def test_a_text_reads_as_it_was_written(world):
    for passage in world.sample(80, "test"):
        again = world.parse(passage.text)
        assert again == passage and again.evidence == passage.evidence and world.answer(passage.text) == passage.answer
        assert len(passage.words) + len(passage.question) <= world.max_tokens


@pytest.mark.parametrize("world", WORLDS, ids=name)
def test_splits_are_disjoint_and_seeds_reproduce(world):
    """A model that was tested on what it read proves nothing."""
    drawn = {split: world.sample(150, split) for split in ("train", "validation", "test")}
    assert [p.text for p in world.sample(50)] == [p.text for p in drawn["train"][:50]]
    texts = [p.text for part in drawn.values() for p in part]
    assert len(set(texts)) == len(texts)
    other = {p.text for p in world.sample(150, "train", seed=1)}
    assert not other & {p.text for p in drawn["test"]} and other != {p.text for p in drawn["train"]}
    shares = Counter(p.answer for p in drawn["test"])
    assert set(shares) == set(world.classes) and max(shares.values()) < 1.5 * len(drawn["test"]) / len(world.classes)


@pytest.mark.parametrize("world", EVIDENCE, ids=name)
def test_the_key_agrees_with_the_rule(world):
    """The signs sum to the answer, and only a word of the key (or one that takes its place) can change a sentence's sign."""
    for passage in world.sample(40, "validation"):
        total = sum(world.signs_of_sentences(passage))
        assert passage.answer == world.classes[total > 0] and total != 0
        for position in range(len(passage.words)):
            for other in world.substitutions(passage, position):
                if other.answer != passage.answer:
                    assert position in passage.evidence or position in other.evidence, (passage.text, position)


@pytest.mark.parametrize("world", EVIDENCE, ids=name)
def test_every_word_of_the_key_can_change_the_answer(world):
    """In a passage with one sentence of evidence, exchanging any of its words can turn or lose the answer."""
    for passage in [p for p in world.sample(100, "validation") if len(world.signs_of_sentences(p)) == 1][:15]:
        for position in passage.evidence:
            words = world.alternatives(passage, position)
            kept = [p.answer for p in world.substitutions(passage, position)]
            assert len(kept) < len(words) or set(kept) != {passage.answer}, (passage.text, position)


def test_rooms_answers_from_the_last_sentence_about_the_person():
    story = "John went to the office. Sandra went to the garden. John moved to the kitchen. Where is {}?"
    world = Rooms()
    assert world.answer(story.format("John")) == "kitchen" and world.answer(story.format("Sandra")) == "garden"
    assert world.depends_on(story.format("John")) == {12: "John", 16: "kitchen"}
    assert list(world.supporting(world.parse(story.format("Sandra")))) == list(range(6, 12))
    for passage in world.sample(40, "test"):
        outside = [
            i for i in range(len(passage.words)) if passage.words[i] in world.classes and i not in passage.evidence
        ]
        assert all(p.answer == passage.answer for i in outside for p in world.substitutions(passage, i))


def test_held_out_pairs_are_in_no_training_story():
    world = Rooms()
    pairs = {pair for held in HELD_OUT.values() for pair in held}
    for story in world.sample(500):
        moves = {(story.words[i], story.words[i + 4]) for i in range(0, len(story.words), 6)}
        assert not moves & pairs
        for at in (0, 4):
            assert all(world.stratum(p) is None for p in world.substitutions(story, at))
    for split in HELD_OUT:
        assert {world.stratum(s) for s in world.sample(50, split, held_out=True)} == {f"pair:{split}"}


def test_one_answer_is_turned_round_by_one_word():
    assert Reviews().answer("the plot was good.") == "positive"
    assert Reviews().depends_on("they never read the book. the plot was not good.") == {9: "not", 10: "good"}
    assert Anemia().answer("patient denies fatigue. sodium is low.") == "not anemic"


@pytest.mark.parametrize(
    ("world", "text", "said"),
    [
        (Rooms(), "", "empty"),
        (Rooms(), "Sandra went to the gardn. Where is Sandra?", "garden"),
        (Rooms(), "Sandra went to the garden. Where is John?", "does not say"),
        (Rooms(), "Sandra to the garden. Where is Sandra?", "no sentence"),
        (Rooms(), "Sandra went to the garden.", "Where is Sandra"),
        (Rooms(), "John went to the office. " * 9 + "Where is John?", "at most"),
        (Reviews(), "the plot was good. the cast was bad.", "as much evidence"),
        (Diabetes(), "patient denies cough.", "as much evidence"),
    ],
)
def test_a_text_without_an_answer_gets_one_sentence(world, text, said):
    with pytest.raises(WorldError, match=said) as error:
        world.parse(text)
    assert len(str(error.value).splitlines()) == 1


def test_splits_that_do_not_exist_get_one_sentence():
    with pytest.raises(WorldError, match="validation"):
        Rooms().sample(1, "dev")
    with pytest.raises(WorldError, match="holds nothing out"):
        Reviews().sample(1, "test", held_out=True)
    with pytest.raises(ValueError, match="'uniform'"):
        train(Anemia(), attention="unifrom")


def test_the_model_needs_the_order_of_words(anemia):
    """If a bag of words did as well, attention over an LSTM would explain nothing."""
    test = anemia.world.sample(500, "validation")
    bag = train(anemia.world, n=1200, epochs=3, attention="uniform", encoder="mlp", progress=False)
    majority = max(Counter(p.answer for p in test).values()) / len(test)
    assert anemia.accuracy(test) > 0.95 and anemia.accuracy(test) > bag.accuracy(test) + 0.1 > majority


def test_attention_can_be_read_replaced_and_given(anemia):
    """The debate puts other weights in the place of the model's own: they must be used, and only on the words."""
    test = anemia.world.sample(40, "test")
    own, weights = anemia.predict(test)
    lengths = torch.tensor([len(p.words) for p in test])
    assert torch.allclose(weights.sum(-1), torch.ones(40), atol=1e-5)
    assert all((row[n:] == 0).all() for row, n in zip(weights, lengths, strict=True))
    assert torch.allclose(anemia.predict(test, weights)[0], own) and not torch.allclose(
        anemia.predict(test, uniform(test))[0], own
    )
    alone, _ = anemia.predict(test[:1])
    assert torch.allclose(alone, own[:1], atol=1e-5), "what a passage is read with must not matter"
    guided = train(anemia.world, n=200, epochs=1, attention=anemia.weights, encoder="mlp", progress=False)
    assert torch.allclose(guided.weights(test), weights)


def test_a_seed_gives_the_same_model():
    a, b = (train(Anemia(), n=64, epochs=1, progress=False).module.state_dict() for _ in range(2))
    assert all(torch.equal(a[k], b[k]) for k in a)
