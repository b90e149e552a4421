"""The saved grid of a logit lens opens from disk, asks for nothing, and shows tokens as they are."""

import mi_workshop as mi


def test_the_saved_grid_is_interactive_offline(open_html, atlas, artifacts, tmp_path):
    """A colleague without a network would see an empty page; a token like <bos> would vanish as markup."""
    file = mi.logit_lens(atlas, "Fact: the capital of the state containing Dallas is").save(tmp_path / "lens.html")
    with open_html(file) as page:
        page.wait_for_selector(".js-plotly-plot .heatmaplayer")
        shown = page.locator(".js-plotly-plot svg.main-svg").first.text_content()
        assert "<bos>" in shown and "Austin" in shown and "&lt;" not in shown
        box = page.locator(".js-plotly-plot .nsewdrag").first.bounding_box()
        page.mouse.move(box["x"] + box["width"] - 10, box["y"] + 10)  # the last token, after the last layer
        page.wait_for_selector(".hoverlayer .hovertext")
        assert "entropy" in page.locator(".hoverlayer").text_content()
        page.screenshot(path=artifacts / "lens-page.png")
