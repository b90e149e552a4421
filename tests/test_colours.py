"""Colours for eyes that see fewer of them, and in grey; and contrast of text.

Deficiencies are simulated by the matrices, severity 1, of Machado, Oliveira and Fernandes, "A Physiologically-based Model for Simulation of Color
Vision Deficiency" (2009), on linear RGB; differences are Euclidean in CIE Lab (1976), contrast is that of WCAG 2.2.
"""

import re
from itertools import combinations

import numpy as np
import pytest
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.text import Text

from mi_workshop import debate_plots, heat_plots, lens_plots, plots, solu
from mi_workshop.cube import plots as cube_plots
from mi_workshop.dictionary import families_plots, judge_plots
from mi_workshop.saliency import compare_plots
from mi_workshop.widgets.view import HERE

SEEN = {
    "by most": np.eye(3),
    "with protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "with deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "with tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
    "in grey": [[0.2126, 0.7152, 0.0722]] * 3,
}  # fmt: skip
XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
LEAST = 40  # in Lab, where colour is all that tells two things apart; 2.3 are just seen side by side
seen = pytest.mark.parametrize("how", SEEN)
CSS = (HERE / "graph_view.css").read_text(encoding="utf-8")
THEMES = [dict(re.findall(r"--mi-([a-z]+): (?:var\(--jp-[a-z0-9-]+, )?(#[0-9a-f]+)", part)) for part in CSS.split("@media (prefers-color-scheme: dark)")[:2]]  # fmt: skip
LIGHT, DARK = THEMES[0], THEMES[0] | THEMES[1]


