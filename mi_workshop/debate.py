"""Is attention explanation? The experiments of Jain and Wallace ("Attention is not Explanation", 2019) and of Wiegreffe and Pinter ("Attention is
not not Explanation", 2019), on models of passages (``models.attention_rnn``), and what the answer keys say to it.

``mi_workshop.results.read("debate")`` has the full table; ``verdicts`` reads each claim off it. Divergences are in nats.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from scipy.stats import kendalltau
from torch import Tensor

from mi_workshop.answer_key import area
from mi_workshop.counterfactual import hooked
from mi_workshop.models.attention_rnn import PassageModel, train
from mi_workshop.show import Shown
from mi_workshop.worlds.passages import Passage

EPSILON = 0.01  # total variation up to which a prediction counts as the same (Jain and Wallace)
SENTENCE = 6  # words in each sentence of Rooms


# ------------------------------------------------------------------ distances
def variation(p: Float[Tensor, "*row class"], q: Float[Tensor, "*row class"]) -> Float[Tensor, "*row"]:
    """Total variation distance of predictions, 0 to 1."""
    return (p - q).abs().sum(-1) / 2


def relative_entropy(a: Float[Tensor, "*row position"], b: Float[Tensor, "*row position"]) -> Float[Tensor, "*row"]:
    """Kullback-Leibler divergence KL(a ‖ b); weights below 1e-12 count as 1e-12."""
    return (a * (a.clamp_min(1e-12).log() - b.clamp_min(1e-12).log())).sum(-1)


def divergence(a: Float[Tensor, "*row position"], b: Float[Tensor, "*row position"]) -> Float[Tensor, "*row"]:
    """Jensen-Shannon divergence of attention weights, 0 to ln 2 = 0.69."""
    middle = (a + b) / 2
    return (relative_entropy(a, middle) + relative_entropy(b, middle)) / 2


def rank_agreement(
    a: Float[Tensor, "passage position"], b: Float[Tensor, "passage position"], passages: Sequence[Passage]
) -> Float[np.ndarray, " passage"]:
    """Kendall's τ over the words of each passage, ties allowed for (τ-b); NaN where one side is constant."""
    lengths = [len(p.words) for p in passages]
    return np.array([kendalltau(x[:n], y[:n]).statistic for x, y, n in zip(a, b, lengths, strict=True)])


# ----------------------------------------------------------------- importance
def gradients(model: PassageModel, passages: Sequence[Passage]) -> Float[Tensor, "passage position"]:
    """|gradient × input| of the likeliest class's probability, by word, the attention weights held fixed (Jain and Wallace 2019, Algorithm 1)."""
    kept: list[Tensor] = []
    with hooked(model.module, [("embed", kept.append)]):
        logits, _ = model.module(*model.tokens(passages), model.weights(passages))
    embeddings = next(x for x in kept if x.requires_grad)  # the passage is read before its question
    (slope,) = torch.autograd.grad(logits.softmax(-1).amax(-1).sum(), embeddings)
    return (slope * embeddings).sum(-1).abs().detach()


@torch.no_grad()
def leave_one_out(model: PassageModel, passages: Sequence[Passage]) -> Float[Tensor, "passage position"]:
    """Total variation of the prediction when a word is left out and the rest is read again (Jain and Wallace 2019, Algorithm 1)."""
    own, weights = model.predict(passages)
    out = torch.zeros_like(weights)
    for row, p in enumerate(passages):
        shorter = [dataclasses.replace(p, words=p.words[:i] + p.words[i + 1 :]) for i in range(len(p.words))]
        out[row, : len(shorter)] = variation(model.predict(shorter)[0], own[row])
    return out


IMPORTANCE: dict[str, Callable[[PassageModel, Sequence[Passage]], Tensor]] = {
    "attention": PassageModel.weights, "gradient × input": gradients, "leave one out": leave_one_out,
}  # fmt: skip


TAU_BINS = np.linspace(-1, 1, 21)


@dataclass(eq=False)
class Correlations(Shown):
    """Kendall's τ per passage, by pair of measures and data set: ``means`` [pair, world], and ``counts`` of passages [(world, pair), bin] by the
    lower end of each bin."""

    means: pd.DataFrame
    counts: pd.DataFrame = field(repr=False)

    def words(self) -> str:
        said = "; ".join(f"{w}: " + ", ".join(f"{k} {v:.2f}" for k, v in self.means[w].items()) for w in self.means)
        return f"Mean Kendall τ over the passages of {said}."

    def figure(self) -> Any:
        from .debate_plots import draw_taus

        return draw_taus(self)


