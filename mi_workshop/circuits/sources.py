"""Where the bytes of a graph come from: a file, a web address of a JSON file, or a page of Neuronpedia with its state.

Only https is opened (http for this machine alone), nothing is sent but the request itself, and both time and size are limited.
"""

from __future__ import annotations

import http.client
import json
import re
import time
import urllib.error
import zlib
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, unquote_plus, urlsplit
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

from mi_workshop.circuits.graph import GraphError

LIMIT = 200 * 2**20  # bytes of JSON
TIMEOUT, PATIENCE = 20.0, 180.0  # seconds without an answer; seconds for a whole file
LOCAL = ("127.0.0.1", "localhost", "::1")
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


# ------------------------------------------------------------------- network
class _Redirects(HTTPRedirectHandler):
    """A redirect is followed only to where the first address could have pointed."""

    def __init__(self, local: bool) -> None:
        self.local = local

    def redirect_request(self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, newurl: str) -> Any:
        _allowed(newurl, self.local)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def whole(source: str) -> str:
    """An address as typed, decoded where all of it was percent-encoded; GraphError if it is none."""
    address = source.strip()
    address = address if "://" in address.partition("?")[0] else unquote(address)
    try:
        _ = urlsplit(address.partition("?")[0]).port
    except ValueError as error:
        raise GraphError(f"The address cannot be read: {error}.") from None
    return address


def is_local(address: str) -> bool:
    return urlsplit(address.partition("?")[0]).hostname in LOCAL


def _allowed(address: str, local: bool) -> None:
    parts = urlsplit(address)
    if parts.username or parts.password:
        raise GraphError("The address holds a user name or password: nothing is sent but the address of the graph.")
    if not parts.hostname or not (parts.scheme == "https" or (parts.scheme == "http" and local and is_local(address))):
        raise GraphError(f"{_brief(address)} is not opened: a graph is fetched over https only.")


def _brief(address: str) -> str:
    return ascii(address.partition("?")[0][:200])[1:-1]


def fetch(address: str, local: bool) -> bytes:
    """The bytes behind an address. ``local``: whether http on this machine is allowed. Raises GraphError."""
    try:
        _allowed(address, local)
        handlers = [_Redirects(local), *([ProxyHandler({})] if is_local(address) else [])]
        request = Request(quote(address, safe="%/:=&?~#+!$,;'@()*[]"), headers={"User-Agent": "mi-workshop"})
        end, parts, size = time.monotonic() + PATIENCE, [], 0
        with build_opener(*handlers).open(request, timeout=TIMEOUT) as answer:
            while chunk := answer.read1(1 << 20):
                parts.append(chunk)
                size += len(chunk)
                if size > LIMIT:
                    break
                if time.monotonic() > end:
                    raise GraphError(f"{_brief(address)} took longer than {PATIENCE:.0f} s.")
        return unpacked(b"".join(parts), _brief(address))
    except GraphError:
        raise
    except urllib.error.HTTPError as error:
        raise GraphError(f"{_brief(address)} answers {error.code} {error.reason}.") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        said = getattr(error, "reason", None) or error or type(error).__name__
        raise GraphError(f"{_brief(address)} cannot be reached: {said}.") from None


# ----------------------------------------------------- a page of Neuronpedia
def page(address: str) -> tuple[str, dict[str, Any]] | None:
    """The address of the graph's metadata and the state in a page's address; None if it is no page of a graph.

    The state may be percent-encoded up to three times; its labels may hold ``&``, ``#``, ``+`` and ``%``, even bare ones.
    """
    head, _, query = address.partition("?")
    parts = urlsplit(head)
    match = re.fullmatch(r"/([^/]+)/graph/?", parts.path)
    if not match:
        return None
    found = _split(query) or _split(unquote(query))
    if "slug" not in found:
        raise GraphError(f"{_brief(address)} names no graph: its address lacks slug=….")
    state: dict[str, Any] = {k: _decoded(re.split("[&#]", v)[0]) for k, v in found.items()}
    for key in ("supernodes", "clerps"):
        if found.get(key):
            state[key] = _json(found[key])
    api = f"{parts.scheme}://{parts.netloc}/api/graph/{quote(unquote(match[1]), safe='')}/{quote(state.pop('slug'), safe='')}"
    return api, state


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
