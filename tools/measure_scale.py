"""Measure what tracing costs, on random weights of full size, and write it to docs/costs.json: nothing is downloaded.

    python tools/measure_scale.py --lengths 11 32 64 --kept 1024 4096 8192 --batches 64 256 --offload none cpu   # a GPU
    python tools/measure_scale.py --lengths 11 --kept 1024 --batches 64 --device cpu                             # 16 GB of RAM

Each run replaces the earlier one with the same settings on the same device. Thresholds of the random JumpReLU transcoders are set, layer
by layer, so that as many features are active as GemmaScope's average L0 says (``GEMMA_L0``).
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import sys
import time
import weakref
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))
import scale_formulas as scale  # noqa: E402
from random_model import force_active, random_model  # noqa: E402

DOCS = Path(__file__).parents[1] / "docs"

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


class LiveBytes(TorchDispatchMode):
    """Bytes held by the tensors made while it is active: ``now`` and ``peak``, as CUDA's allocator would count them. ``ops`` counts calls."""

    def __init__(self, known: torch.nn.Module) -> None:
        super().__init__()
        held = [*known.parameters(), *known.buffers()]
        self.known = {t.untyped_storage()._cdata for t in held}
        self.now = self.peak = self.ops = 0

    def _freed(self, key: int, size: int) -> None:
        self.now -= size
        self.known.discard(key)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.ops += 1
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor) and tensor.layout == torch.strided:
                storage = tensor.untyped_storage()
                key, size = storage._cdata, storage.nbytes()
                if key not in self.known:
                    self.known.add(key)
                    self.now += size
                    self.peak = max(self.peak, self.now)
                    weakref.finalize(storage, self._freed, key, size)
        return out


def speed(device: str, dtype: torch.dtype) -> tuple[float, float]:
    """FLOP/s of a matrix product and bytes/s of a copy (read plus written) here: the best of three."""
    n = 4096 if device == "cuda" else 1024
    a, b = torch.randn(n, n, device=device, dtype=dtype), torch.randn(n, n, device=device, dtype=dtype)
    big = torch.ones(2**26 if device == "cpu" else 2**30, dtype=torch.uint8, device=device)
    best = []
    for work, call in ((2 * n**3, lambda: a @ b), (2 * big.numel(), lambda: big.clone())):
        seconds = []
        for _ in range(4):
            start = clock(device)
            call()
            seconds.append(clock(device) - start)
        best.append(work / min(seconds[1:]))
    return best[0], best[1]


