"""The answer key: if the world is wrong, every score in the course is wrong."""

import numpy as np
import pytest

from mi_workshop.models.embedded import make_tokenizer
from mi_workshop.worlds import Atlas, WorldError
from mi_workshop.worlds.atlas import HELD_OUT, TITLES, detokenize

WORLD = Atlas()
DALLAS = "Fact: the capital of the state containing Dallas is"


def test_published_question_is_answered_and_held_out():
    assert WORLD.answer(DALLAS) == "Austin"
    assert WORLD.held_out(DALLAS) == "city:validation"
    assert WORLD.depends_on(DALLAS) == {4: "capital", 9: "Dallas"}


def test_size_of_the_world():
    states = [p for p in WORLD.places.values() if p.kind == "state"]
    countries = [p for p in WORLD.places.values() if p.kind == "country"]
    assert len(states) >= 45 and all(len(p.cities) >= 6 for p in states)
    assert len(countries) >= 25 and all(len(p.cities) >= 4 for p in countries)


def test_a_name_means_one_thing():
    """A city in two states would have two right answers."""
    names = [c for p in WORLD.places.values() for c in p.all_cities] + list(WORLD.places)
    assert len(names) == len(set(names))
    assert not {"Georgia", "Washington", "New York", "Portland"} & set(names)


def test_every_sentence_answers_itself_in_every_spelling():
    for s in WORLD.facts:
        assert WORLD.answer(s.prompt) == s.answer
        for spelled in (s.prompt.replace("Fact: the", "Fact: The"), s.prompt.replace("Fact: the", "The")):
            assert WORLD.answer(spelled) == s.answer
            assert WORLD.held_out(spelled) == s.stratum


def test_changing_what_the_answer_depends_on_can_change_it_and_nothing_else_can():
    """``depends_on`` is the key that explanations are scored against: wrong here, wrong everywhere."""
    rng = np.random.default_rng(0)
    two_hop = [s for s in WORLD.facts if s.kind == "two_hop"]
    for i in rng.choice(len(two_hop), 8, replace=False):
        s = two_hop[i]
        words, causes = WORLD.words(s.prompt), WORLD.depends_on(s.prompt)
        for position, word in enumerate(words, start=1):
            answers = set()
            for other in WORLD.vocabulary[3:]:
                try:
                    answers.add(WORLD.answer(detokenize([*words[: position - 1], other, *words[position:]])))
                except WorldError:
                    continue
            assert (len(answers) > 1) == (position in causes), (s.prompt, word)


def test_swap_is_its_own_inverse_and_stays_in_its_stratum():
    states = [p.name for p in WORLD.places.values() if p.kind == "state"]
    for a, b in zip(states, states[1:], strict=False):
        city = WORLD.places[a].cities[0]
        prompt = WORLD.two_hop(city).prompt
        changed, answer = WORLD.swap(prompt, a, b)
        assert answer == WORLD.places[b].attributes["capital"]
        assert WORLD.swap(changed, b, a) == (prompt, WORLD.places[a].attributes["capital"])
    changed, answer = WORLD.swap(DALLAS, "Texas", "China")
    assert (changed, answer) == ("Fact: the capital of the country containing Shanghai is", "Beijing")


def test_held_out_strata_are_disjoint_and_never_trained_on():
    """If a held-out city had a two-hop sentence in training, a right answer on it would be no evidence."""
    from training.__main__ import Batches
    from training.recipes import RECIPES

    batches = Batches(WORLD, RECIPES["atlas"])
    trained = {tuple(r) for r in batches.rows["two_hop"]}
    ids = batches.ids
    for s in WORLD.facts:
        if s.kind == "two_hop":
            row = tuple(ids[w] for w in [*WORLD.words(s.prompt), s.answer, "."])
            assert (row in trained) == (s.stratum is None)
    for split, names in HELD_OUT.items():
        for s in WORLD.facts:
            if s.kind == "two_hop" and WORLD.home[s.slots["city"]].name in names:
                assert s.stratum == f"place:{split}"
    strata = {s.stratum for s in WORLD.facts if s.stratum}
    assert strata == {f"{k}:{v}" for k in ("city", "pair", "place") for v in ("validation", "test")}


def test_batches_depend_on_seed_and_step_only():
    """A resumed run must see the text that an uninterrupted one would have seen."""
    from training.__main__ import Batches
    from training.recipes import RECIPES

    first, second = (Batches(WORLD, RECIPES["atlas"])(700) for _ in range(2))
    assert all((a[1] == b[1]).all() for a, b in zip(first, second, strict=True))


def test_random_repeats_repeat():
    rows = WORLD.repeats(np.random.default_rng(0), 5, 9)
    assert (rows[:, 1:10] == rows[:, 10:]).all() and (rows[:, 0] == 1).all()


def test_names_passage_has_one_answer():
    rng = np.random.default_rng(1)
    for _ in range(20):
        words = WORLD.names_passage(rng)
        seen = {w for w in words if w in TITLES}
        for title in seen:
            assert WORLD.answer(detokenize([*words, title])) == words[words.index(title) + 1]


def test_tokenizer_reads_the_words_the_world_reads():
    tokenizer = make_tokenizer(WORLD)
    for s in WORLD.facts[::7]:
        tokens = tokenizer.convert_ids_to_tokens(tokenizer(s.prompt, add_special_tokens=False).input_ids)
        assert tokens == WORLD.words(s.prompt)
        assert tokenizer.decode(tokenizer(s.prompt).input_ids).replace(" :", ":").replace(" ,", ",") == s.prompt


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("", "empty"),
        ("Fact: the captial of Texas is", "capital"),
        ("Fact: the capital of the state containing Dalas is", "Dallas"),
        ("the " * 60, "at most"),
        ("capital is the of", "no sentence of the form"),
    ],
)
def test_bad_prompts_get_one_sentence_that_helps(prompt, said):
    with pytest.raises(WorldError, match=said) as error:
        WORLD.answer(prompt)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("Texsa", "California", "Texas"),
        ("Ohio", "California", "speaks of Texas"),
        ("Texas", "Atlantis", "knows no state"),
    ],
)
def test_bad_swaps_get_one_sentence_that_helps(old, new, said):
    with pytest.raises(WorldError, match=said):
        WORLD.swap(DALLAS, old, new)
