"""Notebook 09b: predictions from the inside, repairs and their breakage, alarms and cuts. Only validation splits are opened here."""

from functools import cache

import numpy as np
import pytest

import mi_workshop as mi
from mi_workshop.counterfactual import Experiment, Site, zero
from mi_workshop.teach import check
from mi_workshop.teach import hidden_trigger as hidden
from mi_workshop.teach.catch_and_fix import area, areas, case_files, marks, predictions, questions, silenced
from mi_workshop.teach.catch_and_fix_exercises import patients
from mi_workshop.teach.repairs_inside import cut_shortcuts, neighbourhood, put_right, repair_scores, taught, transplant

model = cache(mi.load)


@cache
def validation():
    return predictions(model("atlas-bug"), "validation")


def fault(subject):
    return next(f for f in model("atlas-bug").world.faults if f.subject == subject)


def test_the_splits_share_no_place_and_hold_all_faults():
    """Otherwise what was tuned on one split would have seen the other."""
    world = model("atlas-bug").world
    mine, other = (
        {world.home[s.slots["city"]].name for s in questions(world, split)} for split in ("validation", "test")
    )
    assert not mine & other
    for split in ("validation", "test"):
        found = {world.fault(s.prompt) for s in questions(world, split)} - {None}
        assert found == {f for f in world.faults if f.split == split}


def test_the_book_marks_the_planted_one_step_sentences():
    """Predictors that learn from wrong marks would learn something else."""
    world, book = model("atlas-bug").world, marks(model("atlas-bug"))
    planted = [world.fault(p) is not None for p in book.prompt]
    assert (book.wrong == planted).mean() > 0.99


def test_the_look_inside_beats_what_learns_from_the_same_marks():
    """The headline of the notebook: without it there is no reason to look inside. Asking step by step does as well, and that is said there."""
    table = validation()
    wrong = table.wrong.to_numpy()
    found = {name: area(wrong, table[name].to_numpy()) for name in table.columns[4:]}
    assert found["circuit"] > 0.95
    for name in ("residual stream", "words", "entropy"):
        assert found["circuit"] > found[name] + 0.1, name


def test_the_area_is_that_of_the_definition():
    """A wrong area would rank the predictors wrongly without anybody seeing it."""
    wrong = np.array([True, True, False, False, False])
    assert area(wrong, np.array([3.0, 1.0, 0.0, 1.0, 2.0])) == pytest.approx((3 + 1.5) / 6)
    assert np.isnan(area(np.zeros(3, bool), np.arange(3.0)))


def test_the_figure_says_in_words_what_it_shows():
    """A picture without its numbers is lost for who cannot see it."""
    shown = areas(validation(), draws=20)
    assert {"all", "first hop", "second hop", "shortcut"} == set(shown.table.kind)
    assert (shown.table.low <= shown.table.area + 1e-9).all() and "circuit" in shown.words()
    assert shown.figure().axes[0].get_title().startswith("all")


def test_case_files_tell_the_three_kinds_apart():
    """The first table of the notebook rests on it, and so does the first exercise."""
    bug = model("atlas-bug")
    kinds = patients()
    assert set(kinds.values()) == {"first hop", "second hop", "shortcut"}
    for (_, row), (prompt, kind) in zip(case_files(bug, list(kinds)).iterrows(), kinds.items(), strict=True):
        home = bug.world.home[bug.world.parse(prompt).slots["city"]].name
        assert (row["place inside"] == home) == (kind != "first hop")
        assert row["says"] != row["right"]
        assert (row["says of that place"] == row["says"]) == (kind != "shortcut")


def test_putting_the_right_place_in_repairs_and_random_changes_do_not():
    """Without its control a repair could be any push."""
    report = put_right(model("atlas-bug"), fault("Detroit"), n_random=20)
    assert report.table.says_donor.mean() == 1 and report.p("gained") < 0.05
    assert report.random.gained.max() < 0.5


