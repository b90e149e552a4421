"""A feature's page in Chromium: as a file of its own, and in a notebook that is not trusted."""

import re

import pytest
from nbformat.v4 import new_code_cell, new_output

import mi_workshop as mi

STYLES = """Array.from(document.querySelectorAll('.jp-OutputArea-output [style]')).map(
    element => element.getAttribute('style'))"""


@pytest.fixture(scope="module")
def page(atlas):
    texas = atlas.features[atlas.features.label == "Texas"].sort_values("density")
    return mi.feature(atlas, *texas.index[-1])


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [700, 1200])
def test_saved_file_stands_alone(open_html, artifacts, page, tmp_path, scheme, width):
    """It asks for nothing, and nothing is cut off on a narrow screen."""
    with open_html(page.save(tmp_path / "x.html")) as shown:
        shown.emulate_media(color_scheme=scheme)
        shown.set_viewport_size({"width": width, "height": 800})
        assert page.label in shown.inner_text("main")
        assert shown.evaluate("document.documentElement.scrollWidth") <= width
        assert shown.evaluate("document.querySelector('main > div').scrollWidth") <= width
        shown.screenshot(path=artifacts / f"feature-{scheme}-{width}.png", full_page=True)


def test_untrusted_notebook_keeps_every_style(lab, artifacts, page):
    """What Lab's sanitizer drops would be missing in every fresh clone."""
    data, metadata = page._repr_mimebundle_()
    cell = new_code_cell("page", outputs=[new_output("execute_result", data, metadata=metadata, execution_count=1)])
    with lab.cells(cell) as shown:
        shown.wait_for_selector(".jp-OutputArea-output table")
        kept = [style for style in shown.evaluate(STYLES) if style]
        shown.set_viewport_size({"width": 1200, "height": 1900})
        shown.screenshot(path=artifacts / "feature-untrusted.png")
    wanted = re.findall(r'style="([^"]*)"', page.html())
    assert [plain(style) for style in kept] == [plain(style) for style in wanted if style]


def plain(style):
    return style.replace(" ", "").rstrip(";")
