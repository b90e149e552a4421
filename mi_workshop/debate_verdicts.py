"""What the numbers of the debate say to each claim of it. Thresholds and rule stand here, and were committed before the test split was opened.

The rule: the 95 % interval of a figure over seeds (Student's t) lies wholly on the claim's side of its threshold ("supported"), wholly on the other
("not supported"), or across it ("mixed"). Over all data sets a claim is supported or not where each says so, else mixed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import t

from mi_workshop.debate import EPSILON, Correlations
from mi_workshop.results import Results
from mi_workshop.show import Shown

JAIN, WIEGREFFE, OURS = "Jain and Wallace", "Wiegreffe and Pinter", "ours"
MARGIN = 0.02  # F1, shares: what is less counts as no difference
FAR = float(np.log(2) / 2)  # nats: half of the Jensen-Shannon divergence that there can be
SAME = 0.05  # mean total variation up to which a trained adversary counts as predicting the same
STRENGTHS = (0.001, 0.003, 0.01, 0.03)  # λ of trained adversaries
STRENGTH = 0.01  # of the one that guides the diagnostic, chosen on validation


@dataclass(frozen=True)
class Claim:
    """``figure``: a column of the runs, or two: the first minus the second; ``sign`` "<" or ">" the ``threshold`` if the claim is true."""

    text: str
    by: str
    figure: tuple[str, ...]
    sign: str
    threshold: float


CLAIMS = (
    Claim("Attention correlates only weakly with gradient × input (Kendall τ)", JAIN, ("τ: attention, gradient",), "<", 0.5),
    Claim("Attention correlates only weakly with leave-one-out (Kendall τ)", JAIN, ("τ: attention, leave one out",), "<", 0.5),
    Claim("Gradient × input agrees with leave-one-out better than attention does (τ)", JAIN, ("τ: gradient, leave one out", "τ: attention, leave one out"), ">", 0),
    Claim("Attention agrees better with that of another seed than with leave-one-out (τ)", OURS, ("τ: attention of two seeds", "τ: attention, leave one out"), ">", 0),
    Claim("Shuffled attention changes the prediction little (median TVD)", JAIN, ("TVD: permuted",), "<", 0.1),
    Claim("Most passages have far other attention with the same prediction (share)", JAIN, ("share: adversarial",), ">", 0.5),
    Claim("For most passages it is farther than another seed's attention (share)", JAIN, ("share: beyond another seed",), ">", 0.5),
    Claim("Uniform attention is as good (F1 lost)", WIEGREFFE, ("F1: LSTM, learned", "F1: LSTM, uniform"), "<", MARGIN),
    Claim("Uniform attention is as good, with few passages (F1 lost)", WIEGREFFE, ("F1, few: LSTM, learned", "F1, few: LSTM, uniform"), "<", MARGIN),
    Claim("The diagnostic MLP does better with the LSTM's attention than with uniform (F1)", WIEGREFFE, ("F1: MLP, LSTM's", "F1: MLP, uniform"), ">", MARGIN),
    Claim("... and than with its own (F1)", WIEGREFFE, ("F1: MLP, LSTM's", "F1: MLP, own"), ">", MARGIN),
    Claim("... with few passages, than with uniform (F1)", WIEGREFFE, ("F1, few: MLP, LSTM's", "F1, few: MLP, uniform"), ">", MARGIN),
    Claim("A trained adversary's attention guides worse than the LSTM's (F1)", WIEGREFFE, ("F1: MLP, LSTM's", "F1: MLP, adversary's"), ">", MARGIN),
    Claim("A model can be trained to the same predictions with far other attention (JSD)", JAIN, ("JSD: best trained adversary",), ">", FAR),
    Claim("... and its predictions part no more than those of another seed (TVD)", JAIN, ("TVD: adversary", "TVD: another seed"), "<", 0.01),
    Claim("Attention points to the sentence that the answer depends on (share)", OURS, ("model key: attention, LSTM",), ">", 0.9),
    Claim("... as often as gradient × input does (share)", OURS, ("model key: attention, LSTM", "model key: gradient × input, LSTM"), ">", -MARGIN),
    Claim("... also where it was trained to look elsewhere (share)", OURS, ("model key: attention, adversary",), ">", 0.9),
    Claim("Attention points to the sentence that should matter (share)", OURS, ("world key: attention, LSTM",), ">", 0.9),
    Claim("Attention finds the planted words (AUC)", OURS, ("planted words: attention, LSTM",), ">", 0.9),
    Claim("... better than gradient × input does (AUC)", OURS, ("planted words: attention, LSTM", "planted words: gradient × input, LSTM"), ">", 0),
)  # fmt: skip

# Wiegreffe and Pinter 2019, Table 3: F1 of the diagnostic MLP. Their data, not ours.
PUBLISHED = pd.DataFrame(
    {
        "Diabetes (MIMIC)": [0.404, 0.699, 0.753, 0.503], "Anemia (MIMIC)": [0.873, 0.920, 0.931, 0.932], "SST": [0.812, 0.817, 0.824, 0.592],
        "IMDb": [0.863, 0.888, 0.905, 0.700],
    },
    pd.Index(["uniform", "own", "LSTM's", "adversary's"], name="attention of the MLP"),
)  # fmt: skip


def interval(values: pd.Series) -> tuple[float, float, float]:
    """Mean over runs and its 95 % interval (Student's t; the mean itself where there is one run)."""
    x = values.dropna().to_numpy(float)
    half = float(t.ppf(0.975, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x))) if len(x) > 1 else 0.0
    return float(x.mean()), float(x.mean()) - half, float(x.mean()) + half


