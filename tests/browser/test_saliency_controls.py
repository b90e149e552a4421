"""The controls of saliency in a real JupyterLab: a learner uploads a picture, asks about it, and moves a slider."""

import io

import numpy as np
from PIL import Image
from test_lab import CELLS, RUN_ALL, check_images, screenshot

SOURCE = [
    "import mi_workshop as mi\nscene = mi.worlds.Scenes().sample(1, 'test')[0]",
    "mi.saliency.explore(mi.load('scenes-cnn'), scene, scene.label)",
    "mi.saliency.picture_upload(mi.load('scenes-clip'), 'a red circle', scene)",
]


def test_upload_and_sliders(lab, artifacts):
    """Python tests set values: here the widgets of the installed ipywidgets send them."""
    picture = io.BytesIO()
    Image.fromarray(np.full((90, 120, 3), (200, 40, 40), np.uint8)).save(picture, "PNG")
    with lab.cells(*SOURCE) as page:
        page.evaluate(RUN_ALL)
        stored = [output for cell in page.evaluate(CELLS)[1:] for output in cell["outputs"]]
        assert all({"image/png", "text/plain"} < set(o["data"]) and "text/html" not in o["data"] for o in stored)
        explorer, upload = (page.locator(".jp-CodeCell .jp-Cell-outputWrapper").nth(i) for i in (1, 2))
        explorer.locator("select").first.select_option("occlusion")
        explorer.get_by_text("window").first.wait_for()
        explorer.locator("img[alt^='occlusion']").wait_for()
        slider = explorer.locator(".noUi-handle").first
        slider.focus()
        slider.press("ArrowRight")
        page.wait_for_function("document.body.innerText.includes('of the mass inside')")
        with page.expect_file_chooser() as chooser:
            upload.get_by_text("Your picture").click()
        chooser.value.set_files({"name": "<b>.png", "mimeType": "image/png", "buffer": picture.getvalue()})
        upload.get_by_text("they have only ever seen coloured shapes").first.wait_for()
        field = upload.get_by_role("textbox").first
        field.fill("a rde circle")
        field.press("Enter")
        upload.get_by_text("did you mean 'red'").first.wait_for()
        screenshot(page, artifacts / "saliency-error.png")
        field.fill("a green square")
        field.press("Enter")
        upload.locator("img[alt*='a green square']").wait_for()
        screenshot(page, artifacts / "saliency-controls.png")
        check_images(page)
