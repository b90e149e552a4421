"""The scrubber through the layers of a cube in a real JupyterLab: with the mouse, with keys alone, and for a screen reader."""

from page_help import violations
from test_lab import CELLS, RUN_ALL, check_images, screenshot

SOURCE = [
    "import mi_workshop as mi\nfrom mi_workshop.cube import capture\nprompt = 'Fact: the capital of the state containing Dallas is'",
    "capture(mi.load('atlas'), [prompt, 'Fact: the capital of Texas is'], features=4).scrub()",
]


def test_the_slider_moves_and_the_picture_changes(lab, artifacts):
    """Python tests set values: here the slider of the installed ipywidgets sends them, and what follows must be seen and said."""
    with lab.cells(*SOURCE) as page:
        page.evaluate(RUN_ALL)
        (stored,) = page.evaluate(CELLS)[1]["outputs"]
        assert {"image/png", "text/plain"} < set(stored["data"]) and "text/html" not in stored["data"]
        view = page.locator(".jp-CodeCell .jp-Cell-outputWrapper").nth(1)
        view.locator("img[alt*='layer 0 (1 of 4)']").wait_for()
        before = view.locator("img").get_attribute("src")
        slider = view.locator(".noUi-handle").first
        slider.focus()
        slider.press("ArrowRight")
        view.locator("img[alt*='layer 1 (2 of 4)']").wait_for()
        assert view.locator("img").get_attribute("src") != before
        assert view.get_by_role("status").inner_text().startswith("norm of resid_post, layer 1")
        reached = set()
        for _ in range(12):  # every control by the keyboard alone
            page.keyboard.press("Tab")
            reached.add(page.evaluate("document.activeElement.tagName + ' ' + (document.activeElement.title || '')"))
        assert {name.split()[0] for name in reached} >= {"SELECT", "INPUT"}, reached
        view.locator("select").first.select_option("resid_post_std")
        view.locator("img[alt^='std of resid_post, layer 1']").wait_for()
        number = view.locator("input[type=number]")
        number.fill("1")
        number.press("Enter")
        view.locator("img[alt*='Texas']").wait_for()
        slider.focus()
        slider.press("End")
        view.locator("img[alt*='layer 3 (4 of 4)']").wait_for()
        screenshot(page, artifacts / "cube-scrubber.png")
        assert violations(page, ".widget-vbox") == []
        check_images(page)
