"""Own pictures: whatever a phone or a paint program writes must become the picture that one sees, or a sentence."""

import datetime
import io
import re
import warnings

import numpy as np
import pytest
from pictures_help import FAULTS, files
from PIL import Image

import mi_workshop as mi
from mi_workshop.models import ModelError
from mi_workshop.plots import png
from mi_workshop.saliency import SaliencyError, answer_keys, attribute, explore, picture_upload
from mi_workshop.saliency.scores import agreement, mass
from mi_workshop.widgets.saliency_controls import uploaded
from mi_workshop.worlds import Scenes

PICTURE = np.zeros((30, 40, 3), np.uint8)
PICTURE[:15], PICTURE[15:, :20], PICTURE[15:, 20:] = (200, 30, 40), (20, 160, 60), (30, 60, 190)


def written(image, format="PNG", **options):
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "WEBP", "GIF", "JPEG"])
def test_formats(format, tmp_path):
    """A file and its bytes are the same picture in every format; the lossy ones come near."""
    data = written(Image.fromarray(PICTURE), format, **({"lossless": True} if format == "WEBP" else {}))
    (tmp_path / "picture").write_bytes(data)
    found = mi.read_picture(tmp_path / "picture")
    assert found.dtype == np.uint8 and (found == mi.read_picture(data)).all() and found.flags.c_contiguous
    difference = np.abs(found.astype(int) - PICTURE)
    assert difference.max() == 0 if format != "JPEG" else np.median(difference) <= 4


def test_modes_and_depths():
    """A grey, 16-bit, palette, CMYK or transparent picture must not come out white, black or in other colours."""
    grey = PICTURE[..., 0]
    three = np.dstack([grey] * 3)
    own = Image.fromarray(PICTURE)
    for image, expected, off in (
        (Image.fromarray(grey), three, 0),
        (Image.fromarray(grey.astype(np.uint16) * 257), three, 0),
        (Image.fromarray(np.full((4, 4), 200, np.uint16)), np.full((4, 4, 3), 1), 0),  # nearly black, not nearly white
        (own.quantize(8), PICTURE, 6),
        (own.convert("1"), np.asarray(own.convert("1").convert("RGB")), 0),
    ):
        found = mi.read_picture(written(image))
        assert np.abs(found.astype(int) - expected).max() <= off
    for image in (Image.fromarray(grey.astype(np.float32) / 255), Image.fromarray(grey.astype(np.int32)), Image.fromarray(grey.astype(np.float32))):  # fmt: skip
        assert (mi.read_picture(written(image, "TIFF")) == three).all()
    assert np.abs(mi.read_picture(written(own.convert("CMYK"), "TIFF")).astype(int) - PICTURE).max() <= 2
    seen = own.convert("RGBA")
    seen.putalpha(Image.fromarray((np.arange(40)[None] < 20).repeat(30, 0).astype(np.uint8) * 255))
    found = mi.read_picture(written(seen))
    assert (found[:, :20] == PICTURE[:, :20]).all() and (found[:, 20:] == 255).all()
    palette = own.quantize(8)
    palette.info["transparency"] = palette.getpixel((0, 0))
    assert (mi.read_picture(written(palette, transparency=palette.getpixel((0, 0))))[:15] == 255).all()


def test_upright_and_cut():
    """Phones store a turned picture and a note; and ``side`` takes the middle, not a squashed whole."""
    turned = Image.fromarray(PICTURE).transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: turn clockwise to see it
    assert (mi.read_picture(written(turned, exif=exif)) == PICTURE).all()
    middle = mi.read_picture(written(Image.fromarray(PICTURE)), side=30)
    assert (middle == PICTURE[:, 5:35]).all()
    with pytest.warns(UserWarning, match="only ever seen coloured shapes"):
        assert mi.read_picture(written(Image.fromarray(PICTURE)), side=64).shape == (64, 64, 3)


def test_an_animation_says_that_one_frame_is_taken():
    frames = [Image.fromarray(PICTURE), Image.fromarray(255 - PICTURE)]
    with pytest.warns(UserWarning, match="animated: the first of 2 frames is taken"):
        found = mi.read_picture(written(frames[0], "PNG", save_all=True, append_images=frames[1:]))
    assert (found == PICTURE).all()


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_file_gets_a_sentence(fault, tmp_path):
    """A learner's first own picture is a HEIC, a PDF or half a download: what to do must be said."""
    with warnings.catch_warnings(), pytest.raises(ModelError) as error:
        warnings.simplefilter("error")
        mi.read_picture(files(tmp_path)[fault])
    assert re.fullmatch(FAULTS[fault], str(error.value)), error.value
    assert error.value.__suppress_context__ or error.value.__context__ is None


def test_models_say_how_to_get_a_picture_that_fits():
    """A 16-bit or transparent array fails in the model: the sentence must name what mends it."""
    cnn = mi.load("scenes-cnn")
    for bad in (PICTURE, np.zeros((64, 64, 4), np.uint8), np.zeros((64, 64, 3), np.uint16)):
        with pytest.raises(
            ModelError, match=r"must be 64 × 64 .* this one is .*\. read_picture\(file, side=64\) makes one"
        ):
            cnn(bad)
    with pytest.raises(ModelError, match="side must be"):
        mi.read_picture(b"x", side=0)


# ------------------------------------------------------------------- widgets
SCENE = Scenes().sample(1, "validation")[0]


