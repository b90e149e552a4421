"""The class activity: driven from Python and by its buttons; what players type is text."""

import pytest

from mi_workshop.dictionary.rules import Rule
from mi_workshop.teach.guess_the_concept import STEPS, Game, guess_the_concept
from mi_workshop.widgets.guess_controls import GuessControls


@pytest.fixture(scope="module")
def neurons(atlas):
    return guess_the_concept(atlas, rounds=4, layer=2, seed=3)


@pytest.fixture
def game(neurons):
    return Game(neurons.found, neurons.unknown, [])


def test_rounds_get_harder_and_are_the_same_for_every_table(atlas, neurons):
    """Tables that play with one seed compare scores: they must have the same units."""
    again = guess_the_concept(atlas, rounds=4, layer=2, seed=3)
    assert [u.index for u in again.unknown] == [u.index for u in neurons.unknown]
    assert len({u.index for u in neurons.unknown}) == 4
    assert [u.sort for u in neurons.unknown] == ["pure", "pure", "mixed", "misleading top"]
    for bad in (0, -1, 2.5, "3", 99):
        with pytest.raises(ValueError, match="1 to 12"):
            guess_the_concept(atlas, rounds=bad)
    for bad in ("neuron", 1, atlas):
        with pytest.raises(ValueError, match="trained or loaded"):
            guess_the_concept(atlas, bad)


def test_a_game_from_beginning_to_end(game):
    """The scoreboard must rank whoever said the search's rule beside it, and whoever guessed wildly below."""
    for i in range(4):
        assert (game.round, game.step) == (i, "strong")
        game.guess("not a place", "table 2")
        game.next()
        game.guess(str(game.now.rule), "table 3")
        game.guess("something with places?", "shy")
        game.next()
        with pytest.raises(ValueError, match="shown already"):
            game.guess("a place")
        assert str(game.now.rule) in game.words()
        game.next()
    assert game.over and game.next() == "answer"
    table, board = game.score(), game.board()["mean F1"]
    best = table[table.player == "table 3"].f1.to_numpy()
    assert best == pytest.approx(table[table.player == "rule search"].f1.to_numpy())
    assert board["table 3"] == board["rule search"] > board["table 2"] > board["shy"] == 0
    assert table[table.player == "shy"].f1.isna().all() and table[table.player == "table 2"]["first"].notna().all()


def test_revising_counts_the_last_and_keeps_the_first(game):
    """The point of the weak examples: what they changed."""
    game.guess("not a place", "a")
    game.next()
    game.guess(str(game.now.rule), "a")
    game.next()
    row = game.score().query("player == 'a'").iloc[0]
    assert row["first"] < row.f1


def test_the_answer_does_not_leak(game):
    """Neither the name of the unit nor its rule may be read before the answer."""
    for _ in range(2):
        for said in (game.html(), game.words(), repr(game._repr_mimebundle_()[0]["text/plain"])):
            assert str(game.now.rule) not in said and game.now.sort not in said
        assert game.score().empty
        game.next()
    assert str(game.now.rule).split("'")[0] in game.words()


def test_examples_are_of_the_half_that_is_looked_at(game):
    """Guesses are scored on sentences that nobody saw."""
    assert {e[0] for e in game.examples()} == {"strongest"}
    game.next()
    groups = [e[0] for e in game.examples()]
    assert groups[0] == "strongest" and groups[-1] == "silent"
    for group, words, share in game.examples():
        assert len(words) == len(share) and (max(share) == 0) == (group == "silent")


@pytest.mark.parametrize("said", ["<img src=x onerror=alert(1)>", "$\\frac{", "%s {0}", "\u202e", "x" * 5000])
def test_what_is_typed_is_text(game, said):
    """A room types anything."""
    game.guess(said, said)
    controls = GuessControls(game)
    assert "<img src=x" not in controls.seen.value and len(game.players[0]) <= 40
    with pytest.raises(ValueError, match="choose another"):
        game.guess("a place", "rule search")
    for blank in ("", "  ", "\n"):
        with pytest.raises(ValueError, match="Say what"):
            game.guess(blank)
    game.next(), game.next()
    assert "<img src=x" not in game.html() and game.figure() is not None


def test_buttons_do_what_python_does(game):
    """On a projector nobody types Python."""
    view = game.view()
    view.player.value = "table 1"
    view.concept.value = "a place"
    view.add.click()
    view.concept.value, view.join.value = "a title", "and not"
    view.add.click()
    assert view.text.value == "a place and not a title"
    view.send.click()
    assert game.guesses[-1].rule == Rule.parse("a place and not a title", game.found) and view.text.value == ""
    assert "table 1" in view.seen.value and view.player.options == ("table 1",)
    view.text.value = "a plaice"
    view.send.click()
    assert "kept but not scored" in view.told.value
    view.send.click()
    assert 'role="alert"' in view.told.value
    labels = []
    for _ in STEPS:
        labels.append(view.go.description)
        view.go.click()
    assert labels == ["Show weak activations", "Show the answer", "Next unit"] and game.round == 1
    data = game._repr_mimebundle_()[0]
    assert {"image/png", "text/plain", "application/vnd.jupyter.widget-view+json"} <= set(data)