def correlations(model: PassageModel, passages: Sequence[Passage], other: PassageModel | None = None) -> Correlations:
    """τ of attention with |gradient × input| and with leave-one-out (Jain and Wallace 2019, Figure 2), of these two with each other, and of the
    attention of ``model`` with that of an ``other`` one, trained from another seed: what a good agreement would be here."""
    a, g, loo = (measure(model, passages) for measure in IMPORTANCE.values())
    taus = {
        "attention, gradient": rank_agreement(a, g, passages), "attention, leave one out": rank_agreement(a, loo, passages),
        "gradient, leave one out": rank_agreement(g, loo, passages),
    }  # fmt: skip
    if other:
        taus["attention of two seeds"] = rank_agreement(a, other.weights(passages), passages)
    name = type(model.world).__name__
    counts = {(name, pair): np.histogram(tau[~np.isnan(tau)], TAU_BINS)[0] for pair, tau in taus.items()}
    means = pd.DataFrame({name: {pair: float(np.nanmean(tau)) for pair, tau in taus.items()}})
    return Correlations(means, pd.DataFrame(counts, TAU_BINS[:-1].round(1)).T)


# ------------------------------------------------------------ other attention
def _reader(model: PassageModel, passages: Sequence[Passage]) -> Callable[[Tensor], Tensor]:
    """From weights [way, passage, position] to probabilities [way, passage, class], the model frozen; what is read stays the same."""
    with torch.no_grad():
        tokens, question = model.tokens(passages)
        states = model.module.encode(tokens)
        asked = model.module.asked(question, states)
    return lambda weights: model.module.answer(states, asked, weights).softmax(-1)


@torch.no_grad()
def permuted(
    model: PassageModel, passages: Sequence[Passage], n: int = 100, seed: int = 0
) -> tuple[Float[Tensor, "permutation passage position"], Float[Tensor, "permutation passage"]]:
    """The attention weights of each passage in ``n`` random orders, and the total variation of the prediction (Jain and Wallace 2019, Section 4.2.1)."""
    own, weights = model.predict(passages)
    order = torch.rand(n, *weights.shape, generator=torch.Generator().manual_seed(seed))
    order = order + (model.tokens(passages)[0] == 0)  # the padding stays behind
    shuffled = weights.expand(n, -1, -1).gather(-1, order.argsort(-1))
    return shuffled, variation(_reader(model, passages)(shuffled), own)


@dataclass(eq=False)
class Pair(Shown):
    """Two ways to weigh the words of the same passages. ``weights``: both [passage, position]; ``probabilities``: both [passage, class]; ``names`` of the two;
    ``shown``: the passage in the figure (by default that with the farthest weights)."""

    passages: Sequence[Passage] = field(repr=False)
    weights: tuple[Tensor, Tensor] = field(repr=False)
    probabilities: tuple[Tensor, Tensor] = field(repr=False)
    classes: tuple[str, ...] = field(repr=False)
    names: tuple[str, str]
    shown: int | None = None

    @property
    def tvd(self) -> Float[Tensor, " passage"]:
        """Total variation of the predictions."""
        return variation(*self.probabilities)

    @property
    def jsd(self) -> Float[Tensor, " passage"]:
        """Jensen-Shannon divergence of the weights."""
        return divergence(*self.weights)

    @property
    def index(self) -> int:
        """The passage in the figure."""
        return int(self.jsd.argmax()) if self.shown is None else self.shown

    def said(self, side: int) -> str:
        """The likeliest class of the passage in the figure, with its probability, by one of the two."""
        p = self.probabilities[side][self.index]
        return f"{self.names[side]}: {self.classes[int(p.argmax())]} {float(p.max()):.3f}"

    def words(self) -> str:
        i = self.index
        tops = (self.passages[i].words[int(w[i].argmax())] for w in self.weights)
        sides = "; ".join(f"{self.said(k)}, most weight on {top!r}" for k, top in enumerate(tops))
        return f"Passage {i}. {sides}. TVD of predictions {self.tvd[i]:.3f}, JSD of weights {self.jsd[i]:.2f} of at most 0.69."

    def figure(self) -> Any:
        from .debate_plots import draw_pair

        return draw_pair(self)


def adversarial(
    model: PassageModel, passages: Sequence[Passage], k: int = 5, epsilon: float = EPSILON, steps: int = 300, seed: int = 0
) -> Pair:  # fmt: skip
    """For each passage the weights farthest from the model's own (Jensen-Shannon) that leave its prediction within ``epsilon`` (total variation):
    the best of ``k`` ascents through the frozen model, begun at random (Jain and Wallace 2019, Section 4.2.2; ``k`` do not repel each
    other here, as only the farthest is kept). Where none was found the model's own weights stand."""
    before, own = model.predict(passages)
    predict, padding = _reader(model, passages), model.tokens(passages)[0] == 0
    free = torch.randn(k, *own.shape, generator=torch.Generator().manual_seed(seed)).mul_(3).requires_grad_()
    optimizer = torch.optim.Adam([free], lr=0.1)
    best, far = own.expand(k, -1, -1).clone(), torch.zeros(k, len(own))
    for _ in range(steps):
        weights = free.masked_fill(padding, -torch.inf).softmax(-1)
        tvd, jsd = variation(predict(weights), before), divergence(weights, own)
        better = (tvd <= epsilon) & (jsd > far)
        best, far = torch.where(better[..., None], weights, best).detach(), torch.where(better, jsd, far).detach()
        (slope,) = torch.autograd.grad((500 * (tvd - epsilon).relu() - jsd).sum(), free)
        free.grad = slope
        optimizer.step()
    chosen = best[far.argmax(0), torch.arange(len(own))]
    after = model.predict(passages, chosen)[0]
    return Pair(passages, (own, chosen), (before, after), model.world.classes, ("the model's own", "the adversary's"))


