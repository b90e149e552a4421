"""The full tables of the answer key for features: ``python -m training.features`` writes ``mi_workshop/results/features.json`` (some minutes of one
core; an interrupted run goes on where it was).

What was decided before stands in ``mi_workshop.dictionary.key`` and ``effects``. Here: the dictionaries that ship for ``atlas``, layers 1 and 2, and beside
them all other kinds of units, as many and as often firing as the dictionary of ``MIDDLE`` features has; what is rebuilt from takes, for every kind, as
many units per token as that dictionary uses. Up to ``SAMPLE`` units are taken out, with ``EACH`` questions of either kind. The test strata stay closed.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pandas as pd

from mi_workshop import results
from mi_workshop.circuits.corpus import validation_text
from mi_workshop.dictionary import boosts, feature_key, load, units_of
from mi_workshop.dictionary.activations import firings
from mi_workshop.dictionary.overview import measured
from mi_workshop.dictionary.units import OTHERS
from mi_workshop.files import write_text
from mi_workshop.models import load as load_model
from training.dictionaries import SITES

NAME, WIDTHS, MIDDLE = "atlas", SITES["atlas"], 512
SAMPLE, EACH = 200, 16
PARTIAL = Path(__file__).parent / ".checkpoints" / "features"


def part(model: Any, layer: int, name: str) -> dict[str, Any]:
    """One kind of units of one layer: its row of the overview, its scores by family, its boosts."""
    middle = load(NAME, layer=layer, width=MIDDLE)
    per_token = max(1, round(firings(model, middle).nnz / firings(model, middle).shape[0]))
    dictionary = (
        load(NAME, layer=layer, width=int(name.removeprefix("SAE ").replace(",", "")))
        if name.startswith("SAE")
        else None
    )
    key = feature_key(model, dictionary or units_of(model, middle, name))
    boosted = boosts(key, n=EACH, text=validation_text)
    means = boosted.drop(columns="place").mean().to_dict() if len(boosted) else {}
    return {
        "overview": measured(key, per_token, dictionary, SAMPLE, EACH) | {"boosted": len(boosted)} | {f"boost {k}": v for k, v in means.items()},
        "families": key.families.reset_index().to_dict("records"),
    }  # fmt: skip


def main() -> None:
    begun, model = time.time(), load_model(NAME)
    rows: dict[str, list[dict[str, Any]]] = {"overview": [], "families": []}
    seconds = 0.0
    for layer, widths in WIDTHS.items():
        for name in (*(f"SAE {w:,}" for w in widths), *OTHERS):
            path = PARTIAL / f"{layer}-{name.replace(' ', '-')}.json"
            if not path.exists():
                start = time.time()
                found = part(model, layer, name) | {"seconds": time.time() - start}
                write_text(path, json.dumps(found, default=float))
                print(layer, name, f"{time.time() - begun:.0f} s", flush=True)
            found = json.loads(path.read_text(encoding="utf-8"))
            seconds += found["seconds"]
            where = {"layer": layer, "kind": name}
            rows["overview"].append(where | found["overview"])
            rows["families"] += [where | row for row in found["families"]]
    tables = {
        "overview": pd.DataFrame(rows["overview"]).set_index(["layer", "kind"]),
        "families": pd.DataFrame(rows["families"]).set_index(["layer", "kind", "family"]),
    }
    sizes = {"sample": SAMPLE, "questions": EACH}
    results.store(
        "features",
        tables,
        "python -m training.features",
        seconds,
        split="training text and validation questions",
        **sizes,
    )
    for path in PARTIAL.glob("*.json"):
        path.unlink()


if __name__ == "__main__":
    main()
