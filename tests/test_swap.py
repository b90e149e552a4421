"""Interventions: the machinery must do what circuit-tracer's does, and the controls must be able to fail."""

import pytest
import torch

import mi_workshop as mi
from mi_workshop.circuits.graph import GraphError
from mi_workshop.circuits.intervene import feature_activations, intervene
from mi_workshop.circuits.swap import FORMS, NOTHING, decoded, feature_sets, make_edit, mention, random_edits
from mi_workshop.worlds import WorldError

PROMPT = "Fact: the capital of the state containing Dallas is"


def an_edit(model, at="state"):
    world = model.world
    return make_edit(model, world.parse(PROMPT), world.parse(world.swap(PROMPT, "Texas", "California")[0]), at)


@pytest.mark.parametrize("freeze", [True, False])
@pytest.mark.parametrize("kind", ["atlas", "atlas_clt"])
def test_intervention_is_circuit_tracers(kind, freeze, request):
    """The batched intervention must give, row by row, what circuit-tracer gives one at a time."""
    model = request.getfixturevalue(kind)
    edit = an_edit(model)
    half = edit.now + 0.5 * (edit.values - edit.now)
    ours = intervene(model, edit.tokens, torch.stack([edit.sets(), edit.sets(half)]), freeze)
    for values, row in zip((edit.values, half), ours, strict=True):
        todo = [(a, p, f, float(values[a, p, f])) for a, p, f in edit.mask.nonzero().tolist()]
        theirs, _ = model.replacement.feature_intervention(edit.tokens, todo, freeze_attention=freeze)
        torch.testing.assert_close(row, theirs[0, -1], atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ["atlas", "atlas_clt"])
def test_activations_are_circuit_tracers(kind, request):
    model = request.getfixturevalue(kind)
    tokens = model.tokens(PROMPT)
    _, theirs = model.replacement.get_activations(tokens)
    torch.testing.assert_close(feature_activations(model, tokens[None])[0], theirs, atol=1e-5, rtol=1e-4)


def test_hooks_come_off(atlas):
    before = atlas.replacement(atlas.tokens(PROMPT)[None])
    mi.swap(atlas, PROMPT, "Texas", "California", n_random=3)
    torch.testing.assert_close(atlas.replacement(atlas.tokens(PROMPT)[None]), before, rtol=0, atol=0)


def test_city_form_touches_only_the_city_token(atlas):
    edit = an_edit(atlas, "city")
    here = mention(atlas, atlas.world.parse(PROMPT))
    assert atlas.world.words(PROMPT)[here - 1] == "Dallas"
    assert set(edit.mask.nonzero()[:, 1].tolist()) == {here}


def test_forms_grow_from_strict_to_lenient(atlas):
    city, state, everything = (an_edit(atlas, at).mask for at in FORMS)
    assert (city <= state).all() and (state <= everything).all()
    say = atlas.features.say_answer.isin(["Austin", "Sacramento"]).to_numpy()
    extra = everything & ~state
    assert all(say[a * atlas.replacement.transcoders.d_transcoder + f] for a, _, f in extra.nonzero().tolist())


def test_random_sets_are_matched_and_spare_the_states(atlas):
    """An unmatched control is no control: too small a push would pass whatever the features mean."""
    edit = an_edit(atlas)
    barred = feature_sets(atlas, "Texas", "Austin") | feature_sets(atlas, "California", "Sacramento")
    sets = random_edits(atlas, edit, barred, 50)
    touched = torch.zeros(sets.shape, dtype=torch.bool)
    touched[tuple(sets.indices())] = True  # a feature can be set to zero
    noise = torch.where(touched, sets.to_dense(), torch.nan)
    assert not (touched & barred[:, None]).any()
    assert (touched.any(-1) <= edit.mask.any(-1)).all()
    for layer, pos in edit.mask.any(-1).nonzero().tolist():
        true = edit.mask[layer, pos].nonzero()[:, 0]
        size = ((edit.values - edit.now)[layer, pos, true] @ decoded(atlas, layer, true)).norm()
        for row in noise:
            mine = (~row[layer, pos].isnan()).nonzero()[:, 0]
            assert len(mine) <= len(true)
            change = (row[layer, pos, mine] - edit.now[layer, pos, mine]) @ decoded(atlas, layer, mine)
            assert float(change.norm()) == pytest.approx(float(size), rel=1e-3)
    assert len(sets) == 50


