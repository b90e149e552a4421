"""The one way to the web: https only (http for this machine alone), limited in time and size, polite, each failure one sentence."""

from __future__ import annotations

import json
import random
import re
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from mi_workshop.circuits.graph import GraphError
from mi_workshop.circuits.repairs import UNSEEN

if TYPE_CHECKING:
    import httpx

LIMIT = 200 * 2**20  # bytes of an answer
TIMEOUT, PATIENCE = 20.0, 180.0  # seconds without a byte; seconds for a whole answer, with all that is tried again
CONNECT = 5.0  # seconds for a connection: a room whose network is dead shall not wait longer
TRIES, AGAIN, REDIRECTS = 4, (429, 502, 503, 504), 5
LOCAL = ("127.0.0.1", "localhost", "::1")
SAFE = "%/:=&?~#+!$,;'@()*[]"


class HostedError(GraphError):
    """What was asked of the web came to nothing; the message says why and what to do.

    ``status`` is the HTTP status of the answer (0: none came; -1: it was not asked for, or not taken), ``said`` what the answer gives as its reason, ``after`` the seconds
    that it asks to wait (None: it does not say).
    """

    def __init__(self, message: str, status: int = 0, said: str = "", after: float | None = None) -> None:
        super().__init__(message)
        self.status, self.said, self.after = status, said, after


def is_local(address: str) -> bool:
    return urlsplit(address.partition("?")[0]).hostname in LOCAL


def brief(address: str) -> str:
    """An address for a message: without its query, which may be long and hold what is private."""
    return ascii(address.partition("?")[0][:200])[1:-1]


def allowed(address: str, local: bool) -> None:
    """Raise HostedError unless the address may be opened: https, or with ``local`` http on this machine; no user name in it."""
    try:
        parts = urlsplit(address)
        _ = parts.port
    except ValueError as error:
        raise HostedError(f"The address cannot be read: {error}.", -1) from None
    if parts.username or parts.password:
        raise HostedError(
            "The address holds a user name or password: nothing is sent but the address of the graph.", -1
        )
    if not parts.hostname or not (parts.scheme == "https" or (parts.scheme == "http" and local and is_local(address))):
        raise HostedError(f"{brief(address)} is not opened: a graph is fetched over https only.", -1)


@lru_cache(maxsize=1)
def _certificates() -> ssl.SSLContext:
    import httpx

    return httpx.create_ssl_context()


