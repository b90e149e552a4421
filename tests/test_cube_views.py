"""What a cube shows: every picture is there, says in words what it shows, and what it says about causes is what the experiments say."""

import html
import json

import numpy as np
import pytest
import torch
from matplotlib.text import Text

import mi_workshop as mi
from mi_workshop.attention import silent_heads
from mi_workshop.counterfactual import Experiment, Site, mean, zero
from mi_workshop.cube import Cube, CubeError, capture
from mi_workshop.cube.plots import draw_heat, grid
from mi_workshop.heat_plots import row_ticks

DALLAS, OAKLAND = (f"Fact: the capital of the state containing {city} is" for city in ("Dallas", "Oakland"))
PROMPTS = [DALLAS, OAKLAND, "Fact: the capital of Texas is"]
HOSTILE = ["<b>bold</b><script>alert(1)</script>", "$x^2$", "w" * 300, "a\nb", "_{", "", " ", "&amp;", "%{x}", "é", "\\frac"]  # fmt: skip


@pytest.fixture(scope="module")
def cube(atlas):
    return capture(atlas, PROMPTS, sites=["resid_post", "z"], raw="pattern", features=4)


@pytest.fixture(scope="module")
def plain(atlas):
    return capture(atlas, PROMPTS, raw="resid_post")


@pytest.fixture(scope="module")
def cubes(cube, atlas, cnn):
    pictures = mi.worlds.Scenes().sample(2, "test")
    two = cube.select(prompt=[0, 1])
    return {
        "atlas": cube, "modules": capture(atlas, PROMPTS, sites="modules"), "pictures": capture(cnn, pictures, sites="modules"),
        "map": capture(cnn, pictures, sites="conv3"), "difference": two.select(prompt=0) - two.select(prompt=1),
        "one token": cube.select(token="last"), "one layer": cube.select(layer=1), "no model": Cube(cube.data),
    }  # fmt: skip


VIEWS = {
    "heat": lambda c: c.heat(), "matters": lambda c: c.matters(), "traces": lambda c: c.traces(), "histogram": lambda c: c.histogram(prompt=0),
    "attention": lambda c: c.attention(), "stack": lambda c: c.stack(), "scrub": lambda c: c.scrub(),
}  # fmt: skip


def texts(figure):
    figure.canvas.draw()
    return [t for t in figure.findobj(Text) if t.get_text() and t.get_visible()]


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_of_every_cube_is_a_picture_or_one_sentence(cubes, view):
    """A learner gets a traceback, or an empty box, for a cube that the view was not written for."""
    for name, cube in cubes.items():
        try:
            seen = VIEWS[view](cube)
        except CubeError as error:
            assert str(error).endswith(".") and len(str(error)) < 250, name
            assert (view, name) not in [
                ("stack", "atlas"),
                ("matters", "atlas"),
                ("traces", "modules"),
                ("heat", "map"),
            ]
            continue
        words, figure = seen.describe(), (seen.subject if view == "attention" else seen).figure()
        assert len(words) > 20, name
        sizes = [t.get_fontsize() for t in texts(figure)]  # which draws it
        assert np.ptp(figure.canvas.buffer_rgba()) > 100 and (view == "attention" or min(sizes) >= 11), name
        if name == "atlas":
            data, metadata = seen._repr_mimebundle_()
            assert data["text/plain"] == words
            assert html.escape(words, True) in data.get("text/html", "") or metadata["image/png"]["alt"] == words


def test_strange_tokens_are_drawn_as_text(cube, plain):
    """A prompt with "$x$" or "<b>" breaks the picture, or runs as markup in somebody's notebook."""
    for one in (cube, plain):
        words = one.data.token_text.values.astype(object)
        words[0, : len(HOSTILE)] = HOSTILE
        prompts = ("prompt", [HOSTILE[0], "$a$", "<i>"])
        odd = Cube(one.data.assign_coords(token_text=(("prompt", "token"), words.astype(str)), prompt_text=prompts))
        scrubber = odd.scrub()
        for view in (odd, odd.traces(tokens=[0, 1, 2, 3, -1]), odd.histogram(prompt=1), odd.stack(), scrubber):
            figure = view.figure()
            found = [t for t in texts(figure) if "$" in t.get_text() and "mathdefault" not in t.get_text()]
            assert figure.get_figwidth() < 20 and not any(t.get_parse_math() for t in found)
        live = json.dumps(odd.stack().interactive())
        assert "<b>" not in live and "<script" not in live and html.escape("<b>") in live
        assert "<b>" not in scrubber._map.value and "<script>" not in scrubber._said.value


