"""A stand-in for Neuronpedia on this machine: real HTTP, its endpoints, made-up answers, faults on demand.

``python tests/neuronpedia_help.py`` prints its address and serves until it is stopped; set MI_WORKSHOP_NEURONPEDIA to that address.
The node ids, activations and probabilities of the Dallas graph are the published ones; all else is drawn at random.
"""

import gzip
import json
import re
import sys
import threading
import time
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

import numpy as np

MODEL, SLUG, SOURCES = "gemma-2-2b", "gemma-fact-dallas-austin", "gemmascope-transcoder-16k"
PROMPT = "Fact: The capital of the state containing Dallas is"
PAGES = {}  # addresses of JSON files, and what they hold
LAYERS, WIDTH = 26, 16_384
SUPERNODES = {
    "capital": {"15_4494_4": 68.7, "6_4662_4": 15.1, "4_7671_4": 11.1, "3_13984_4": 11.2, "1_1000_4": 24.3},
    "state": {"6_4012_7": 14.3, "0_13727_7": 9.6},
    "Texas": {"20_15589_9": 45.7, "19_7477_9": 55.8, "16_25_9": 28.2, "4_13154_9": 15.2, "14_2268_9": 25.7, "7_6861_9": 15.5},
    "say a capital": {"21_5943_10": 56.4, "17_7178_10": 27.5, "7_691_10": 16.4, "16_4298_10": 19.9},
    "preposition + place": {"19_1445_10": 35.4, "18_6101_10": 21.0},
    "say Austin": {"23_12237_10": 54.4},
}  # fmt: skip
CALIFORNIA = ["22_4367_10", "21_2464_10", "6_13909_9", "8_14641_9", "14_12562_9"]
ANSWERS = {" Austin": 0.45, " not": 0.06, " the": 0.06, " Texas": 0.05, " Fort": 0.04, " called": 0.03, " in": 0.02, " Houston": 0.02,
           " located": 0.02, " a": 0.02, " Albany": 0.008, " Harrisburg": 0.007, " Sacramento": 0.005, " Beijing": 0.002}  # fmt: skip
EFFECTS = {  # on the logits, when all features of the supernode double
    "Texas": {" Austin": 1.6, " Texas": 0.9, " Fort": 0.9, " Houston": 0.9}, "say a capital": {" Austin": 1.0, " Texas": -0.6, " Albany": 0.5},
    "capital": {" Austin": 0.6, " Texas": -0.5}, "state": {" Austin": 0.08}, "say Austin": {" Austin": 0.8}, "California": {" Sacramento": 5.0},
}  # fmt: skip
ACTIVATION = {i: a for ids in SUPERNODES.values() for i, a in ids.items()}


def tokens_of(prompt):
    return ["<bos>", *re.findall(r" ?\w+|\s|[^\w\s]", prompt.removeprefix("<bos>"))]


def cantor(layer, index):
    return (layer + index) * (layer + index + 1) // 2 + index


def node(kind, layer, index, position, **more):
    ids = {"embedding": f"E_{index}_{position}", "mlp reconstruction error": f"{layer}_-1_{position}"}
    node_id = ids.get(kind, f"{layer}_{index}_{position}")
    coded = cantor(layer, index) if kind == "cross layer transcoder" else index
    return {
        "node_id": node_id, "feature": coded, "layer": "E" if kind == "embedding" else str(layer), "ctx_idx": position, "feature_type": kind,
        "token_prob": 0, "is_target_logit": False, "run_idx": 0, "reverse_ctx_idx": 0, "jsNodeId": node_id, "clerp": "",
        "influence": None, "activation": None,
    } | more  # fmt: skip


