"""The full table of the debate on attention, stored as ``mi_workshop/results/debate.json``: ``python -m training.debate``
(one core, a minute for each of four data sets and five seeds).

Every run is written as it is done to ``training/.checkpoints/debate.jsonl``; an interrupted command goes on from there. ``--split validation`` is for
development and stores nothing; the test split is what the stored table was measured on, once.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from mi_workshop import debate, results
from mi_workshop.debate_verdicts import FAR, PUBLISHED, SAME, STRENGTH, STRENGTHS
from mi_workshop.models.attention_rnn import Guide, PassageModel, train
from mi_workshop.worlds import Anemia, Diabetes, Reviews, Rooms
from mi_workshop.worlds.passages import Passages

WORLDS = {world.__name__: world for world in (Rooms, Reviews, Anemia, Diabetes)}
SEEDS = range(5)
OTHER = 100  # seed s is compared with seed s + OTHER
FEW = 600  # training passages of the harder regime, chosen on validation
SCORED, READ, ASKED = 1000, 200, 100  # passages for F1, for what is measured by passage, stories for the keys
MAXIMA = np.linspace(0, 1, 5)  # bins of the largest attention weight
PARTIAL = Path(__file__).parent / ".checkpoints" / "debate.jsonl"


def measure(name: str, seed: int, split: str) -> dict[str, Any]:
    """All experiments on one data set with models of one seed."""
    world: Passages = WORLDS[name]()
    clock = Clock()
    guides = {"learned": "learned", "uniform": "uniform"}
    lstm = {k: train(world, seed, attention=g, progress=False) for k, g in guides.items()}
    base = lstm["learned"]
    other = train(world, seed + OTHER, progress=False)
    clock("LSTMs")
    adversaries = {s: debate.train_adversary(base, s, seed, progress=False) for s in STRENGTHS}
    clock("trained adversaries")
    attention: dict[str, str | Guide] = {"uniform": "uniform", "own": "learned", "LSTM's": base.weights, "adversary's": adversaries[STRENGTH].weights}  # fmt: skip
    mlp = {k: train(world, seed, attention=g, encoder="mlp", progress=False) for k, g in attention.items()}
    clock("MLPs")
    few = {k: train(world, seed, attention=g, n=FEW, progress=False) for k, g in guides.items()}
    attention = {"uniform": "uniform", "own": "learned", "LSTM's": few["learned"].weights}
    few_mlp = {k: train(world, seed, attention=g, encoder="mlp", n=FEW, progress=False) for k, g in attention.items()}
    clock("few passages")

    scored = world.sample(SCORED, split)
    read = scored[:READ]
    out: dict[str, float] = {}
    for start, encoder, models in (
        ("F1: ", "LSTM", lstm), ("F1: ", "MLP", mlp), ("F1, few: ", "LSTM", few), ("F1, few: ", "MLP", few_mlp),
    ):  # fmt: skip
        out |= {f"{start}{encoder}, {k}": debate.f1(m, scored) for k, m in models.items()}
    clock("F1")
    found = debate.correlations(base, read, other)
    out |= {f"τ: {pair}": float(tau) for pair, tau in found.means[name].items()}
    taus = {pair: counts.tolist() for (_, pair), counts in found.counts.iterrows()}
    clock("correlations")
    median = debate.permuted(base, read, seed=seed)[1].quantile(0.5, dim=0).numpy()
    out["TVD: permuted"] = float(median.mean())
    largest = np.digitize(base.weights(read).amax(-1).numpy(), MAXIMA[1:-1])
    shuffled = [median[largest == i].astype(float).round(6).tolist() for i in range(len(MAXIMA) - 1)]
    clock("permuted")
    adversary = debate.adversarial(base, read, seed=seed)
    twin = debate.compare(base, other, read)
    out |= {
        "share: adversarial": _mean(adversary.jsd > FAR), "share: beyond another seed": _mean(adversary.jsd > twin.jsd), "JSD: adversarial": _mean(adversary.jsd),
        "TVD: another seed": _mean(twin.tvd), "JSD: another seed": _mean(twin.jsd),
    }  # fmt: skip
    clock("adversarial")
    for label, m in {"uniform": lstm["uniform"], **{f"λ = {s}": m for s, m in adversaries.items()}}.items():
        pair = debate.compare(m, base, read)
        out |= {f"TVD: {label}": _mean(pair.tvd), f"JSD: {label}": _mean(pair.jsd)}
    out["TVD: adversary"] = out[f"TVD: λ = {STRENGTH}"]
    kept = [out[f"JSD: λ = {s}"] for s in STRENGTHS if out[f"TVD: λ = {s}"] <= SAME]
    out["JSD: best trained adversary"] = max(kept, default=0.0)
    clock("distances")
    for label, m in {"LSTM": base, "uniform": lstm["uniform"], "adversary": adversaries[STRENGTH], "MLP": mlp["own"]}.items():  # fmt: skip
        out |= keys(m, read[:ASKED], label)
    clock("keys")
    return {"world": name, "seed": seed, "split": split, "values": out, "taus": taus, "shuffled": shuffled, "seconds": clock.seconds}  # fmt: skip


def keys(model: PassageModel, passages: list[Any], label: str) -> dict[str, float]:
    """Shares of stories with the right sentence, or mean AUC of the planted words."""
    if isinstance(model.world, Rooms):
        shares = debate.pointing(model, passages).groupby("measure", sort=False).mean()
        return {f"{key}: {m}, {label}": float(v) for key in shares.columns for m, v in shares[key].items()}
    return {f"planted words: {m}, {label}": float(debate.auc(f(model, passages), passages).mean()) for m, f in debate.IMPORTANCE.items()}  # fmt: skip


class Clock:
    """Seconds since the last call, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.last = time.perf_counter()

    def __call__(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name], self.last = round(now - self.last, 1), now