def test_pictures_grow_with_what_they_show():
    """113 modules in the height of 4 cannot be read; and no name may be written over another."""
    model = torch.nn.Sequential(*(torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)) for _ in range(30)))
    wide = capture(model, torch.randn(2, 5, 4), sites="modules")
    few = Cube(wide.data.isel(module=slice(3)))
    assert draw_heat(wide).get_figheight() > 1.5 * draw_heat(few).get_figheight()
    assert len(row_ticks(grid(few).rows)[1]) == 3
    assert row_ticks([f"h.{i // 3}.{'abc'[i % 3]}" for i in range(60)])[1] == [f"h.{i}" for i in range(20)]
    tall = draw_heat(wide)
    tall.canvas.draw()
    boxes = [t.get_window_extent() for t in tall.axes[0].get_yticklabels()]
    assert len(boxes) == 30 and all(a.y1 <= b.y0 + 1 for a, b in zip(boxes, boxes[1:], strict=False))


def test_a_map_has_the_tokens_of_its_prompt_only(cube, plain):
    """Padding would be read as cells of zero; and <bos>, ten times as large, would hide the rest."""
    g = grid(cube, "norm", "resid_post", 2)
    assert g.columns == cube.tokens(2) and np.isfinite(g.values).all()
    np.testing.assert_array_equal(g.values, cube["resid_post", "norm"].values[2, :, : len(g.columns)])
    assert grid(cube, "norm", "z").rows[:5] == ["0.0", "0.1", "0.2", "0.3", "1.0"]
    two = grid(cube.select(prompt=0) - cube.select(prompt=1))
    assert two.signed and two.low == -two.high and two.title.startswith("difference in norm of")
    apart = grid((plain.select(prompt=0) - plain.select(prompt=1)).measured("norm"))
    assert apart.low == 0 and not apart.signed and apart.title.startswith("norm of the difference of")
    loud = Cube(cube.data.assign(resid_post_norm=cube["resid_post_norm"].where(cube.data.token != 0, 1e4)))
    assert "<bos> off the scale" in grid(loud).title and grid(loud).high < 100


@pytest.mark.parametrize("cell", [(0, 9), (1, 4), (3, 0)])
def test_a_click_says_what_the_experiment_says(cube, atlas, cell):
    """The verdict beside the large cell is not that of the experiment that it names."""
    answer = cube.heat()
    answer.selected = list(cell)
    layer, position = cell
    change = mean([atlas.tokens(OAKLAND)]) if position == 9 else zero()
    report = Experiment(Site("resid_post", layer, position), change).run(atlas, atlas.tokens(DALLAS))
    said = answer.answer
    assert not said["error"] and f": {report.verdict}." in said["text"] and str(change) in said["text"]
    assert said["before"] == report.before and said["after"] == report.after
    assert all({"name": k, "token": "lost", "prob": c["lost"]} in said["controls"] for k, c in report.controls.items())
    values = np.abs(grid(cube).values)
    assert f"rank {1 + (values > values[cell]).sum()} of {values.size}" in said["text"]
    assert ("does not read this cell" in said["text"]) == (layer == 3)


def test_a_click_without_a_model_gives_the_numbers(cubes):
    """A cube from a neighbour has no model: its map must still answer."""
    for name in ("no model", "pictures", "map"):
        view = cubes[name].heat()
        view.selected = [0, 0]
        text = view.answer["text"].lower()
        assert not view.answer["error"] and "rank" in text and "nothing is ablated" in text


def test_matters_is_a_loop_of_ablations(cube, plain, atlas):
    """Correlational beside causal: the causal half must be the experiment, cell by cell, heads too."""
    found = cube.matters()
    for layer, position in [(0, 4), (1, 9), (2, 5), (3, 10)]:
        report = Experiment(Site("resid_post", layer, position), zero()).run(atlas, DALLAS, controls=False)
        assert found.lost[layer, position] == pytest.approx(report.table.lost[0], abs=1e-5)
    head = cube.matters(site="z")
    report = Experiment(Site("z", 3, 10, 2), zero()).run(atlas, DALLAS, controls=False)
    assert head.lost[head.grid.rows.index("3.2"), 10] == pytest.approx(report.table.lost[0], abs=1e-5)
    assert "'<bos>', the first token" in found.words() and "zero" in found.words()
    part = plain.select(layer=[1, 2]).select(token="Dallas").matters()
    np.testing.assert_allclose(part.lost[:, 0], found.lost[1:3, 9], atol=1e-5)
    ids = atlas.tokens(DALLAS)
    averaged = capture(atlas, [ids, torch.cat([ids[:3], ids[3:].flip(0)])]).matters()
    assert "mean over 1 other" in averaged.words() and (np.isnan(averaged.lost) == (np.arange(11) < 3)).all()


