"""How good a decomposition is, on sentences that had no part in training: how much of the activations, of the model's loss, with how many features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from mi_workshop.circuits.features import by_length
from mi_workshop.dictionary.activations import activations
from mi_workshop.dictionary.core import DictionaryError, SparseDictionary
from mi_workshop.models import Model, network
from mi_workshop.show import Shown, counted

SPLITS = ("validation", "test")


@dataclass(frozen=True)
class Quality(Shown):
    """Figures of one dictionary. ``fvu``: share of the variance that is not explained; ``l0``: active features per token; ``dead``: share of features
    that fire at no token of the training text; ``intact``, ``spliced``, ``ablated``: the model's cross-entropy at the answer (nats) as it is, with
    the reconstruction in place of the activations, and with their mean; ``recovered``: (ablated − spliced) / (ablated − intact)."""

    name: str
    split: str
    sentences: int
    tokens: int
    distinct: int
    fvu: float
    l0: float
    dead: float
    intact: float
    spliced: float
    ablated: float

    @property
    def recovered(self) -> float:
        return (self.ablated - self.spliced) / (self.ablated - self.intact)

    def words(self) -> str:
        return (
            f"{self.name}: on {counted(self.sentences, 'held-out sentence')} ({self.split}, not trained on; {self.distinct:,} distinct activations at "
            f"{self.tokens:,} tokens) {self.fvu:.1%} of the variance stays unexplained with {self.l0:.1f} features per token; {self.dead:.1%} of the features "
            f"fire nowhere in the training text. Loss at the answer: {self.intact:.3f} nats intact, {self.spliced:.3f} with the reconstruction, "
            f"{self.ablated:.3f} with the mean: {self.recovered:.1%} recovered."
        )

    def figure(self) -> Any:
        from mi_workshop.plots import BLUE, GREY, INK, new_figure, open_frames

        figure = new_figure(9, 2.6)
        ax = figure.add_subplot()
        bars = {"intact": (self.intact, "white"), "reconstruction": (self.spliced, BLUE), "mean": (self.ablated, GREY)}
        for i, (value, colour) in enumerate(bars.values()):
            ax.barh(-i, value, color=colour, edgecolor=INK)
            ax.text(value, -i, f"  {value:.3f}", va="center", fontsize=13, color=INK)
        ax.set_yticks([0, -1, -2], list(bars), fontsize=13)
        ax.set_xlabel("loss at the answer (nats)", fontsize=12)
        ax.set_xlim(0, max(v for v, _ in bars.values()) * 1.15)
        ax.set_title(
            f"FVU {self.fvu:.3f}  ·  L0 {self.l0:.1f}  ·  dead {self.dead:.1%}  ·  loss recovered {self.recovered:.1%}",
            fontsize=13, loc="left",
        )  # fmt: skip
        open_frames(ax)
        return figure


def quality(model: Model, dictionary: SparseDictionary, split: str = "validation") -> Quality:
    """Judge a dictionary on the held-out sentences of ``split``; <bos> is left as it is.

    At a layer that sees only its own token, held-out sentences hold no activation that training did not see: ``distinct`` says how many
    there are. Raises DictionaryError for a dictionary of another model, a hook or shape that this one does not have, or a model whose world is
    not known.
    """
    splice = Splice(model, dictionary.writes, split)
    check(model, dictionary)
    figures, spliced = splice.run(dictionary)
    fired = np.zeros(dictionary.width, bool)
    for x in activations(model, dictionary.reads).split(4096):
        fired |= (dictionary.encode(x) > 0).any(0).numpy()
    return Quality(
        str(dictionary), split, splice.sentences, dead=float(1 - fired.mean()), intact=splice.intact, spliced=spliced, ablated=splice.ablated, **figures
    )  # fmt: skip


def check(model: Model, dictionary: SparseDictionary) -> None:
    """Raise DictionaryError unless the dictionary is of this model, and its hooks exist and have its width."""
    if dictionary.model and dictionary.model != model.name:
        raise DictionaryError(
            f"This dictionary was trained on {dictionary.model}, and the model is {model.name}: load that one."
        )
    for hook, d in ((dictionary.reads, dictionary.W_enc.shape[0]), (dictionary.writes, dictionary.W_dec.shape[1])):
        if (found := activations(model, hook).shape[1]) != d:
            raise DictionaryError(
                f"The dictionary is for {d} dimensions at {hook}, and {model.name} has {found} there."
            )


class Splice:
    """Held-out sentences and the model's loss at their answers, intact and with the activations at ``hook`` at their mean."""

    def __init__(self, model: Model, hook: str, split: str = "validation", sentences: int | None = None) -> None:
        self.model, self.hook = model, hook
        self.groups = _held_out(model, split, sentences)
        self.sentences = sum(len(tokens) for tokens, _ in self.groups)
        mean = activations(model, hook).mean(0)
        self.intact = self._loss([])
        self.ablated = self._loss([(hook, _put(lambda x: mean.expand(x.shape[0], x.shape[1], -1)))])

    def recovered(self, dictionary: SparseDictionary) -> float:
        return (self.ablated - self.run(dictionary, figures=False)[1]) / (self.ablated - self.intact)

    @torch.no_grad()
    def run(self, dictionary: SparseDictionary, figures: bool = True) -> tuple[dict[str, Any], float]:
        """``fvu``, ``l0``, ``tokens``, ``distinct`` and the loss with the reconstruction in place."""
        read: list[Tensor] = []
        seen: list[tuple[Tensor, Tensor, Tensor]] = []

        def keep(x: Tensor, hook: Any) -> None:
            read.append(x.flatten(2))

        def rebuilt(y: Tensor) -> Tensor:
            x = (read.pop() if dictionary.reads != self.hook else y)[:, 1:]
            acts = dictionary.encode(x)
            seen.append((x.flatten(0, 1), y[:, 1:].flatten(0, 1), acts.flatten(0, 1)))
            return torch.cat([y[:, :1], dictionary.decode(acts)], 1)

        hooks = [(dictionary.reads, keep)] if dictionary.reads != self.hook else []
        loss = self._loss([*hooks, (self.hook, _put(rebuilt))])
        if not figures:
            return {}, loss
        x, y, acts = (torch.cat(part) for part in zip(*seen, strict=True))
        fvu = float((y - dictionary.decode(acts)).square().sum() / (y - y.mean(0)).square().sum())
        distinct = len(torch.unique((x * 1e3).round(), dim=0))
        return {"fvu": fvu, "l0": float((acts > 0).sum(1).float().mean()), "tokens": len(x), "distinct": distinct}, loss

    @torch.no_grad()
    def _loss(self, hooks: list[Any]) -> float:
        total = 0.0
        for tokens, answers in self.groups:
            logits = network(self.model).run_with_hooks(tokens, fwd_hooks=hooks)[:, -1]
            total += float(cross_entropy(logits.float(), answers, reduction="sum"))
        return total / self.sentences


def _put(rebuilt: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    """A hook that puts ``rebuilt`` of what it sees [row, position, d] in its place, except at <bos>."""

    def hook(x: Tensor, hook: Any) -> Tensor:
        new = rebuilt(x.flatten(2)).reshape(x.shape).to(x.dtype)
        return torch.cat([x[:, :1], new[:, 1:]], 1)

    return hook


@lru_cache(maxsize=8)
def _held_out(model: Model, split: str, count: int | None) -> list[tuple[Tensor, Tensor]]:
    if split not in SPLITS:
        raise DictionaryError(f"There is no split {split!r}: choose {' or '.join(SPLITS)}.")
    if model.world is None:
        raise DictionaryError(f"What is held out of the text of {model.name!r} is not known; choose an embedded model.")
    found = [s for s in model.world.facts if (s.stratum or "").endswith(f":{split}")]
    groups = by_length(model, found[:: max(1, len(found) // count)] if count else found)
    return [(tokens, torch.tensor([model.token_id(s.answer) for s in group])) for group, tokens in groups]