def clock(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def measure(model: Any, run: scale.Run, device: str) -> dict[str, Any]:
    """One call of ``circuit_tracer.attribute``, then our tables from its result: bytes and seconds."""
    from circuit_tracer.attribution.attribute import attribute

    from mi_workshop.circuits.graph import from_circuit_tracer

    tokens = torch.arange(run.tokens, device=device)
    force_active(model, tokens, run.active)
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    live, marks = LiveBytes(model), {}
    forward = model.run_forward_pass

    def mark(*args: Any) -> None:
        forward(*args)
        marks["forward"] = clock(device) - start

    model.run_forward_pass = mark
    start = clock(device)
    try:
        if device == "cpu":
            live.__enter__()
        raw = attribute(
            tokens, model, batch_size=run.batch, max_feature_nodes=run.kept, max_n_logits=run.logits,
            desired_logit_prob=1.0, offload="cpu" if run.offload else None,
        )  # fmt: skip
        seconds = clock(device) - start
    finally:
        if device == "cpu":
            live.__exit__(None, None, None)
        del model.run_forward_pass
    held = sum(t.untyped_storage().nbytes() for t in {t.data_ptr(): t for t in _tensors(model)}.values())
    result: dict[str, Any] = {
        "tokens": run.tokens, "kept": run.kept, "batch": run.batch, "offload": run.offload,
        "active": int(raw.active_features.shape[0]), "nodes": int(raw.adjacency_matrix.shape[0]),
        "seconds": round(seconds, 2), "seconds_to_forward": round(marks["forward"], 2),
        "peak": torch.cuda.max_memory_allocated() if device == "cuda" else held + live.peak,
    }  # fmt: skip
    if device == "cuda":
        result["reserved"] = torch.cuda.max_memory_reserved()
    else:
        result["operations"] = live.ops
    start = time.perf_counter()
    graph = from_circuit_tracer(raw, "random", [str(i) for i in raw.input_tokens.tolist()], {})
    result |= {"our_seconds": round(time.perf_counter() - start, 2), "links": len(graph.links)}
    result["peak_rss"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return result


def embedded(runs: int = 20) -> dict[str, Any]:
    """``mi_workshop.trace`` on Atlas: the first call, the median of the next ones, the process's peak."""
    import mi_workshop as mi
    from mi_workshop.models import WEIGHTS

    model, seconds = mi.load("atlas"), []
    for _ in range(runs + 1):
        start = time.perf_counter()
        mi.trace(model, "Fact: the capital of the state containing Dallas is")
        seconds.append(time.perf_counter() - start)
    size = sum(p.stat().st_size for p in WEIGHTS.joinpath("atlas").iterdir())
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"weights": size, "first": seconds[0], "seconds": statistics.median(seconds[1:]), "peak_rss": rss}


def hosted(path: Path) -> dict[str, Any]:
    """A published graph in a file: its size, the time to open it."""
    from mi_workshop.circuits.graph import AttributionGraph

    start = time.perf_counter()
    graph = AttributionGraph.load(path)
    seconds, size = time.perf_counter() - start, path.stat().st_size
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"bytes": size, "nodes": len(graph.nodes), "links": len(graph.links), "seconds": seconds, "peak_rss": rss}


def tables(kept: int, tokens: int = 11, logits: int = 10) -> dict[str, Any]:
    """Our tables from a graph in which every node acts on all that it can reach (later layer, no earlier position). Features lie as
    GemmaScope's average L0 has them; weights are random; no model is needed."""
    from types import SimpleNamespace as Names

    from mi_workshop.circuits.graph import from_circuit_tracer

    torch.manual_seed(0)
    layers = scale.GEMMA.n_layers
    layer = torch.multinomial(torch.tensor(scale.GEMMA_L0, dtype=torch.float), kept, replacement=True)
    features = torch.stack([layer, torch.randint(1, tokens, (kept,)), torch.arange(kept)], 1)
    errors = torch.cartesian_prod(torch.arange(layers), torch.arange(tokens))
    words = torch.stack([torch.full((tokens,), -1), torch.arange(tokens)], 1)
    answers = torch.tensor([[layers, tokens - 1]]).expand(logits, 2)
    place = torch.cat([features[:, :2], errors, words, answers])
    reach = (place[:, :1] > place[:, 0]) & (place[:, 1:] >= place[:, 1])
    reach[kept:-logits] = False  # errors and tokens have no inputs
    raw = Names(
        active_features=features, selected_features=torch.arange(kept), activation_values=torch.rand(kept),
        cfg=Names(n_layers=layers), n_pos=tokens, input_tokens=torch.arange(tokens), scan=None,
        logit_targets=[Names(vocab_idx=i, token_str=str(i)) for i in range(logits)],
        logit_probabilities=torch.full((logits,), 1 / logits), adjacency_matrix=torch.randn(reach.shape) * reach,
    )  # fmt: skip
    start = time.perf_counter()
    graph = from_circuit_tracer(raw, "random", [str(i) for i in range(tokens)], {})
    seconds = time.perf_counter() - start
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"kept": kept, "nodes": len(graph.nodes), "links": len(graph.links), "seconds": seconds, "peak_rss": rss}