def _worlds(runs: pd.DataFrame) -> list[str]:
    return list(dict.fromkeys(runs.index.get_level_values("world")))


def verdicts(results: Results) -> pd.DataFrame:
    """A row for each claim: by whom, what would support it, and for each data set the verdict with mean and interval over seeds ("–" where the claim
    has no meaning there). ``results`` is ``read("debate")``."""
    runs = results["runs"]
    rows = {}
    for claim in CLAIMS:
        first, *second = claim.figure
        values = runs[first] - runs[second[0]] if second else runs[first]
        found = {}
        for world in _worlds(runs):
            here = values.loc[world].dropna()
            found[world] = _verdict(claim, here) if len(here) else "–"
        words = {said.split(":")[0] for said in found.values()} - {"–"}
        overall = words.pop() if len(words) == 1 else "mixed"
        rows[claim.text] = {"by": claim.by, "if": f"{claim.sign} {claim.threshold:.2g}", "verdict": overall, **found}
    return pd.DataFrame(rows).T.rename_axis("claim")


def _verdict(claim: Claim, values: pd.Series) -> str:
    mean, *ends = interval(values)
    true = [end > claim.threshold if claim.sign == ">" else end < claim.threshold for end in ends]
    word = "supported" if all(true) else "mixed" if any(true) else "not supported"
    return f"{word}: {mean:.2f} [{ends[0]:.2f}, {ends[1]:.2f}]"


@dataclass(eq=False)
class TradeOff(Shown):
    """``points`` [(world, kind, seed)]: mean ``tvd`` of predictions and ``jsd`` of attention from the base model's, of models of another seed, with
    uniform attention and trained adversaries ("λ = 0.01"), and of the adversary that is sought passage by passage (``tvd`` at most 0.01, drawn there)."""

    points: pd.DataFrame

    def words(self) -> str:
        means = self.points.groupby(level=["world", "kind"], sort=False).mean()
        worlds = list(dict.fromkeys(means.index.get_level_values("world")))
        said = (
            ", ".join(f"{kind} {row.tvd:.3f} and {row.jsd:.2f}" for kind, row in means.loc[w].iterrows())
            for w in worlds
        )
        return "TVD of predictions and JSD of attention from the base model: " + "; ".join(f"{w}: {s}" for w, s in zip(worlds, said, strict=True)) + "."  # fmt: skip

    def figure(self) -> Any:
        from .debate_plots import draw_trade_off

        return draw_trade_off(self.points)


def trade_off(results: Results) -> TradeOff:
    """How far attention can move and what it costs: trained adversaries between the variance over seeds and uniform attention (in the manner of Figures 3
    to 5 of Wiegreffe and Pinter 2019)."""
    runs = results["runs"]
    rows: dict[tuple[str, ...], dict[str, Any]] = {}
    kinds = ["another seed", "uniform", *(f"λ = {s}" for s in STRENGTHS)]
    for (world, seed), run in runs.iterrows():
        rows |= {(world, k, seed): {"tvd": run[f"TVD: {k}"], "jsd": run[f"JSD: {k}"]} for k in kinds}
        rows[world, "adversary, by passage", seed] = {"tvd": EPSILON, "jsd": run["JSD: adversarial"]}
    return TradeOff(pd.DataFrame(rows).T.rename_axis(["world", "kind", "seed"]))


def stored_correlations(results: Results) -> Correlations:
    """The τ of all data sets, pooled over seeds."""
    runs, counts = results["runs"], results["taus"]
    means = runs[[c for c in runs.columns if c.startswith("τ: ")]].groupby(level="world", sort=False).mean().T
    return Correlations(
        means.set_axis(means.index.str.removeprefix("τ: ")), counts.set_axis(counts.columns.astype(float), axis=1)
    )


def f1_table(results: Results, few: bool = False) -> pd.DataFrame:
    """F1 (Rooms: macro; else of the last class) of LSTMs with learned and uniform attention, and of the diagnostic MLP by whose attention guides it, as
    mean ± half of the 95 % interval over seeds; in the shape of Tables 2 and 3 of Wiegreffe and Pinter 2019. ``few``: with few training passages."""
    runs, start = results["runs"], "F1, few: " if few else "F1: "
    columns = [c for c in runs.columns if c.startswith(start)]
    rows = {tuple(c[len(start) :].split(", ")): {w: _said(runs[c].loc[w]) for w in _worlds(runs)} for c in columns}
    return pd.DataFrame(rows).T.rename_axis(["model", "attention"])


def key_table(results: Results) -> pd.DataFrame:
    """For each model and measure: share of stories of Rooms where it points to the sentence of the model key and of the world key, and elsewhere the AUC
    of the planted words; mean ± half of the 95 % interval over seeds."""
    runs = results["runs"]
    rows: dict[tuple[str, ...], dict[str, Any]] = {}
    for column in runs.columns:
        key, _, rest = column.partition(": ")
        if key in ("model key", "world key", "planted words"):
            measure, model = rest.rsplit(", ", 1)
            for world in _worlds(runs):
                if runs[column].loc[world].notna().any():
                    name = f"{world}: {key}" if key != "planted words" else f"{world}: AUC"
                    rows.setdefault((model, measure), {})[name] = _said(runs[column].loc[world])
    return pd.DataFrame(rows).T.rename_axis(["model", "measure"])


def _said(values: pd.Series) -> str:
    mean, low, high = interval(values)
    return f"{mean:.3f} ± {(high - low) / 2:.3f}"
