"""How Neuronpedia is asked: its host and key, what is cached, and the sentence for each way in which it can fail."""

from __future__ import annotations

import functools
import importlib
import json
import os
import re
import sys
import time
from collections.abc import Callable
from typing import Any, TypeVar

from mi_workshop import cache
from mi_workshop.circuits import sources
from mi_workshop.circuits.graph import GraphError
from mi_workshop.models.hub import KNOWN
from mi_workshop.web import PATIENCE, TIMEOUT, HostedError, Web, allowed, is_local

BASE = "https://www.neuronpedia.org"
KEY, ACCOUNT = "NEURONPEDIA_API_KEY", f"{BASE}/account"
GET_KEY = f"make one at {ACCOUNT} and put it into the variable (in Colab: the secret) {KEY}."
INTERVAL = 0.25  # seconds between requests
RAISE = object()
Method = TypeVar("Method", bound=Callable[..., Any])


def degrades(method: Method) -> Method:
    """Give a method of ``Neuronpedia`` ``otherwise=``: what it returns, after printing the sentence, instead of raising HostedError."""

    @functools.wraps(method)
    def run(self: Any, *args: Any, otherwise: Any = RAISE, **kwargs: Any) -> Any:
        try:
            return method(self, *args, **kwargs)
        except HostedError as error:
            if otherwise is RAISE:
                raise
            print(error)
            return otherwise

    return run  # type: ignore[return-value]


def source_set_of(model: str, given: str | None) -> str:
    """The name that Neuronpedia uses for a set of transcoders; "" if none is known. Graphs that name none, or circuit-tracer's short
    name, have the per-layer ones of ``models.hub``."""
    name = (given or "").rpartition("/")[2]
    return KNOWN[model].source_sets.get("plt", name) if name in ("", "gemma") and model in KNOWN else name


class Api:
    """Requests to ``base``; the methods of ``Neuronpedia`` are made of them."""

    def __init__(
        self, base: str = "", key: str = "", web: Web | None = None, now: Callable[[], float] = time.time
    ) -> None:
        self._base, self._key, self._web, self._now = base, key, web or Web(INTERVAL), now

    def __repr__(self) -> str:
        return f"Neuronpedia({self.base!r})"

    @property
    def base(self) -> str:
        """The host that is asked, such as ``https://www.neuronpedia.org``."""
        return (self._base or os.environ.get("MI_WORKSHOP_NEURONPEDIA") or BASE).rstrip("/")

    def _seen(
        self, kind: str, of: Any, read: Callable[[Any], Any], ask: Callable[[], Any], refresh: bool = False
    ) -> tuple[Any, str]:
        """What ``read`` makes of an answer, asked for or from the cache, and a note that says which."""
        name = f"{self.base} {kind} {json.dumps(of, sort_keys=True)}"
        kept = None if refresh else cache.get(name)
        if kept is not None:
            return read(json.loads(kept.data)), self._age(kept)
        value = ask()
        return read(value), cache.put(name, json.dumps(value).encode(), self._now())

    def _age(self, kept: cache.Kept) -> str:
        return f"From this machine's cache, {cache.age(self._now() - kept.when)}: refresh=True asks again."

    def _ask(
        self, path: str, body: Any = None, what: str = "", key: bool = False, name: str = "", patience: float = PATIENCE, timeout: float = TIMEOUT,
    ) -> Any:  # fmt: skip
        """The JSON of an answer; ``what`` was asked for, in words, and ``name`` is what it is called in the cache."""
        sent = None if body is None else json.dumps(body).encode()
        headers = {} if body is None else {"Content-Type": "application/json"}
        if key:
            headers["x-api-key"] = self._secret()
        method = "GET" if body is None else "POST"
        data = self._send(self.base + path, what, method, sent, headers, name, patience, timeout)
        if data.lstrip()[:1] == b"<":
            raise HostedError(
                "Neuronpedia answers with a web page instead of data: try again later, or sign in to this network first."
            )
        try:
            return json.loads(sources.unpacked(data, "Neuronpedia's answer"))
        except GraphError as error:
            raise HostedError(str(error)) from None
        except (ValueError, RecursionError):
            raise HostedError(
                "Neuronpedia's answer cannot be read: it is no JSON, or was cut short. Try again later."
            ) from None

    def _send(
        self, address: str, what: str, method: str = "GET", body: bytes | None = None, headers: dict[str, str] | None = None,
        name: str = "", patience: float = PATIENCE, timeout: float = TIMEOUT,
    ) -> bytes:  # fmt: skip
        if os.environ.get("MI_WORKSHOP_OFFLINE", "") not in ("", "0"):
            state = "holds a damaged copy" if name and cache.damaged(name) else "does not hold it"
            raise HostedError(
                f"MI_WORKSHOP_OFFLINE is set, so the {what} is not asked for; this machine's cache {state}."
            )
        local = is_local(self.base)
        try:
            allowed(self.base, local)
        except HostedError as error:
            raise HostedError(f"MI_WORKSHOP_NEURONPEDIA: {error}") from None
        try:
            return self._web.ask(address, method, body, headers, local, timeout, patience)
        except HostedError as error:
            said = _sentence(error, what, "x-api-key" in (headers or {}))
            said += " The copy in this machine's cache is damaged." if name and cache.damaged(name) else ""
            raise HostedError(said, error.status, error.said) from None

    def _secret(self) -> str:
        """The key: never stored, shown or sent but in the header of a request to ``base`` that needs it."""
        key = self._key or ("" if self._base else os.environ.get(KEY, ""))
        if not key and not self._base and "google.colab" in sys.modules:
            try:
                key = importlib.import_module("google.colab.userdata").get(KEY) or ""
            except Exception:  # no such secret, or no leave to read it: it has many names
                key = ""
        key = key.strip()
        if not key:
            raise HostedError(f"This needs a key: {GET_KEY}")
        if not re.fullmatch("[!-~]+", key):
            raise HostedError(f"{KEY} holds characters that no key has: copy it again from {ACCOUNT}.")
        return key


def _sentence(error: HostedError, what: str, with_key: bool) -> str:
    """What the user is told of an answer's status."""
    status, said = error.status, f" ({error.said})" if error.said else ""
    if status == -1:
        return str(error)
    if status == 0:
        return f"{error} Check the connection; what was seen before opens from this machine's cache."
    if status == 404:
        return f"Neuronpedia has no {what} (404): check the name."
    if status == 403 and not error.said and not with_key:
        return "Neuronpedia refuses this (403) and gives no reason: see whether its pages open in a browser, or try again later."
    if status in (401, 403):
        if with_key:
            return f"Neuronpedia does not accept the key for this ({status}): see {ACCOUNT}."
        return f"Neuronpedia answers {status}, this needs a key: {GET_KEY}"
    if status == 429:
        when = f"in {error.after:.0f} s" if error.after and error.after > 0 else "later (the limits count by the hour)"
        return f"Neuronpedia takes no more requests from here for now (429): try again {when}."
    if status >= 500:
        return f"Neuronpedia answers {status}{said}, the fault lies there: try again in a minute."
    return f"Neuronpedia refuses this ({status}): {error.said or 'it gives no reason'}."