def test_matters_tells_large_from_important(cube):
    """A metric that is large where ablation does nothing gets a correlation below 0, and the truth itself gets 1 with a small p."""
    lost = cube.matters().lost
    for sign in (1, -1):
        values = cube["resid_post_norm"].values.copy()
        values[0] = 5 + sign * lost
        found = Cube(cube.data.assign(resid_post_norm=cube["resid_post_norm"].copy(data=values)), cube.model).matters()
        assert found.correlation == pytest.approx(sign, abs=0.02) and found.p < 0.01
    assert (found.table.note == "large and does nothing").any() and (found.table.note == "small and matters").any()
    assert found.within == pytest.approx(found.correlation, abs=0.3) and "ranked within each row" in found.words()
    assert found.n == (30, 10) and found.table.trivial.sum() == 14
    assert not cube.matters().p < 0.05  # norms of these cells: layers explain them


def test_corpora_are_read_in_blocks(cube, monkeypatch):
    """A corpus that does not fit into memory is drawn wrongly, or not at all."""
    monkeypatch.setattr("mi_workshop.cube.plots.BLOCK", 40)
    lazy = Cube(cube.data.chunk({"prompt": 1}))
    for by in ("layer", "head", "all"):
        a, b = cube.histogram("norm", "z", by), lazy.histogram("norm", "z", by)
        np.testing.assert_array_equal(a.counts, b.counts)
        np.testing.assert_array_equal(a.edges, b.edges)
    values = cube["z", "norm"].values
    assert a.counts.sum() == np.isfinite(values).sum() and a.edges[0] == np.nanmin(values)
    np.testing.assert_array_equal(lazy.traces(prompt=1).table, cube.traces(prompt=1).table)
    np.testing.assert_array_equal(cube.traces().table, cube["resid_post_norm"].values[0])
    assert cube.traces(tokens=["Dallas", -1]).chosen == [9, 10]
    with pytest.raises(CubeError, match="no token 'Berlin'"):
        cube.traces(tokens=["Berlin"])


def test_the_stack_draws_the_strongest(cube, plain):
    """What is drawn between the planes must be the strongest attention that writes anything, what is on them the strongest features."""
    found = cube.stack(top=2)
    assert (
        (silent := silent_heads(cube.model.replacement))[1].all()
        and not silent[2:].any()
        and found.links.layer.min() == 1
    )
    weights = cube.data.pattern.values[0, 2:].max(1)[:, 1:, :]  # [layer, query, key]
    np.testing.assert_array_equal(np.sort(found.links.weight)[::-1], np.sort(weights.ravel())[::-1][:60].astype(float))
    for link in found.links.head(5).itertuples():
        assert cube.data.pattern.values[0, link.layer + 1, :, link.to, link.token].max() == pytest.approx(link.weight)
    kept = found.nodes[(found.nodes.layer == 2) & (found.nodes.token == 9)]
    assert kept.unit.tolist() == [i for i in cube.data.feature_id.values[0, 2, 9, :2].tolist() if i >= 0]
    assert all(f"({cube.model.features.label[r.layer, r.unit]})" in r.label for r in kept.itertuples())
    assert len(found.links) == 60 and len(found.nodes) <= 200 and "70 of 130 links" in found.words()
    live = found._repr_mimebundle_()[0]["application/vnd.plotly.v1+json"]
    assert len(json.dumps(live)) < 200_000 and live["data"][-1]["x"] == found.nodes.token.tolist()
    raw = plain.stack(top=1).nodes.set_index(["layer", "token"]).strength
    values = plain["resid_post"].values[0]
    assert raw[3, 9] == values[3, 9][np.abs(values[3, 9]).argmax()]


def test_the_scrubber_from_python(cube):
    """On a projector the slider moves and the picture stays."""
    scrubber = cube.scrub()
    first = scrubber._map.value
    scrubber.layer.value = 2
    assert scrubber._map.value != first and "layer 2 (3 of 4)" in scrubber.describe() and not scrubber.error
    best = cube.data.feature_strength.values[0, 2].max()
    assert scrubber.strongest.strength.iloc[0] == pytest.approx(best) and f"{best:.3g}" in scrubber.describe()
    scrubber.metric.value, scrubber.prompt.value, scrubber.layer.value = "z_norm", 2, 15
    assert "3.3" in scrubber.describe() and scrubber.grid.columns == cube.tokens(2)
    scrubber.metric.value = "resid_post_std"
    assert scrubber.layer.value == 3 and scrubber.layer.max == 3
    scrubber.cube = Cube(cube.data.drop_vars("resid_post_norm"))
    scrubber.metric.value = "resid_post_norm"
    assert "has no" in scrubber.error and "alert" in scrubber._said.value


def test_attention_is_the_explorer(cube, plain, cubes):
    """Attention of a cube is looked at in the explorer that everybody knows, with its silent heads."""
    assert cube.attention(2).describe() == mi.attention.patterns(cube.model, PROMPTS[2]).describe()
    for other in (plain, cubes["difference"], cubes["one token"]):
        with pytest.raises(CubeError, match="pattern|all tokens"):
            other.attention()
