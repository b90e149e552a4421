"""Files are written beside their place and moved there, so that a half-written one never replaces a good one."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


def write(path: str | Path, save: Callable[[Path], object]) -> Path:
    """Call ``save`` with a path beside ``path``, then move what it wrote into place; returns ``path``."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        save(beside)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    return path


def write_text(path: str | Path, text: str) -> Path:
    return write(path, lambda p: p.write_text(text, encoding="utf-8"))
