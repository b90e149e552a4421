"""Toy models of superposition: if the shapes were wrong, the lesson on why neurons mean several things would rest on nothing."""

import numpy as np
import pytest

from mi_workshop.superposition import one_neuron, phase_diagram, train_toy


@pytest.fixture(scope="module")
def toys():
    """Five equally important features in two dimensions, dense and sparse."""
    return train_toy(5, 2, [0.0, 0.95], importance=0.9, steps=2000, progress=False)


def test_dense_features_get_axes_and_sparse_ones_a_pentagon(toys):
    """The published result (Elhage et al. 2022): without sparsity the two most important features are kept, with it all five, at equal angles."""
    dense, sparse = toys.models
    kept = dense.table[dense.dimensions > 0.5]
    assert list(kept.index) == ["feature 1", "feature 2"] and (kept["shape"] == "an axis of its own").all()
    assert (sparse.table["shape"] == "pentagon").all()
    angles = np.sort(np.arctan2(sparse.W[:, 1], sparse.W[:, 0]))
    assert np.allclose(np.diff(angles), 2 * np.pi / 5, atol=0.15)


def test_reading_is_what_the_loss_says(toys):
    """``read`` is the model: its error over random inputs is the loss of the training, within sampling."""
    toy = toys[1]
    rng = np.random.default_rng(0)
    x = rng.random((50_000, 5)) * (rng.random((50_000, 5)) > toy.sparsity)
    assert float((toy.importance * (x - toy.read(x)) ** 2).mean()) == pytest.approx(toy.loss, rel=0.15)


def test_only_a_nonlinear_hidden_layer_has_a_privileged_basis(toys):
    """Turning the hidden space changes nothing in the linear model, whatever the turn, and ruins the one with a ReLU there."""
    assert np.ptp(toys[1].rotated(20)) < 1e-9
    nonlinear = train_toy(4, 4, 0.8, hidden="relu", steps=600, progress=False)[0]
    assert nonlinear.rotated(20).min() > 1.5 * nonlinear.loss


def test_two_features_on_one_axis_are_confused_only_together():
    """Height and happiness on one axis: each alone is read rightly, both at once cancel."""
    toy = train_toy(2, 1, 0.95, names=["height", "happiness"], steps=1200, progress=False)[0]
    alone, both = toy.read(np.eye(2)), toy.read(np.ones((1, 2)))
    assert np.allclose(alone, np.eye(2), atol=0.1) and both.max() < 0.1
    assert (toy.table["shape"] == "digon").all()


def test_the_phase_diagram_has_its_three_phases():
    """Unimportant and dense: left out; important and dense: alone; sparse: both in one dimension."""
    found = phase_diagram(3, restarts=3, steps=400, progress=False).to_numpy()
    assert found[0, -1] == 0 and found[-1, -1] == 1 and found[1, 0] == 0.5


def test_one_neuron_had_better_answer_to_two_features():
    """The two cross-entropies of the lecture: 3/4 ln 3 for one feature, ln 2 for two."""
    losses = one_neuron()["cross-entropy"]
    assert (
        losses[1] == pytest.approx(0.75 * np.log(3)) and losses[2] == pytest.approx(np.log(2)) and losses.idxmin() == 2
    )


def test_training_is_repeatable_and_seen(toys):
    """The same seed gives the same model; its pictures and its animation show what was trained."""
    first, again = (train_toy(3, 2, 0.9, steps=60, progress=False)[0] for _ in range(2))
    assert np.array_equal(first.W, again.W)
    assert "pentagon" in toys.words() and toys._repr_mimebundle_()[0]["image/png"]
    figure = toys[1].animate()
    assert len(figure.frames) == len(toys[1].history) > 20 and np.allclose(toys[1].history[-1], toys[1].W)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"sparsity": 1.0}, "from 0 to below 1"),
        ({"importance": [1, 2]}, "or as 5 numbers"),
        ({"hidden": "gelu"}, "choose 'linear' or 'relu'"),
        ({"names": ["a"]}, "need as many names"),
        ({"n_hidden": 0}, "at least one feature"),
    ],
)
def test_bad_input_gets_a_sentence(wrong, said):
    """Numbers that make no model are named, before anything is trained."""
    with pytest.raises(ValueError, match=said):
        train_toy(**wrong)