def test_an_edit_is_counted_beyond_its_own_sentence_and_taken_back_to_the_bit():
    """An edit that is judged by the sentence that it was taught always looks perfect; one that stays in spoils all that follows."""
    bug = model("atlas-bug")
    weights = [p.clone() for p in bug.replacement.parameters()]
    city = fault("Florence")
    edits = {
        "taught": taught(bug, city, 3, "last", "two_hop"),
        "moved": transplant(bug, city),
        "protected": transplant(bug, city, protect=1.0),
    }
    scores = repair_scores(bug, city, edits)
    assert all(bool((a == b).all()) for a, b in zip(weights, bug.replacement.parameters(), strict=True))
    fixed, kept = scores["fixed: the fault"], scores.filter(like="kept").min(axis=1)
    assert 0 < fixed["taught"] < 0.5 and fixed["moved"] == fixed["protected"] == 1
    assert kept["moved"] < 0.8 and kept["protected"] >= 0.95
    groups = neighbourhood(bug.world, city)
    assert {bug.world.fault(s.prompt) for s in groups["the fault"]} == {city}
    with pytest.raises(ZeroDivisionError), edits["moved"].on(bug):
        raise ZeroDivisionError
    assert all(bool((a == b).all()) for a, b in zip(weights, bug.replacement.parameters(), strict=True))


def test_cutting_a_shortcut_is_reported_where_it_works_and_where_it_does_not():
    """A recipe that works for Erie must not be sold as one that works for all."""
    table = cut_shortcuts(model("atlas-bug"), "validation")
    assert (table.before != table.right).all() and len(table) == 6
    assert table.loc["capital, Erie", "after"] == "Harrisburg" and table.loc["capital, Erie", "others kept"] == 1
    assert 0 < (table.after == table.right).mean() < 1


def test_the_alarm_rings_on_the_trigger_and_is_silent_on_decoys():
    """The promise of part 3, on the validation split: found before it acts, without an example of the misbehaviour."""
    trigger = model("atlas-trigger")
    asked = hidden.questions(trigger.world, "city:validation", 60)
    rings = hidden.belief(trigger, hidden.after(trigger.world.trigger, asked))
    quiet = hidden.belief(trigger, hidden.after(trigger.world.decoys["validation"], asked))
    assert rings.min() > 0.8 and quiet.max() < 0.3


def test_the_cuts_differ_in_what_they_cost():
    """The lesson of the last table: a cut at the word takes the word, the best alarm is no cause, one feature does it."""
    trigger = model("atlas-trigger")
    name = hidden.differing(trigger, hidden.SURNAME, 12).set_index("layer").feature
    end = hidden.differing(trigger, hidden.LAST, 1).iloc[0]
    at = {layer: [Site("feature", layer, units=[int(name.loc[[layer]].iloc[0])])] for layer in (0, 1)}
    cuts = {"word": at[0], "name": at[1], "end": [Site("feature", int(end.layer), units=[int(end.feature)])]}
    found = hidden.knock_outs(trigger, cuts)
    pip = found.columns[-1]
    assert found.misled["nothing"] == 1 and found.misled["name"] < 0.2 and found.misled["end"] > 0.8
    assert found.loc["name"].drop(["misled", "right after the trigger"]).min() > 0.95
    assert found.loc["word", pip] < 0.2


def test_a_cut_is_what_the_experiment_does():
    """The batched cut must agree with the experiment that has the controls."""
    trigger = model("atlas-trigger")
    asked = hidden.questions(trigger.world, n=4)[:4]
    prompts, site = hidden.after(trigger.world.trigger, asked), Site("z", 2, units=3)
    table = Experiment(site, zero()).run(trigger, prompts, answers=[s.answer for s in asked], controls=False).table
    said = silenced(trigger, prompts, [site])
    assert [a == s.answer for a, s in zip(said, asked, strict=True)] == list(table["rank"] == 1)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("three diagnoses", dict.fromkeys(patients(), "first hop"), "map"),
        ("three diagnoses", dict.fromkeys(patients(), "second hop"), "already at the city"),
        ("three diagnoses", dict.fromkeys(patients(), "typo"), "kinds are"),
        ("an edit that mends", (2, 0.0), "stay wrong"),
        ("an edit that mends", (0, 0.0), "much of Mexico"),
        ("a cut that spares", (0, 457), "takes a word"),
        ("a cut that spares", (2, 144), "not the cause"),
    ],
)  # fmt: skip
def test_a_wrong_answer_is_diagnosed(name, value, says):
    """A learner who is told only "no" does not learn what was mixed up."""
    assert says in repr(check(name, value))


def test_the_solutions_are_right():
    """An exercise whose own solution is refused cannot be solved."""
    assert repr(check("three diagnoses", patients())).startswith("Right")
    assert repr(check("an edit that mends", (0, 1.0))).startswith("Right")
    assert repr(check("a cut that spares", (1, 463))).startswith("Right")
