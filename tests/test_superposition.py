"""Toy models of superposition: if the shapes were wrong, the lesson on why neurons mean several things would rest on nothing."""

import json
from functools import cache

import numpy as np
import pytest

import mi_workshop as mi
from mi_workshop.superposition import Toys, bases, explore_toy, one_axis, one_neuron, phase_diagram, train_toy

bases = cache(bases)


@pytest.fixture(scope="module")
def toys():
    """Five features in two dimensions, each a little less important than the one before: dense, half sparse and sparse."""
    return train_toy(5, 2, [0.0, 0.8, 0.95], importance=0.9)


def test_dense_features_get_axes_and_sparse_ones_digons_or_a_pentagon(toys):
    """The published result (Elhage et al. 2022): without sparsity the two most important features are kept, with it four in two pairs, then all five, at equal angles."""
    dense, half, sparse = toys.models
    kept = dense.table[dense.dimensions > 0.5]
    assert list(kept.index) == ["feature 1", "feature 2"] and (kept["shape"] == "alone").all()
    assert half.table["shape"].tolist() == ["digon"] * 4 + ["not represented"]
    assert (sparse.table["shape"] == "pentagon").all()
    angles = np.sort(np.arctan2(sparse.W[:, 1], sparse.W[:, 0]))
    assert np.allclose(np.diff(angles), 2 * np.pi / 5, atol=0.15)
    assert toys.table["not represented"].tolist() == [3, 1, 0]


def test_the_triangle_is_there_and_single_starts_miss_it():
    """The notebook says that most starts end elsewhere and that the triangle has the lowest loss of all: if restarts were dropped, a learner would see an accident."""
    every = train_toy(3, 2, 0.4, restarts=16, best=False)
    triangles = np.array([(toy.table["shape"] == "triangle").all() for toy in every.models])
    assert triangles[0] and triangles.sum() < 8 and every.table["loss"].is_monotonic_increasing
    cosines = every[0].W @ every[0].W.T / np.prod(np.meshgrid(*[np.linalg.norm(every[0].W, axis=1)] * 2), axis=0)
    assert np.allclose(cosines[~np.eye(3, dtype=bool)], -0.5, atol=0.1)


def test_reading_is_what_the_loss_says(toys):
    """``read`` is the model: its error over random inputs is the loss, within sampling."""
    toy = toys[2]
    rng = np.random.default_rng(0)
    x = rng.random((50_000, 5)) * (rng.random((50_000, 5)) > toy.sparsity)
    assert float((toy.importance * (x - toy.read(x)) ** 2).mean()) == pytest.approx(toy.loss, rel=0.15)


@pytest.mark.parametrize("size", [(4, 4, 0.7, 1.0), (6, 4, 0.7, 0.8)])
def test_only_a_nonlinear_hidden_layer_has_a_privileged_basis(size):
    """Turning the hidden space changes nothing in the linear model, whatever the turn, and ruins the one with ReLUs there; only in that one do features lie along the axes."""
    result = bases(*size)
    linear, relu = result.models
    assert np.allclose(result.rotated[0], linear.loss, atol=1e-6)
    assert result.rotated[1].min() > 1.5 * relu.loss
    free, behind_relu = result.table["by_chance"]
    assert relu.alignment > behind_relu + 0.03 > free + 0.1 > linear.alignment


def test_two_features_on_one_axis_are_confused_only_together():
    """Height and happiness on one axis: dense, only the more important one is kept; sparse, each alone is read rightly, and both at once cancel."""
    result = one_axis()
    dense, sparse = result.toys.models
    assert (np.abs(dense.W[:, 0]) > 0.5).tolist() == [True, False]
    assert "is for height alone" in result.words() and "opposite ends" in result.words()
    read = result.table["sparsity 0.95"]
    assert np.allclose(read.iloc[:2], np.eye(2), atol=0.1) and read.loc["both"].max() < 0.1
    assert (sparse.table["shape"] == "digon").all()


def test_the_phase_diagram_agrees_with_the_calculation():
    """Unimportant and dense: left out; important and dense: alone; rare: both in one dimension; and the same in nearly all cells as on paper, or the boundary is nonsense."""
    diagram = phase_diagram(9)
    found, paper = diagram.table.to_numpy(), diagram.theory.to_numpy()
    assert found[0, -1] == 0 and found[-1, -1] == 1 and (found[:, 0] == 0.5).all()
    assert (found == paper).mean() > 0.88 and np.array_equal(paper[::-1][paper == 0.5], paper[paper == 0.5])
    assert f"{(found == paper).sum()} of the 81" in diagram.words()


def test_the_calculation_is_the_mean_loss(toys):
    """The two formulas of the boundary, against random inputs: a wrong one would put the phase change elsewhere."""
    rng, p = np.random.default_rng(0), 0.4
    x, y = rng.random((2, 400_000)) * (rng.random((2, 400_000)) < p)
    assert np.var(x) == pytest.approx(p / 3 - p**2 / 4, rel=0.01)
    assert np.mean((x - np.maximum(x - y, 0)) ** 2) == pytest.approx(p**2 / 6, rel=0.02)


