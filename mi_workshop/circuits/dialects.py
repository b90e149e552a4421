"""Read attribution graphs as Neuronpedia, circuit-tracer and Anthropic's frontend write them, whatever the dialect.

What a file gets wrong is refused in one sentence (GraphError) where the graph would be another one, else repaired and told
in ``graph.notes``. Texts lose control and direction characters and are cut at 200 characters; nothing is ever unpickled.
"""

from __future__ import annotations

import json
import math
import re
import warnings
from collections import Counter
from dataclasses import replace
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mi_workshop.circuits import scores, sources
from mi_workshop.circuits.graph import CODED, KINDS, LOGIT, NODES, TOKEN, AttributionGraph, GraphError, cantor
from mi_workshop.circuits.repairs import LARGEST, UNSEEN, Notes, integer, number, shown
from mi_workshop.circuits.state import Names, cut, labels, with_state

# at most: characters of a prompt, tokens, layers, renamed nodes told one by one
PROMPT, TOKENS, LAYERS, RENAMED = 20_000, 100_000, 1_000, 10
ANSWER = re.compile(r"(?:output|logit):? *([\"'])(.*)\1 *\(p=[^()]*\)\s*", re.IGNORECASE | re.DOTALL)
FEATURE_ID = re.compile(r"([0-9]{1,9})_(?:[a-z]+_)?([0-9]{1,18})_[0-9]+")


def read_graph(source: str | Path | dict[str, Any]) -> AttributionGraph:
    """Read a file, the https address of a JSON file, the address of a graph's page on Neuronpedia with its state, or a dict.

    Raises GraphError naming the source and what is wrong with it.
    """
    if isinstance(source, dict):
        return parse_graph(source)
    if not sources.is_address(source):
        return read(sources.read_file(Path(source)), str(source))
    address = sources.whole(str(source))
    page = sources.page(address)
    if page is None:
        return read(sources.fetch(address), "The file at the address")
    from mi_workshop.neuronpedia import open_page

    return open_page(*page)


def read(data: bytes, name: str, state: dict[str, Any] | None = None) -> AttributionGraph:
    value, repeated = _json(data, name)
    return parse_graph(value, name, state, repeated)