@lru_cache(maxsize=32)
def graph(prompt, slug, n_features=670, n_links=34_000):
    """The JSON of a graph: the published nodes if it is the Dallas prompt, and random ones, as many as the published graph has."""
    r, tokens = np.random.default_rng(len(prompt)), tokens_of(prompt)
    last = len(tokens) - 1
    dallas = prompt == PROMPT
    ids = {tuple(map(int, i.split("_"))) for i in ACTIVATION} if dallas else set()
    while len(ids) < n_features:
        ids.add((int(r.integers(LAYERS)), int(r.integers(WIDTH)), int(r.integers(1, last + 1))))
    label = {i: name for name, members in SUPERNODES.items() for i in members} if dallas else {}
    nodes = [node("embedding", -1, 1000 + i, i, clerp=f'Emb: "{t}"', influence=0.3) for i, t in enumerate(tokens)]
    for layer, index, position in sorted(ids):
        name = f"{layer}_{index}_{position}"
        act, influence = ACTIVATION.get(name, float(r.uniform(2, 40))), float(r.uniform(0.25, 0.7))
        nodes.append(
            node(
                "cross layer transcoder",
                layer,
                index,
                position,
                clerp=label.get(name, ""),
                activation=act,
                influence=influence,
            )
        )
    nodes += [
        node("mlp reconstruction error", a, -1, p, influence=0.5)
        for a in range(0, LAYERS, 2)
        for p in range(1, last + 1)
    ]
    for i, (token, prob) in enumerate(list(ANSWERS.items())[:10]):
        number = 22605 if token == " Austin" else 500 + i
        nodes.append(
            node(
                "logit",
                LAYERS + 1,
                number,
                last,
                token_prob=prob,
                is_target_logit=i == 0,
                clerp=f'Output "{token}" (p={prob:.3f})',
            )
        )
    depth = np.array(
        [LAYERS + 1 if n["feature_type"] == "logit" else -1 if n["layer"] == "E" else int(n["layer"]) for n in nodes]
    )
    place, fed = (
        np.array([n["ctx_idx"] for n in nodes]),
        np.array([n["feature_type"] in ("cross layer transcoder", "logit") for n in nodes]),
    )
    start, end = r.integers(len(nodes), size=(2, 12 * n_links))
    good = (depth[start] < depth[end]) & (place[start] <= place[end]) & fed[end] & (depth[start] <= LAYERS)
    pairs = np.unique(np.stack([start[good], end[good]]), axis=1)
    pairs = pairs[:, r.permutation(pairs.shape[1])[:n_links]]
    names = [n["node_id"] for n in nodes]
    weights = {
        (names[s], names[t]): float(w)
        for s, t, w in zip(*pairs.tolist(), r.normal(0, 0.3, pairs.shape[1]), strict=True)
    }
    if dallas:
        chain = [("E_1009_9", "Texas"), ("E_1004_4", "capital"), ("E_1007_7", "state"), ("capital", "say a capital"),
                 ("Texas", "say Austin"), ("say a capital", "say Austin"), ("say Austin", "27_22605_10"), ("Texas", "27_22605_10")]  # fmt: skip
        for a, b in chain:
            for source in SUPERNODES.get(a, [a]):
                for target in SUPERNODES.get(b, [b]):
                    if source[0] == "E" or int(source.split("_")[0]) < int(target.split("_")[0]):
                        weights[source, target] = 8.0
    groups = [[name, *members] for name, members in SUPERNODES.items()] if dallas else []
    return {
        "metadata": {"slug": slug, "scan": MODEL, "transcoder_list": [], "prompt_tokens": tokens, "prompt": "<bos>" + prompt, "node_threshold": 0.8,
                     "schema_version": 1, "info": {"generator": {"name": "stand-in"}}},
        "qParams": {"linkType": "both", "pinnedIds": [i for g in groups for i in g[1:]], "clickedId": "", "supernodes": groups, "sg_pos": ""},
        "nodes": nodes, "links": [{"source": s, "target": t, "weight": w} for (s, t), w in weights.items()],
    }  # fmt: skip


