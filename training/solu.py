"""What SoLU changes in our world, and what not: ``python -m training.solu`` writes ``mi_workshop/results/solu.json`` (two hours of one core, nearly
all of it training; an interrupted run goes on where it was). ``python -m training.solu 64-gelu-1`` trains one model and stops there.

Decided before any model with SoLU or GeLU was measured:

- Models: the recipe of ``atlas`` (2,000 steps, its text, its silent layers), another activation and nothing else: SoLU with its LayerNorm or
  GeLU. Three sizes: d_model 32, 64, 128, d_mlp twice that. Seeds 0, then 1 as time allows. ReLU at full size is ``atlas`` and ``atlas-twin``,
  SoLU at full size, seed 0, is ``atlas-solu``. Weights are rounded to half precision, as shipped. The test strata stay closed.
- Loss in nats: of the text (fresh draws of the training mixture, steps from 2 × 10⁶ on, weighted as in training) and of the answers to two-hop
  questions of the validation strata, with their accuracy.
- Neurons: ``mi_workshop.solu.interpretable_neurons`` with its defaults. Headline: ``distinct inputs``, after the LayerNorm, every neuron of
  every layer counted (one that never fires counts as not explained). Beside it ``text``, the published way, where repeats count.
- Controls: as many random directions (neurons after a random rotation, the mean of 3), and hypotheses dealt out at random to the inputs.
- Verdict: SoLU raises the share if it is above GeLU's at every size and seed, and at full size by more than two standard errors
  (binomial, neurons taken as independent); it lowers it if the same holds with the sign turned; otherwise it is not shown.
- Information in small activations: share of one-hop and located sentences of the training text that are answered rightly when in each layer and
  at each token only the k strongest neurons (by absolute value) are kept, the others set to 0; of SoLU before, and also after its LayerNorm.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from mi_workshop.models import Model, load
from mi_workshop.worlds import Atlas
from training.__main__ import save_model, train_model
from training.recipes import ATLAS, Recipe

SIZES = {32: 64, 64: 128, 128: 256}  # d_model: d_mlp
FOLDER = Path(__file__).parent / ".checkpoints" / "solu"
SHIPPED = {"128-solu_ln-0": "atlas-solu", "128-relu-0": "atlas", "128-relu-1": "atlas-twin"}
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", choices=RUNS)
    args = parser.parse_args()
    if args.run:
        trained(args.run)


if __name__ == "__main__":
    main()