def linear(colour):
    c = np.array(to_rgb(colour))
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def lab(colour, how):
    """L, a, b (D65) of a colour, as it is seen."""
    x = XYZ @ np.clip(np.array(SEEN[how]) @ linear(colour), 0, 1) / XYZ.sum(1)
    f = np.where(x > 216 / 24389, np.cbrt(x), (24389 / 27 * x + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def contrast(one, other):
    low, high = sorted(linear(c) @ SEEN["in grey"][0] for c in (one, other))
    return (high + 0.05) / (low + 0.05)


def test_the_measures_are_right():
    """Black on white is 21 to 1 and 100 apart; a grey stays what it is; red and green come closer for who cannot tell them."""
    assert contrast("white", "black") == pytest.approx(21) and contrast("#767676", "white") == pytest.approx(
        4.54, abs=0.01
    )
    assert np.linalg.norm(lab("white", "by most") - lab("black", "by most")) == pytest.approx(100, abs=0.1)
    for how in SEEN:
        np.testing.assert_allclose(lab("#808080", how), lab("#808080", "by most"), atol=0.1)
    apart = {how: np.linalg.norm(lab("#c00000", how) - lab("#007000", how)) for how in SEEN}
    assert apart["with deuteranopia"] < 0.4 * apart["by most"]


@pytest.mark.parametrize("how", [how for how in SEEN if how != "in grey"])
def test_the_colours_of_roles_are_told_apart(how):
    """Blue and vermilion (gained and lost, this and the others), and ink: confused, a legend would say the opposite."""
    for one, other in combinations([plots.BLUE, plots.ORANGE, plots.INK], 2):
        assert np.linalg.norm(lab(one, how) - lab(other, how)) > LEAST
    assert np.linalg.norm(lab(plots.RUST, how) - lab(plots.BLUE, how)) > LEAST


@pytest.mark.parametrize("marks", [
    [mark for _, mark, _ in lens_plots.STYLES], [mark for _, mark, _ in cube_plots.LINES], [(line, mark) for _, line, mark in compare_plots.STYLES], [line for _, line in judge_plots.STYLES],
    [line for _, line in debate_plots.STYLES], [line for _, line in solu.LOOKS.values()], [mark for mark, *_ in families_plots.LOOKS], heat_plots.DASHES,
    ["", *re.findall(r"mi-link-\d, [^{]*\{[^}]*stroke-dasharray: ([\d ]+)", (HERE / "attention_view.css").read_text(encoding="utf-8"))],
], ids=["lens", "cube", "saliency", "judge", "debate", "solu", "families", "lines of heads", "lines of heads, view"])  # fmt: skip
def test_each_series_has_a_mark_or_a_dash_of_its_own(marks):
    """Green is grey for who has deuteranopia (9 apart), and all of the palette are alike in grey: colour may only repeat what a mark says."""
    assert len(marks) > 2 and len({str(mark) for mark in marks}) == len(marks)


@seen
@pytest.mark.parametrize(
    "scale", [heat_plots.SEQUENTIAL, [colour for _, colour in lens_plots.BLUES]], ids=["heat", "lens"]
)
def test_more_is_darker(scale, how):
    lightness = [lab(colour, how)[0] for colour in scale]
    assert all(a - b > 8 for a, b in zip(lightness, lightness[1:], strict=False))


@seen
def test_away_from_zero_is_darker_and_the_sign_is_written(how):
    """In grey both ends of the diverging scale are alike: a minus stands on negative cells, as a number or alone."""
    lightness = [lab(colour, how)[0] for colour in heat_plots.DIVERGING]
    assert all(a - b > 8 for side in (lightness[3:], lightness[3::-1]) for a, b in zip(side, side[1:], strict=False))
    for n, texts in ((3, 1), (30, 0)):
        values = np.zeros((3, n))
        values[1, 1] = -1
        figure = heat_plots.draw_heat_map(values, ["a", "b", "c"], list("x" * n), "t", "u", -1, 1, heat_plots.DIVERGING)
        ax = figure.axes[0]
        written = [text.get_text() for text in ax.texts if "−" in text.get_text()]
        marks = sum(len(c.get_offsets()) for c in ax.collections if c.get_offsets().size > 2 or np.any(c.get_offsets()))
        assert (len(written), marks) == (texts, 1 - texts)


@pytest.mark.parametrize("scale", [heat_plots.SEQUENTIAL, heat_plots.DIVERGING], ids=["sequential", "diverging"])
def test_numbers_are_read_on_every_shade(scale):
    colours = LinearSegmentedColormap.from_list("", scale)(np.linspace(0, 1, 400))[:, :3]
    assert min(contrast(colour, plots.ink_on(colour)) for colour in colours) >= 4.5


def test_the_words_of_a_lens_are_read_on_every_shade():
    scale = LinearSegmentedColormap.from_list("", lens_plots.BLUES)
    ink = {q: "white" if q > lens_plots.LIGHT else "black" for q in np.linspace(0, 1, 401)}
    assert min(contrast(scale(q)[:3], colour) for q, colour in ink.items()) >= 4.5


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_text_and_rings_of_the_views_have_contrast(theme):
    """Text 4.5 to 1 (WCAG 1.4.3), focus ring, borders of buttons and lines of boxes 3 to 1 (1.4.11), on both grounds of a theme."""
    for ground in ("bg", "soft"):
        assert {name: contrast(theme[name], theme[ground]) >= 4.5 for name in ("ink", "quiet")} == {
            "ink": True,
            "quiet": True,
        }
    assert {name for name in ("orange", "blue", "grey", "ink") if contrast(theme[name], theme["bg"]) < 3} == set()


def test_white_is_read_on_what_it_is_written_on(graph):
    """Boxes of supernodes, in the picture and in the view."""
    figure = plots.draw_graph(graph)
    boxes = [text for text in figure.findobj(Text) if text.get_text().strip() and text.get_bbox_patch()]
    assert len(boxes) > 4
    for text in boxes:
        assert contrast(text.get_color(), text.get_bbox_patch().get_facecolor()[:3]) >= 4.5, text.get_text()
    for ground in re.findall(
        r"color: #fff; background: ([^;]+);|mi-say\.mi-chain(?: rect)? \{ (?:fill|background): ([^;]+);", CSS
    ):
        value = next(filter(None, ground))
        assert contrast("#fff", LIGHT[value[9:-1]] if value.startswith("var") else value) >= 4.5


def test_no_text_of_a_view_is_green_or_grey():
    """Both are under 4.5 to 1 on white; they are for lines and borders."""
    css = "".join(path.read_text(encoding="utf-8") for path in HERE.glob("*.css"))
    assert re.findall(r"(?<![-a-z])color: var\(--mi-(?:green|grey|orange|blue)\)", css) == []
