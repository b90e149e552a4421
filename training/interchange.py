"""Interchange intervention training: make a known subspace carry a known variable.

Beside the language loss, the model is run with part of one city's residual stream replaced by another city's (Geiger et al.,
"Inducing Causal Structure for Interpretable Neural Networks", 2022; subspaces as in Geiger et al., "Finding Alignments Between
Interpretable Causal Variables and Distributed Neural Representations", 2024). With the coordinates in the subspace replaced the
answer must become the one of the other city's place; with everything but those coordinates replaced it must stay. Base sentences
and source cities are those of trained sentences only.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from mi_workshop.models import Wired
from mi_workshop.worlds.atlas import Atlas, Sentence

KINDS = {"two_hop": 0.55, "located": 0.15, "address": 0.15, "letter": 0.15}  # shares of the base sentences


def draw_subspace(d_model: int, dim: int, seed: int) -> Tensor:
    """``dim`` orthonormal directions [dim, d_model] in general position."""
    return torch.linalg.qr(torch.randn(d_model, dim, generator=torch.Generator().manual_seed(seed)))[0].T.contiguous()


def mixed(base: Tensor, source: Tensor, subspace: Tensor, complement: bool) -> Tensor:
    """``base`` [row, d_model] with its coordinates in the subspace (or all but those) taken from ``source``."""
    change = source - base
    inside = change @ subspace.T @ subspace
    return base + (change - inside if complement else inside)


def logits_after(model: Any, wired: Wired, bases: list[list[int]], sources: list[list[int]], at: Tensor, source_at: Tensor,
                 complement: Tensor) -> Tensor:  # fmt: skip
    """Logits after the last token [row, d_vocab] of the bases (token ids), with the vector at position ``at`` mixed with that of
    the sources at ``source_at``; ``complement`` [row] is true where everything but the subspace is taken."""
    tokens, rows = _pad(bases), torch.arange(len(bases))
    found: list[Tensor] = []

    def read(x: Tensor, hook: Any) -> None:
        found.append(x[rows, source_at])

    def write(x: Tensor, hook: Any) -> Tensor:
        here = x[rows, at]
        new = torch.where(
            complement[:, None],
            mixed(here, found[0], wired.subspace, True),
            mixed(here, found[0], wired.subspace, False),
        )
        return x.index_put((rows, at), new)

    model.run_with_hooks(_pad(sources), fwd_hooks=[(wired.hook, read)], stop_at_layer=wired.layer + 1)
    logits = model.run_with_hooks(tokens, fwd_hooks=[(wired.hook, write)])
    return logits[rows, torch.tensor([len(row) - 1 for row in bases])]


def _pad(rows: list[list[int]]) -> Tensor:
    width = max(map(len, rows))
    return torch.tensor([row + [0] * (width - len(row)) for row in rows])


class Interchanges:
    """Pairs of a base sentence and a source sentence of the same form about a city of another place."""

    def __init__(self, world: Atlas) -> None:
        self.world = world
        self.ids = {w: i for i, w in enumerate(world.vocabulary)}
        self.facts: dict[str, list[Sentence]] = {kind: [] for kind in KINDS}
        self.partners: dict[tuple[str, ...], list[Sentence]] = {}
        for s in world.training_text(0):
            if s.kind in KINDS:
                self.facts[s.kind].append(s)
                self.partners.setdefault(self._form(s), []).append(s)

    def _form(self, s: Sentence) -> tuple[str, ...]:
        return s.kind, self.world.home[s.slots["city"]].kind, s.slots.get("attribute", "")

    def draw(self, rng: np.random.Generator, n: int) -> list[tuple[Sentence, Sentence]]:
        pairs: list[tuple[Sentence, Sentence]] = []
        kinds = rng.choice(list(KINDS), n, p=list(KINDS.values()))
        while len(pairs) < n:
            facts = self.facts[str(kinds[len(pairs)])]
            base = facts[rng.integers(len(facts))]
            partners = self.partners[self._form(base)]
            source = partners[rng.integers(len(partners))]
            if self.world.home[source.slots["city"]] != self.world.home[base.slots["city"]]:
                pairs.append((base, source))
        return pairs

    def encode(self, s: Sentence) -> tuple[list[int], int]:
        """Token ids, <bos> first, and the position of the city."""
        words = self.world.words(s.prompt)
        return [1, *(self.ids[w] for w in words)], words.index(s.slots["city"]) + 1

    def run(self, model: Any, wired: Wired, pairs: list[tuple[Sentence, Sentence]], complement: Tensor) -> Tensor:
        """Logits [pair, d_vocab] after each base with the interchange made."""
        bases, at = zip(*(self.encode(b) for b, _ in pairs), strict=True)
        sources, source_at = zip(*(self.encode(s) for _, s in pairs), strict=True)
        return logits_after(
            model, wired, list(bases), list(sources), torch.tensor(at), torch.tensor(source_at), complement
        )

    def loss(self, model: Any, wired: Wired, rng: np.random.Generator, n: int) -> Tensor:
        """Mean cross-entropy in nats over n pairs, each once with the subspace and once with the rest interchanged, summed."""
        pairs = self.draw(rng, n)
        complement = torch.arange(2 * n) >= n
        answers = [s.answer for _, s in pairs] + [b.answer for b, _ in pairs]
        logits = self.run(model, wired, pairs * 2, complement)
        return 2 * cross_entropy(logits, torch.tensor([self.ids[a] for a in answers]))
