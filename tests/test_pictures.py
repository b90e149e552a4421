"""Own pictures: whatever a phone or a paint program writes must become the picture that one sees, or a sentence."""

import io
import warnings

import numpy as np
import pytest
from PIL import Image

import mi_workshop as mi
from mi_workshop.models import ModelError
from pictures_help import FAULTS, files

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
    import re

    with warnings.catch_warnings(), pytest.raises(ModelError) as error:
        warnings.simplefilter("error")
        mi.read_picture(files(tmp_path)[fault])
    assert re.fullmatch(FAULTS[fault], str(error.value)), error.value
    assert error.value.__suppress_context__ or error.value.__context__ is None


def test_models_say_how_to_get_a_picture_that_fits():
    """A 16-bit or transparent array fails in the model: the sentence must name what mends it."""
    cnn = mi.load("scenes-cnn")
    for bad in (PICTURE, np.zeros((64, 64, 4), np.uint8), np.zeros((64, 64, 3), np.uint16)):
        with pytest.raises(ModelError, match=r"must be 64 × 64 .* this one is .*\. read_picture\(file, side=64\) makes one"):
            cnn(bad)
    with pytest.raises(ModelError, match="side must be"):
        mi.read_picture(b"x", side=0)
