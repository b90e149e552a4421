"""What came from the web once, kept on this machine: ``MI_WORKSHOP_CACHE``, or ``mi-workshop`` in the user's cache folder."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mi_workshop.files import write


@dataclass(frozen=True)
class Kept:
    """``data`` as it was fetched at ``when`` (seconds since 1970), and what was noted ``about`` it."""

    data: bytes
    when: float
    about: dict[str, Any]


def home() -> Path:
    """The user's home folder; the root folder where nothing names one, as for a container's user without a name."""
    try:
        return Path.home()
    except RuntimeError:
        return Path(os.sep)


def base() -> Path:
    """Where the programs of this user keep what they can fetch again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or home() / ".cache")


def folder() -> Path:
    return Path(os.environ.get("MI_WORKSHOP_CACHE") or base() / "mi-workshop")


def _path(name: str) -> Path:
    """Nothing that a stranger chose stands in the path."""
    return folder() / f"{hashlib.sha256(name.encode('utf-8', 'replace')).hexdigest()[:40]}.kept"


def get(name: str) -> Kept | None:
    """What is kept under ``name``; None if nothing is, or if it is damaged."""
    try:
        head, _, data = _path(name).read_bytes().partition(b"\n")
        found = json.loads(head)
        if found["name"] == name and found["sha256"] == hashlib.sha256(data).hexdigest():
            return Kept(data, float(found["when"]), dict(found["about"]))
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        pass
    return None


def damaged(name: str) -> bool:
    return _path(name).exists() and get(name) is None


def put(name: str, data: bytes, when: float, **about: Any) -> str:
    """Keep ``data`` under ``name``; returns why that failed ("" if it did not): what was fetched can be shown all the same."""
    head = {"name": name, "when": when, "sha256": hashlib.sha256(data).hexdigest(), "about": about}
    try:
        write(_path(name), lambda path: path.write_bytes(json.dumps(head).encode() + b"\n" + data))
    except OSError as error:
        return f"It could not be kept in this machine's cache ({folder()}): {error.strerror}."
    return ""


def age(seconds: float) -> str:
    """``3 days old``, in the largest unit that fits."""
    for size, unit in ((86_400, "day"), (3_600, "hour"), (60, "minute")):
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {unit}{'' if count == 1 else 's'} old"
    return "less than a minute old"
