"""Where the notebooks are: in a clone, or in the installed package, from which ``mi-workshop lab`` copies them to a folder of your own."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from mi_workshop import files

PACKED = Path(__file__).with_name("course")  # where pyproject.toml has the wheel put them
HOME = PACKED if PACKED.is_dir() else Path(__file__).parents[1]
LEFT = "--ServerApp.contents_manager_class=mi_workshop.lab_files.Notebooks"  # of JupyterLab: pictures in notebooks that were left
PARTS = ("notebooks/*.ipynb", "notebooks/solutions/*.ipynb", "notebooks/badges/*.svg", "docs/*.md")  # of the wheel, too


def copy(folder: Path, fresh: bool = False) -> list[Path]:
    """Copy the course to ``folder``; returns the files there that differ from ours and were therefore left alone.

    With ``fresh``, a new copy is put beside each of those, under the first free name (``00_start_here-2.ipynb``).
    Raises OSError where ``folder`` cannot be written.
    """
    kept = []
    for source in sorted(path for part in PARTS for path in HOME.glob(part)):
        ours, first = source.read_bytes(), folder / source.relative_to(HOME)
        target, number = first, 1
        while differs(target, ours) and fresh:
            number += 1
            target = first.with_stem(f"{first.stem}-{number}")
        if not target.exists():
            files.write(target, partial(Path.write_bytes, data=ours))
        if differs(first, ours):
            kept.append(first)
    return kept


def differs(path: Path, ours: bytes) -> bool:
    return path.exists() and (not path.is_file() or path.read_bytes() != ours)
