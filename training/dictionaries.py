"""The sparse dictionaries that ship: ``python -m training.dictionaries [NAME ...]`` trains them again (``atlas/sae_1_512`` is a name); a few minutes.

Which k a site gets was fixed before any dictionary was looked at, and no answer key has a say in it: the smallest of 2, 4, 8 and 16 features per token with which a
dictionary of 512 features recovers 98 % of the loss on validation sentences, chosen on ``atlas``; the other widths and the twin take the same.
``--frontier`` trains all kinds alike, each at several penalties, and stores FVU against L0 for the notebooks (``results.read("dictionaries")``).
"""

from __future__ import annotations

import argparse
import time
from typing import Any, cast

import pandas as pd

from mi_workshop import results
from mi_workshop.dictionary import SparseDictionary, activations, quality, read, save, train
from mi_workshop.models import WEIGHTS, Model, load
from training.card import rewrite_card

SITES: dict[str, dict[int, tuple[int, ...]]] = {
    "atlas": {1: (128, 512, 1024), 2: (128, 512, 2048)},
    "atlas-twin": {1: (512,), 2: (512,)},
}
NAMES = [
    f"{model}/sae_{layer}_{width}" for model, layers in SITES.items() for layer in layers for width in layers[layer]
]
KS, ENOUGH = (2, 4, 8, 16), 0.98
STEPS, RATE = 1500, 2e-3
SHORT = 600  # steps, for the comparison of kinds: what one trains live
GRID: dict[str, tuple[str, tuple[float, ...]]] = {
    "l1": ("l1", (0.02, 0.05, 0.1, 0.2)), "topk": ("k", (2, 4, 8, 16)), "batchtopk": ("k", (2, 4, 8, 16)), "jumprelu": ("l0", (0.0003, 0.001, 0.003, 0.01)),
}  # fmt: skip


def chosen(model: Model, layer: int) -> int:
    """The k of a site, by the rule above."""
    for k in KS:
        found = quality(model, train(model, layer, 512, k=k, steps=STEPS, learning_rate=RATE))
        print(f"k={k}: {found}", flush=True)
        if found.recovered >= ENOUGH:
            return k
    return KS[-1]


def ship(names: list[str]) -> None:
    """Train the named dictionaries into the package, and store how good the files are (those of all names, once all are there)."""
    start, ks = time.monotonic(), dict[int, int]()
    for name in names:
        of, (_, at, width) = name.split("/")[0], name.split("_")
        if (layer := int(at)) not in ks:
            ks[layer] = chosen(load("atlas"), layer)
        trained = train(load(of), layer, int(width), k=ks[layer], steps=STEPS, learning_rate=RATE)
        if trained.history.stopped:
            raise SystemExit(trained.history.stopped)
        save(trained, WEIGHTS / name, half=True)
    rows = {
        name: _figures(load(name.split("/")[0]), read(WEIGHTS / name)) for name in NAMES if (WEIGHTS / name).is_dir()
    }
    table = pd.DataFrame(rows.values(), pd.Index(rows, name="dictionary"))
    command = " ".join(["python -m training.dictionaries", *(names if names != NAMES else [])])
    results.store("dictionary_quality", {"shipped": table}, command, time.monotonic() - start, split="validation")
    for model in SITES:
        rewrite_card(model)


def _figures(model: Model, dictionary: SparseDictionary) -> dict[str, Any]:
    found = quality(model, dictionary)
    distinct = len((activations(model, dictionary.reads) * 1e3).round().unique(dim=0))
    kept = ("fvu", "l0", "dead", "intact", "spliced", "ablated", "recovered", "sentences")
    return {"width": dictionary.width, "k": dictionary.k, "trained_on": distinct} | {n: getattr(found, n) for n in kept}


def frontier() -> None:
    """Every kind, each penalty of ``GRID``, both layers of ``atlas``, at 512 features: same data, batches, steps and seed."""
    start, model = time.monotonic(), load("atlas")
    rows = []
    for layer in reversed(SITES["atlas"]):
        for kind, (setting, values) in GRID.items():
            for value in values:
                found = quality(
                    model,
                    trained := train(
                        model, layer, 512, kind, steps=SHORT, progress=False, **cast(Any, {setting: value})
                    ),
                )
                row = {
                    "layer": layer,
                    "kind": kind,
                    "setting": f"{setting}={value:g}",
                    "stopped": trained.history.stopped,
                }
                rows.append(row | {n: getattr(found, n) for n in ("fvu", "l0", "dead", "recovered")})
                print(rows[-1], flush=True)
    table = pd.DataFrame(rows).set_index(["layer", "kind", "setting"])
    more = {"split": "validation", "width": 512, "steps": SHORT, "batch": 1024, "seed": 0}
    results.store(
        "dictionaries",
        {"frontier": table},
        "python -m training.dictionaries --frontier",
        time.monotonic() - start,
        **more,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"all by default: {', '.join(NAMES)}")
    parser.add_argument(
        "--frontier", action="store_true", help="FVU against L0 of all kinds, in place of training what ships"
    )
    args = parser.parse_args()
    if unknown := [name for name in args.names if name not in NAMES]:
        parser.error(f"there is no {unknown[0]}: choose from {', '.join(NAMES)}")
    frontier() if args.frontier else ship(args.names or NAMES)


if __name__ == "__main__":
    main()