def test_the_controls_compute_what_attribute_does(cnn):
    """A slider that changes nothing, or another map beside the score, would teach the wrong thing."""
    widget = explore(cnn, SCENE, "square", "gradient")
    assert list(widget.options) == [] and widget.baseline.disabled
    widget.method.value = "occlusion"
    assert list(widget.options) == ["window", "stride"] and not widget.baseline.disabled
    assert not any(slider.continuous_update for slider in widget.options.values())
    widget.baseline.value = "black"
    widget.options["window"].value = 16
    expected = attribute(cnn, SCENE, "square", "occlusion", "black", window=16)
    assert (widget.attribution.scores == expected.scores).all() and widget.error == ""
    key = answer_keys(cnn, SCENE, "square")
    assert widget.scores["tau"] == agreement(expected, key)["tau"]
    assert widget.scores["mass_world"] == mass(expected, key.true_mask("world"))
    assert (
        f"{widget.scores['mass_world']:.0%} of the mass inside" in widget._said.value and " s</p>" in widget._said.value
    )
    widget.method.value = "smoothgrad"
    widget.options["noise"].value = 0.3
    assert (widget.attribution.scores == attribute(cnn, SCENE, "square", "smoothgrad", noise=0.3).scores).all()


def test_what_goes_wrong_is_a_sentence_beside_the_controls(cnn):
    """A callback that raises stops the notebook under nbval and shows nothing in Lab."""
    widget = explore(cnn, SCENE, "square", "gradient")
    widget.method.value = "relevance"
    assert "relevance needs self-attention layers" in widget.error and 'role="alert"' in widget._said.value
    assert widget._map.value == "" and widget.describe() == widget.error
    widget.method.value = "occlusion"
    assert widget.error == "" and "<img" in widget._map.value
    widget.options["stride"].value = 16
    assert "The window must be at least the stride" in widget.error
    for args, said in (
        ((SCENE, "hexagon"), "no target 'hexagon'"),
        ((SCENE, "square", "relevance"), "self-attention"),
        ((SCENE, "square", "lime"), "no method"),
    ):
        with pytest.raises(SaliencyError, match=said):
            explore(cnn, *args)


def test_without_a_world_the_score_is_insertion_and_deletion(cnn):
    """A picture that is no Scene has no key: what is left must be said to be something else."""
    widget = explore(cnn, SCENE.image, "square", "gradient")
    assert set(widget.scores) == {"insertion", "deletion"} and "No answer key" in widget._said.value
    words = explore(mi.load("scenes-clip"), "a large red circle", SCENE, "occlusion")
    assert list(words.baseline.options) == ["mean", "zero"] and "tau" in words.scores


def test_what_a_notebook_stores(cnn):
    """Reopened without a kernel, on GitHub or in a review, the cell shows the picture and its sentence; under ipywidgets 7 too."""
    from mi_workshop.widgets.view import Pictured

    widget = explore(cnn, SCENE, "square", "gradient")
    data, metadata = widget._repr_mimebundle_()
    assert data["application/vnd.jupyter.widget-view+json"]["model_id"] == widget.model_id
    assert data["image/png"] and "text/html" not in data and "Model key" in data["text/plain"]
    assert metadata["image/png"]["alt"] == widget.describe()

    class Seven(Pictured):  # a widget's class without a bundle of its own
        model_id, subject = "seven", widget

    assert set(Seven()._repr_mimebundle_()[0]) == set(data)


def test_an_uploaded_picture_is_explained(cnn):
    """What the learner came for; first without any upload, as in a run from top to bottom."""
    widget = picture_upload(cnn)
    assert widget.attribution.method == "grad_cam" and widget.key and "coloured shapes" not in widget.note.value
    photo = written(Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 120, 3), np.uint8)))
    widget.upload.set_trait(
        "value",
        (
            {
                "name": "<b>.png",
                "type": "image/png",
                "size": 1,
                "content": memoryview(photo),
                "last_modified": datetime.datetime.now(datetime.UTC),
            },
        ),
    )
    assert "only ever seen coloured shapes" in widget.note.value and widget.key is None
    with pytest.warns(UserWarning):
        assert (widget.attribution.input == mi.read_picture(photo, side=64)).all()
    before = widget.attribution
    widget.take(b"no picture")
    assert "is no picture that can be read" in widget.note.value and widget.attribution is before
    widget.text.value = "hexagon"
    assert "no target 'hexagon'" in widget.error
    widget.text.value = "triangle"
    assert widget.error == "" and widget.attribution.target == "logit of triangle"
    assert (
        uploaded({"a.png": {"metadata": {}, "content": b"7"}}) == [b"7"] == uploaded(({"content": memoryview(b"7")},))
    )


def test_a_query_with_a_word_never_seen():
    """Scenes' CLIP knows twenty words: which one it does not know, and which was meant, stands beside the field."""
    widget = picture_upload(mi.load("scenes-clip"), "a red circle", SCENE)
    widget.text.value = "a rde circle"
    assert "does not know the word 'rde'; did you mean 'red'" in widget.error
    with pytest.raises(SaliencyError, match="models that look at pictures, not for"):
        picture_upload(object())


def test_a_stored_map_keeps_its_colours(cnn):
    """Blue says that a pixel raised the number: with too few colours in the file it came out green."""
    figure = attribute(cnn, SCENE, "square", "occlusion").figure()
    figure.draw_without_rendering()  # the first time lays it out, and moves things by a pixel
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=80)
    stored = Image.open(io.BytesIO(png(figure, dpi=80))).convert("RGB")
    off = np.abs(np.asarray(stored).astype(int) - np.asarray(Image.open(drawn).convert("RGB")).astype(int)).max(-1)
    assert (off > 30).mean() < 0.01  # the rest is the noise of the photograph
