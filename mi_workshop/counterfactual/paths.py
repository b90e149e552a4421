"""Path patching (Goldowsky-Dill et al. 2023; Wang et al., "Interpretability in the Wild", 2022): how much goes from a sender to
receivers directly, with everything else held as it was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from .changes import Reader, Row, Values, edits_of, patch, plan, run_rows
from .metrics import METRICS, Reference
from .run import run
from .sites import InterventionError, Site, layers_of, tokens_of


def path_patch(
    model: Any, prompt: Any, donor: Any, senders: Sequence[Site], receivers: Sequence[Site], metric: str = "recovered",
    freeze_mlps: bool = True,
) -> list[float]:  # fmt: skip
    """For each sender, the metric after what *it* sends to the receivers is as in the donor.

    First the sender's values come from the donor while every other head's output (and, with ``freeze_mlps``, every MLP's) is held at its
    own values, and what then arrives at the receivers is recorded; then the prompt runs with just that set in the receivers. Receivers
    are sites that read (``q``, ``k``, ``v`` of heads, ``resid_post`` of the last layer for the logits).
    """
    if metric not in METRICS:
        raise InterventionError(f"There is no metric {metric!r}: choose {', '.join(METRICS)}.")
    tokens = tokens_of(model, prompt)
    held = [
        Site(kind, layer) for layer in range(layers_of(model)) for kind in ("z", *(("mlp_out",) if freeze_mlps else ()))
    ]
    reader = Reader(model)
    reader.ahead([*held, *receivers], [prompt])

    def values(site: Site, source: Any) -> Values:
        return plan(model, site, patch(), prompt, source, reader=reader).values

    frozen, ends_at = ([values(site, prompt) for site in sites] for sites in (held, receivers))
    rows = [frozen + [values(s, donor)] for s in senders]
    _, arrived = run(model, tokens.expand(len(rows), -1), _in_order(rows), read=receivers)
    second = [
        Row(tokens, [replace(v, new=x[i][v.position, v.unit]) for v, x in zip(ends_at, arrived, strict=True)])
        for i in range(len(rows))
    ]
    ends = run_rows(model, [Row(tokens, []), Row(tokens_of(model, donor), [])])
    r = Reference(ends[0], ends[1], int(ends[0].argmax()), int(ends[1].argmax()))
    return METRICS[metric](run_rows(model, second), r).tolist()


def _in_order(rows: list[list[Values]]) -> list[Any]:
    """The frozen parts first, the senders after them: where both name a site, the sender's values win."""
    return edits_of([row[:-1] for row in rows]) + edits_of([row[-1:] for row in rows])
