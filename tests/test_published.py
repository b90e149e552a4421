"""The published interventions: their logic on the tiny Gemma; themselves where Gemma's weights are in the Hub's cache (``-m gemma``)."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from hub_help import LAYERS

import mi_workshop as mi
from mi_workshop.circuits import published as p
from mi_workshop.counterfactual import Experiment, InterventionError, Site, patch, scale
from mi_workshop.files import write_text
from mi_workshop.models import ModelError, hub


@pytest.fixture(scope="module")
def mapped(gemma):
    """The published features, each in the place of one that is active at the same position of the same prompt in the tiny Gemma."""
    from mi_workshop.circuits.swap import activations

    def fit(ids, prompt):
        now, found = activations(gemma, prompt), []
        for layer, feature, position in (map(int, i.split("_")) for i in ids):
            active = now[layer % LAYERS, position].nonzero()[:, 0]
            found.append(f"{layer % LAYERS}_{active[feature % len(active)]}_{position}")
        return list(dict.fromkeys(found))

    return replace(
        p.PUBLISHED,
        supernodes={k: fit(v, p.PROMPT) for k, v in p.PUBLISHED.supernodes.items()},
        donors={k: (prompt, fit(v, prompt)) for k, (prompt, v) in p.PUBLISHED.donors.items()},
    )


def test_the_table_is_the_published_one(real_file):
    """A feature number typed wrong would look like a failed reproduction."""
    import json

    stored = json.loads(real_file("dallas_austin_plt_reference.json").read_text())
    for row, theirs in zip(p.PUBLISHED.rows, stored["interventions"]["rows"], strict=True):
        tops = [(word, percent / 100) for word, percent in theirs["top"]]
        assert row.top == tops[: len(row.top)], row.name
    for label, donor in stored["donor_features"].items():
        assert p.PUBLISHED.donors[label.replace("_", " ")] == (donor["prompt"], donor["nodes"])
    picked = {f["node_id"] for f in stored["features"]}
    assert {i for ids in p.PUBLISHED.supernodes.values() for i in ids} <= picked
    assert stored["interventions"]["prompt_used_in_code"] == p.PROMPT


def test_every_row_does_what_circuit_tracer_does(gemma, mapped):
    """Each row, through our experiment and through circuit-tracer's own call with the same values."""
    table = mapped
    with pytest.raises(ModelError, match="gemma-2-2b has 4 layers of 96 features"):
        p.reproduce(gemma)
    from mi_workshop.circuits.swap import activations

    now = activations(gemma, table.prompt)
    for row in table.rows[1:]:
        todo = {}
        for label, factor in row.own.items():
            for layer, feature, position in (map(int, i.split("_")) for i in table.supernodes[label]):
                todo[layer, position, feature] = factor * float(now[layer, position, feature])
        if row.donor:
            prompt, ids = table.donors[row.donor]
            other = activations(gemma, prompt)
            for layer, feature, position in (map(int, i.split("_")) for i in ids):
                todo[layer, position, feature] = row.factor * float(other[layer, position, feature])
        theirs, _ = gemma.replacement.feature_intervention(
            gemma.tokens(table.prompt), [(*k, v) for k, v in todo.items()]
        )
        ours = p.run(gemma, row, table, n_random=0).after
        for token in ours:
            assert token["prob"] == pytest.approx(
                float(theirs[0, -1].softmax(-1)[gemma.token_id(token["token"])]), abs=1e-4
            )


def test_the_report(gemma, mapped, tmp_path):
    """The table beside one's own run must be able to say that they differ."""
    table = mapped
    frame = p.reproduce(gemma, table, n_random=4)
    assert frame.own.nunique() > 5, frame.own
    assert list(frame.index) == [row.name for row in p.PUBLISHED.rows] and frame.p_random.iloc[1:].between(0.2, 1).all()
    assert (
        not frame.agrees["none"]
        and frame.p_own["none"] == pytest.approx(0.87, abs=0.01)
        and frame.identity.max() < 1e-4
    )
    assert frame.own["none"].startswith("Austin 87%")
    other = p.wrong_entities(gemma, table)
    assert list(other.index) == list(other.columns) == list(table.donors)
    dose = p.doses(gemma, table.rows[5], table)
    assert dose.donor_prob.between(0, 1).all() and dose.prob.nunique() > 1
    again, own = report(gemma, table, [table.prompt, table.donors["California"][0]], tmp_path / "report.md", n_random=4)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert again.equals(frame) and set(own) == set(p.SCORES)
    assert all(f"| {row.name} |" in text for row in table.rows) and " of 2 follow the donor" in text