def _mean(x: torch.Tensor) -> float:
    return float(x.float().mean())


def tables(done: list[dict[str, Any]]) -> dict[str, pd.DataFrame]:
    """What is stored: ``runs`` (a row for each data set and seed), ``taus`` and ``permuted`` (pooled over seeds), ``seconds``, ``published``."""
    index = pd.MultiIndex.from_tuples([(r["world"], r["seed"]) for r in done], names=["world", "seed"])
    runs = pd.DataFrame([r["values"] for r in done], index)
    taus, shuffled = {}, {}
    for world in dict.fromkeys(r["world"] for r in done):
        here = [r for r in done if r["world"] == world]
        for pair in here[0]["taus"]:
            taus[world, pair] = np.sum([r["taus"][pair] for r in here], 0)
        for i, (low, high) in enumerate(zip(MAXIMA, MAXIMA[1:], strict=False)):
            values = [v for r in here for v in r["shuffled"][i]]
            quartiles = np.quantile(values, [0.25, 0.5, 0.75]) if values else [np.nan] * 3
            shuffled[world, f"{low:.2f} to {high:.2f}"] = [len(values), *quartiles]
    return {
        "runs": runs,
        "taus": pd.DataFrame(taus, pd.Index(debate.TAU_BINS[:-1].round(1), name="from")).T.rename_axis(["world", "pair"]),
        "permuted": pd.DataFrame(shuffled, ["passages", "lower quartile", "median", "upper quartile"]).T.rename_axis(["world", "largest weight"]),
        "seconds": pd.DataFrame([r["seconds"] for r in done], index),
        "published": PUBLISHED,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", choices=["test", "validation"], default="test")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    args = parser.parse_args()
    PARTIAL.parent.mkdir(exist_ok=True)
    lines = PARTIAL.read_text(encoding="utf-8").splitlines() if PARTIAL.exists() else []
    done = {(r["world"], r["seed"]): r for r in map(json.loads, lines) if r["split"] == args.split}
    torch.set_flush_denormal(True)
    wanted = [(world, seed) for seed in args.seeds for world in WORLDS]
    for world, seed in wanted:
        if (world, seed) not in done:
            run = done[world, seed] = measure(world, seed, args.split)
            with PARTIAL.open("a", encoding="utf-8") as file:
                file.write(json.dumps(run, ensure_ascii=False) + "\n")
            print(world, seed, run["seconds"], flush=True)
    if args.split == "test":
        runs = [done[world, seed] for world in WORLDS for seed in args.seeds]
        seconds = sum(sum(r["seconds"].values()) for r in runs)
        setting = f"{SCORED} passages for F1, {READ} for what is measured by passage, {ASKED} for the keys; few: {FEW} training passages"
        path = results.store("debate", tables(runs), "python -m training.debate", seconds, split="test", seeds=args.seeds, sizes=setting)  # fmt: skip
        print(path)


if __name__ == "__main__":
    main()