def feature(layer, index):
    known = next((n for n, ids in SUPERNODES.items() if any(i.startswith(f"{layer}_{index}_") for i in ids)), "")
    words = known or f"made up, number {index}"
    if index == 666:
        words = "<script>alert(1)</script><img src=x onerror=alert(1)>"
    r = np.random.default_rng(index)
    texts = [["<bos>", " in", f" {words}", " there", " are"], [" from", f" {words}", ",", "\n", "<b>"]]
    return {
        "modelId": MODEL, "layer": f"{layer}-{SOURCES}", "index": str(index), "frac_nonzero": 0.0021, "maxActApprox": 61.5,
        "pos_str": [words, " Houston"], "pos_values": [1.2, 0.8], "neg_str": [" Ohio", "é"], "neg_values": [-0.9, -0.4],
        "activations": [{"tokens": t, "values": [0, 0, float(a), 1.5, 0][: len(t)], "maxValue": float(a)} for t, a in zip(texts, r.uniform(20, 60, 2), strict=True)],
        "explanations": [{"description": words, "explanationModelName": "made-up-explainer", "typeName": "np_max-act", "scores": []}],
    }  # fmt: skip


def steered(prompt, features):
    """The probabilities after the prompt with these features changed: effects of supernodes add up, others have small random ones."""
    logits = {t: np.log(p) for t, p in ANSWERS.items()}
    for f in features:
        name = f"{f['layer']}_{f['index']}_{f['token_active_position']}"
        group = next((g for g, ids in [*SUPERNODES.items(), ("California", CALIFORNIA)] if name in ids), "")
        act = ACTIVATION.get(name, 20.0)
        change = -1.0 if f["ablate"] else f["delta"] / act
        share = 1 / len(SUPERNODES.get(group, CALIFORNIA))
        noise = np.random.default_rng([f["layer"], f["index"]]).normal(0, 0.02, len(logits))
        for (token, value), e in zip(list(logits.items()), noise, strict=True):
            logits[token] = value + change * (EFFECTS[group].get(token, 0) * share if group else e)
    p = np.exp(np.array(list(logits.values())))
    return dict(
        sorted(zip(logits, (p / (p.sum() + 1 - sum(ANSWERS.values()))).tolist(), strict=True), key=lambda t: -t[1])
    )


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], ConnectionError):  # a client that has seen enough
            super().handle_error(request, client_address)


