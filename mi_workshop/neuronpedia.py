"""Neuronpedia over HTTP: published graphs, new ones, features and steering of Gemma, for machines that have a network but no GPU.

``mi_workshop.hosted`` is the client to use. Every graph, feature and answer once seen opens offline, from ``mi_workshop.cache``. The host is
``https://www.neuronpedia.org`` or the variable ``MI_WORKSHOP_NEURONPEDIA``; with ``MI_WORKSHOP_OFFLINE=1`` nothing is asked. A key (variable or
Colab secret ``NEURONPEDIA_API_KEY``) is sent to that host alone, by what needs one: sub-graphs and ``upload``. The requests are those of
Neuronpedia's own web page and of its published API description.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from mi_workshop import cache
from mi_workshop.api import BASE, RAISE, degrades, source_set_of
from mi_workshop.circuits import sources
from mi_workshop.circuits.graph import AttributionGraph, GraphError
from mi_workshop.circuits.repairs import UNSEEN, integer, number
from mi_workshop.sharing import Sharing
from mi_workshop.web import PATIENCE, TIMEOUT, HostedError, Web, brief

if TYPE_CHECKING:
    import pandas as pd

    from mi_workshop.circuits.hosted_feature import HostedFeature
    from mi_workshop.circuits.steering import SteerResult

HOSTS = ("www.neuronpedia.org", "neuronpedia.org")
QUICK = 15.0  # seconds for what somebody waits for in a view
MAKING, STEERING = 240.0, 60.0  # seconds for a graph to be made, and for a steered answer
MAX_TOKENS, LAYERS, PAGE = 64, 64, 20  # LAYERS: more than any model there has; PAGE: search results in one answer
LIMITS = {  # of the options of ``generate``, as its API checks them
    "max_n_logits": ("maxNLogits", 5, 15), "desired_logit_prob": ("desiredLogitProb", 0.6, 0.99), "node_threshold": ("nodeThreshold", 0.5, 0.95),
    "edge_threshold": ("edgeThreshold", 0.65, 0.98), "max_feature_nodes": ("maxFeatureNodes", 1500, 10_000),
}  # fmt: skip


@dataclass(frozen=True)
class HostedModel:
    """A model that runs elsewhere: ``graph.model`` of a graph from Neuronpedia, so that its view can show features and steer."""

    name: str
    source_set: str
    client: Neuronpedia = field(repr=False)


class Neuronpedia(Sharing):
    """A client of Neuronpedia, or of another host that speaks its API (``base``; it gets no key but ``key``).

    All methods raise HostedError, a ValueError whose message is one sentence for the user; ``graph``, ``generate``, ``feature``, ``search`` and
    ``steer`` take ``otherwise=``, what to return instead after printing that sentence, and ``refresh=True`` to ask again for what is cached.
    """

    # ------------------------------------------------------------------ graphs
    @degrades
    def graph(self, model: str, slug: str = "", refresh: bool = False, otherwise: Any = RAISE) -> AttributionGraph:
        """A published graph, by model and slug or by the address of its page (whose groups, labels and threshold it then has).

        One seen before comes from this machine's cache; its ``notes`` then say how old it is.
        """
        address = next((a for a in (slug, model) if sources.is_address(a)), "")
        if not address:
            return self._graph(model, slug, refresh=refresh)
        try:
            found = sources.page(sources.whole(address))
        except GraphError as error:
            raise HostedError(str(error)) from None
        if found is None:
            raise HostedError(f"{brief(address)} is no page of a graph: those look like {BASE}/MODEL/graph?slug=NAME.")
        return open_page(*found, refresh=refresh, client=self)

    def _graph(
        self, model: str, slug: str, state: dict[str, Any] | None = None, refresh: bool = False
    ) -> AttributionGraph:
        from mi_workshop.circuits.dialects import read

        name = f"{self.base} graph {model} {slug}"
        kept = None if refresh else cache.get(name)
        if kept is None:
            about = self._ask(f"/api/graph/{_part(model)}/{_part(slug)}", what=f"graph {slug!r} of {model}", name=name)
            place = about.get("url") if isinstance(about, dict) else None
            if not isinstance(place, str):
                raise HostedError("Neuronpedia's answer does not say where the graph lies: it has no url.")
            data, given = self._send(place, what="file of this graph", name=name), about.get("sourceSetName")
        else:
            data, given = kept.data, kept.about.get("source_set")
        try:
            graph = read(sources.unpacked(data, "The file behind the page"), "The file behind the page", state)
        except GraphError as error:
            raise HostedError(str(error)) from None
        note = self._age(kept) if kept else cache.put(name, data, self._now(), source_set=given)
        source_set = source_set_of(model, given if isinstance(given, str) and given else graph.source_set)
        start = (
            graph.tokens[0] if re.fullmatch("<[^<>]*>", graph.tokens[0]) else ""
        )  # <bos>, which is no part of what was typed
        return replace(
            graph, prompt=graph.prompt.removeprefix(start) or graph.prompt, notes=(*graph.notes, *filter(None, [note])), source_set=source_set,
            model=HostedModel(model, source_set, self) if source_set and not graph.opaque else None,
        )  # fmt: skip

    @degrades
    def generate(
        self,
        model: str,
        prompt: str,
        source_set: str = "",
        max_n_logits: int = 10,
        desired_logit_prob: float = 0.95,
        node_threshold: float = 0.8,
        edge_threshold: float = 0.98,
        max_feature_nodes: int = 5000,
        refresh: bool = False,
        otherwise: Any = RAISE,
    ) -> AttributionGraph:
        """Have Neuronpedia trace a prompt of at most 64 tokens; the options are those of ``trace`` and ``prune``. The graph is public there.

        Its slug follows from the prompt and the options, so that what somebody has had traced is not traced again.
        """
        given = {
            "max_n_logits": max_n_logits, "desired_logit_prob": desired_logit_prob, "node_threshold": node_threshold,
            "edge_threshold": edge_threshold, "max_feature_nodes": max_feature_nodes,
        }  # fmt: skip
        body: dict[str, Any] = {"prompt": prompt, "modelId": model}
        for option, (key, low, high) in LIMITS.items():
            if not low <= given[option] <= high:
                raise HostedError(f"{option} must lie between {low} and {high} on Neuronpedia, not {given[option]}.")
            body[key] = given[option]
        if source_set := source_set_of(model, source_set):
            body["sourceSetName"] = source_set
        words = "-".join(re.findall("[a-z0-9]+", prompt.lower()))[:24].strip("-")
        slug = f"mi-{words}-{hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:12]}"
        if refresh:
            slug += f"-{int(self._now())}"
        elif cache.get(f"{self.base} graph {model} {slug}"):
            return self._graph(model, slug)
        tokens = self.tokenize(model, prompt, source_set)
        if len(tokens) > MAX_TOKENS:
            raise HostedError(
                f"The prompt has {len(tokens)} tokens and Neuronpedia traces at most {MAX_TOKENS}: shorten it."
            )
        if not refresh and (made := self._made(model, slug, prompt)):
            return made
        try:
            _wait(
                lambda: self._ask(
                    "/api/graph/generate", body | {"slug": slug}, "new graph", patience=MAKING, timeout=MAKING
                ),
                11.2 * math.log2(max(len(tokens), 4)) - 7,  # seconds, as Neuronpedia's own page reckons
                f"Neuronpedia traces {len(tokens)} tokens",
            )
        except HostedError as error:  # its answer may be lost, but not the graph; or somebody else made it meanwhile
            if error.status in (-1, 401, 403, 429, 503) or not (made := self._made(model, slug, prompt)):
                raise
            return made
        return self._graph(model, slug)

    def _made(self, model: str, slug: str, prompt: str) -> AttributionGraph | None:
        try:
            graph = self._graph(model, slug)
        except HostedError:
            return None
        return graph if graph.prompt == prompt else None

    # ---------------------------------------------------- tokens and features
    def tokenize(self, model: str, prompt: str, source_set: str = "") -> list[str]:
        """The tokens of a prompt as the model reads them, <bos> first: their places are the positions of a graph."""
        body = {"modelId": model, "prompt": prompt} | _named(source_set_of(model, source_set))

        def read(value: Any) -> list[str]:
            tokens = value.get("input_tokens") if isinstance(value, dict) else None
            if not isinstance(tokens, list) or not tokens:
                raise HostedError("Neuronpedia's answer holds no tokens.")
            return [str(t) for t in tokens]

        return self._seen(
            "tokenize", body, read, lambda: self._ask("/api/graph/tokenize", body, "tokenization of this prompt")
        )[0]

    @degrades
    def feature(
        self, model: str, layer: int, index: int, source_set: str = "", refresh: bool = False, otherwise: Any = RAISE, patience: float = PATIENCE,
    ) -> HostedFeature:  # fmt: skip
        """What is known of one feature: examples, explanations, the logits that it raises and lowers. It shows itself."""
        from mi_workshop.circuits.hosted_feature import read_feature

        name = source_set_of(model, source_set)
        if not name:
            raise HostedError(f"source_set must name the transcoders of {model}, as in the address of a feature there.")
        path, what = (
            f"{_part(model)}/{_part(f'{layer}-{name}')}/{_part(index)}",
            f"feature {layer}/{index} of {model} ({name})",
        )
        page, note = self._seen(
            "feature", path, lambda value: read_feature(value, model, int(layer), int(index), name),
            lambda: self._ask(f"/api/feature/{path}", what=what, patience=patience, timeout=min(patience, TIMEOUT)), refresh,
        )  # fmt: skip
        return replace(page, note=note)

    @degrades
    def search(
        self, model: str, text: str, source_set: str = "", n: int = 20, refresh: bool = False, otherwise: Any = RAISE
    ) -> pd.DataFrame:
        """Features whose explanation is nearest in meaning to ``text``: ``layer, feature, source_set, explanation, similarity``.

        ``source_set``: only in these transcoders; by default in all that the model has there.
        """
        import pandas as pd

        rows: list[list[Any]] = []
        while len(rows) < n:
            body: dict[str, Any] = {"modelId": model, "query": text, "offset": len(rows)}
            if source_set:
                body["layers"] = [f"{layer}-{source_set}" for layer in range(LAYERS)]
            path = "/api/explanation/search" + ("" if source_set else "-model")
            ask = functools.partial(self._ask, path, body, f"search in {model}")
            found, _ = self._seen("search", [path, body], _found, ask, refresh)
            rows += found
            if len(found) < PAGE:
                break
        columns = ["layer", "feature", "source_set", "explanation", "similarity"]
        return pd.DataFrame(rows[:n], columns=columns)

    @degrades
    def steer(
        self, model: str, prompt: str, edits: list[dict[str, Any]], graph: AttributionGraph | None = None, source_set: str = "", n_random: int = 3,
        freeze_attention: bool = True, refresh: bool = False, otherwise: Any = RAISE,
    ) -> SteerResult:  # fmt: skip
        """The model's answers with features changed, beside the controls; see ``circuits.steering.steer``."""
        from mi_workshop.circuits.steering import steer

        hosted = HostedModel(model, source_set_of(model, source_set or (graph.source_set if graph else "")), self)
        return steer(hosted, prompt, edits, graph, n_random, freeze_attention, refresh)

    def steer_logits(self, body: dict[str, Any], refresh: bool = False, patience: float = STEERING) -> tuple[Any, str]:
        """One request to ``/api/steer-logits`` and a note on its age; the answer holds ``DEFAULT_`` and ``STEERED_LOGITS_BY_TOKEN``."""

        def read(value: Any) -> Any:
            if not isinstance(value, dict) or not isinstance(value.get("STEERED_LOGITS_BY_TOKEN"), list):
                raise HostedError("Neuronpedia's answer holds no steered logits.")
            return value

        ask = functools.partial(
            self._ask, "/api/steer-logits", body, "steered answer", patience=patience, timeout=patience
        )
        return self._seen("steer", body, read, ask, refresh)


