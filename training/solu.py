"""What SoLU changes in our world, and what not: ``python -m training.solu`` writes ``mi_workshop/results/solu.json`` (two hours of one core, nearly
all of it training; an interrupted run goes on where it was). ``python -m training.solu 64-gelu-1`` trains one model and stops there.

Decided before any model with SoLU or GeLU was measured:

- Models: the recipe of ``atlas`` (2,000 steps, its text, its silent layers), another activation and nothing else: SoLU with its LayerNorm or
  GeLU. Three sizes: d_model 32, 64, 128, d_mlp twice that. Seeds 0, then 1 as time allows. ReLU at full size is ``atlas`` and ``atlas-twin``,
  SoLU at full size, seed 0, is ``atlas-solu``. Weights are rounded to half precision, as shipped. The test strata stay closed.
- Loss in nats: of the text (fresh draws of the training mixture, steps from 2 × 10⁶ on, weighted as in training) and of the answers to two-hop
  questions of the validation strata, with their accuracy.
- Neurons: ``mi_workshop.neurons.interpretable_neurons`` with its defaults. Headline: ``distinct inputs``, after the LayerNorm, every neuron of
  every layer counted (one that never fires counts as not explained). Beside it ``text``, the published way, where repeats count.
- Controls: as many random directions (neurons after a random rotation, the mean of 3), and hypotheses dealt out at random to the inputs.
- Verdict: SoLU raises the share if it is above GeLU's at every size and seed, and at full size by more than two standard errors
  (binomial, neurons taken as independent); it lowers it if the same holds with the sign turned; otherwise it is not shown.
- Information in small activations: share of one-hop and located sentences of the training text that are answered rightly when in each layer and
  at each token only the k strongest neurons (by absolute value) are kept, the others set to 0; of SoLU before, and also after its LayerNorm.

Added when the models of full size had been seen: the same with k = 32, and with the others set to their median (strongest: farthest from it), since
GeLU's idle neurons are not at 0, and 200 of them taken away together are another intervention than under ReLU or SoLU. (Their mean was tried too
and is not shown: it was no better for GeLU and worse for the others.)
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from mi_workshop.files import write_text
from mi_workshop.models import Model, load
from mi_workshop.neurons import (
    STRONGEST,
    firings,
    hook_name,
    interpretable_neurons,
    low_activations,
    stages,
    superlinearity,
)
from mi_workshop.results import store
from mi_workshop.show import counted
from mi_workshop.worlds import Atlas
from training.__main__ import Batches, language_loss, save_model, train_model
from training.evaluate import last_logits, right
from training.recipes import ATLAS, Recipe

SIZES = {32: 64, 64: 128, 128: 256}  # d_model: d_mlp
FOLDER = Path(__file__).parent / ".checkpoints" / "solu"
SHIPPED = {"128-solu_ln-0": "atlas-solu", "128-relu-0": "atlas", "128-relu-1": "atlas-twin"}
TABLES = {  # index and columns after d_model, activation, seed
    "loss": ([], ["text", "answers", "right", "questions", "parameters"]),
    "shares": (["stage", "inputs"], ["share", "se", "random directions", "random hypotheses", "neurons"]),
    "layers": (["stage", "layer"], ["share"]),
    "power": (["stage"], ["median", "lower quartile", "upper quartile"]),
    "low": (["stage", "activation of strongest"], ["holds", "inputs", "size"]),
    "kept": (["stage", "rest", "k"], ["right"]),
}
RUNS = [f"{d}-{act}-{seed}" for seed in (0, 1) for d in (128, 64, 32) for act in ("solu_ln", "gelu")]


def recipe(run: str) -> Recipe:
    d, act, seed = run.split("-")
    return replace(ATLAS, name=run, seed=int(seed), d_model=int(d), d_mlp=SIZES[int(d)], act_fn=act, transcoders={}, cross_layer=False)  # fmt: skip


def trained(run: str) -> Model:
    """The model of a run: shipped, trained before, or trained now."""
    if run in SHIPPED:
        return load(SHIPPED[run])
    if not (FOLDER / run / "model.safetensors").exists():
        world = Atlas()
        save_model(train_model(recipe(run), world, FOLDER.parent), recipe(run), world, FOLDER / run)
    return load(run, weights=FOLDER)


@torch.no_grad()
def losses(model: Model) -> dict[str, float]:
    """Loss of the text and of held-out answers in nats, and accuracy on these, on validation."""
    assert model.world is not None
    batches = Batches(model.world, replace(ATLAS, seed=0))
    parts = [part for step in range(20) for part in batches(2 * 10**6 + step)]
    text = sum(weight * language_loss(model.replacement, tokens).item() for weight, tokens in parts)
    order, logits = last_logits(model, [s for s in model.world.facts if (s.stratum or "").endswith("validation")])
    answers = torch.tensor([model.token_id(s.answer) for s in order])
    return {
        "text": text / sum(weight for weight, _ in parts),
        "answers": float(cross_entropy(logits, answers)),
        "right": float((logits.argmax(-1) == answers).float().mean()),
        "questions": len(order),
        "parameters": sum(p.numel() for name, p in model.replacement.named_parameters() if not name.startswith("transcoders.")),
    }  # fmt: skip


def kept(model: Model, stage: str, k: int, rest: str) -> float:
    """Share of right answers with only the ``k`` strongest neurons of each layer at each token, the ``rest`` at 0 or at their "median"."""
    assert model.world is not None
    idle = [torch.from_numpy(np.median(x, 0) * (rest == "median")) for x in firings(model, stage)]

    def only(x: Tensor, hook: Any) -> Tensor:
        size = (x - (base := idle[hook.layer()])).abs()
        return torch.where(size >= size.topk(k).values[..., -1:], x, base)

    known = [s for s in model.world.facts if s.kind in ("one_hop", "located") and s.stratum is None]
    hooks = [(hook_name(model, layer, stage), only) for layer in range(model.replacement.cfg.n_layers)]
    order, logits = last_logits(model, known, hooks)
    return float(right(model, order, logits).float().mean())


def measured(run: str) -> dict[str, Any]:
    """Everything of one model, kept as JSON so that it is measured once."""
    path = FOLDER / f"{run}.json"
    if not path.exists():
        model, (d, act, seed), start = trained(run), run.split("-"), time.perf_counter()
        key, width = [int(d), act, int(seed)], SIZES[int(d)]
        found = interpretable_neurons(model, tuple(STRONGEST), rotations=3)
        layers = found.neurons.groupby(level=["stage", "layer"], sort=False)["interpretable"].mean()
        rows = {
            "loss": [key + list(losses(model).values())],
            "shares": [[*key, *i, *row] for i, row in zip(found.table.index, found.table.to_numpy().tolist(), strict=True)],
            "layers": [[*key, *i, share] for i, share in layers.items()],
            "power": [[*key, i, *row] for i, row in zip(stages(model), superlinearity(model).to_numpy().tolist(), strict=True)],
            "low": [[*key, *i, *row] for i, row in low_activations(model).table.iterrows()],
            "kept": [
                [*key, stage, rest, k, kept(model, stage, k, rest)]
                for stage in stages(model) for rest in ("0", "median") for k in sorted({1, 2, 4, 8, 32, width})
            ],
        }  # fmt: skip
        write_text(path, json.dumps({**rows, "seconds": time.perf_counter() - start}))
        for remembered in (firings, interpretable_neurons):
            remembered.cache_clear()
    return json.loads(path.read_text())


def verdict(shares: pd.DataFrame) -> str:
    """What was decided beforehand; ``shares`` as stored."""
    one = shares.xs(("post", "distinct inputs"), level=("stage", "inputs"))
    a, b = (one.xs(act, level="activation") for act in ("solu_ln", "gelu"))
    both = a.index.intersection(b.index)
    gap = a.loc[both, "share"] - b.loc[both, "share"]
    error = np.hypot(a.loc[both, "se"], b.loc[both, "se"])
    full = both.get_level_values(0) == max(SIZES)
    of = f"{counted(len(both), 'pair')} of models, d_model {', '.join(map(str, sorted(both.unique(0))))}"
    for sign, word in ((1, "raises"), (-1, "lowers")):
        if (sign * gap > 0).all() and (sign * gap > 2 * error)[full].all():
            return f"SoLU {word} the share ({of})"
    return f"that SoLU raises or lowers the share is not shown ({of})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", choices=RUNS)
    parser.add_argument("--have", action="store_true", help="only the models that are there: train none")
    args = parser.parse_args()
    if args.run:
        trained(args.run)
        return
    runs = [
        r for r in [*RUNS, *SHIPPED] if not args.have or r in SHIPPED or (FOLDER / r / "model.safetensors").exists()
    ]
    parts = [measured(run) for run in dict.fromkeys(runs)]
    tables = {}
    for name, (index, columns) in TABLES.items():
        rows = pd.DataFrame(
            [row for part in parts for row in part[name]], columns=["d_model", "activation", "seed", *index, *columns]
        )
        tables[name] = rows.set_index(["d_model", "activation", "seed", *index]).sort_index(sort_remaining=False)
    store("solu", tables, "python -m training.solu", sum(part["seconds"] for part in parts), models=f"{len(parts)}, trained before these seconds", verdict=verdict(tables["shares"]))  # fmt: skip


if __name__ == "__main__":
    main()