def test_one_neuron_had_better_answer_to_two_features():
    """The two cross-entropies of the lecture, 3/4 ln 3 and ln 2, computed and reached by training; and what the lecture leaves out: levels do better still."""
    result = one_neuron()
    one, two, three, free = result.table["trained"]
    formula = result.table["formula"]
    assert formula.iloc[:2].tolist() == pytest.approx([0.75 * np.log(3), np.log(2)])
    assert (one, two, three) == pytest.approx(tuple(formula.iloc[:3]), abs=3e-3)
    assert free < 0.05 and len(set(result.levels.round(1))) == 4
    answers = result.predicted[1]
    assert np.allclose(answers[:2, :2], 0.5, atol=0.02) and np.allclose(answers.sum(1), 1, atol=1e-5)
    assert "0.824" in result.words() and "0.693" in result.words()


def test_training_is_repeatable():
    """The same seed gives the same model, another another: what a teacher prepared is what the class sees."""
    first, again, other = (train_toy(3, 2, 0.9, steps=60, seed=seed)[0] for seed in (0, 0, 1))
    assert np.array_equal(first.W, again.W) and not np.array_equal(first.W, other.W)


def test_everything_is_seen(toys, tmp_path):
    """A picture with words for each result, the animation light and made of what was trained; on GitHub, too."""
    nine = Toys([train_toy(9, 3, 0.9, steps=40)[0]])
    for result in (toys[0], nine, phase_diagram(2, steps=5), one_axis(("$a$", "<b>"), (0.5,)), bases(4, 4, 0.7, 1.0), one_neuron(5)):  # fmt: skip
        data, _ = result._repr_mimebundle_()
        assert result.words() == data["text/plain"] and "<img alt=" in data["text/html"] and len(data["image/png"]) < 80_000  # fmt: skip
    animation = train_toy(2, 1, 0.9, names=["<b>", "y"], steps=60)[0].animate()
    assert "<b>" not in json.dumps(animation.interactive())
    data, _ = toys[2].animate()._repr_mimebundle_()
    live = data["application/vnd.plotly.v1+json"]
    assert len(json.dumps(data)) < 60_000 and "pentagon" in data["text/plain"] and "<img alt=" in data["text/html"]
    assert len(live["frames"]) == len(toys[2].history) == 41
    assert np.allclose(live["frames"][-1]["data"][0]["x"][1::3], toys[2].W[:, 0], atol=0.006)
    page = toys[2].animate().save(tmp_path / "x.html").read_text(encoding="utf-8")
    assert 'src="http' not in page and "addFrames" in page


def test_the_controls_train_what_they_say():
    """A slider that trains something else than it says would teach the wrong thing; each acts when it is let go, and from Python."""
    explorer = explore_toy()
    assert (explorer.toy.table["shape"] == "pentagon").all()
    assert not any(control.continuous_update for control in explorer.controls[:3])
    explorer.sparsity.value = 0.0
    assert explorer.toy.sparsity == 0 and list(explorer.toy.dimensions > 0.5) == [True, True, False, False, False]
    explorer.hidden.value, explorer.importance.value = "relu", 0.5
    assert explorer.toy.hidden == "relu" and explorer.toy.importance.tolist() == [1, 0.5, 0.25, 0.125, 0.0625]
    assert "each 0.5 times as important" in explorer.describe() and explorer.toy.words() in explorer._said.value
    data, metadata = explorer._repr_mimebundle_()
    assert data["application/vnd.jupyter.widget-view+json"]["model_id"] == explorer.model_id
    assert data["image/png"] and "text/html" not in data and metadata["image/png"]["alt"] == explorer.describe()


def test_what_goes_wrong_in_the_controls_is_a_sentence(monkeypatch):
    """A callback that raises stops the notebook under nbval and shows nothing in Lab."""
    explorer = explore_toy(2)

    def fail(*_, **__):
        raise MemoryError

    monkeypatch.setattr("mi_workshop.widgets.toy_controls.train_toy", fail)
    explorer.features.value = 3
    assert "MemoryError" in explorer.error and 'role="alert"' in explorer._said.value and explorer._map.value == ""
    assert explorer.describe() == explorer.error


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"sparsity": 1.0}, "from 0 to below 1"),
        ({"importance": [1, 2]}, "or as 5 numbers"),
        ({"hidden": "gelu"}, "choose 'linear' or 'relu'"),
        ({"names": ["a"]}, "need as many names"),
        ({"n_hidden": 0}, "at least one feature"),
        ({"restarts": 0}, "one start"),
    ],
)
def test_bad_input_gets_a_sentence(wrong, said):
    """Numbers that make no model are named, before anything is trained."""
    with pytest.raises(ValueError, match=said):
        train_toy(**wrong)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [((9,), "2 to 8 features"), ((5, 1.0), "The sliders go"), ((5, 0.9, 0.1), "The sliders go"), ((5, 0.9, 0.9, "gelu"), "choose 'linear' or 'relu'")],
)  # fmt: skip
def test_the_controls_say_their_range(wrong, said):
    """Outside of its range a slider would silently show another number."""
    with pytest.raises(ValueError, match=said):
        explore_toy(*wrong)
    with pytest.raises(ValueError, match="at least two values"):
        mi.superposition.phase_diagram(1)