def test_random_sets_are_different_ones(atlas):
    """One other feature, counted a hundred times, passes for a hundred controls: "none of 100" means none of two."""
    found = mi.ablate(atlas, PROMPT, ["0_93_9"])
    assert 10 < len(found.random_probs) < 100, "so few features are active in layer 0"
    assert len({round(p, 6) for p in found.random_probs}) > 0.9 * len(found.random_probs)


def test_swap_reports_every_control(atlas):
    result = mi.swap(atlas, PROMPT, "Texas", "California", at="state")
    d = result.to_dict()
    assert set(d["controls"]) == {"nothing", "random", "same_state", "third_state", "ceiling", "transfer"}
    assert d["controls"]["random"]["n"] >= 100
    assert d["controls"]["nothing"]["max_abs_logit_change"] <= NOTHING
    assert set(d["controls"]["transfer"]["attributes"]) == {"abbreviation", "region"}
    assert d["expected"] == "Sacramento" and d["before"][0]["token"] == "Austin"
    doses = {x["dose"]: x for x in d["dose"]}
    assert doses[0.0]["old"] == pytest.approx(d["before"][0]["prob"], abs=1e-4)
    assert doses[1.0]["new"] == pytest.approx(
        next(t["prob"] for t in d["after"] if t["token"] == "Sacramento"), abs=1e-4
    )
    assert d["supported"] == all(result.verdicts.values())


def test_a_swap_without_effect_is_not_supported(atlas, monkeypatch):
    """The verdict must be able to say no."""
    monkeypatch.setattr(
        "mi_workshop.circuits.swap.feature_sets", lambda m, *a, **k: torch.zeros(4, 512, dtype=torch.bool)
    )
    result = mi.swap(atlas, PROMPT, "Texas", "California", n_random=5)
    assert not result.supported and "Not supported" in result.words()


def test_swap_of_a_country_and_of_a_place_named_in_the_prompt(atlas):
    assert mi.swap(atlas, PROMPT, "Texas", "China", n_random=3).expected == "Beijing"
    assert mi.swap(atlas, "The capital of Texas is", "Texas", "Ohio", at="city", n_random=3).expected == "Columbus"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((PROMPT, "Texas", "California", "everywhere"), "choose city, state, all"),
        ((PROMPT, "Ohio", "California", "state"), "speaks of Texas"),
        (("Fact: the opposite of small is", "Texas", "California", "state"), "names no state"),
        ((PROMPT, "Texas", "Californa", "state"), "California"),
    ],
)
def test_bad_swaps_get_one_sentence(atlas, arguments, said):
    with pytest.raises(WorldError, match=said):
        mi.swap(atlas, *arguments[:3], at=arguments[3])


def test_display_survives_strange_text(atlas, tmp_path):
    """A name with markup in it must neither run nor break the picture; a wrong suffix gets a sentence."""
    result = mi.swap(atlas, PROMPT, "Texas", "California", n_random=3)
    result.old = "<b>$x$</b>"
    shown, _ = result._repr_mimebundle_()
    assert "<b>" not in shown["text/html"] and "data:image/png" in shown["text/html"]
    assert str(result) == result.words() and result.save(tmp_path / "x.svg").read_text().lstrip().startswith("<?xml")
    with pytest.raises(WorldError, match="saved as .svg or .png, not '.pdf'"):
        result.save(tmp_path / "x.pdf")


def test_ablation_has_its_controls_and_can_say_nothing(atlas, graph):
    texas = next(ids for label, ids in graph.supernodes.items() if label.startswith("Texas @"))
    result = mi.ablate(atlas, PROMPT, texas, n_random=20)
    assert result.nothing <= NOTHING and len(result.random_probs) == 20
    assert "random sets" in result.words() and result._repr_mimebundle_()[0]["image/png"]
    values = [(a, p, f, 0.0) for a, f, p in (map(int, i.split("_")) for i in texas)]
    theirs, _ = atlas.replacement.feature_intervention(atlas.tokens(PROMPT), values)
    p = theirs[0, -1].softmax(-1)
    assert result.after[0]["prob"] == pytest.approx(float(p.max()), abs=1e-4)


@pytest.mark.parametrize("node", ["9_9_9", "0_-1_3", "Dallas", "E_5_9", "0_0_0"])
def test_ablating_what_is_no_active_feature_is_refused(atlas, node):
    with pytest.raises(GraphError, match="no active feature"):
        mi.ablate(atlas, PROMPT, [node])
