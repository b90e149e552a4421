"""Which methods expose the Clever Hans: the rule, decided on validation pictures before the test split was opened, and the verdicts by it.

**A map names the part with the highest mean score per pixel.** Two other rules were compared on 16 validation pictures, and what they say
of maps of pure noise decided against them: by the absolute sum the background is named for its size alone (81 % and 88 % of noise maps, smooth or not, and
nearly all maps of magnitudes, whatever they show), by the absolute mean the smallest part, the marker, is (56 %). By the mean, noise names
the marker in 12 and 25 % of the pictures, which have 4.3 parts on average (on the 32 test pictures it turned out 38 %, smooth noise: the rule still favours small parts,
if less). The mean is also what a reader sees: where it is hottest, not
where there is most heat. Both other rules are columns of the stored table. The verdict depends on the rule: by the sum, maps of magnitudes name
nothing but the background.

**The control is scenes-cnn on the same pictures**, with the same answers; the marker does nothing to it. A method that names the marker there, too, sees a
bright square and not a shortcut.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from .inputs import SaliencyError

if TYPE_CHECKING:
    from mi_workshop.results import Results

    from .attribution import Attribution
    from .keys import Key

RULES = ("mean", "absolute mean", "sum")
MOST = 0.5  # of the pictures: the share that the interval must lie above, or below


def named(a: Attribution, key: Key, rule: str = "mean") -> str:
    """The part that a map names: the one with the highest mean score per pixel or token, the highest absolute mean, or the highest absolute
    ``"sum"``. Raises SaliencyError for another rule."""
    if rule not in RULES:
        raise SaliencyError(f"There is no rule {rule!r}: choose one of {', '.join(RULES)}.")
    heat = {name: a.scores[mask].sum() if rule == "sum" else a.scores[mask].mean() for name, mask in key.masks.items()}
    return max(heat, key=lambda name: heat[name] if rule == "mean" else abs(heat[name]))


def verdicts(stored: Results, inputs: str = "agreeing marker", score: str = "names_marker") -> pd.DataFrame:
    """What each method says of the marker of ``scenes-shortcut``, and of the same marker in ``scenes-cnn``: share of the pictures in which it
    is named first, with its 95 % interval, and the verdict.

    *exposes*: names it in most pictures of the shortcut (interval above ½) and in few of the control (interval below ½). *cries wolf*: names it in
    most of the shortcut, but not in few of the control. *misses*: names it in few pictures of the shortcut. *undecided*: the interval holds ½.
    ``stored``: of ``results.read("saliency")``; ``score``: ``"names_marker"``, or by another rule ``"names_marker_by_sum"``, ``"names_marker_by_absolute_mean"``.
    """
    table = stored["scores"]
    seen = table.xs(("scenes-shortcut", inputs, score), level=("model", "inputs", "score"))
    control = table.xs(("scenes-cnn", "agreeing marker", score), level=("model", "inputs", "score")).loc[seen.index]
    out: dict[str, pd.Series] = {}
    for name, part in (("shortcut", seen), ("control", control)):
        out |= {name: part["mean"], f"{name} low": part.low, f"{name} high": part.high}
    above, below, quiet = seen.low > MOST, seen.high < MOST, control.high < MOST
    said = np.select([above & quiet, above, below], ["exposes", "cries wolf", "misses"], "undecided")
    return pd.DataFrame(out).assign(verdict=said)


def exposes(stored: Results) -> list[str]:
    """The methods that expose the Clever Hans; see ``verdicts``."""
    found = verdicts(stored).verdict
    return [str(method) for method in found.index[found == "exposes"]]