class Standin:
    """The server: ``base`` is its address, ``seen`` lists (method, path, headers, body), ``fail`` breaks the next answers."""

    def __init__(self, port=0):
        self.seen, self.faults, self.keys, self.subgraphs, self.waiting = [], [], {"a-key"}, {}, {}
        self.graphs = {SLUG: graph(PROMPT, SLUG)}
        handler = type("Handler", (Handler,), {"standin": self})
        self.server = Server(("127.0.0.1", port), handler)
        self.base = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def fail(self, path="/", times=1, **fault):
        """Break the next ``times`` answers to paths that begin with ``path``: status, retry_after, slow, cut, truncated, html, redirect, huge."""
        self.faults += [(path, fault)] * times

    def requests(self, path):
        return [s for s in self.seen if s[1].startswith(path)]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_GET(self):
        self.answer("GET")

    def do_POST(self):
        self.answer("POST")

    def do_PUT(self):
        self.answer("PUT")

    def answer(self, method):
        s, body = self.standin, self.rfile.read(int(self.headers.get("Content-Length") or 0))
        s.seen.append((method, self.path, dict(self.headers), body))
        fault = next((f for f in s.faults if self.path.startswith(f[0])), None)
        if fault is not None:
            s.faults.remove(fault)
            if self.broken(**fault[1]):
                return
        try:
            found = self.put(body) if method == "PUT" else self.find(json.loads(body) if body else None)
        except KeyError:
            found = 404, {"error": "Not found"}
        self.send(*(found if isinstance(found, tuple) else (200, found)))

    def send(self, status, value, **headers):
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        if "gzip" in self.headers.get("Accept-Encoding", "") and len(data) > 1000:
            data, headers = gzip.compress(data, 1), headers | {"Content-Encoding": "gzip"}
        self.send_response(status)
        for key, text in ({"Content-Type": "application/json", "Content-Length": str(len(data))} | headers).items():
            self.send_header(key.replace("_", "-"), text)
        self.end_headers()
        self.wfile.write(data)

    def broken(
        self,
        status=0,
        retry_after="",
        slow=0.0,
        cut=False,
        truncated=False,
        html=False,
        redirect="",
        huge=0,
        lost=False,
    ):
        """Send a broken answer; False where the true one shall follow."""
        if slow:
            time.sleep(slow)
        elif cut:
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b'{"half":')
            self.close_connection = True
        elif truncated:
            self.send(200, b'{"url": "http')
        elif html:
            self.send(status or 200, b"<!doctype html><title>Welcome to the hotel's network</title>")
        elif redirect:
            self.send(302, {}, Location=redirect)
        elif huge:
            self.send(200, b" " * huge)
        elif lost:  # it has its effect, but the answer does not arrive
            self.find(json.loads(self.standin.seen[-1][3]))
            self.close_connection = True
        else:
            self.send(
                status,
                {"error": f"made to fail with {status}"},
                **({"Retry_After": retry_after} if retry_after else {}),
            )
        return not slow

    # ----------------------------------------------------------------- answers
    def find(self, body):
        s, path = self.standin, [unquote(p) for p in self.path.partition("?")[0].strip("/").split("/")]
        match path:
            case ["api", "graph", "generate"]:
                return self.generate(body)
            case ["api", "graph", "tokenize"]:
                return {"prompt": body["prompt"], "input_tokens": tokens_of(body["prompt"]), "salient_logits": [],
                        "total_salient_tokens": 0, "cumulative_probability": 0}  # fmt: skip
            case ["api", "graph", ("subgraph" | "signed-put" | "save-to-db"), *_]:
                key = self.headers.get("x-api-key")
                if key not in s.keys:
                    return 401, {"error": "This endpoint requires authorization."}
                return self.owned(path[2:], body, key)
            case ["api", "graph", model, slug]:
                if model != MODEL:
                    raise KeyError(model)
                meta = s.graphs[slug]["metadata"]
                return {"id": "x", "modelId": model, "slug": slug, "sourceSetName": SOURCES, "prompt": meta["prompt"], "titlePrefix": "",
                        "promptTokens": meta["prompt_tokens"], "url": f"{s.base}/files/{slug}.json", "user": None}  # fmt: skip
            case ["files", name]:
                return s.graphs[name.removesuffix(".json")]
            case ["api", "feature", model, source, index]:
                layer, _, name = source.partition("-")
                if (model, name) != (MODEL, SOURCES) or not int(layer) < LAYERS or not int(index) < WIDTH:
                    raise KeyError(index)
                return feature(int(layer), int(index))
            case ["api", "explanation", ("search" | "search-model")]:
                found = [
                    (i, name)
                    for name, ids in SUPERNODES.items()
                    for i in ids
                    if set(body["query"].lower().split()) & set(name.lower().split())
                ]
                rows = [{"modelId": MODEL, "layer": f"{i.split('_')[0]}-{SOURCES}", "index": i.split("_")[1], "description": name,
                         "explanationModelName": "made-up-explainer", "cosine_similarity": 0.9} for i, name in found]  # fmt: skip
                return {
                    "request": body,
                    "results": rows[body.get("offset", 0) :],
                    "resultsCount": len(rows),
                    "hasMore": False,
                }
            case ["api", "steer-logits"]:
                return self.steer(body)
        raise KeyError(path)

    def generate(self, body):
        s, slug = self.standin, body["slug"]
        if slug in s.graphs:
            return 400, {
                "error": "Model + Slug/ID Exists",
                "message": f"The model already has a graph with slug/id {slug}.",
            }
        if len(tokens_of(body["prompt"])) > 64:
            return 400, {"error": "Prompt Too Long", "message": "Max tokens supported is 64."}
        s.graphs[slug] = graph(body["prompt"], slug, 120, 1500)
        return {"message": "Graph saved to database", "s3url": f"{s.base}/files/{slug}.json", "url": f"{s.base}/{MODEL}/graph?slug={slug}",
                "numNodes": 1, "numLinks": 1}  # fmt: skip

    def steer(self, body):
        for f in body["features"]:
            if f["ablate"] == (f["delta"] is not None) or f["steer_generated_tokens"] or f["steer_position"] is None:
                return 400, {"error": "When ablate is True, delta must be None"}
        blank = [{"token": t, "top_logits": []} for t in tokens_of(body["prompt"])]
        out = {}
        for side, features in (("DEFAULT", []), ("STEERED", body["features"])):
            p = steered(body["prompt"], features)
            top = [{"token": t, "prob": x} for t, x in list(p.items())[: body["topK"]]]
            last = [blank[-1] | {"top_logits": top}, {"token": top[0]["token"], "top_logits": top}]
            out |= {
                f"{side}_GENERATION": body["prompt"] + top[0]["token"],
                f"{side}_LOGITS_BY_TOKEN": [*blank[:-1], *last],
            }
        return out

    def owned(self, path, body, key):
        s = self.standin
        match path:
            case ["subgraph", "save"]:
                if {"pruningThreshold", "densityThreshold", "clerps", "pinnedIds", "supernodes"} - set(body):
                    return 500, {"error": "Failed to save subgraph"}
                number = body.get("overwriteId") or f"sub{len(s.subgraphs)}"
                s.subgraphs[number] = body | {"id": number, "key": key}
                return {"success": True, "subgraphId": number}
            case ["subgraph", "list"]:
                return {"success": True, "subgraphs": [g for g in s.subgraphs.values() if g["slug"] == body["slug"]]}
            case ["subgraph", "delete"]:
                s.subgraphs.pop(body["subgraphId"])
                return {"success": True}
            case ["signed-put"]:
                s.waiting["put1"] = (body["contentLength"], None)
                return {"url": f"{s.base}/bucket/put1?signature=secret", "putRequestId": "put1"}
            case ["save-to-db"]:
                g = json.loads(s.waiting[body["putRequestId"]][1])
                if g["metadata"]["scan"] != MODEL:
                    return 400, {"error": "The model does not exist."}
                s.graphs[g["metadata"]["slug"]] = g
                return {
                    "message": "Graph saved to database",
                    "url": f"{s.base}/{MODEL}/graph?slug={g['metadata']['slug']}",
                }
        raise KeyError(path)

    def put(self, body):
        length, _ = self.standin.waiting["put1"]
        assert len(body) == length >= 1024
        self.standin.waiting["put1"] = (
            length,
            gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body,
        )
        return {}


