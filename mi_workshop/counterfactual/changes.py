"""What to do at a site: from its own values and, where there is one, a donor's, the new values.

Values are ``[position, unit, width]``. Doses and "multiples" refer to the values in the unedited run, as in circuit-tracer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from .run import Edit, patterns, run
from .sites import InterventionError, Site, matched, tokens_of

BATCH = 256  # prompts that go through the model at once


@dataclass(frozen=True, eq=False)
class Change:
    """What is done. ``needs_donor``: it copies from another prompt; ``removes``: it takes information away (so that it can show
    what is necessary); ``make(own, donor, generator)`` gives the new values; ``reference`` are prompts to average or draw from."""

    name: str
    make: Callable[[Tensor, Tensor, torch.Generator], Tensor]
    needs_donor: bool = False
    removes: bool = True
    reference: Sequence[Any] = ()
    averaged: bool = False

    def __str__(self) -> str:
        return self.name


def patch(factor: float = 1.0) -> Change:
    """The values of the donor prompt (activation patching; Meng et al. 2022). Run the clean prompt with the corrupted one as donor
    to *noise*, the corrupted one with the clean one as donor to *denoise* (Heimersheim and Nanda 2024). With a ``basis`` this is an
    interchange along a subspace (Geiger et al. 2024). With ``factor`` they are multiplied (features that the donor has, made stronger)."""
    name = "patched from the donor" + ("" if factor == 1 else f" × {factor:g}")
    return Change(name, lambda own, donor, g: donor if factor == 1 else factor * donor, needs_donor=True)


def zero() -> Change:
    """Nothing. Off the paths that the model usually takes, so it can break more than the site says (see ``mean``, ``resample``)."""
    return Change("set to zero", lambda own, donor, g: torch.zeros_like(own))


def mean(prompts: Sequence[Any]) -> Change:
    """The mean over ``prompts`` (at the same named positions; of the same length where positions are numbers)."""
    return Change("set to the mean", lambda own, donor, g: donor, reference=tuple(prompts), averaged=True)


def resample(prompts: Sequence[Any]) -> Change:
    """The values of one of ``prompts``, drawn at random (resample ablation; Chan et al., causal scrubbing, 2022)."""
    return Change("resampled", lambda own, donor, g: donor, reference=tuple(prompts))


def noise(size: float = 1.0) -> Change:
    """Gaussian noise of ``size`` times the standard deviation of the site's own values, added."""

    def make(own: Tensor, donor: Tensor, g: torch.Generator) -> Tensor:
        return own + size * own.std() * torch.randn(own.shape, generator=g).to(own)

    return Change(f"noise of {size:g} standard deviations added", make)


def scale(factor: float) -> Change:
    """Its own values times ``factor`` (0 is zero, 1 is nothing, -2 is what the published demos call "off")."""
    return Change(f"× {factor:g}", lambda own, donor, g: factor * own, removes=factor < 1)


def set_to(value: float | Tensor) -> Change:
    """A given value, or a vector as wide as the site."""
    return Change(
        "set to a given value", lambda own, donor, g: torch.as_tensor(value).to(own).expand_as(own), removes=False
    )


def add(vector: Tensor | float, factor: float = 1.0) -> Change:
    """Steer: a vector as wide as the site, times ``factor``, added."""
    return Change(
        f"steered × {factor:g}", lambda own, donor, g: own + factor * torch.as_tensor(vector).to(own), removes=False
    )


@dataclass
class Values:
    """What is set at one site of one prompt: units ``unit`` [n] at ``position`` [n], from ``now`` to ``new`` [n, width]."""

    site: Site
    position: Tensor
    unit: Tensor
    now: Tensor
    new: Tensor

    def moved(self, dose: float) -> Values:
        """The same change, ``dose`` times as large (0 changes nothing)."""
        return replace(self, new=self.now + dose * (self.new - self.now))


@dataclass
class Plan:
    """A change at a site, worked out for one prompt: the ``values``, and those of all units at the positions ``at``
    [position, unit, width], unedited (``own``), in the donor (``other``) and at their largest anywhere in the two (``most``
    [unit, width]), from which controls are drawn."""

    values: Values
    at: list[int]
    own: Tensor
    other: Tensor
    most: Tensor
    whole: tuple[Tensor, Tensor] | None = None  # for a subspace: the vectors [position, d_model], own and the donor's


