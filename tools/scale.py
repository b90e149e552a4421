"""The page docs/costs.md: ``python tools/scale.py`` writes it from docs/costs.json (``measure_scale.py``) and ``scale_formulas.py``."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from scale_formulas import GEMMA, GEMMA_L0, MODELS, Run, gemma_run  # noqa: E402

DOCS = Path(__file__).parents[1] / "docs"
T4 = {
    "memory": 15e9,
    "bandwidth": 320e9,
    "fp16": 65e12,
    "fp32": 8.1e12,
}  # NVIDIA's data sheet; Colab leaves 15 of the 16 GB
RESERVE = 1e9  # assumed: CUDA's own memory and what fragmentation wastes
ALL = 10**9  # features kept: more than there are
BATCHES = (256, 128, 64, 48, 32, 16, 8)


def gb(size: float) -> str:
    return f"{size / 1e9:.1f}" if size >= 1e8 else f"{size / 1e9:.2f}" if size >= 1e7 else f"{size / 1e9:.3f}"


def table(head: str, rows: list[list[str]]) -> str:
    names = head.split("|")
    return "\n".join("| " + " | ".join(r) + " |" for r in [names, ["---"] * len(names), *rows])


def largest_batch(tokens: int, kept: int, offload: bool = False) -> int:
    """The largest of ``BATCHES`` with which Gemma leaves the reserve on a T4 (0: none)."""
    fits = (b for b in BATCHES if gemma_run(tokens, kept, b, offload).peak <= T4["memory"] - RESERVE)
    return next(fits, 0)


def of(measured: dict) -> Run:
    return gemma_run(measured["tokens"], measured["kept"], measured["batch"], measured["offload"])


def highest(run: Run) -> str:
    return max(run.phases, key=run.phases.__getitem__)


def slack(measured: dict) -> float:
    """Measured seconds over the formula's, at the speed of a matrix product and of a copy on the same machine."""
    return measured["seconds"] / of(measured).floor(measured["flops"], measured["bandwidth"])


def t4_seconds(run: Run, slacks: list[float], per_operation: float) -> str:
    low, high = (run.floor(T4[peak], T4["bandwidth"]) for peak in ("fp16", "fp32"))
    least = run.operations * per_operation
    return f"{max(low * min(slacks), least):.0f}–{max(high * max(slacks), least):.0f} s EXTRAPOLATED"


