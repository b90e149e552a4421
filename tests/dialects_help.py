"""Small graph files to break: hostile values, and mutations that a seed repeats."""

import copy
import json
import random

HOSTILE = [
    None, True, False, 0, -1, 1, 7, 10**9, 10**30, 2**63, -(2**63), 10**400, 0.5, -0.5, 1e308, 1e-320, float("nan"), float("inf"),
    "", " ", "E", "0", "-3", "1e5", "NaN", "logit", "embedding", "mlp reconstruction error", "lorsa", "cross layer transcoder",
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "\x00\x1b[31mred\x07", "‮gnp.exe⁦", "\ud800", "a" * 10_240,
    "$\\frac{1}{0}$", "{0}{}", "%s%n", "0_0_0", "0_2_1", "E_0_0", "L_-1_P", "[" * 500, '["a","b"]', '{"a": 1}', "a,b,,c",
    [], {}, [[]], [None], [[["x"]]], {"label": "x", "nodes": ["0_0_0", 3, None]}, {"nodes": 5}, ["a", "b"], [{}], {"a": {"b": []}},
]  # fmt: skip


def places(value, at=()):
    """Every place in a JSON value, as a path of keys."""
    yield at
    for key, child in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(child, (*at, key))


def mutate(data, seed):
    """A mutated copy of ``data`` (a JSON value), or mutated bytes of it; the same for the same seed."""
    r = random.Random(seed)
    if r.random() < 0.12:
        return mutated_bytes(json.dumps(data), r)
    data = copy.deepcopy(data)
    for _ in range(r.choice([1, 1, 1, 2, 3, 6])):
        # walk down at random, so that the few keys on top are met as often as the many in links
        holder, key, value = None, None, data
        while isinstance(value, dict | list) and value and (holder is None or r.random() < 0.85):
            holder = value
            key = r.choice(list(value)) if isinstance(value, dict) else r.randrange(len(value))
            value = value[key]
        if holder is None:
            return r.choice(HOSTILE)
        other = r.choice(list(holder)) if isinstance(holder, dict) else r.randrange(len(holder))
        match r.randrange(6):
            case 0:
                del holder[key]
            case 1 | 2:
                holder[key] = copy.deepcopy(r.choice(HOSTILE))
            case 3:
                holder[key] = copy.deepcopy(holder[other])
            case 4 if isinstance(holder, list):
                holder.insert(other, copy.deepcopy(value))
            case 5 if isinstance(holder, dict):
                holder[r.choice(["layer", "x", "node_id", str(key) * 2])] = value
            case _:
                holder[key] = str(value)[:300] if r.random() < 0.5 else [value]
    return data


def mutated_bytes(text, r):
    raw = bytearray(text.encode())
    match r.randrange(5):
        case 0:
            return bytes(raw[: r.randrange(len(raw))])
        case 1:
            for _ in range(r.choice([1, 3, 20])):
                raw[r.randrange(len(raw))] = r.randrange(256)
        case 2:
            at, end = sorted(r.randrange(len(raw)) for _ in range(2))
            del raw[at:end]
        case 3:
            at = r.randrange(len(raw))
            raw[at:at] = r.choice(
                [b"NaN", b"Infinity", b"1e999", b'"x":1,', b"[" * 3000, b"\xff\xfe", b"\x00", b"9" * 5000]
            )
        case _:
            return r.choice([b"", b"\x80\x04", b"PK\x03\x04", b"\x1f\x8b", b"<html>", b"[" * 100_000, b"null"]) + bytes(
                raw[:50]
            )
    return bytes(raw)


def chain(n_nodes, n_links):
    """A graph of one prompt with random links, each from an earlier to a later layer; the last node is the answer."""
    r = random.Random(0)
    kinds = ["embedding"] + ["cross layer transcoder"] * (n_nodes - 2) + ["logit"]
    nodes = [
        {"node_id": f"n{i}", "feature": i, "layer": str(min(i, 900)), "ctx_idx": 0, "feature_type": kind, "jsNodeId": f"n{i}",
         "clerp": "", "token_prob": float(kind == "logit")}
        for i, kind in enumerate(kinds)
    ]  # fmt: skip
    ends = [(i, i + 1) for i in range(n_nodes - 1)]
    ends += [tuple(sorted(r.sample(range(n_nodes), 2))) for _ in range(n_links - len(ends))]
    links = [{"source": f"n{s}", "target": f"n{t}", "weight": 1.0} for s, t in ends]
    return {
        "metadata": {"slug": "x", "scan": "x", "prompt": "x", "prompt_tokens": ["x"]},
        "qParams": {},
        "nodes": nodes,
        "links": links,
    }
