"""What ``read_picture`` says of bad files; the tests and the page of faults are made from this."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

FAULTS = {
    "no such file": r"The file cat\.png cannot be read: No such file or directory\.",
    "a folder": r"The file .* cannot be read: Is a directory\.",
    "an empty file": r"The file empty\.png is empty: it has no bytes\.",
    "no picture": r"The file notes\.jpg is no picture that can be read here: give PNG, JPEG, GIF, WEBP, BMP or TIFF\.",
    "PostScript": r"The file drawing\.png is no picture that can be read here: give PNG, .*",
    "half a download": r"The file half\.png is broken: .*",
    "a damaged picture": r"The file damaged\.png is broken: .*",
    "decompression bomb": r"The file bomb\.png has more than 50 million pixels: make it smaller first\.",
    "no pixels": r"The file nothing\.png is .*",
}


def files(folder):
    """A path for each fault."""
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8)).save(out, "PNG")
    good = out.getvalue()
    content = {
        "an empty file": ("empty.png", b""),
        "no picture": ("notes.jpg", b"Dear diary, today I have seen a cat." * 9),
        "PostScript": ("drawing.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n"),
        "half a download": ("half.png", good[: len(good) // 2]),
        "a damaged picture": ("damaged.png", good[:200] + bytes(200) + good[400:]),
        "decompression bomb": ("bomb.png", _header(60_000, 60_000)),
        "no pixels": ("nothing.png", _header(0, 7)),
    }
    for name, data in content.values():
        (folder / name).write_bytes(data)
    return {"no such file": folder / "cat.png", "a folder": folder} | {
        k: folder / name for k, (name, _) in content.items()
    }


def _header(width, height):
    """A PNG that claims a size and holds a few bytes."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    parts = (
        chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        chunk(b"IDAT", zlib.compress(b"")),
        chunk(b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)