def test_a_change_for_each_site(atlas):
    """Two changes in one experiment must be those two, each at its site."""
    prompt, donor = p.PROMPT, p.PROMPT.replace("Dallas", "Oakland")
    sites = [Site("resid_post", 0, "{city}"), Site("mlp_out", 0, "last")]
    both = Experiment(sites, [patch(), scale(0)], n_random=2).run(atlas, prompt, donor)
    assert "resid_post of layer 0" in both.what and "× 0" in both.what
    alone = Experiment(sites[0], patch(), n_random=2).run(atlas, prompt, donor)
    assert both.table.donor_prob[0] != alone.table.donor_prob[0]
    assert Experiment(sites, [patch(), scale(1)]).run(atlas, prompt, donor).table.donor_prob[0] == pytest.approx(
        alone.table.donor_prob[0], abs=1e-5
    )
    with pytest.raises(InterventionError, match="2 sites and 1 changes"):
        Experiment(sites, [patch()]).run(atlas, prompt, donor)


# --------------------------------------------------------- the real weights
@pytest.fixture(scope="module")
def real_gemma(request):
    if "gemma" not in request.config.getoption("-m"):
        pytest.skip("takes minutes on a GPU: pytest -m gemma")
    if not hub.cached("google/gemma-2-2b", "config.json"):
        pytest.skip("google/gemma-2-2b is not in the Hub cache: load it once, mi_workshop.load('gemma-2-2b')")
    try:
        return mi.load("gemma-2-2b", device=os.environ.get("MI_WORKSHOP_DEVICE"))
    except ModelError as error:
        pytest.skip(str(error))


@pytest.mark.gemma
def test_the_published_table_on_the_real_gemma(real_gemma):
    """Until this has run somewhere, nobody may say that the published results were reproduced here."""
    cities = [place.cities[0] for place in mi.worlds.Atlas().places.values() if place.kind == "state"]
    asked = [p.PROMPT.replace("Dallas", city) for city in cities]
    length = len(real_gemma.tokens(p.PROMPT))
    asked = [question for question in asked if len(real_gemma.tokens(question)) == length]
    path = Path(os.environ.get("MI_WORKSHOP_REPORT", "gemma-report.md"))
    frame, own = report(real_gemma, p.PUBLISHED, asked, path, n_random=100)
    assert frame.agrees.all(), f"see {path}:\n{frame.to_string()}"
    assert own["whole graph"] == pytest.approx(p.SCORES["whole graph"], abs=0.03)


def report(model, table, asked, path, n_random):
    """Run everything, write the Markdown report, and give back the table of interventions and the scores."""
    frame, graph = p.reproduce(model, table, n_random), mi.trace(model, p.GRAPH_PROMPT)
    people = [i for ids in table.supernodes.values() for i in ids if i in set(graph.nodes.node_id)]
    features = graph.nodes[graph.nodes.activation.notna()].sort_values("influence").node_id
    own = {
        "whole graph": graph.scores, "pruned to 0.7 and 0.9": graph.prune(0.7, 0.9).scores, "features picked by people": graph.scores_of(people),
        "as many by influence": graph.scores_of(features[: len(people)]),
        "as many at random": graph.scores_of(features.sample(len(people), random_state=0)),
    }  # fmt: skip
    pairs = p.between_states(model, asked)
    scores = [f"| {name} | {p.SCORES[name]} | {tuple(round(x, 3) for x in found)} |" for name, found in own.items()]
    parts = [
        "# Dallas → Austin on Gemma-2-2B, again",
        f"{model.device}, {model.dtype}; tolerance {p.TOLERANCE} of a probability; {n_random} random changes for each row.",
        "## Interventions", _markdown(frame),
        "## Scores (replacement, completeness)", "\n".join(["| | published | own |", "|---|---|---|", *scores]),
        "## Wrong entities", _markdown(p.wrong_entities(model, table)),
        "## Doses", *(_markdown(p.doses(model, row, table)) for row in table.rows if row.donor),
        "## Between states", f"{pairs.says_donor.mean():.0%} of {len(pairs)} follow the donor; random changes gain "
        f"{pairs.random_gained.mean():.0%}.", _markdown(pairs),
    ]  # fmt: skip
    write_text(path, "\n\n".join(parts) + "\n")
    return frame, own


def _markdown(frame):
    rows = [["", *map(str, frame.columns)], ["---"] * (len(frame.columns) + 1)]
    rows += [
        [str(i), *(f"{v:.3g}" if isinstance(v, float) else str(v) for v in row)]
        for i, row in zip(frame.index, frame.to_numpy(), strict=True)
    ]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