def page(costs: dict) -> str:
    """docs/costs.md."""
    cuda = [r for r in costs["gemma"] if not r["device"].startswith("CPU")]
    runs = cuda or costs["gemma"]
    slacks = [slack(r) for r in runs]
    usual = gemma_run(11, 4096, largest_batch(11, 4096))
    usual_most = replace(usual, kept=max(r["kept"] for r in costs["tables"]))
    embedded, hosted, call = costs["embedded"], costs["hosted"], costs["per_operation"]
    graphs = ", ".join(f"{g['nodes']:,} nodes and {g['links']:,} links: {g['bytes'] / 1e6:.1f} MB" for g in hosted)
    tiers = [
        ["embedded (atlas)", f"{embedded['weights'] / 1e6:.0f} MB, in the package", "the same",
         f"{embedded['peak_rss'] / 1e9:.1f} GB RAM, measured", f"{embedded['seconds']:.2f} s on one CPU thread, measured (first call {embedded['first']:.1f} s)"],
        ["hosted", f"a graph ({graphs})", "the same, once in the cache",
         f"{max(g['peak_rss'] for g in hosted) / 1e9:.1f} GB RAM, measured",
         f"opening {max(g['seconds'] for g in hosted):.1f} s, measured; a new graph is computed by Neuronpedia and waits in its queue: not measured"],
        ["GPU (Colab T4, gemma-2-2b)", f"{gb(sum(GEMMA.download))} GB, formula", "the same",
         f"{gb(usual.peak)} GB GPU, {gb(usual.packaging)} GB RAM for the edges, formula", t4_seconds(usual, slacks, call)],
        ["cluster", "as GPU, on every worker", "as GPU", "as GPU, each", "prompts × seconds / workers: every worker holds a model of its own; not measured"],
    ]  # fmt: skip
    models = []
    for name, s in MODELS.items():
        run = Run(s, 11, 4096, 64, s.active)
        known, encoders = s.features > 0, s.n_layers * s.features * s.d_model * 2
        lazy, npz = replace(run, lazy=True).transcoders, s is GEMMA
        models.append([
            name, gb(s.download[0]), gb(s.download[1]) if known else "?", gb(run.weights),
            gb(run.transcoders) if known else "?",
            "not possible" if npz else f"{gb(lazy)} / {gb(lazy - encoders)}" if known else "?",
            ("yes" if run.weights + run.transcoders <= T4["memory"] - RESERVE
             else "lazily" if run.weights + lazy <= T4["memory"] - RESERVE else "no") if known else "?",
        ])  # fmt: skip
    grid = []
    for tokens in (11, 32, 64):
        for kept in (1024, 4096, 8192, ALL):
            at = {b: gemma_run(tokens, kept, b) for b in (64, 256)}
            batch, offload = largest_batch(tokens, kept), False
            if not batch:
                batch, offload = largest_batch(tokens, kept, True), True
            best = gemma_run(tokens, kept, batch or BATCHES[-1], offload)
            grid.append([
                str(tokens), f"{at[64].n_active:,}", "all" if kept == ALL else f"{kept:,}", *(gb(r.peak) for r in at.values()),
                *(gb(replace(r, offload=True).peak) for r in at.values()), gb(best.packaging),
                f"{batch or 'none'}{', offload' * offload}", t4_seconds(best, slacks, call) if batch else "does not fit",
            ])  # fmt: skip
    checks = [
        [r["device"], r["dtype"], str(r["tokens"]), f"{r['active']:,}", f"{r['kept']:,}", str(r["batch"]),
         "yes" if r["offload"] else "no", f"{r['peak'] / 1e9:.2f} / {(of(r).peak if r in cuda else of(r).cpu_peak) / 1e9:.2f}", highest(of(r)),
         gb(r["reserved"]) if "reserved" in r else "–", gb(r["peak_rss"]), f"{r['seconds']:.1f}", f"{slack(r):.1f}×",
         f"{r['our_seconds']:.1f} ({1 + r['our_seconds'] / r['seconds']:.2f}×)"]
        for r in costs["gemma"]
    ]  # fmt: skip
    ours = [
        [f"{r['kept']:,}", f"{r['nodes']:,}", f"{r['links']:,}", f"{r['seconds']:.1f}", gb(r["peak_rss"])]
        for r in costs["tables"]
    ]
    first = runs[0]
    versions = ", ".join(f"{n} {first[n]}" for n in ("circuit-tracer", "transformer-lens", "transformers", "torch"))
    return f"""# What each tier costs

Written by `python tools/scale.py` from [costs.json](costs.json) and the formulas in `tools/scale_formulas.py`; a test holds them together.
1 GB = 10⁹ bytes. **measured**: read off a machine. **formula**: counted tensor by tensor; tests compare the count with a tiny random
model. **EXTRAPOLATED**: no such machine was at hand, the rule stands below. {"" if cuda else "**No GPU has been measured yet.**"}

{table("tier|download|disk|memory|seconds per prompt", tiers)}

The GPU row is the Dallas prompt ({usual.tokens} tokens), {usual.kept:,} features kept (`max_feature_nodes`), batches of {usual.batch}, bfloat16.

## Models (formula, bfloat16)

{table("model|download: model, GB|download: transcoders, GB|weights in memory, GB|transcoders in memory, GB|decoders lazy / encoders too, GB|beside each other on a T4?", models)}

TransformerLens keeps a tied embedding twice, so its weights are larger than the download divided by its bytes per number.
GemmaScope's files are float32 `.npz`, which circuit-tracer reads whole: lazy loading does not apply to them. Loading needs RAM for the
files beside this; it is not in the formulas. The 426k files are taken as bfloat16, which the published sizes of the 2.5M ones imply. "?": the width of these transcoders could not be read here.

## Gemma-2-2B by prompt length and features kept (formula; time EXTRAPOLATED)

{table("tokens|active features|kept|peak GB, batch 64|batch 256|offload, batch 64|offload, batch 256|RAM for edges, GB|largest batch on a T4|seconds on a T4", grid)}

Active features: the average L0 that GemmaScope's files state, {sum(GEMMA_L0):,} at a position over all layers, times the tokens after
`<bos>`; we found no published count for the Dallas prompt itself. "Largest batch" leaves {gb(RESERVE)} GB of {gb(T4["memory"])} GB free
(assumed, for CUDA and fragmentation). The batch matters most: the gradients are gathered at every active feature of a layer,
[batch, features of the layer, d_model], which at {grid[-1][0]} tokens and batch 256 is {gb(gemma_run(64, 8192, 256).backward)} GB for a
moment. By the formula a smaller batch costs little time, as the work per feature stays the same. Offloading does not lower the set-up, which
holds all weights, all transcoders and a copy of the unembedding at once; what it moves goes to the RAM.
"all" is what `attribute` does when `max_feature_nodes` is not given: the RAM for the edges grows with the square of the prompt.

## Measured against the formulas: full-size Gemma-2-2B, random weights, random 16k transcoders

{table("device|dtype|tokens|active|kept|batch|offload|peak GB, measured / formula|reached in (formula)|reserved|process RSS|seconds|seconds / formula|our tables, s (overhead of trace)", checks)}

On a CPU the peak is the bytes of live tensors, edges included; on a GPU it is `torch.cuda.max_memory_allocated`. "seconds / formula" is at the
speed of a matrix product ({first["flops"] / 1e12:.2f} TFLOP/s) and of a copy ({first["bandwidth"] / 1e9:.0f} GB/s, read plus written) on the first machine used below. Random
weights make "our tables" pessimistic: no effect between two nodes is exactly zero. Versions: {versions}; {first["date"]}.

## Our own part of a trace (measured on a CPU)

From circuit-tracer's matrix to our tables, where every node that can act on another does; 11 tokens, no model involved.

{table("features kept|nodes|links|seconds|process RSS, GB", ours)}

Beside it, the attribution of the Dallas prompt with {usual_most.n_kept:,} features kept takes {t4_seconds(usual_most, slacks, call)} on a T4: on a GPU our
part is not small.

## The rule for the T4

The formula counts operations and bytes of every pass and takes the slower of the two. The range: from float16 matrix units
({T4["fp16"] / 1e12:.0f} TFLOP/s; bfloat16 has none on a T4) to float32 ({T4["fp32"] / 1e12:.1f} TFLOP/s), at {T4["bandwidth"] / 1e9:.0f} GB/s (NVIDIA's data sheet), times the ratio of
measured to formula seconds on {first["device"]} ({min(slacks):.1f} to {max(slacks):.1f}). It is never less than
the operations times {call * 1e6:.0f} µs, what one costs here on a tiny model where nothing else counts (one CPU thread). Memory is taken over as counted. Time to load and to download is not in it.

To measure on a GPU: `python tools/measure_scale.py --lengths 11 32 64 --kept 1024 4096 8192 --batches 64 256 --offload none cpu`, then
`python tools/scale.py`. Nothing is downloaded; runs that do not fit in memory are skipped.
"""


if __name__ == "__main__":
    (DOCS / "costs.md").write_text(page(json.loads((DOCS / "costs.json").read_text())), encoding="utf-8")
