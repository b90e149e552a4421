"""Pictures from files: ``read_picture("cat.jpg")`` is what the models that look at pictures read, bytes of red, green and blue."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from mi_workshop.models import ModelError
from mi_workshop.show import either
from mi_workshop.worlds.scenes import SIDE

FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF")  # all are decoded by Pillow itself: no other program is started
MOST = 50_000_000  # pixels; a small file may claim to hold as many as fill the memory
ONLY_SHAPES = f"The picture is read at {SIDE} × {SIDE} pixels for the models of Scenes: they have only ever seen coloured shapes, whatever they say of a photo."


def read_picture(source: str | Path | bytes, side: int | None = None) -> UInt8[np.ndarray, "y x rgb"]:
    """The picture in a file, or in a file's bytes, upright, in red, green and blue, as [y, x, 3]; transparent parts are white.

    ``side``: its middle, cut out and resized to ``side`` × ``side`` pixels (64 for the models of Scenes). Every mode and depth is brought to 8 bits:
    16-bit values by dividing, floats that pass 1 by their largest. Of an animation the first frame is taken, with a warning. Raises ModelError, one
    sentence, for a file that is missing, broken, empty, too large or no picture.
    """
    name = "The picture" if isinstance(source, bytes) else f"The file {Path(source).name}"
    if side is not None and (not isinstance(side, int) or side < 1):
        raise ModelError(f"side must be a whole number of pixels from 1 on, not {side!r}.")
    try:
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
    except OSError as error:
        raise ModelError(f"{name} cannot be read: {error.strerror or error}.") from None
    if not data:
        raise ModelError(f"{name} is empty: it has no bytes.")
    too_large = ModelError(f"{name} has more than {MOST // 10**6} million pixels: make it smaller first.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=FORMATS)
        if image.width * image.height > MOST:
            raise too_large
        frames = getattr(image, "n_frames", 1)
        found = np.asarray(_upright(image, side))
    except ModelError:
        raise
    except Image.DecompressionBombError:
        raise too_large from None
    except UnidentifiedImageError:
        raise ModelError(f"{name} is no picture that can be read here: give {either(FORMATS)}.") from None  # fmt: skip
    except Exception as error:  # decoders raise whatever a stranger's broken file makes them
        raise ModelError(f"{name} is broken: {str(error).splitlines()[0].rstrip('.') if str(error) else type(error).__name__}.") from None  # fmt: skip
    if frames > 1:
        warnings.warn(f"{name} is animated: the first of {frames} frames is taken.", stacklevel=2)
    if side == SIDE:
        warnings.warn(ONLY_SHAPES, stacklevel=2)
    return found


def _upright(image: Image.Image, side: int | None) -> Image.Image:
    image = ImageOps.exif_transpose(image)
    if image.mode[0] in "IF":  # more than eight bits in one channel
        values = np.nan_to_num(np.asarray(image, np.float64), posinf=0, neginf=0).clip(0)
        highest = values.max()
        depths = [1] * (image.mode == "F") + [255] * (";16" not in image.mode) + [65535, highest]
        top = next(depth for depth in depths if highest <= depth)
        image = Image.fromarray(np.rint(255 * values / top).astype(np.uint8))
    if "A" in image.mode or "a" in image.mode or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("RGB")
    return ImageOps.fit(image, (side, side), Image.Resampling.LANCZOS) if side else image
