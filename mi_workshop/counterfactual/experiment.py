"""An experiment: sites, a change, and the controls that could show that the change means nothing.

The verdict. For each prompt ``lost`` is the share of its own answer's probability that is gone, ``gained`` the share of the donor's that
has come (``metrics``). The reference distribution is the mean over prompts of the same two under each random change of equal number,
layer, position and size (``controls.random_values``); with n random changes p = (1 + as many as reach the observed mean) / (1 + n).

- *necessary*: the change takes information away, mean lost >= ``SHARE`` and p(lost) <= ``ALPHA``;
- *sufficient*: mean gained >= ``SHARE`` and p(gained) <= ``ALPHA``; needs donors with another answer;
- *both*, or *no evidence*: which is not evidence of nothing.

Controls that fail (``Report.against``) stand behind the verdict as a *but*: the same with a donor of the prompt's own answer, of a third
answer, or at another position. A donor counts as one of the own answer where the model itself gives that answer to it.

Necessary and sufficient hold for these prompts, this change and this treatment of attention; nothing is said about others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from mi_workshop.models import Model, rounding
from mi_workshop.show import Shown, listed
from mi_workshop.worlds import WorldError

from .changes import Change, Plan, Reader, Row, patch, plan, run_rows
from .controls import random_values
from .metrics import METRICS, Reference
from .sites import HOOKS, InterventionError, Site, positions, token_id, tokens_of, words_of

SHARE, ALPHA = 0.5, 0.05
DOSES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)


@dataclass
class Report(Shown):
    """What an experiment did, and what its controls did.

    ``table``: one row for each prompt (answers, every metric of ``METRICS``). ``random``: mean lost and gained over prompts under each
    random change [change]. ``controls``: name → mean lost, mean gained and what it means. ``dose``: probabilities of both answers.
    ``identity``: the largest change of a logit when every site is set to its own value. ``effect``: name → (mean, low, high), a 95 %
    bootstrap interval over prompts (NaN for fewer than five).
    """

    what: str
    attention: str
    table: pd.DataFrame
    random: pd.DataFrame
    random_kind: str
    controls: dict[str, dict[str, Any]]
    dose: pd.DataFrame
    identity: float
    removes: bool
    before: list[dict[str, Any]] = field(repr=False)
    after: list[dict[str, Any]] = field(repr=False)
    sites: Sequence[Site] = field(default=(), repr=False)

    def p(self, name: str) -> float:
        """How often a random change does as much: (1 + number that reach it) / (1 + number), for ``lost`` or ``gained``."""
        observed = self.table[name].mean()
        return float((1 + (self.random[name] >= observed).sum()) / (1 + len(self.random)))

    @property
    def effect(self) -> dict[str, tuple[float, float, float]]:
        return {name: interval(self.table[name].to_numpy()) for name in ("lost", "gained")}

    def shows(self, name: str) -> bool:
        return bool(self.table[name].mean() >= SHARE and self.p(name) <= ALPHA)

    @property
    def verdict(self) -> str:
        """``"both"``, ``"necessary"``, ``"sufficient"`` or ``"no evidence"``; the module says what each means."""
        found = (self.removes and self.shows("lost"), self.shows("gained"))
        return {(True, True): "both", (True, False): "necessary", (False, True): "sufficient"}.get(found, "no evidence")

    @property
    def against(self) -> list[str]:
        """What the failed controls say against the verdict; empty if none failed or there is no evidence to speak against."""
        if self.verdict == "no evidence":
            return []
        shown = ["lost"] * (self.verdict != "sufficient") + ["gained"] * (self.verdict != "necessary")
        c, elsewhere = self.controls, self.controls.get("wrong position", {})
        failed = {
            "a donor of the same answer changes it, too": c.get("same answer", {}).get("kept", 1) < SHARE,
            "a donor of a third answer brings the donor's answer, too": c.get("third answer", {}).get("gained", 0)
            >= SHARE,
            "the same at another position does as much": all(elsewhere.get(k, 0) >= SHARE for k in shown),
        }
        return [sentence for sentence, fails in failed.items() if fails]

    def words(self) -> str:
        n, first = len(self.table), self.table.iloc[0]
        lines = [f"{self.what}; attention {self.attention}; {n} prompt{'' if n == 1 else 's'}."]
        if n == 1:
            lines += [f"before: {listed(self.before)}", f"after:  {listed(self.after)}"]
        for name, whose in (("lost", first.answer), ("gained", first.donor_answer)):
            mean, low, high = self.effect[name]
            if np.isnan(mean):
                continue
            spread = "" if np.isnan(low) else f" [{low:.2f}, {high:.2f}]"
            who = f"of {whose}" if n == 1 else "of the own answer" if name == "lost" else "of the donor's answer"
            lines.append(
                f"{name} {mean:.2f}{spread} {who}; {len(self.random)} random changes ({self.random_kind}): "
                f"{self.random[name].mean():.2f} on average, {self.random[name].max():.2f} at most, p = {self.p(name):.3f}"
            )
        lines.append(
            f"controls: own values {self.identity:.0e} in any logit"
            + "".join(f"; {name}: {c['says']}" for name, c in self.controls.items())
        )
        meaning = {
            "both": "both necessary and sufficient", "necessary": "necessary", "sufficient": "sufficient",
            "no evidence": "no evidence (which is not evidence that it does not matter)",
        }[self.verdict]  # fmt: skip
        but = f" But {', and '.join(self.against)}." if self.against else ""
        return "\n".join([*lines, f"Verdict: {meaning}.{but}"])

    def figure(self) -> Any:
        from mi_workshop.plots import draw_report

        return draw_report(self)


@dataclass
class Experiment:
    """Sites and what is done to them; ``run`` it on one prompt or a thousand.

    >>> Experiment(Site("resid_post", 1, "{city}"), patch()).run(model, prompts, donors)

    ``change``: one for all sites, or one for each. ``freeze_attention`` holds every attention pattern at its unedited values.
    ``n_random`` random changes give the reference.
    """

    sites: Site | Sequence[Site]
    change: Change | Sequence[Change] = field(default_factory=patch)
    freeze_attention: bool = False
    n_random: int = 100
    seed: int = 0
    align: bool = False

    def run(
        self, model: Any, prompts: Any, donors: Any = None, answers: Sequence[str | int] | None = None,
        controls: bool = True, progress: str | None = None,
    ) -> Report:  # fmt: skip
        """Make the change in each prompt, with its donor where the change copies from one.

        ``answers``: the prompts' own answers, one token each; by default what the model says. Raises InterventionError for sites,
        positions, pairs and answers that cannot be, and if setting the sites to their own values changes the outputs.
        """
        prompts, donors = as_list(prompts), as_list(donors)
        sites = [self.sites] if isinstance(self.sites, Site) else list(self.sites)
        if not sites or not prompts:
            raise InterventionError("An experiment needs at least one site and one prompt.")
        if donors and len(donors) != len(prompts):
            raise InterventionError(
                f"There are {len(prompts)} prompts and {len(donors)} donors: give one donor for each prompt."
            )
        if answers is not None and len(answers) != len(prompts):
            raise InterventionError(f"There are {len(prompts)} prompts and {len(answers)} answers: give one for each.")
        changes = self.changes(len(sites))
        copies = any(c.needs_donor for c in changes)
        g = torch.Generator().manual_seed(self.seed)
        rows: list[Row] = []
        names: list[tuple[int, str]] = []
        kind, reader = "", Reader(model)
        pairs = list(zip(prompts, donors or [None] * len(prompts), strict=True))
        others = [other_donors(model, p, d) if controls and copies else (None, None) for p, d in pairs]
        every = [
            *prompts,
            *donors,
            *(p for c in changes for p in c.reference),
            *(o for two in others for o in two if o is not None),
        ]
        reader.ahead([*sites, *(replace(s, basis=None) for s in sites if isinstance(s.basis, Tensor))], every)
        for i, (prompt, donor) in enumerate(pairs):
            plans = [
                plan(model, s, c, prompt, donor, self.align, self.seed + i, reader)
                for s, c in zip(sites, changes, strict=True)
            ]
            tokens = tokens_of(model, prompt)
            variants: dict[str, list[Any]] = {"base": [], "edited": [p.values for p in plans]}
            variants["identity"] = [p.values.moved(0) for p in plans]
            if controls:
                variants |= {f"dose {d:g}": [p.values.moved(d) for p in plans] for d in DOSES}
                variants |= self._others(reader, sites, prompt, donor, others[i], plans)
                drawn = [random_values(model, p, c, self.n_random, g) for p, c in zip(plans, changes, strict=True)]
                kind = " and ".join(dict.fromkeys(k for _, k in drawn))
                for j in range(self.n_random):
                    variants[f"random {j}"] = [values[j] for values, _ in drawn]
            rows += [Row(tokens, parts) for parts in variants.values()]
            names += [(i, name) for name in variants]
            for name, other in (("donor", donor), ("same", others[i][0])):
                if other is not None:
                    rows.append(Row(tokens_of(model, other), []))
                    names.append((i, name))
        logits = run_rows(model, rows, self.freeze_attention, progress=progress)
        found: list[dict[str, Tensor]] = [{} for _ in prompts]
        for (i, name), one in zip(names, logits, strict=True):
            found[i][name] = one
        return self._report(model, sites, prompts, donors, answers, found, kind)

    def changes(self, n: int) -> list[Change]:
        """The change at each of ``n`` sites. Raises InterventionError if there are fewer or more."""
        found = [self.change] * n if isinstance(self.change, Change) else list(self.change)
        if len(found) != n:
            raise InterventionError(
                f"There are {n} sites and {len(found)} changes: give one change, or one for each site."
            )
        return found

    def _others(
        self, reader: Reader, sites: list[Site], prompt: Any, donor: Any, others: tuple[Any, Any], plans: list[Plan]
    ) -> dict[str, list[Any]]:
        """The same change with other donors, at another position, and of the whole residual stream."""
        out: dict[str, list[Any]] = {}
        model = reader.model
        changes = self.changes(len(sites))
        if any(c.needs_donor for c in changes):
            for name, other in zip(("same answer", "third answer"), others, strict=True):
                if other is not None:
                    out[name] = [
                        plan(model, s, c, prompt, other, reader=reader).values
                        for s, c in zip(sites, changes, strict=True)
                    ]
            whole = [Site("resid_post", s.layer, s.position) for s in sites if s.layer is not None and s.kind in HOOKS]
            if len(whole) == len(sites) and any(
                s.kind != "resid_post" or s.units is not None or s.basis is not None for s in sites
            ):
                out["whole residual"] = [
                    plan(model, s, patch(), prompt, donor, self.align, reader=reader).values for s in whole
                ]
        taken, n = set().union(*(p.at for p in plans)), len(positions(model, None, prompt))
        free = [p for p in range(1, n) if p not in taken]
        if free and all(len(p.at) == 1 for p in plans) and all(s.kind != "pattern" for s in sites):
            elsewhere = min(free, key=lambda p: abs(p - min(taken)))  # the nearest
            out["wrong position"] = [_moved_to(reader, prompt, p, elsewhere) for p in plans]
        return out

    def _report(
        self, model: Any, sites: list[Site], prompts: list[Any], donors: list[Any], answers: Any,
        found: list[dict[str, Tensor]], kind: str,
    ) -> Report:  # fmt: skip
        rows, measured, identity = [], [], 0.0
        for i, logits in enumerate(found):
            base, donor, same = logits["base"], logits.get("donor"), logits.pop("same", None)
            if same is not None and same.argmax() != base.argmax():  # right in the world, but not what this model says
                del logits["same answer"]
            own = int(base.argmax()) if answers is None else token_id(model, answers[i])
            r = Reference(base, donor, own, None if donor is None else int(donor.argmax()))
            change = float((logits["identity"] - base).abs().max())
            identity = max(identity, change)
            if change > (limit := rounding(model, base)):
                raise InterventionError(
                    f"Setting these sites to their own values moves a logit by {change:.1e} (at most {limit:.1e} is rounding): nothing can "
                    "be concluded from this experiment. Are other hooks on the model?"
                )
            every = torch.stack(list(logits.values()))
            measured.append(
                pd.DataFrame({k: m(every, r).float().numpy() for k, m in METRICS.items()}, index=list(logits))
            )
            measured[-1]["top"] = every.argmax(-1).numpy()
            word = words_of(model, torch.tensor([own, own if r.other is None else r.other]))
            rows.append(
                {
                    "prompt": _short(prompts[i]),
                    "answer": word[0],
                    "donor_answer": word[1] if donor is not None else None,
                }
                | measured[-1].loc["edited"].to_dict()
            )
        mean = sum(m.drop(columns="top") for m in measured) / len(measured)
        random = mean[mean.index.str.startswith("random ")][["lost", "gained"]].reset_index(drop=True)
        dose = mean[mean.index.str.startswith("dose ")][["prob", "donor_prob"]]
        dose.index = pd.Index([float(i[5:]) for i in dose.index], name="dose")
        controls = {}
        for name in ("same answer", "third answer", "wrong position", "whole residual"):
            if have := [m for m in measured if name in m.index]:
                controls[name] = _control(name, have)
                if len(have) < len(measured):
                    controls[name]["says"] += f" in the {len(have)} prompts that have it"
        return Report(
            _what(sites, self.changes(len(sites))), "frozen" if self.freeze_attention else "free", pd.DataFrame(rows), random, kind,
            controls, dose, identity, any(c.removes for c in self.changes(len(sites))), _top(model, found[0]["base"]), _top(model, found[0]["edited"]), sites,
        )  # fmt: skip


def _what(sites: list[Site], changes: list[Change]) -> str:
    """Sites and changes in words, those with the same change together."""
    by_change: dict[str, list[str]] = {}
    for site, change in zip(sites, changes, strict=True):
        by_change.setdefault(str(change), []).append(str(site))
    return "; ".join(f"{' + '.join(some)}: {change}" for change, some in by_change.items())


def _control(name: str, measured: list[pd.DataFrame]) -> dict[str, Any]:
    lost, gained = (float(np.mean([m.loc[name, k] for m in measured])) for k in ("lost", "gained"))
    kept = float(np.mean([m.loc[name, "top"] == m.loc["base", "top"] for m in measured]))
    came = "" if np.isnan(gained) else f", the donor's answer gains {gained:.2f}"
    said = {
        "same answer": f"the answer stays in {kept:.0%} (it should)",
        "third answer": f"lost {lost:.2f}{came}{' (it should not)' if came else ''}",
        "wrong position": f"lost {lost:.2f}{came}",
        "whole residual": f"lost {lost:.2f}{came} (everything at that place)",
    }[name]
    return {"lost": lost, "gained": gained, "kept": kept, "says": said}


def _moved_to(reader: Reader, prompt: Any, p: Plan, at: int) -> Any:
    """The same values at another position."""
    v = p.values
    now = reader(v.site, prompt)[at][v.unit]
    return replace(v, position=torch.full_like(v.position, at), now=now)


def other_donors(model: Any, prompt: Any, donor: Any) -> tuple[str | None, str | None]:
    """A donor with the prompt's own answer, and one with a third; None where no world can name them."""
    from mi_workshop.circuits.swap import place_of, same_place, third_place

    world = model.world if isinstance(model, Model) else None
    if world is None or not isinstance(prompt, str) or not isinstance(donor, str):
        return None, None
    try:
        asked, other = world.parse(prompt), world.parse(donor)
        taken = {place_of(model, s).name for s in (asked, other)}
        return same_place(model, asked).prompt, third_place(model, asked, taken).prompt
    except (WorldError, KeyError, StopIteration):
        return None, None


