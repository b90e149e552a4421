"""Training of sparse dictionaries on activations kept in memory: one step for all kinds, which differ in what they let through.

Few features are active at a token, so everything after the encoder's matrix product is computed for the active pairs (token, feature) alone,
and gradients are written out: a step takes the time of one dense product instead of five. Directions are kept at length 1.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from scipy.sparse import csr_array
from torch import Tensor
from torch.nn.functional import embedding_bag
from tqdm.auto import tqdm

from mi_workshop.dictionary.activations import activations
from mi_workshop.dictionary.core import KINDS, DictionaryError, SparseDictionary
from mi_workshop.dictionary.history import History, Live
from mi_workshop.models import Model, available_memory

BANDWIDTH = START = (
    0.1  # of JumpReLU's straight-through estimator, of its thresholds; unit: the activations' mean length
)
SPARSE = 0.04  # of all pairs: where more are active, dense products are faster
PATIENCE = 100  # steps without firing after which a feature counts as dead


def train(
    model: Model, layer: int = 1, width: int = 512, kind: str = "batchtopk", *, k: int = 8, l1: float = 0.05, l0: float = 0.01, steps: int = 1500,
    batch: int = 1024, learning_rate: float = 4e-3, site: str = "hook_resid_post", writes: str = "", seed: int = 0, progress: bool = True,
) -> SparseDictionary:  # fmt: skip
    """Train a dictionary of ``width`` features on the activations at ``blocks.<layer>.<site>``, at every token of the model's training text.

    ``kind``: ``l1``, ``topk``, ``batchtopk`` or ``jumprelu``, which take ``l1``, ``k``, ``k`` and ``l0`` (the penalty per active feature). ``writes``:
    another site (of this layer, or a whole hook) that is to be rebuilt from what is read: the dictionary is then a transcoder. Loss recovered,
    in ``dictionary.history``, is measured on held-out sentences, which have no part in training. In a notebook the curves are drawn meanwhile
    (``progress``). If the loss becomes infinite or no number, training stops, a warning says at which step and why, and the last good weights are returned.

    Raises DictionaryError for settings that make no sense, for a width that does not fit into memory (before training), or if nothing was learned.
    """
    from mi_workshop.dictionary.quality import Splice

    hook, target = (_hook(layer, name) for name in (site, writes or site))
    _sensible(kind, width, batch, steps, learning_rate, k, l1, l0)
    _fits(width, batch, model.replacement.cfg.d_model)
    x = activations(model, hook)
    torch.manual_seed(100_003 * seed + width)  # two widths drawn from one seed would begin with the same directions
    y = x if target == hook else activations(model, target)
    dictionary = SparseDictionary(
        x.shape[1], width, kind, reads=hook, writes=target, model=model.name, k=k, d_out=y.shape[1]
    )
    splice = Splice(model, target, sentences=128) if model.world is not None else None
    settings = {"k": k} if "topk" in kind else {"l1": l1} if kind == "l1" else {"l0": l0}
    settings |= {"steps": steps, "batch": batch, "learning_rate": learning_rate, "seed": seed}
    dictionary.provenance = settings
    return fit(
        dictionary, x, y, k=k, l1=l1, l0=l0, steps=steps, batch=batch, learning_rate=learning_rate, progress=progress,
        recovered=(lambda d: splice.recovered(d)) if splice else None,
    )  # fmt: skip


def _hook(layer: int, site: str) -> str:
    return site if site.startswith("blocks.") else f"blocks.{layer}.{site}"


def _sensible(kind: str, width: int, batch: int, steps: int, rate: float, k: int, l1: float, l0: float) -> None:
    if kind not in KINDS:
        raise DictionaryError(f"There is no dictionary of the kind {kind!r}: choose {', '.join(KINDS)}.")
    counts = {"width": width, "batch": batch, "steps": steps} | ({"k": k} if "topk" in kind else {})
    for name, count in counts.items():
        if not isinstance(count, int | np.integer) or count < 1:
            raise DictionaryError(f"{name} is a number of at least 1, not {count!r}.")
    if "topk" in kind and k > width:
        raise DictionaryError(f"A token has from 1 to {width} of {width} features, not k={k}.")
    for name, amount in {"learning_rate": rate, "l1": l1, "l0": l0}.items():
        if not (math.isfinite(amount) and amount >= 0) or (name == "learning_rate" and not amount):
            raise DictionaryError(f"{name} is a finite number above 0, not {amount!r}.")


def _fits(width: int, batch: int, d: int) -> None:
    """Weights, gradients, two moments and one copy, and what a batch takes."""
    needed, free = 4 * (5 * width * (2 * d + 3) + 6 * batch * width), available_memory()
    if needed > 0.8 * free:
        raise DictionaryError(
            f"{width:,} features need about {needed / 1e9:.1f} GB of memory while they are trained and {free / 1e9:.1f} GB is free: "
            f"take at most {int(width * 0.8 * free / needed):,}, or a smaller batch than {batch}."
        )


@dataclass
class Pairs:
    """The active pairs of a batch: ``values`` of ``feature`` at token ``item``, token by token."""

    item: np.ndarray
    feature: np.ndarray
    values: Tensor
    shape: tuple[int, int]

    @cached_property
    def starts(self) -> np.ndarray:
        return np.searchsorted(self.item, np.arange(self.shape[0] + 1)).astype(np.int32)

    def each(self, by_feature: Tensor) -> Tensor:
        """Of every pair, what its feature has."""
        return by_feature[torch.from_numpy(self.feature)]

    def through(self, D: Tensor, values: Tensor, loss: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """Σ value · direction [item, d], and how a loss with the gradient ``loss`` there changes with each value."""
        feature, starts = torch.from_numpy(self.feature), torch.from_numpy(self.starts[:-1])
        values = values.clone().requires_grad_()
        with torch.enable_grad():
            decoded = embedding_bag(feature, D, starts, per_sample_weights=values, mode="sum")
        return decoded.detach(), torch.autograd.grad(decoded, values, loss(decoded.detach()))[0]

    def sums(self, values: Tensor, rows: Tensor) -> Tensor:
        """Σ value · row of its token, for each feature [feature, d]."""
        matrix = csr_array((values.numpy(), self.feature, self.starts), shape=self.shape)
        return torch.from_numpy(matrix.T @ rows.numpy())

    def counts(self, values: Tensor) -> Tensor:
        """Σ value for each feature [feature]."""
        return torch.from_numpy(np.bincount(self.feature, values.numpy(), self.shape[1]).astype(np.float32))


@dataclass
class Dense:
    """All pairs of a batch [item, feature], those that are not active at 0: for the kinds with which many are."""

    values: Tensor

    def each(self, by_feature: Tensor) -> Tensor:
        return by_feature

    def through(self, D: Tensor, values: Tensor, loss: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        decoded = values @ D
        return decoded, loss(decoded) @ D.T

    def sums(self, values: Tensor, rows: Tensor) -> Tensor:
        return values.T @ rows

    def counts(self, values: Tensor) -> Tensor:
        return values.sum(0)


def pairs(dense: Tensor, floor: np.ndarray | float) -> Pairs | Dense:
    """What of [item, feature] is above 0 and at least ``floor``."""
    values = dense.numpy()
    on = values >= np.maximum(floor, np.float32(1e-9))
    if np.count_nonzero(on) > SPARSE * on.size:
        return Dense(dense * torch.from_numpy(on))
    at = np.flatnonzero(on)
    item, feature = np.divmod(at.astype(np.int32), np.int32(dense.shape[1]))
    return Pairs(item, feature, torch.from_numpy(values.ravel()[at]), (dense.shape[0], dense.shape[1]))


class Trainer:
    """Weights in training, in units of the mean length of the (centred) activations, and one step of each kind.

    ``E`` [feature, d_in] and ``D`` [feature, d_out] are encoder and decoder.
    """

    def __init__(self, dictionary: SparseDictionary, x: Tensor, y: Tensor, *, k: int, l1: float, l0: float) -> None:
        self.dictionary, self.kind, self.k, self.l1, self.l0 = dictionary, dictionary.kind, k, l1, l0
        self.tied = dictionary.reads == dictionary.writes
        self.scale_in, self.scale = (float((t - t.mean(0)).norm(dim=1).mean()) or 1.0 for t in (x, y))
        self.variance = float((y - y.mean(0)).square().sum(1).mean()) / self.scale**2 or 1.0
        self.E, self.D = dictionary.W_enc.detach().T.clone().contiguous(), dictionary.W_dec.detach().clone()
        if "topk" not in self.kind:  # at first half of the features fire: together they would overshoot by far
            self.E *= 0.3
        self.b_out = y.mean(0) / self.scale
        self.b_enc = torch.zeros(dictionary.width) if self.tied else -self.E @ (x.mean(0) / self.scale_in)
        self.log_threshold = torch.full((dictionary.width,), math.log(START))
        self.level = 0.0  # the weakest activation that is let through, a moving mean (batchtopk)
        self.silent = torch.zeros(dictionary.width)

    @property
    def weights(self) -> list[Tensor]:
        return [self.E, self.D, self.b_enc, self.b_out, self.log_threshold]

    def active(self, pre: Tensor) -> Pairs | Dense:
        """The pairs of a batch that are let through; for ``jumprelu`` also those within reach of the estimator."""
        if self.kind == "l1":
            return pairs(pre, 0.0)
        if self.kind == "topk":
            return pairs(pre, np.partition(pre.numpy(), -self.k, 1)[:, [-self.k]])
        if self.kind == "batchtopk":
            flat = pre.numpy().ravel()
            floor = float(np.partition(flat, -self.k * len(pre))[-self.k * len(pre)])
            self.level = 0.98 * self.level + 0.02 * floor if self.level else floor
            return pairs(pre, floor)
        return pairs(pre, self.log_threshold.exp().numpy() - BANDWIDTH / 2)

    def step(self, x: Tensor, y: Tensor, revive: bool) -> tuple[list[Tensor], dict[str, float]]:
        """Gradients of ``weights``, and ``error`` (mean squared error), ``penalty`` and ``l0`` of a batch."""
        E, D, n = self.E, self.D, len(x)
        pre = torch.addmm(self.b_enc - E @ self.b_out if self.tied else self.b_enc, x, E.T)
        on = self.active(pre)
        jump = self.kind == "jumprelu"
        threshold = on.each(self.log_threshold.exp()) if jump else torch.zeros(())
        passed = on.values > threshold
        values = on.values * passed
        decoded, toward = on.through(D, values, lambda decoded: 2 / n * (decoded + self.b_out - y))
        missed = decoded + self.b_out - y  # [item, d_out]
        back = 2 / n * missed
        penalty, by_threshold = 0.0, torch.zeros(len(E))
        if self.kind == "l1":
            toward = toward + self.l1 / n
            penalty = self.l1 * float(values.sum()) / n
        elif (
            jump
        ):  # the step at the threshold, as if it rose over BANDWIDTH (Rajamanoharan et al. 2024, eqs. 11 and 12)
            near = ((on.values - threshold).abs() < BANDWIDTH / 2).float() / BANDWIDTH
            by_threshold = on.counts(-(threshold * toward + self.l0 / n) * near * threshold)
            penalty = self.l0 * float(passed.sum()) / n
        toward = toward * passed
        gradients = [
            on.sums(toward, x),
            on.sums(values, back),
            on.counts(toward),
            back.sum(0),
            by_threshold,
        ]
        self.silent = (self.silent + 1) * (on.counts(passed.float()) == 0)
        if revive and (dead := torch.nonzero(self.silent > PATIENCE)[:, 0]).numel():
            self._revive(dead, pre, x, -missed, gradients)
        if self.tied:
            gradients[0] -= torch.outer(gradients[2], self.b_out)
            gradients[3] = gradients[3] - gradients[2] @ E
        gradients[1] -= (gradients[1] * D).sum(1, keepdim=True) * D  # directions turn, and keep their length
        said = {"error": float(missed.square().sum()) / n, "penalty": penalty, "l0": float(passed.sum()) / n}
        return gradients, said

    def _revive(self, dead: Tensor, pre: Tensor, x: Tensor, left: Tensor, gradients: list[Tensor]) -> None:
        """Dead features learn what is left unexplained (the auxiliary loss of Gao et al. 2024)."""
        part, D = pre[:, dead].contiguous(), self.D[dead]
        k = min(self.k, len(dead))
        on = pairs(part, np.partition(part.numpy(), -k, 1)[:, [-k]])
        decoded, toward = on.through(D, on.values, lambda decoded: (decoded - left) / (8 * len(x)))
        back, toward = (decoded - left) / (8 * len(x)), toward * (on.values > 0)
        gradients[0][dead] += on.sums(toward, x)
        gradients[1][dead] += on.sums(on.values, back)
        gradients[2][dead] += on.counts(toward)

    def put(self) -> SparseDictionary:
        """Write the weights into the dictionary, in units of the activations."""
        d, thresholds = (
            self.dictionary,
            {"batchtopk": self.level * torch.ones(len(self.E)), "jumprelu": self.log_threshold.exp()},
        )
        with torch.no_grad():
            d.W_enc.copy_(self.E.T * (self.scale / self.scale_in))
            d.W_dec.copy_(self.D)
            d.b_enc.copy_(self.b_enc * self.scale)
            d.b_dec.copy_(self.b_out * self.scale)
            d.threshold.copy_(thresholds.get(self.kind, torch.zeros(())) * self.scale)
        return d


@torch.no_grad()
def fit(
    dictionary: SparseDictionary, x: Float[Tensor, "token d_in"], y: Float[Tensor, "token d_out"], *, k: int = 8, l1: float = 0.05, l0: float = 0.01,
    steps: int = 1500, batch: int = 1024, learning_rate: float = 4e-3, progress: bool = True, recovered: Callable[[SparseDictionary], float] | None = None,
) -> SparseDictionary:  # fmt: skip
    """Fit a new dictionary to inputs ``x`` and targets ``y``. The loss is the mean squared error per token, in units of the mean length of the
    centred ``y``, plus the kind's own part. ``recovered``: called a few times to say how good the dictionary is; see ``train`` for the rest."""
    torch.set_flush_denormal(True)
    trainer, history = Trainer(dictionary, x, y, k=k, l1=l1, l0=l0), History(str(dictionary), steps)
    dictionary.history = history
    weights = [torch.nn.Parameter(w) for w in trainer.weights]  # they share their memory
    optimizer = torch.optim.Adam(weights, lr=learning_rate, betas=(0.9, 0.99), fused=True)
    same, x = x is y, x / trainer.scale_in
    y = x if same else y / trainer.scale
    report, good, live = max(1, steps // 50), 0, Live(history, progress)
    for step in tqdm(range(steps), desc=str(dictionary), disable=not progress, mininterval=0.5):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * min(1, (step + 1) / 50, 5 * (1 - step / steps))
        item = torch.randint(len(x), (batch,))
        inputs = x.index_select(0, item)
        targets = inputs if same else y.index_select(0, item)
        gradients, said = trainer.step(inputs, targets, revive=trainer.kind != "l1" and step % 4 == 0)
        if not said["error"] / trainer.variance + said["penalty"] < 1e6:  # no number, infinite, or on its way there
            why = _why(trainer, said, bool(torch.isfinite(inputs).all()), learning_rate)
            return _stop(dictionary, good, f"The loss grew out of bounds at step {step}: {why}.")
        if step % report == 0 or step == steps - 1:
            fvu, share = said["error"] / trainer.variance, None
            if fvu < 2:  # good so far: what is left if it goes wrong
                trainer.put()
                if recovered and (step == steps - 1 or step % (5 * report) == 0):
                    share = recovered(dictionary)
                good = step
            history.add(step, fvu, said["l0"], float((trainer.silent > PATIENCE).float().mean()), share)
            live.update()
        for parameter, gradient in zip(weights, gradients, strict=True):
            parameter.grad = gradient
        optimizer.step()
        trainer.D.div_(trainer.D.norm(dim=1, keepdim=True))
    live.update(last=True)
    return trainer.put().requires_grad_(False)


def _why(trainer: Trainer, said: dict[str, float], finite: bool, rate: float) -> str:
    if not finite:
        return "the activations themselves hold values that are infinite or no number"
    if said["error"] < 1e5 * trainer.variance:
        return f"the penalty is too large ({'l1' if trainer.kind == 'l1' else 'l0'}={trainer.l1 if trainer.kind == 'l1' else trainer.l0:g})"
    return f"the learning rate is too high (learning_rate={rate:g}; 4e-3 is usual)"


def _stop(dictionary: SparseDictionary, good: int, message: str) -> SparseDictionary:
    """The weights of the last report at which all was well, with a warning; DictionaryError where there are none."""
    if not good:
        raise DictionaryError(f"{message} Nothing was learned before.")
    dictionary.history.stopped = f"{message} Training has stopped, and these are the weights of step {good}."
    warnings.warn(dictionary.history.stopped, stacklevel=4)
    return dictionary.requires_grad_(False)
