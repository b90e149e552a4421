"""Softmax linear units: the function does what is said of it, and neurons are counted fairly."""

import ipywidgets
import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from torch.nn.functional import gelu

import mi_workshop as mi
from mi_workshop import neurons, results, solu
from mi_workshop.circuits.corpus import FeatureError, training_text
from mi_workshop.concepts import concepts
from mi_workshop.models import ModelError
from training import solu as study


@pytest.fixture(scope="module")
def model():
    return mi.load("atlas-solu")


@pytest.mark.parametrize(
    ("x", "expected"),
    [((4, 1, 4, 1), (2, 0, 2, 0)), ((4, 0, 0, 0), (4, 0, 0, 0)), ((1, 1, 1, 1), (0.25, 0.25, 0.25, 0.25))],
)
def test_the_worked_vectors(x, expected):
    """The lecture rounds: what it says must be what the function gives, within the rounding."""
    assert solu.solu(x).tolist() == pytest.approx(expected, abs=0.25)


def test_a_neighbour_that_grows_inhibits_and_only_under_solu():
    """The curves would otherwise show another function than the one that they name."""
    x = torch.tensor([[2.0, 0.0, 1.0], [2.0, 6.0, 1.0]])
    assert solu.solu(x)[1, 0] < 0.1 * solu.solu(x)[0, 0]
    assert torch.equal(gelu(x)[0, 0], gelu(x)[1, 0])
    table = solu.Units((2, 6, 1)).table
    assert table["SoLU"].tolist() == pytest.approx(solu.solu(x[1]).tolist())
    assert table["SoLU + LayerNorm"].mean() == pytest.approx(0, abs=1e-6)


def test_the_model_computes_this_function_and_then_a_layer_norm(model):
    """If the shipped model had another activation, every lesson about it would be false."""
    pre, mid, post = (neurons.firings(model, stage)[2][:50] for stage in ("pre", "mid", "post"))
    np.testing.assert_allclose(mid, solu.solu(torch.from_numpy(pre)).numpy(), atol=1e-5)
    centred = mid - mid.mean(1, keepdims=True)
    scale = np.sqrt((centred**2).mean(1, keepdims=True) + model.replacement.cfg.eps)
    np.testing.assert_allclose(post, centred / scale, atol=1e-4)


def test_sliders_show_what_they_are_set_to():
    """A control that changes nothing teaches that nothing depends on it."""
    view = solu.explore((4, 1, 4, 1))
    before = view.describe()
    view.sliders[1].value = 6
    assert solu.explore((4, 9)).units.x == (4, 9), "a value beyond the slider must not be cut off silently"
    assert view.units.x == (4, 6, 4, 1) and view.describe() != before
    assert isinstance(view, ipywidgets.VBox) and "SoLU" in view.describe()
    with pytest.raises(ValueError, match="2 to 6"):
        solu.explore((1,))


@pytest.fixture
def planted():
    """200 inputs; concept 0 holds at 20 of them, concept 1 at 180."""
    holds = np.zeros((200, 2), np.float32)
    holds[:20, 0] = holds[20:, 1] = 1
    rng = np.random.default_rng(0)
    noise = rng.random((200, 3)).astype(np.float32) * 0.1
    noise[:20, 0] += 1  # fires for concept 0
    noise[20:, 1] += 1  # fires for concept 1, which nearly always holds
    noise[:, 2] = -1  # never fires
    return noise, csr_array(holds)


def test_a_neuron_counts_only_for_what_chance_would_not_give(planted):
    """A concept that holds nearly everywhere explains every neuron, and a neuron that never fires explains itself."""
    found = neurons.explained(*planted, n=10)
    assert found["interpretable"].tolist() == [True, False, False]
    assert found["concept"][0] == 0 and found["share"][0] == 1 and found["fires"].tolist() == [10, 10, 0]