# ------------------------------------------------------- what the user is told
OFFLINE, LAST = (
    {"MI_WORKSHOP_OFFLINE": "1"},
    " Check the connection; what was seen before opens from this machine's cache.",
)
CALLS = {
    "graph": lambda c: c.graph(MODEL, SLUG), "lost graph": lambda c: c.graph(MODEL, "no-such"), "feature": lambda c: c.feature(MODEL, 20, 15589),
    "slow feature": lambda c: c.feature(MODEL, 20, 15590, patience=0.3), "lost feature": lambda c: c.feature(MODEL, 99, 1),
    "list": lambda c: c.list_subgraphs(MODEL, SLUG), "long": lambda c: c.generate(MODEL, "word " * 70),
    "option": lambda c: c.generate(MODEL, "word", node_threshold=0.3), "steer": lambda c: c.steer(MODEL, PROMPT, [{"nodes": ["20_15589_9"], "kind": "zero"}]),
    "no page": lambda c: c.graph("https://www.neuronpedia.org/about"), "generate": lambda c: c.generate(MODEL, "Fact: it is"),
}  # fmt: skip
FAULTS = [  # (what happens, what is called, how the stand-in fails, variables, the sentence)
    ("no connection", "graph", None, {"MI_WORKSHOP_NEURONPEDIA": "http://127.0.0.1:9"},
     "http://127.0.0.1:9/api/graph/gemma-2-2b/gemma-fact-dallas-austin cannot be reached: Connection refused." + LAST),
    ("set offline, never seen", "graph", None, OFFLINE,
     "MI_WORKSHOP_OFFLINE is set, so the graph 'gemma-fact-dallas-austin' of gemma-2-2b is not asked for; this machine's cache does not hold it."),
    ("no such graph", "lost graph", None, {}, "Neuronpedia has no graph 'no-such' of gemma-2-2b (404): check the name."),
    ("no such feature", "lost feature", None, {},
     "Neuronpedia has no feature 99/1 of gemma-2-2b (gemmascope-transcoder-16k) (404): check the name."),
    ("not a page of a graph", "no page", None, {},
     "https://www.neuronpedia.org/about is no page of a graph: those look like https://www.neuronpedia.org/MODEL/graph?slug=NAME."),
    ("slow", "slow feature", {"slow": 1.0}, {}, "{base}/api/feature/gemma-2-2b/20-gemmascope-transcoder-16k/15590 did not answer for 0.3 s." + LAST),
    ("connection cut, four times", "graph", {"cut": True, "times": 4}, {},
     "{base}/api/graph/gemma-2-2b/gemma-fact-dallas-austin broke the connection: peer closed connection without sending complete message "
     "body (received 8 bytes, expected 1000)." + LAST),
    ("too many requests", "graph", {"status": 429, "retry_after": "3600"}, {},
     "Neuronpedia takes no more requests from here for now (429): try again in 3600 s."),
    ("too many requests, four times", "graph", {"status": 429, "times": 4}, {},
     "Neuronpedia takes no more requests from here for now (429): try again later (the limits count by the hour)."),
    ("error on their side", "steer", {"status": 500}, {}, "Neuronpedia answers 500 (made to fail with 500), the fault lies there: try again in a minute."),
    ("their GPUs are busy, four times", "generate", {"path": "/api/graph/generate", "status": 503, "times": 4}, {},
     "Neuronpedia answers 503 (made to fail with 503), the fault lies there: try again in a minute."),
    ("JSON cut short", "feature", {"truncated": True}, {}, "Neuronpedia's answer cannot be read: it is no JSON, or was cut short. Try again later."),
    ("a log-in page instead", "feature", {"html": True}, {},
     "Neuronpedia answers with a web page instead of data: try again later, or sign in to this network first."),
    ("redirected to http", "graph", {"redirect": "http://192.0.2.1/x"}, {}, "http://192.0.2.1/x is not opened: a graph is fetched over https only."),
    ("an answer without end", "graph", {"path": "/files", "huge": 3 * 2**20}, {},
     "{base}/files/gemma-fact-dallas-austin.json is larger than {limit} MB: no attribution graph that can be shown is."),
    ("no key", "list", None, {"NEURONPEDIA_API_KEY": ""},
     "This needs a key: make one at https://www.neuronpedia.org/account and put it into the variable (in Colab: the secret) NEURONPEDIA_API_KEY."),
    ("a wrong key", "list", None, {"NEURONPEDIA_API_KEY": "wrong"},
     "Neuronpedia does not accept the key for this (401): see https://www.neuronpedia.org/account."),
    ("somebody else's", "list", {"status": 403}, {}, "Neuronpedia does not accept the key for this (403): see https://www.neuronpedia.org/account."),
    ("shut out by a page", "graph", {"status": 403, "html": True}, {},
     "Neuronpedia refuses this (403) and gives no reason: see whether its pages open in a browser, or try again later."),
    ("a key is asked for where none was needed", "graph", {"status": 401}, {},
     "Neuronpedia answers 401, this needs a key: make one at https://www.neuronpedia.org/account and put it into the variable (in Colab: the secret) "
     "NEURONPEDIA_API_KEY."),
    ("a prompt too long", "long", None, {}, "The prompt has 72 tokens and Neuronpedia traces at most 64: shorten it."),
    ("an option out of range", "option", None, {}, "node_threshold must lie between 0.5 and 0.95 on Neuronpedia, not 0.3."),
    ("a host without https", "graph", None, {"MI_WORKSHOP_NEURONPEDIA": "http://192.0.2.1"},
     "MI_WORKSHOP_NEURONPEDIA: http://192.0.2.1 is not opened: a graph is fetched over https only."),
]  # fmt: skip


def table():
    """What happens and what the user is told, as a Markdown table; tests/test_neuronpedia.py holds every row."""
    rows = [
        f"| {what} | {said.format(base='https://www.neuronpedia.org', limit=200)} |" for what, _, _, _, said in FAULTS
    ]
    return "\n".join(["| what happens | what the user is told |", "|---|---|", *rows])


if __name__ == "__main__":
    if sys.argv[1:] == ["table"]:
        sys.exit(print(table()))
    with Standin(int(sys.argv[1]) if len(sys.argv) > 1 else 0) as standin:
        print(standin.base, flush=True)
        threading.Event().wait()
