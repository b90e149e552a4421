"""Where the bytes of a graph come from: a file, a web address of a JSON file, or a page of Neuronpedia with its state.

How an address is opened is in ``mi_workshop.web``.
"""

from __future__ import annotations

import json
import re
import zlib
from pathlib import Path
from typing import Any
from urllib.parse import unquote, unquote_plus, urlsplit

from mi_workshop.circuits.graph import GraphError
from mi_workshop.web import LIMIT, Web, brief, is_local

PICKLED = (
    "is a pickled graph, which could run any program when opened: ask whoever made it for the JSON file "
    "(circuit-tracer's create_graph_files writes one)."
)
KEYS = (
    "slug|pinnedIds|supernodes|clerps|pruningThreshold|densityThreshold|clickedId|hiddenIds|linkType|sg_pos|subgraph|"
    "sourceSet|embed|generate|logitDiff"
)


def is_address(source: object) -> bool:
    return isinstance(source, str) and bool(re.match(r"\s*[a-z][a-z0-9+.-]+(://|%3a%2f%2f)", source, re.IGNORECASE))


def read_file(path: Path) -> bytes:
    """The bytes of one file; GraphError if it is not there, pickled, or larger than ``LIMIT``."""
    if path.suffix in (".pt", ".pth", ".pkl"):
        raise GraphError(f"{path} {PICKLED}")
    try:
        if path.exists() and not path.is_file():
            raise GraphError(f"{path} is not a file.")
        with path.open("rb") as file:
            return unpacked(file.read(LIMIT + 1), str(path))
    except (OSError, ValueError) as error:
        if isinstance(error, GraphError):
            raise
        raise GraphError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from None


def unpacked(data: bytes, name: str) -> bytes:
    """``data``, gunzipped where it is gzip; GraphError for what is too large or no text."""
    if data[:2] == b"\x1f\x8b":
        try:
            data = zlib.decompressobj(31).decompress(data, LIMIT + 1)
        except zlib.error as error:
            raise GraphError(f"{name} cannot be unpacked: {error}.") from None
    if len(data) > LIMIT:
        raise GraphError(f"{name} is larger than {LIMIT >> 20} MB: no attribution graph that can be shown is.")
    if data[:4] == b"PK\x03\x04" or (data[:1] == b"\x80" and data[1:2] <= b"\x05"):
        raise GraphError(f"{name} {PICKLED}")
    if data.lstrip()[:1] == b"<":
        raise GraphError(f"{name} is a web page, not the JSON of a graph.")
    return data


def whole(source: str) -> str:
    """An address as typed, decoded where all of it was percent-encoded; GraphError if it is none."""
    address = source.strip()
    address = address if "://" in address.partition("?")[0] else unquote(address)
    try:
        _ = urlsplit(address.partition("?")[0]).port
    except ValueError as error:
        raise GraphError(f"The address cannot be read: {error}.") from None
    return address


def fetch(address: str) -> bytes:
    """The bytes behind an address; http is for an address on this machine alone. Raises GraphError."""
    return unpacked(Web().ask(address, local=is_local(address)), brief(address))


# ----------------------------------------------------- a page of Neuronpedia
def page(address: str) -> tuple[str, str, str, dict[str, Any]] | None:
    """The host (``https://…``), model, slug and state in the address of a page; None if it is no page of a graph.

    The state may be percent-encoded up to three times; its labels may hold ``&``, ``#``, ``+`` and ``%``, even bare ones.
    """
    head, _, query = address.partition("?")
    parts = urlsplit(head)
    match = re.fullmatch(r"/([^/]+)/graph/?", parts.path)
    if not match:
        return None
    found = _split(query) or _split(unquote(query))
    if "slug" not in found:
        raise GraphError(f"{brief(address)} names no graph: its address lacks slug=….")
    state: dict[str, Any] = {k: _decoded(re.split("[&#]", v)[0]) for k, v in found.items()}
    for key in ("supernodes", "clerps"):
        if found.get(key):
            state[key] = _json(found[key])
    return f"{parts.scheme}://{parts.netloc}", unquote(match[1]), state.pop("slug"), state


def _split(query: str) -> dict[str, str]:
    pieces = re.split(rf"(?:^|&(?:amp;)?)({KEYS})=", query)
    found = dict(zip(pieces[1::2], pieces[2::2], strict=True))
    return found if "slug" in found else {}


def _decoded(value: str) -> str:
    for _ in range(3):
        value = unquote_plus(value)
        if not re.search("%[0-9A-Fa-f]{2}", value):
            break
    return value


def _json(value: str) -> Any:
    """The JSON in a value, decoded as often as it takes; the value itself if there is none."""
    start = value
    for _ in range(3):
        value = unquote_plus(value)
        try:
            out, end = json.JSONDecoder().raw_decode(value)
        except (ValueError, RecursionError):
            continue
        if not value[end:].strip() or value[end:].lstrip()[0] in "&#":
            return out
    return start