def test_what_counts_does_not_hang_on_the_scale(planted):
    """Otherwise an activation function that stretches strong firings would win by its shape alone."""
    values, holds = planted
    again = neurons.explained(np.sign(values) * np.abs(values) ** 3, holds, n=10)
    assert again.equals(neurons.explained(values, holds, n=10))


def test_layers_that_see_one_word_are_asked_about_words(model):
    """Their activation is the same wherever the word stands: counted by occurrences, one frequent word would pass for a concept."""
    index, holds = neurons._inputs(model, 0, "distinct inputs")
    text = training_text(model)
    assert len(index) == len(np.unique(text.ids)) and holds.shape == (len(index), len(concepts(model)))
    values = neurons.firings(model)[0]
    assert len(np.unique(values[index].round(4), axis=0)) == len(np.unique(values.round(4), axis=0))
    assert len(neurons._inputs(model, 2, "distinct inputs")[0]) == len(values) > 5 * len(index)


def test_shares_are_the_stored_ones(model):
    """The table of three sizes was made elsewhere: what a learner computes must be a row of it."""
    stored = results.read("solu")["shares"].loc[(128, "solu_ln", 0)]
    here = neurons.interpretable_neurons(model)
    assert set(here.table.index.get_level_values("stage")) == {"mid", "post"}
    for key, row in here.table.iterrows():
        assert row["share"] == pytest.approx(stored.loc[key, "share"], abs=0.02)
        assert row["random hypotheses"] < 0.05, "the criterion must not be met by chance"
    each = here.neurons
    assert each["interpretable"].groupby("stage").mean()["post"] == pytest.approx(here.table["share"]["post"].item())
    assert str(here).startswith("atlas-solu") and len(here.figure().axes) == 1


def test_superlinearity_is_the_slope_it_says(model, atlas):
    """ReLU is linear in scale; of SoLU, the LayerNorm afterwards must not be mixed up with it."""
    assert neurons.superlinearity(atlas)["median"].item() == pytest.approx(1, abs=1e-3)
    table = neurons.superlinearity(model)["median"]
    assert table["mid"] > 1 > table["post"]


def test_ranges_of_activation_add_up(model):
    found = neurons.low_activations(model)
    for _, rows in found.table.groupby("stage"):
        assert rows["inputs"].sum() == pytest.approx(1, abs=1e-6) and rows["size"].sum() == pytest.approx(1, abs=1e-6)
        assert rows["holds"].iloc[-1] > rows["holds"].iloc[0]
    assert "hypothesis" in found.words()


def test_a_stage_that_is_not_there_is_named(atlas):
    with pytest.raises(FeatureError, match="'mid'"):
        neurons.firings(atlas, "mid")


def test_a_model_without_transcoders_says_so(model):
    """Lenses and interventions work, a graph cannot; the sentence must say which and what to do."""
    assert model.transcoders == "" and not len(model.features)
    assert model.top("Fact: the capital of Texas is", 1)[0][0] == "Austin"
    with pytest.raises(ModelError, match="no transcoders"):
        mi.trace(model, "Fact: the capital of Texas is")
    with pytest.raises(ModelError, match="no transcoders"):
        mi.load("atlas-solu", "clt")
    assert mi.feature(model, 2, 17, kind="neuron").density > 0


def test_the_verdict_is_the_rule_decided_beforehand():
    """A verdict that did not follow from the table would be an opinion."""
    shares = results.read("solu")["shares"]
    assert study.verdict(shares) == results.read("solu").provenance["verdict"]
    worse = shares.copy()
    worse.loc[(slice(None), "solu_ln"), "share"] = 0.0
    assert study.verdict(worse).startswith("SoLU lowers the share")


def test_solu_is_sparser_than_relu(model, atlas):
    """The notebook explains by this why random directions pass, too: a random sum of one strong neuron and noise is that neuron."""
    assert neurons.sparsity(model, "mid") > 2 * neurons.sparsity(atlas)