@dataclass
class Web:
    """Asks for addresses, at least ``interval`` seconds apart, and again (at most ``TRIES`` times, waiting longer each time and by
    chance, or as ``Retry-After`` says) where an answer is 429 or 502 to 504, or the connection breaks. A POST, which may
    have had its effect, is sent again only after 429 or 503. ``clock``, ``sleep`` and ``chance`` can be replaced."""

    interval: float = 0.0
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], object] = time.sleep
    chance: Callable[[], float] = random.random
    _next: float = field(default=float("-inf"), repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def ask(
        self,
        address: str,
        method: str = "GET",
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        local: bool = False,
        timeout: float = TIMEOUT,
        patience: float = PATIENCE,
    ) -> bytes:
        """The bytes of the answer. ``headers`` go to this address only, never to where it redirects. Raises HostedError."""
        end = self.clock() + patience
        for attempt in range(TRIES):
            wait = 2.0 ** (attempt - 1) * (0.5 + self.chance())
            try:
                return self._follow(address, method, body, headers or {}, local, min(timeout, patience), end)
            except _Broken as broken:
                error = HostedError(f"{brief(address)} broke the connection: {broken}.")
                again = method != "POST"
            except HostedError as refused:
                error, again = refused, refused.status in ((429, 503) if method == "POST" else AGAIN)
                wait = wait if refused.after is None else max(refused.after, 0.0)
            if not again or attempt == TRIES - 1 or self.clock() + wait > end:
                raise error from None
            self.sleep(wait)
        raise AssertionError("unreachable")

    def _turn(self) -> None:
        with self._lock:
            now = self.clock()
            start = max(now, self._next)
            self._next = start + self.interval
        if start > now:
            self.sleep(start - now)

    def _follow(
        self, address: str, method: str, body: bytes | None, headers: dict[str, str], local: bool, timeout: float, end: float
    ) -> bytes:  # fmt: skip
        for _ in range(REDIRECTS):
            allowed(address, local)
            self._turn()
            found = self._once(address, method, body, headers, timeout, end)
            if isinstance(found, bytes):
                return found
            if method != "GET":
                raise HostedError(f"{brief(address)} sends a request elsewhere that it should answer itself.", -1)
            address, headers = found, {}
        raise HostedError(f"{brief(address)} redirects too often.", -1)

    def _once(
        self, address: str, method: str, body: bytes | None, headers: dict[str, str], timeout: float, end: float
    ) -> bytes | str:
        """The answer of one request, or the address that it redirects to."""
        import httpx

        limits = httpx.Timeout(timeout, connect=min(timeout, CONNECT))
        sent = {"User-Agent": "mi-workshop", "Accept": "application/json, */*", "Accept-Encoding": "gzip"} | headers
        try:
            with (
                httpx.Client(verify=_certificates(), trust_env=not is_local(address), timeout=limits) as client,
                client.stream(method, quote(address, safe=SAFE), content=body, headers=sent) as answer,
            ):
                if answer.is_redirect:
                    return str(answer.url.join(answer.headers.get("location", "")))
                data = self._read(answer, address, end)
                if answer.is_success:
                    return data
                raise self._refused(answer, data, address)
        except httpx.ConnectTimeout:
            raise HostedError(
                f"{brief(address)} cannot be reached: no answer for {min(timeout, CONNECT):.3g} s."
            ) from None
        except httpx.TimeoutException:
            raise HostedError(f"{brief(address)} did not answer for {timeout:.3g} s.") from None
        except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError) as error:
            raise _Broken(str(error).rstrip(".") or type(error).__name__) from None
        except (
            httpx.HTTPError,
            httpx.InvalidURL,
            ImportError,
            OSError,
            ValueError,
        ) as error:  # ImportError: a SOCKS proxy
            if isinstance(error, HostedError):
                raise
            said = re.sub(r"\[Errno -?\d+\] ", "", str(error)).rstrip(".") or type(error).__name__
            raise HostedError(f"{brief(address)} cannot be reached: {said}.") from None

    def _read(self, answer: httpx.Response, address: str, end: float) -> bytes:
        parts, size = [], 0
        for chunk in answer.iter_bytes():
            parts.append(chunk)
            size += len(chunk)
            if size > LIMIT:
                raise HostedError(
                    f"{brief(address)} is larger than {LIMIT >> 20} MB: no attribution graph that can be shown is.", -1
                )
            if self.clock() > end:
                raise HostedError(f"{brief(address)} took too long: it was still sending when time was up.")
        return b"".join(parts)

    def _refused(self, answer: httpx.Response, data: bytes, address: str) -> HostedError:
        status, after = answer.status_code, _seconds(answer.headers.get("retry-after", ""))
        message = f"{brief(address)} answers {status} {answer.reason_phrase}.".replace(" .", ".")
        return HostedError(message, status, _reason(data), after)


class _Broken(Exception):
    """The connection was there and broke."""


def _reason(data: bytes) -> str:
    """What an API says went wrong: ``message``, ``details`` or ``error`` of its JSON, as one line of text."""
    try:
        found = json.loads(data[:20_000])
    except (ValueError, RecursionError):
        return ""
    said = [found.get(k) for k in ("message", "details", "error")] if isinstance(found, dict) else []
    first = next((s for s in said if isinstance(s, str) and s), "")
    return " ".join(UNSEEN.sub("", first).split())[:300].rstrip(".")


def _seconds(value: str) -> float | None:
    """``Retry-After`` in seconds, given as such or as a date; None for anything else."""
    try:
        return min(float(value), 1e6)
    except ValueError:
        pass
    try:
        return parsedate_to_datetime(value).timestamp() - time.time()
    except (ValueError, TypeError):
        return None