def train_adversary(base: PassageModel, strength: float, seed: int = 0, epochs: int = 5, n: int = 4000, progress: bool = True) -> PassageModel:  # fmt: skip
    """A model trained to predict as ``base`` with other attention: loss TVD(ŷ, ŷ_base) - λ KL(α ‖ α_base), λ = ``strength`` (Wiegreffe and Pinter
    2019, Section 4), on the passages that ``train(world, n=n)`` takes."""
    target, other = base.predict(base.world.sample(n))

    def loss(rows: Tensor, logits: Tensor, weights: Tensor) -> Tensor:
        own = other[rows, : weights.shape[1]]
        return (variation(logits.softmax(-1), target[rows]) - strength * relative_entropy(weights, own)).mean()

    return train(base.world, seed, epochs, n=n, progress=progress, loss=loss)


def compare(
    a: PassageModel, b: PassageModel, passages: Sequence[Passage], names: tuple[str, str] = ("one model", "the other"), shown: int | None = None
) -> Pair:  # fmt: skip
    """Attention and predictions of two models of the same world."""
    (p, weights), (q, others) = a.predict(passages), b.predict(passages)
    return Pair(passages, (weights, others), (p, q), a.world.classes, names, shown)


# -------------------------------------------------------------- scores, keys
def f1(model: PassageModel, passages: Sequence[Passage]) -> float:
    """F1 of the last class where there are two, else the mean over classes (macro F1)."""
    truth, said = model.labels(passages), model.predict(passages)[0].argmax(-1)
    classes = range(len(model.world.classes))
    scores = [2 * int(((truth == c) & (said == c)).sum()) / max(int((truth == c).sum() + (said == c).sum()), 1) for c in classes]  # fmt: skip
    return scores[1] if len(scores) == 2 else float(np.mean(scores))


@torch.no_grad()
def effects(model: PassageModel, passage: Passage) -> Float[np.ndarray, " position"]:
    """The model key of each word: mean absolute change of the likeliest class's logit over ``world.substitutions`` (``saliency.answer_keys``,
    all at once); 0 where no other word could stand."""
    others = [(i, q) for i in range(len(passage.words)) for q in model.world.substitutions(passage, i)]
    read = [passage, *(q for _, q in others)]
    logits = model.module(*model.tokens(read), model.guide(read) if model.guide else None)[0]
    change = (logits[1:] - logits[0])[:, int(logits[0].argmax())].abs().numpy()
    at = np.array([i for i, _ in others])
    n = len(passage.words)
    return np.bincount(at, change, n) / np.bincount(at, minlength=n).clip(1)


def pointing(model: PassageModel, stories: Sequence[Passage]) -> pd.DataFrame:
    """Whether the sentence of *Rooms* with the largest summed weight is the one that this model's answer depends on ("model key": it has the word of
    the largest ``effects``) and the one that it should ("world key"), for each measure and story [measure, story]. Ties share a hit."""
    strongest = [int(effects(model, s).argmax()) // SENTENCE for s in stories]
    should = [min(s.evidence) // SENTENCE for s in stories]
    rows = {}
    for name, measure in IMPORTANCE.items():
        scores = measure(model, stories).numpy()
        for i, s in enumerate(stories):
            sums = scores[i, : len(s.words)].reshape(-1, SENTENCE).sum(1)
            top = np.isclose(sums, sums.max(), rtol=1e-4)
            rows[name, i] = {"model key": top[strongest[i]] / top.sum(), "world key": top[should[i]] / top.sum()}
    return pd.DataFrame(rows).T.rename_axis(["measure", "story"])


def auc(scores: Float[Tensor, "passage position"], passages: Sequence[Passage]) -> Float[np.ndarray, " passage"]:
    """How surely a word of the planted evidence scores above another word of its passage: area under the ROC curve, 0.5 by chance."""
    planted = [np.isin(np.arange(len(p.words)), sorted(p.evidence)) for p in passages]
    return np.array([area(true, row[: len(true)].numpy()) for row, true in zip(scores, planted, strict=True)])