def _json(data: bytes, name: str) -> tuple[Any, int]:
    """The JSON value, and the number of objects in which a key stands twice."""
    repeated = 0

    def take(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal repeated
        out = dict(pairs)
        repeated += len(out) < len(pairs)
        return out

    try:
        return json.loads(data, object_pairs_hook=take), repeated
    except RecursionError:
        raise GraphError(f"{name} cannot be read as JSON: it is nested too deeply.") from None
    except ValueError as error:
        raise GraphError(f"{name} cannot be read as JSON: {str(error)[:200]}.") from None


def parse_graph(
    data: Any, name: str = "The dict", state: dict[str, Any] | None = None, repeated: int = 0
) -> AttributionGraph:
    """The graph in a JSON value. ``state`` (what a page's address says) replaces what the file's ``qParams`` say."""
    notes = Notes()
    notes.count("Objects in which a key stands twice", "the last one counts", repeated)
    try:
        graph = _Reader(data, notes).graph(state or {})
        _ = graph.scores  # a cycle shows itself here
        return graph
    except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        said = str(error)[:300].rstrip(".")
        raise GraphError(f"{name} is not an attribution graph: {said[:1].lower()}{said[1:]}.") from None


def feature_index(node_id: str, layer: int, feature: int | None, schema: Any) -> tuple[int | None, str]:
    """A feature's index in its layer and the file's encoding of it: ``pair`` (Cantor, schema version 1), ``digits`` (the
    layer, then five digits), ``opaque`` (a number of its own), ``""`` (cannot be told), ``odd`` (fits none; the id counts)."""
    match = FEATURE_ID.fullmatch(node_id)
    if match and int(match[1]) == layer:
        index = int(match[2])
        if feature is None:
            return index, ""
        fits = {cantor(layer, index): "pair"}  # in layer 0 the two others cannot be told apart
        fits |= {int(f"{layer}{index:05d}"): "digits" if layer else "", index: "opaque" if layer else ""}
        return index, fits.get(feature, "odd")
    if feature is None or feature < 0:
        return None, ""
    if schema == 1:
        diagonal = (math.isqrt(8 * feature + 1) - 1) // 2
        index = feature - diagonal * (diagonal + 1) // 2
        return (index, "pair") if diagonal - index == layer else (feature, "odd")
    return feature, "opaque"


class _Reader:
    """One file on its way to a graph."""

    def __init__(self, data: Any, notes: Notes) -> None:
        if not isinstance(data, dict) or not isinstance(data.get("metadata"), dict):
            raise GraphError("it has no metadata")
        for key in ("nodes", "links"):
            if not isinstance(data.get(key), list):
                raise GraphError(f"it has no list of {key}")
        if not data["nodes"] or not all(isinstance(n, dict) for n in data["nodes"]):
            raise GraphError("its nodes are not a list of objects")
        self.data, self.meta, self.raw, self.notes = data, data["metadata"], data["nodes"], notes
        info = self.meta.get("info")
        self.info: dict[str, Any] = info if isinstance(info, dict) else {}
        generator = self.info.get("generator")
        self.ours = isinstance(generator, dict) and generator.get("name") == "mi-workshop"
        self.names = Names()
        self.taken: set[str] = set()
        self.renamed = 0
        self.codes: Counter[str] = Counter()
        self.unknown: Counter[str] = Counter()

    def graph(self, state: dict[str, Any]) -> AttributionGraph:
        notes, params = self.notes, self.data.get("qParams")
        if params is not None and not isinstance(params, dict):
            notes.tell("The file's qParams are no object: pins and supernodes left out.")
        params = (params if isinstance(params, dict) else {}) | state
        tokens = self._tokens()
        nodes = self._nodes(tokens, params.get("clerps"))
        links = self._links(nodes.node_id)
        prompt = self.meta.get("prompt")
        if not isinstance(prompt, str):
            notes.tell("The file has no prompt: put together from its tokens.")
            prompt = "".join(tokens)
        opaque = self.codes["opaque"] > 0 and not self.codes["pair"] + self.codes["digits"]
        opaque = opaque or (self.ours and "schema_version" not in self.meta)
        gone = [integer(self.info.get(k)) or 0 for k in ("hidden_nodes", "hidden_links")]
        details = self.meta.get("feature_details")
        about = {**self.info, **(details if isinstance(details, dict) else {})}
        named = [about[k] for k in ("neuronpedia_source_set", "transcoder_set") if isinstance(about.get(k), str)]
        graph = AttributionGraph(
            notes.text(prompt, PROMPT), tokens, nodes, links, scan=notes.text(self.meta.get("scan")), renamed_nodes=self.renamed,
            hidden=(gone[0], gone[1]) if all(0 <= n < 2**53 for n in gone) else (0, 0), opaque=opaque,
            source_set=notes.text(next(iter(named), "")),
        )  # fmt: skip
        own = integer(self.info.get("n_pins")) if self.ours and "pinnedIds" not in state else None
        graph = with_state(graph, params, self.names, own, notes)
        missing = int(nodes.influence[nodes.feature_type != LOGIT].isna().sum())
        if missing:
            graph = self._influence(graph, missing)
        graph = cut(graph, state, missing > 0, notes)
        said = self.info.get("notes")
        earlier = [notes.text(n, 1000) for n in said[:50] if isinstance(n, str)] if isinstance(said, list) else []
        return replace(graph, notes=tuple(dict.fromkeys([*earlier, *notes.say()])))

    def _tokens(self) -> list[str]:
        tokens = self.meta.get("prompt_tokens")
        if not isinstance(tokens, list) or not tokens:
            places = [(integer(n.get("ctx_idx")), n) for n in self.raw]
            last = max((at for at, _ in places if at is not None), default=0)
            if not 0 <= last < TOKENS:
                raise GraphError("it has no prompt_tokens")
            tokens = ["?"] * (last + 1)
            for at, n in places:
                if n.get("feature_type") == TOKEN and isinstance(n.get("clerp"), str) and at is not None and at >= 0:
                    tokens[at] = re.sub(r'^Emb: "(.*)"$', r"\1", n["clerp"][:1000], flags=re.DOTALL)
            self.notes.tell("The file has no prompt_tokens: taken from the labels of the embeddings.")
        if len(tokens) > TOKENS:
            raise GraphError(f"its prompt has more than {TOKENS} tokens")
        return [self.notes.text(t) for t in tokens]

    # ------------------------------------------------------------------ nodes
    def _nodes(self, tokens: list[str], clerps: Any) -> pd.DataFrame:
        columns = dict(
            zip(NODES, map(list, zip(*(self._node(n, len(tokens)) for n in self.raw), strict=True)), strict=True)
        )
        kinds, layers, texts, notes = columns["feature_type"], columns["layer"], columns["label"], self.notes
        for kind, n in self.unknown.most_common(5):
            notes.tell(f"Nodes of the unknown kind {kind!r}: {n} (drawn as plain nodes).")
        if len(self.unknown) > 5:
            notes.tell(f"Further unknown kinds of nodes: {len(self.unknown) - 5} (drawn as plain nodes).")
        notes.count("Features whose number does not fit their id", "the id counts", self.codes["odd"])
        logits = [i for i, kind in enumerate(kinds) if kind == LOGIT]
        if not logits:
            raise GraphError("it has no answer (logit) node")
        top = max([layers[i] + (kinds[i] != LOGIT) for i in range(len(kinds))] + [0])
        notes.count("Answers that stood in another layer", f"now in layer {top}", sum(layers[i] != top for i in logits))
        for i in logits:
            layers[i] = top
        if not self.ours:
            plain = Counter(texts[i].strip() for i in logits)
            for i in logits:  # " Austin" is Austin, unless "Austin" is another answer
                texts[i] = texts[i].strip() if plain[texts[i].strip()] == 1 else texts[i]
            for i, kind in enumerate(kinds):
                if kind == TOKEN and (not texts[i] or texts[i].startswith('Emb: "')):
                    texts[i] = tokens[columns["ctx_idx"][i]]
        given = labels(clerps, self.names, notes)
        columns["label"] = [given.get(i, text) for i, text in zip(columns["node_id"], texts, strict=True)]
        return pd.DataFrame(columns)

    def _node(self, n: dict[str, Any], n_tokens: int) -> tuple[Any, ...]:
        notes, raw = self.notes, n.get("node_id")
        raw = str(raw) if type(raw) is int else raw
        if not isinstance(raw, str) or not raw.strip():
            raise GraphError("a node has no node_id")
        if (kind := notes.text(n.get("feature_type")) or "unknown") not in KINDS:
            self.unknown[kind] += 1
        position, layer = integer(n.get("ctx_idx")), n.get("layer")
        layer = -1 if kind == TOKEN or layer == "E" else integer(layer)
        if position is None or not 0 <= position < n_tokens:
            raise GraphError(
                f"node {shown(raw)} stands at token {shown(n.get('ctx_idx'))}, but the prompt has {n_tokens}"
            )
        if layer is None or not -1 <= layer <= LAYERS:
            raise GraphError(f"node {shown(raw)} stands in layer {shown(n.get('layer'))}, which is none")
        if kind in CODED and layer < 0:
            raise GraphError(f"feature {shown(raw)} stands in no layer")
        label = n.get("clerp")
        match = ANSWER.fullmatch(label) if kind == LOGIT and isinstance(label, str) and len(label) < PROMPT else None
        label = notes.text(match[2] if match else label)
        node_id = self._name(raw, kind, layer, position)
        if node_id.startswith(f"{layer}_-1_") and raw != node_id:
            label = "reconstruction error"  # a label that belongs to the id is that of the first node
        feature = integer(n.get("feature"))
        self.names.add(node_id, raw, n.get("jsNodeId"), f"{n.get('layer')}_{feature}_{position}")
        index = feature
        if kind in CODED:
            index, code = feature_index(UNSEEN.sub("", raw), layer, feature, self.meta.get("schema_version"))
            self.codes[code] += 1
        if index is None or not -1 <= index < 2**62:
            notes.count("Features whose number is missing or too large", "-1 stands for it", kind in CODED)
            index = -1
        activation = self._optional(n, "activation")
        influence = self._optional(n, "influence", 1.001) if kind != LOGIT else math.nan
        return node_id, kind, layer, position, index, activation, influence, self._probability(n, kind, raw), label

    def _name(self, wanted: str, kind: str, layer: int, position: int) -> str:
        """The id that a node gets: its own, unless it is taken."""
        wanted = self.notes.text(wanted)
        node_id = wanted
        if node_id in self.taken:
            node_id = f"{layer}_-1_{position}" if "error" in kind else f"{wanted}'"
            while node_id in self.taken:
                node_id += "'"
            self.renamed += 1
            said = f"Two nodes have the id {wanted!r}: the later one ({kind}, layer {layer}) is now {node_id!r}, links stay with the first."
            if self.renamed <= RENAMED:
                self.notes.tell(said)
                warnings.warn(said, stacklevel=2)
            else:
                self.notes.count("Further nodes whose id was taken", "renamed, without links")
        self.taken.add(node_id)
        return node_id

    def _optional(self, n: dict[str, Any], key: str, highest: float = LARGEST) -> float:
        value = number(n.get(key))
        if n.get(key) is not None and not abs(value) <= highest:
            self.notes.count(f"Nodes whose {key} is no number that it could be", "taken as missing")
            return math.nan
        return value

    def _probability(self, n: dict[str, Any], kind: str, raw: str) -> float:
        given = n.get("token_prob")
        if kind != LOGIT:
            value = number(given)
            return value if 0 <= value <= 1 else 0.0
        if given is None:
            self.notes.count("Answers without a probability", "0 stands for it")
            return 0.0
        if not 0 <= number(given) <= 1.001:
            raise GraphError(f"answer {shown(raw)} has the probability {shown(given)}")
        return number(given)

    # ------------------------------------------------------------------ links
    def _links(self, ids: pd.Series) -> pd.DataFrame:
        raw, notes = self.data["links"], self.notes
        try:
            source, target, weight = ([link[key] for link in raw] for key in ("source", "target", "weight"))
        except (TypeError, KeyError):
            raise GraphError("a link has no source, target or weight") from None
        for bad in (w for w in weight if type(w) not in (float, int)):
            raise GraphError(f"a link has the weight {shown(bad)}, which is no number")
        size = np.array(weight, dtype=float)
        if not (np.abs(size) <= LARGEST).all():
            raise GraphError("a link's weight is not a finite number")
        order = {node_id: i for i, node_id in enumerate(ids)}
        rows = {raw: order[node_id] for raw, node_id in self.names.ids.items()}
        start, end = _rows(source, rows), _rows(target, rows)
        known = (start >= 0) & (end >= 0)
        notes.count("Links that name an unknown node", "left out", int((~known).sum()))
        start, end, size = start[known], end[known], size[known]
        again = len(size) - len(np.unique(start * len(ids) + end))
        notes.count("Links between two nodes that already have one", "their weights add up", again)
        ends = {key: ids.iloc[at].reset_index(drop=True) for key, at in (("source", start), ("target", end))}
        return pd.DataFrame(ends | {"weight": size})

    def _influence(self, graph: AttributionGraph, missing: int) -> AttributionGraph:
        """Cumulative influence from the links of the file, as ``from_circuit_tracer`` computes it from those of the model."""
        total = scores.influence(scores.normalize(graph._matrix), graph._weights)
        nodes = graph.nodes.assign(influence=scores.cumulative(total))
        nodes.loc[nodes.feature_type == LOGIT, "influence"] = np.nan
        self.notes.tell(
            f"Nodes without influence: {missing} of {len(nodes)} (computed for all from the links of the file)."
        )
        return replace(graph, nodes=nodes)


def _rows(names: list[Any], rows: dict[str, int]) -> Any:
    """The row of each name as int array, -1 for an unknown one."""
    try:
        found = np.fromiter(map(rows.get, names, repeat(-1)), dtype=np.int64, count=len(names))
    except TypeError:  # something that is no name at all
        found = np.array([rows.get(n, -1) if isinstance(n, str) else -1 for n in names], dtype=np.int64)
    for i in np.flatnonzero(found < 0):
        found[i] = rows.get(str(integer(names[i])), -1) if type(names[i]) is int else -1
    return found
