"""All measures of all kinds of units side by side: ``overview(layer)`` reads the stored table, ``measured`` makes one row of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pandas as pd

from mi_workshop import results
from mi_workshop.circuits.corpus import training_text, validation_text
from mi_workshop.dictionary.core import DictionaryError, SparseDictionary
from mi_workshop.dictionary.effects import ablations
from mi_workshop.dictionary.key import FOUND, FeatureKey
from mi_workshop.dictionary.quality import Splice, quality
from mi_workshop.show import Shown


def measured(
    key: FeatureKey, per_token: int, dictionary: SparseDictionary | None = None, sample: int = 200, n: int = 16
) -> dict[str, float]:
    """One row: the scores of ``FeatureKey``, the effects of taking a ``sample`` of units out, on trained and on validation questions, and the loss recovered
    at the answers of validation questions by the ``per_token`` strongest units of each token (``recovered``; not for units that read elsewhere than they write)
    and by the dictionary's own reconstruction (``decoded``, with the ``fvu``, ``l0`` and ``dead`` of ``quality``)."""
    of, t = key.of, key.table
    mean, low, high = key.monosemanticity
    row = {
        "units": len(of), "live": len(t), "monosemanticity": mean, "low": low, "high": high, "chance": key.chance, "tuned": t.tuned.mean(), "weighted": t.weighted.mean(),
        "precise": (t.precision >= FOUND).mean(), "found": key.found, "density": t.density.median(), "per_token": of.acts.nnz / of.acts.shape[0],
    }  # fmt: skip
    for name, text in (("trained", training_text), ("validation", validation_text)):
        e = ablations(key, sample, n, text)
        specificity, least, most = e.specificity
        row |= {
            f"{name} taken out": len(e.table), f"{name} own": e.table.own.mean(), f"{name} other": e.table.other.mean(), f"{name} random": e.table.random.mean(),
            f"{name} neighbour": e.table.neighbour.mean(), f"{name} act": e.table.specificity.notna().mean(),
            f"{name} specificity": specificity, f"{name} specificity low": least, f"{name} specificity high": most,
        }  # fmt: skip
    if of.reads == of.hook:
        splice = Splice(of.model, of.hook)
        same = SimpleNamespace(reads=of.hook, encode=lambda x: x, decode=lambda x: of.rebuilt(x, per_token))
        row["recovered"] = splice.recovered(cast("SparseDictionary", same))
    if dictionary is not None:
        found = quality(of.model, dictionary)
        row |= {"decoded": found.recovered, "fvu": found.fvu, "l0": found.l0, "dead": found.dead}
    return row


@dataclass(eq=False)
class Overview(Shown):
    """``table``: one row per kind of units, the columns of ``measured``."""

    layer: int
    table: pd.DataFrame
    provenance: str = field(repr=False)

    def words(self) -> str:
        said = "; ".join(
            f"{name}: monosemanticity {r.monosemanticity:.2f}, {r.found:.0%} of concepts found, {r['validation own']:.2f} nats lost, {r.recovered:.2f} of the loss recovered"
            for name, r in self.table.iterrows()
        )
        return f"Units of layer {self.layer} of atlas. {said}. {self.provenance}"

    def figure(self) -> Any:
        from mi_workshop.dictionary.key_plots import draw_overview

        return draw_overview(self)


def overview(layer: int = 1) -> Overview:
    """The stored table of one layer of ``atlas``. Raises DictionaryError for a layer that was not measured."""
    stored = results.read("features")
    table = stored["overview"]
    have = sorted(set(table.index.get_level_values("layer")))
    if layer not in have:
        raise DictionaryError(f"Layers {' and '.join(map(str, have))} were measured, not {layer!r}.")
    return Overview(layer, table.loc[layer], str(stored))
