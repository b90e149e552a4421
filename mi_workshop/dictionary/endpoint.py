"""A large model explains a unit and predicts its activations: any endpoint that speaks OpenAI's chat completions, on this machine or over https.

What it answers is text from a stranger: read as JSON, checked, clipped, never markup. The key is that of the variable (in Colab: the secret)
that ``key`` names; it is sent in the header of a request to the given address alone, never shown, stored or put into an address.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import sys
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.sparse import csc_array

from mi_workshop.circuits.feature_page import BINS
from mi_workshop.circuits.repairs import UNSEEN
from mi_workshop.concepts import Concepts
from mi_workshop.dictionary.judge import Case, Interpretation, score
from mi_workshop.web import HostedError, Web, allowed, brief, is_local

KEY = "MI_WORKSHOP_EXPLAINER_KEY"
WAIT = 120.0  # seconds for an answer: a small computer thinks for a while
LONGEST = 240  # characters of an explanation
TASK = "A unit of a language model is active, with a level from 0 to 10, at some tokens of sentences. Answer with one JSON object and nothing else."
ASK = 'Say in at most 25 words what makes it active. Format: {"explanation": "..."}. Each sentence is a list of [token, level]:\n'
PREDICT = (
    'Explanation of the unit: %s\nPredict its level (integer, 0 to 10) at each token of these sentences, most levels are 0. Format: {"levels": [[...], ...]}, '
    "one list for each sentence, one number for each token:\n"
)


@dataclass(frozen=True)
class Endpoint:
    """See ``endpoint``."""

    address: str
    model: str
    key: str
    web: Web = field(default_factory=Web, repr=False)

    def explain(self, shown: list[list[tuple[str, int]]]) -> str:
        """What the unit is, in one line. Raises HostedError."""
        said = self._ask(ASK + "\n".join(json.dumps(s, ensure_ascii=False) for s in shown)).get("explanation")
        said = " ".join(UNSEEN.sub("", said).split())[:LONGEST] if isinstance(said, str) else ""
        if not said:
            raise HostedError(f"{self.model!r:.60} gave no explanation in the form that it was asked for.", -1)
        return said

    def predict(self, explanation: str, sentences: list[list[str]]) -> list[list[int]]:
        """Levels from 0 to 10, one for each token. Raises HostedError where the answer has another shape."""
        told = PREDICT % json.dumps(explanation) + "\n".join(json.dumps(s, ensure_ascii=False) for s in sentences)
        levels = self._ask(told).get("levels")
        try:
            out = [[min(10, max(0, round(float(v)))) for v in row] for row in levels]  # type: ignore[union-attr]
        except (TypeError, ValueError, OverflowError):
            out = []
        if [len(row) for row in out] != [len(s) for s in sentences]:
            raise HostedError(f"{self.model!r:.60} did not predict one level for each token, so it cannot be scored.", -1)  # fmt: skip
        return out

    def _ask(self, text: str) -> dict[str, Any]:
        try:
            local = is_local(self.address)
            allowed(self.address, local)
        except ValueError:
            where = brief(self.address.rpartition("@")[2])
            raise HostedError(
                f"{where!r} is not asked: an endpoint has an https address, or http on this machine, without a user name.",
                -1,
            ) from None
        if not local and os.environ.get("MI_WORKSHOP_OFFLINE", "") not in ("", "0"):
            raise HostedError(f"MI_WORKSHOP_OFFLINE is set, so {brief(self.address)} is not asked.", -1)
        messages = [{"role": "system", "content": TASK}, {"role": "user", "content": text}]
        body = json.dumps({"model": self.model, "messages": messages, "temperature": 0}).encode()
        headers = {"Content-Type": "application/json"}
        if secret := self._secret():
            headers["Authorization"] = f"Bearer {secret}"
        try:
            data = self.web.ask(self.address, "POST", body, headers, local, WAIT)
        except HostedError as error:
            why = f" Put its key into the variable (in Colab: the secret) {self.key}." if error.status in (401, 403) else ""  # fmt: skip
            raise HostedError(f"{error}{why}", error.status) from None
        try:
            content = json.loads(data)["choices"][0]["message"]["content"]
            found = json.loads(content[content.index("{") : content.rindex("}") + 1], strict=False)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise HostedError(f"{brief(self.address)} did not answer with the JSON that it was asked for.", -1)
        return found

    def _secret(self) -> str:
        key = os.environ.get(self.key, "")
        if not key and "google.colab" in sys.modules:
            try:
                key = importlib.import_module("google.colab.userdata").get(self.key) or ""
            except Exception:  # no such secret, or no leave to read it: it has many names
                key = ""
        if not re.fullmatch("[!-~]*", key := key.strip()):
            raise HostedError(f"{self.key} holds characters that no key has: copy it again.", -1)
        return key


def endpoint(url: str, model: str, key: str = KEY) -> Endpoint:
    """``interpret(..., explainer=endpoint("http://127.0.0.1:11434/v1", "llama3.2"))`` for Ollama on this machine; llama.cpp, vLLM and hosted services
    have such addresses too. ``key``: the name of the variable that holds the key, not the key."""
    address = url.rstrip("/")
    return Endpoint(address if address.endswith("/chat/completions") else f"{address}/chat/completions", model, key)


def explained(
    by: Any, name: str, found: Concepts, acts: np.ndarray, looked: np.ndarray, weights: csc_array, rule: np.ndarray, seed: int
) -> Interpretation:  # fmt: skip
    """The interpretation of ``by``, asked with 20 of the example sentences and scored at the tokens of 14 held-out ones, beside the levels of a ``rule``."""
    text, rng = found.text, np.random.default_rng(seed)
    true = np.ceil(10 * acts / max(acts.max(), 1e-8)).astype(int)

    def spans(where: np.ndarray, strongest: int, each: int, silent: int) -> list[slice]:
        mixed = rng.permutation(np.flatnonzero(where))
        share = acts[mixed] / max(acts[mixed].max(), 1e-8)
        chosen = list(mixed[np.argsort(-share, kind="stable")][:strongest])
        for low, high in zip(BINS, (1.1, *BINS), strict=False):
            chosen += list(mixed[(share > 0) & (share >= low) & (share < high)][:each])
        fires = np.unique(text.sentence[acts > 0])
        quiet = text.sentence[mixed]
        sentences = [*text.sentence[chosen], *list(dict.fromkeys(quiet[~np.isin(quiet, fires)].tolist()))[:silent]]
        return [slice(text.start[s], text.start[s] + len(text.words[s])) for s in dict.fromkeys(map(int, sentences))]

    asked = spans(looked & (weights.toarray()[:, 0] > 0), 5, 2, 5)
    words = {s.start: text.words[text.sentence[s.start]] for s in asked}
    said = by.explain([list(zip(words[s.start], true[s].tolist(), strict=True)) for s in asked])
    held = spans(~looked, 2, 1, 7)
    sentences = [text.words[text.sentence[s.start]] for s in held]
    predicted = by.predict(said, sentences)
    where = np.concatenate([np.arange(s.start, s.stop) for s in held])
    cases = [Case(w, true[s].tolist(), p, int(true[s].argmax()), "held out") for w, s, p in zip(sentences, held, predicted, strict=True)]  # fmt: skip
    own, other = score(np.concatenate(predicted), acts[where]), score(rule[where], acts[where])
    return Interpretation(name, said, getattr(by, "model", "a large model"), None, own, len(where), cases, other)
