"""What is measured on the outputs: one number for each row of logits, against the unedited run and, where there is one, the donor's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass
class Reference:
    """The logits [d_vocab] of the unedited prompt (``base``) and of the donor, with the prompt's answer ``own`` and the donor's
    ``other`` as token ids."""

    base: Tensor
    donor: Tensor | None
    own: int
    other: int | None


Metric = Callable[[Float[Tensor, "row d_vocab"], Reference], Float[Tensor, " row"]]


def prob(logits: Tensor, r: Reference) -> Tensor:
    """Probability of the prompt's own answer."""
    return logits.softmax(-1)[:, r.own]


def donor_prob(logits: Tensor, r: Reference) -> Tensor:
    """Probability of the donor's answer."""
    return logits.softmax(-1)[:, r.other] if r.other is not None else torch.full_like(logits[:, 0], torch.nan)


def rank(logits: Tensor, r: Reference) -> Tensor:
    """Rank of the prompt's own answer, 1 for the likeliest."""
    return 1.0 + (logits > logits[:, r.own, None]).sum(-1)


def logit_diff(logits: Tensor, r: Reference) -> Tensor:
    """Logit of the own answer minus that of the donor's (of the runner-up, where there is no donor)."""
    other = r.other if r.other is not None else int(r.base.topk(2).indices[1])
    return logits[:, r.own] - logits[:, other]


def kl(logits: Tensor, r: Reference) -> Tensor:
    """KL divergence of the new distribution from the unedited one, in nats."""
    base = r.base.log_softmax(-1)
    return (base.exp() * (base - logits.log_softmax(-1))).sum(-1)


def recovered(logits: Tensor, r: Reference) -> Tensor:
    """Share of the way from the unedited prompt (0) to the donor (1) that the logit difference has gone."""
    if r.donor is None or r.other == r.own:
        return torch.full_like(logits[:, 0], torch.nan)
    ends = logit_diff(torch.stack([r.base, r.donor]), r)
    return (logit_diff(logits, r) - ends[0]) / (ends[1] - ends[0])


def lost(logits: Tensor, r: Reference) -> Tensor:
    """Share of the own answer's probability that is gone (negative: it has grown)."""
    return 1 - prob(logits, r) / prob(r.base[None], r)


def gained(logits: Tensor, r: Reference) -> Tensor:
    """Share of the donor's answer's probability that has come: 0 as in the unedited prompt, 1 as in the donor."""
    if r.donor is None or r.other == r.own:
        return torch.full_like(logits[:, 0], torch.nan)
    before, there = donor_prob(r.base[None], r), donor_prob(r.donor[None], r)
    return (donor_prob(logits, r) - before) / (there - before)


def says_donor(logits: Tensor, r: Reference) -> Tensor:
    """1 where the donor's answer is the likeliest, else 0: its mean is the share of prompts that follow."""
    return (logits.argmax(-1) == (-1 if r.other is None else r.other)).float()


METRICS: dict[str, Metric] = {
    f.__name__: f for f in (prob, donor_prob, rank, logit_diff, kl, recovered, lost, gained, says_donor)
}