def per_operation() -> float:
    """Seconds of one call into torch where nothing but the call counts: ``attribute`` on a tiny model, the best of five."""
    from circuit_tracer.attribution.attribute import attribute

    shape = replace(scale.GEMMA, d_model=8, d_head=2, d_mlp=8, d_vocab=40, n_ctx=16, features=20)
    run = scale.Run(shape, 8, 64, 8, (3,) * shape.n_layers)
    model, tokens, seconds = random_model(shape), torch.arange(run.tokens), []
    force_active(model, tokens, run.active)
    options = {"batch_size": run.batch, "max_feature_nodes": run.kept, "desired_logit_prob": 1.0}
    for _ in range(5):
        start = time.perf_counter()
        attribute(tokens, model, **options)
        seconds.append(time.perf_counter() - start)
    with LiveBytes(model) as live:
        attribute(tokens, model, **options)
    return min(seconds) / live.ops


def _tensors(model: Any) -> list[torch.Tensor]:
    return [*model.parameters(), *model.buffers()]


def machine(device: str) -> dict[str, Any]:
    import importlib.metadata as metadata

    versions = {n: metadata.version(n) for n in ("circuit-tracer", "transformer-lens", "transformers")}
    name = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {torch.get_num_threads()} thread(s)"
    versions["date"] = date.today().isoformat()
    return {"device": name, "python": platform.python_version(), "torch": torch.__version__, **versions}


def save(path: Path, costs: dict[str, Any]) -> None:
    path.write_text(json.dumps(costs, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[11])
    parser.add_argument("--kept", type=int, nargs="+", default=[1024])
    parser.add_argument("--batches", type=int, nargs="+", default=[64])
    parser.add_argument("--offload", nargs="+", choices=["none", "cpu"], default=["none"])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=["cuda", "cpu"])
    parser.add_argument("--dtype", default="bfloat16", choices=sorted(DTYPES))
    parser.add_argument("--seconds", type=float, default=540, help="start no further run after so many seconds")
    parser.add_argument(
        "--embedded", action="store_true", help="measure Atlas, and the cost of one call into torch, instead"
    )
    parser.add_argument("--hosted", type=Path, nargs="+", help="measure the opening of these graph files instead")
    parser.add_argument("--tables", type=int, nargs="+", help="measure our tables alone, for so many features, instead")
    parser.add_argument("--out", type=Path, default=DOCS / "costs.json")
    options = parser.parse_args()
    begun = time.perf_counter()
    costs: dict[str, Any] = {"embedded": {}, "per_operation": 0.0, "hosted": [], "tables": [], "gemma": []}
    if options.out.exists():
        costs = json.loads(options.out.read_text())
    if options.embedded or options.hosted or options.tables:
        if options.embedded:
            costs["embedded"] = machine("cpu") | embedded()
            costs["per_operation"] = per_operation()
        if options.hosted:
            costs["hosted"] = [hosted(path) for path in options.hosted]
        if options.tables:
            costs["tables"] = [tables(kept) for kept in options.tables]
        return save(options.out, costs)
    model = random_model(scale.GEMMA, DTYPES[options.dtype], options.device)
    flops, bandwidth = speed(options.device, DTYPES[options.dtype])
    head = machine(options.device) | {"dtype": options.dtype, "flops": flops, "bandwidth": bandwidth}
    grid = [
        (t, k, b, o) for o in options.offload for t in options.lengths for b in options.batches for k in options.kept
    ]
    for tokens, kept, batch, offload in grid:
        if time.perf_counter() - begun > options.seconds:
            print("out of time, left:", (tokens, kept, batch, offload))
            continue
        run = scale.gemma_run(tokens, kept, batch, offload == "cpu")
        try:
            result = head | measure(model, run, options.device)
        except torch.cuda.OutOfMemoryError:
            print("out of memory:", (tokens, kept, batch, offload))
            continue
        same = ("device", "dtype", "tokens", "kept", "batch", "offload")
        costs["gemma"] = [r for r in costs["gemma"] if any(r[k] != result[k] for k in same)] + [result]
        save(options.out, costs)
        print(json.dumps(result), f"formula: {(run.cpu_peak if options.device == 'cpu' else run.peak) / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