def plan(
    model: Any, site: Site, change: Change, prompt: Any, donor: Any = None, aligned: bool = False, seed: int = 0,
    reader: Reader | None = None,
) -> Plan:  # fmt: skip
    """``reader``: what has been read already. Raises InterventionError for positions or units that are not there, and for values that are not finite."""
    g, read = torch.Generator().manual_seed(seed), reader or Reader(model)
    source = donor
    if change.reference and not change.averaged:
        source = change.reference[int(torch.randint(len(change.reference), (1,), generator=g))]
    if change.needs_donor and donor is None:
        raise InterventionError("Patching copies from another prompt: give donors.")
    sources = change.reference if change.averaged else [prompt if source is None else source]
    pairs = [matched(model, site.position, prompt, s, aligned) for s in sources]
    here, units = pairs[0][0], read(site, prompt)
    elsewhere = [read(site, s) for s in sources]
    own, other = units[here], torch.stack([w[there] for w, (_, there) in zip(elsewhere, pairs, strict=True)]).mean(0)
    unit = site.unit_list(own.shape[1])
    if unit and not 0 <= min(unit) <= max(unit) < own.shape[1]:
        raise InterventionError(
            f"There is no unit {max(unit)} at {site.kind}: there are {own.shape[1]} (0 to {own.shape[1] - 1})."
        )
    if own.shape != other.shape:
        raise InterventionError(
            f"At {site} the two prompts differ in shape {tuple(own.shape)} and {tuple(other.shape)}: choose prompts of equal length."
        )
    try:
        new = change.make(own[:, unit], other[:, unit], g).expand_as(own[:, unit])
    except RuntimeError:
        raise InterventionError(f"A value for {site} must be as wide as the site: {own.shape[-1]} numbers.") from None
    if not torch.isfinite(new).all():
        raise InterventionError(f"The values for {site} hold NaN or infinity: nothing was run.")
    most = torch.stack([w.amax(0) for w in (units, *elsewhere)]).amax(0)
    position, number = torch.cartesian_prod(torch.tensor(here), torch.tensor(unit)).T
    v = Values(site, position, number, own[:, unit].flatten(0, 1), new.flatten(0, 1))
    whole = None
    if isinstance(site.basis, Tensor):
        full = replace(site, basis=None)
        vectors = [read(full, s)[t, 0] for s, (_, t) in zip(sources, pairs, strict=True)]
        whole = read(full, prompt)[here, 0], torch.stack(vectors).mean(0)
    return Plan(v, here, own, other, most, whole)


class Reader:
    """What is at a site in a prompt, all units [position, unit, width]; each is read once, and many ``ahead`` in one batch."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.kept: dict[tuple[Any, ...], Tensor] = {}

    def _key(self, site: Site, prompt: Any) -> tuple[Any, ...]:
        return (
            site.kind,
            site.layer,
            site.units is None,
            id(site.basis),
            prompt if isinstance(prompt, str) else id(prompt),
        )

    def ahead(self, sites: Sequence[Site], prompts: Sequence[Any]) -> None:
        todo = list({id(p) if not isinstance(p, str) else p: p for p in prompts}.values())
        for prompt, (_, found) in zip(
            todo, read_all(self.model, [tokens_of(self.model, p) for p in todo], list(sites)), strict=True
        ):
            self.kept |= {self._key(site, prompt): x for site, x in zip(sites, found, strict=True)}

    def __call__(self, site: Site, prompt: Any) -> Tensor:
        if self._key(site, prompt) not in self.kept:
            self.ahead([site], [prompt])
        return self.kept[self._key(site, prompt)]


def read_all(model: Any, inputs: list[Tensor], sites: list[Site]) -> list[tuple[Tensor, list[Tensor]]]:
    """For each input (token ids) the logits [d_vocab] and what is at the sites [position, unit, width]; equal lengths in one batch."""
    out: list[Any] = [None] * len(inputs)
    for members in by_shape(inputs):
        logits, found = run(model, torch.stack([inputs[i] for i in members]), read=sites)
        for j, i in enumerate(members):
            out[i] = logits[j], [x[j] for x in found]
    return out


def by_shape(inputs: list[Tensor]) -> list[list[int]]:
    """Which inputs go through the model together: those of one shape, at most ``BATCH`` at a time, in their order."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for i, x in enumerate(inputs):
        groups.setdefault(tuple(x.shape), []).append(i)
    return [group[i : i + BATCH] for group in groups.values() for i in range(0, len(group), BATCH)]


@dataclass
class Row:
    """One variant of one prompt: its tokens, and what is set in it."""

    tokens: Tensor
    parts: list[Values]


def run_rows(
    model: Any, rows: list[Row], freeze_attention: bool = False, **options: Any
) -> Float[Tensor, "row d_vocab"]:
    """Outputs after the last position for every row, rows of equal length in one batch; ``options`` as in ``run``."""
    out: list[Tensor] = [torch.empty(0)] * len(rows)
    for members in by_shape([row.tokens for row in rows]):
        tokens = torch.stack([rows[i].tokens for i in members])
        frozen = patterns(model, tokens) if freeze_attention else None
        logits, _ = run(model, tokens, edits_of([rows[i].parts for i in members]), frozen=frozen, **options)
        for i, one in zip(members, logits, strict=True):
            out[i] = one
    return torch.stack(out)


def edits_of(rows: list[list[Values]]) -> list[Edit]:
    """What is set in each row, gathered by site."""
    gathered: dict[tuple[Any, ...], list[tuple[Values, int]]] = {}
    for i, parts in enumerate(rows):
        for v in parts:
            gathered.setdefault((v.site.kind, v.site.layer, v.site.units is None, id(v.site.basis)), []).append((v, i))
    out = []
    for members in gathered.values():
        row, position, unit, new = (
            torch.cat(parts)
            for parts in zip(
                *((torch.full_like(v.unit, i), v.position, v.unit, v.new) for v, i in members), strict=True
            )
        )
        out.append(Edit(members[0][0].site, row, position, unit, new))
    return out