hosted = Neuronpedia()


def open_page(
    base: str, model: str, slug: str, state: dict[str, Any], refresh: bool = False, client: Neuronpedia = hosted
) -> AttributionGraph:
    """The graph of a page (see ``sources.page``). A page on a host other than the client's is read, but nothing else is asked there."""
    if urlsplit(base).netloc in (*HOSTS, urlsplit(client.base).netloc):
        return client._graph(model, slug, state, refresh)
    return replace(Neuronpedia(base, web=Web())._graph(model, slug, state, refresh), model=None)


def _part(value: Any) -> str:
    return quote(str(value), safe="")


def _named(source_set: str) -> dict[str, str]:
    return {"sourceSetName": source_set} if source_set else {}


def _found(value: Any) -> list[list[Any]]:
    """Rows of ``search`` from one answer."""
    results = value.get("results") if isinstance(value, dict) else None
    if not isinstance(results, list):
        raise HostedError("Neuronpedia's answer holds no results.")
    rows = []
    for r in results:
        match = re.fullmatch(r"(\d{1,4})-(.+)", str(r.get("layer"))) if isinstance(r, dict) else None
        if match and (index := integer(r.get("index"))) is not None:
            words, near = UNSEEN.sub("", str(r.get("description") or ""))[:500], r.get("cosine_similarity")
            rows.append([int(match[1]), index, match[2], words, number(near)])
    return rows


def _wait(job: Callable[[], Any], seconds: float, said: str) -> Any:
    """The result of ``job``, with a bar that fills in the ``seconds`` to expect."""
    from tqdm.auto import tqdm

    done: list[tuple[Any, BaseException | None]] = []

    def run() -> None:
        try:
            done.append((job(), None))
        except BaseException as error:
            done.append((None, error))

    thread, start = threading.Thread(target=run, daemon=True), time.monotonic()
    thread.start()
    with tqdm(
        total=round(seconds),
        desc=said,
        unit="s",
        leave=False,
        bar_format="{desc}: {n:.0f} s, expected {total} s |{bar}|",
    ) as bar:
        while thread.is_alive():
            thread.join(0.2)
            bar.update(min(time.monotonic() - start, seconds) - bar.n)
    result, error = done[0]
    if error is not None:
        raise error
    return result