def supernode(node_ids: Sequence[str]) -> list[Site]:
    """The sites of feature nodes ``layer_feature_position`` of an attribution graph."""
    gathered: dict[tuple[int, int], list[int]] = {}
    for node_id in node_ids:
        try:
            layer, feature, position = map(int, str(node_id).split("_"))
        except ValueError:
            raise InterventionError(
                f"{node_id!r} is no feature node; they are called layer_feature_position."
            ) from None
        gathered.setdefault((layer, position), []).append(feature)
    return [Site("feature", layer, position, features) for (layer, position), features in sorted(gathered.items())]


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """Mean and its 95 % bootstrap interval (percentile, 2,000 draws, seeded); NaN bounds for fewer than five values."""
    values = values[~np.isnan(values)]
    mean = float(values.mean()) if len(values) else np.nan
    if len(values) < 5:
        return mean, np.nan, np.nan
    draws = np.random.default_rng(0).choice(values, (2000, len(values))).mean(1)
    low, high = np.quantile(draws, (0.025, 0.975))
    return mean, float(low), float(high)


def as_list(prompts: Any) -> list[Any]:
    if prompts is None:
        return []
    return [prompts] if isinstance(prompts, str | Tensor) else list(prompts)


def _short(prompt: Any) -> str:
    return prompt if isinstance(prompt, str) else f"input {tuple(prompt.shape)}"


def _top(model: Any, logits: Tensor, k: int = 5) -> list[dict[str, Any]]:
    p, i = logits.softmax(-1).topk(min(k, len(logits)))
    return [{"token": t, "prob": x} for t, x in zip(words_of(model, i), p.tolist(), strict=True)]
