"""Can the neurons of an MLP be explained? Counted as Elhage et al. 2022 ("Softmax Linear Units", Transformer Circuits) did, one hypothesis for 80 %
of the strongest firings, with the world's concepts as hypotheses instead of people's ideas, and with controls.

``interpretable_neurons`` counts; ``low_activations`` and ``superlinearity`` measure what SoLU and its LayerNorm do to weak firings.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from scipy.sparse import csr_array
from scipy.stats import binom

from mi_workshop.circuits.corpus import FeatureError, training_text
from mi_workshop.concepts import concepts
from mi_workshop.dictionary.activations import several
from mi_workshop.models import Model, mlp
from mi_workshop.plots import BLUE, INK, ORANGE, new_figure, open_frames
from mi_workshop.show import Shown

STRONGEST = {"distinct inputs": 10, "text": 50}  # how many firings a hypothesis is held against
EXPLAINED = 0.8  # share of them at which it must hold
CHANCE = 0.05  # that random inputs do as well, over all hypotheses (Bonferroni)
STAGES = {"pre": "before the activation", "mid": "before the LayerNorm", "post": "after the LayerNorm"}
BINS = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)  # shares of a neuron's strongest firing


def _said(stage: str, table: pd.DataFrame) -> str:
    return STAGES[stage] if stage != "post" or "mid" in table.index.get_level_values(0) else "after the activation"


def stages(model: Model) -> list[str]:
    """Where neurons can be read: ``"mid"`` (before the LayerNorm) where there is one, and ``"post"``."""
    return ["mid", "post"] if model.replacement.cfg.is_layer_norm_activation() else ["post"]


def hook_name(model: Model, layer: int, stage: str) -> str:
    """The hook at which a layer's neurons are read, with circuit-tracer's wrapper round the MLP or without."""
    return getattr(mlp(model, layer), f"hook_{stage}").name


@lru_cache(maxsize=4)
def _prefixes(model: Model) -> tuple[np.ndarray, np.ndarray]:
    """Of each token of the training text which distinct beginning of a sentence ends there [token], and the first token of each [prefix]."""
    text = training_text(model)
    known: dict[tuple[int, int], int] = {}
    out, before, sentence = np.zeros(len(text.ids), int), -1, -1
    for i, (token, of) in enumerate(zip(text.ids.tolist(), text.sentence.tolist(), strict=True)):
        before = known.setdefault((before if of == sentence else -1, token), len(known))
        out[i], sentence = before, of
    return out, np.unique(out, return_index=True)[1]


@lru_cache(maxsize=3)
def firings(model: Model, stage: str = "post") -> list[np.ndarray]:
    """Activations of each layer's neurons at every distinct beginning of a sentence of the training text, float32 [prefix, neuron].

    ``stage``: ``"pre"`` (before the activation), ``"mid"`` (SoLU before its LayerNorm), ``"post"`` (what the output weights read). Raises
    FeatureError for a stage that the model lacks, or a model whose text is not known.
    """
    if stage not in ("pre", *stages(model)):
        raise FeatureError(
            f"{model.name} has no {stage!r} activations; choose 'pre' or {' or '.join(stages(model))!r}."
        )
    hooks = [hook_name(model, layer, stage) for layer in range(model.replacement.cfg.n_layers)]
    return [x.numpy() for x in several(model, hooks, rows=torch.from_numpy(_prefixes(model)[1]))]


@lru_cache(maxsize=16)
def _inputs(model: Model, layer: int, inputs: str) -> tuple[np.ndarray, csr_array]:
    """The inputs of a layer's MLP, as rows of ``firings``, and at which share of their tokens each concept holds [input, concept].

    Distinct: a layer that sees only its own token has one input per word, others one per beginning of a sentence."""
    prefix, first = _prefixes(model)
    holds = concepts(model).holds.tocsr()
    if inputs == "text":
        return prefix, holds
    alone = all(not block.attn.W_O.any() for block in model.replacement.blocks[: layer + 1])
    _, rows, of = np.unique(training_text(model).ids if alone else prefix, return_index=True, return_inverse=True)
    counts = np.bincount(of)
    mean = csr_array((1 / counts[of], (of, np.arange(len(of)))), shape=(len(rows), len(of)))
    return prefix[rows], csr_array(mean @ holds)


def explained(values: Float[np.ndarray, "input unit"], holds: csr_array, n: int) -> pd.DataFrame:
    """For each unit the concept that holds at most of its ``n`` strongest firings (inputs with a positive activation).

    Columns ``concept`` (column of ``holds``), ``share`` of these firings, ``precision`` (share of all its firings, weak ones too), ``base``
    (share of all inputs), ``fires`` (how many of the ``n`` there were) and ``interpretable``: ``share`` ≥ ``EXPLAINED``, and fewer than
    ``CHANCE`` concepts of such a base would do so at inputs drawn at random.
    """
    strength, found = torch.from_numpy(np.ascontiguousarray(values.T)).topk(
        min(n, len(values)), sorted=False
    )  # [unit, n]
    top, fires = found.numpy(), (strength > 0).numpy()
    unit = np.broadcast_to(np.arange(values.shape[1])[:, None], top.shape)
    strongest = csr_array((np.ones(fires.sum()), (unit[fires], top[fires])), shape=values.shape[::-1])
    count = fires.sum(1)
    share = (strongest @ holds).toarray() / np.maximum(count, 1)[:, None]
    base = np.asarray(holds.mean(0)).ravel()
    luck = {k: binom.sf(np.ceil(EXPLAINED * k - 1e-9) - 1, k, base) * len(base) for k in np.unique(count)}
    share[np.array([luck[k] >= CHANCE for k in count])] = 0
    best = np.where(share >= share.max(1, keepdims=True) - 1e-6, base, np.inf).argmin(1)  # of equals the rarest
    highest, firing = share[np.arange(len(best)), best], values > 0
    precision = (firing * holds[:, best].toarray()).sum(0) / np.maximum(firing.sum(0), 1)
    return pd.DataFrame(
        {
            "concept": best, "share": highest, "precision": precision, "base": base[best], "fires": count,
            "interpretable": highest >= EXPLAINED - 1e-6,
        }
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Shares(Shown):
    """``table``: share of interpretable neurons, one row per (stage, inputs), with ``random directions``, ``random hypotheses``, how many
    ``neurons`` and the standard error ``se``; ``neurons``: one row per (stage, layer, neuron) with its top hypothesis (distinct inputs)."""

    model: str
    table: pd.DataFrame
    neurons: pd.DataFrame

    def words(self) -> str:
        said = [
            f"{_said(stage, self.table)} {row['share']:.0%} ± {row['se']:.0%} of {row['neurons']:.0f} neurons have one hypothesis for 80 % of their strongest "
            f"firings ({inputs}), of random directions {row['random directions']:.0%}, of random hypotheses {row['random hypotheses']:.0%}"
            for (stage, inputs), row in self.table.iterrows()
        ]  # fmt: skip
        return f"{self.model}: {'; '.join(said)}."

    def figure(self) -> Any:
        figure = new_figure(9, 0.9 + 0.8 * len(self.table))
        ax = figure.add_subplot()
        at = np.arange(len(self.table))[::-1]
        ax.barh(
            at, self.table["share"], 0.6, xerr=2 * self.table["se"], color=BLUE, ecolor=INK, label="neurons (± 2 se)"
        )
        ax.plot(self.table["random directions"], at, "D", color=ORANGE, ms=11, mec=INK, label="random directions")
        ax.plot(self.table["random hypotheses"], at, "o", color="white", ms=11, mec=INK, label="random hypotheses")
        ax.set_yticks(at, [f"{_said(stage, self.table)}\n{inputs}" for stage, inputs in self.table.index], fontsize=11)
        ax.set_xlim(0, 1)
        ax.set_title(f"{self.model}: one hypothesis for 80 % of the strongest firings", fontsize=12, loc="left")
        ax.legend(fontsize=11, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
        open_frames(ax)
        return figure


@lru_cache(maxsize=8)
def interpretable_neurons(model: Model, inputs: tuple[str, ...] = ("distinct inputs",), rotations: int = 1) -> Shares:
    """Share of neurons for which one concept of the world explains ``EXPLAINED`` of the strongest firings, at each of ``stages``.

    ``inputs``: the 10 strongest ``"distinct inputs"``, or the 50 strongest tokens of the ``"text"``, where repeats count. A neuron is the more
    impressive the fewer random directions do as well (the layer's activations after ``rotations`` random rotations) and the fewer neurons
    do when hypotheses are dealt out to inputs at random. Raises FeatureError for a model whose text is not known.
    """
    rows, neurons = {}, {}
    for stage in stages(model):
        values = firings(model, stage)
        for kind in inputs:
            real, turned, dealt = [], [], []
            for layer, x in enumerate(values):
                index, holds = _inputs(model, layer, kind)
                x, rng = x[index], np.random.default_rng([layer, 0])
                found = explained(x, holds, STRONGEST[kind])
                real.append(found["interpretable"])
                if kind == "distinct inputs":
                    neurons[stage, layer] = found
                for _ in range(rotations):
                    q = np.linalg.qr(rng.standard_normal((x.shape[1],) * 2))[0].astype(np.float32)
                    turned.append(explained(x @ q, holds, STRONGEST[kind])["interpretable"])
                dealt.append(explained(x, holds[rng.permutation(len(x))], STRONGEST[kind])["interpretable"])
            share, n = float(np.mean(real)), len(np.concatenate(real))
            rows[stage, kind] = {
                "share": share, "se": (share * (1 - share) / n) ** 0.5, "random directions": float(np.mean(turned)),
                "random hypotheses": float(np.mean(dealt)), "neurons": n,
            }  # fmt: skip
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis(["stage", "inputs"])
    each = pd.concat(neurons, names=["stage", "layer", "neuron"]) if neurons else pd.DataFrame()
    if len(each):
        names = concepts(model).table
        each.insert(0, "hypothesis", names["name"].to_numpy()[each["concept"]])
    return Shares(model.name, table, each)


@dataclass(frozen=True, eq=False)
class LowActivations(Shown):
    """``table``: by stage and range of activation (share of a neuron's strongest firing), the share of inputs at which its top hypothesis
    ``holds``, the share of all firings there (``inputs``) and of their summed size (``size``), means over interpretable neurons."""

    model: str
    table: pd.DataFrame

    def words(self) -> str:
        said = []
        for stage, rows in self.table.groupby(level=0, sort=False):
            low, high = rows.iloc[0], rows.iloc[-1]
            said.append(
                f"{_said(stage, self.table)} the top hypothesis holds at {high['holds']:.0%} of the strongest firings and {low['holds']:.0%} of the weakest, "
                f"which are {low['inputs']:.0%} of all firings and {low['size']:.0%} of their size"
            )
        return f"{self.model}: {'; '.join(said)}."

    def figure(self) -> Any:
        figure = new_figure(11, 4)
        axes = figure.subplots(1, 2)
        for (stage, rows), colour, mark in zip(self.table.groupby(level=0, sort=False), (BLUE, ORANGE), "os", strict=False):  # fmt: skip
            for ax, column in zip(axes, ("holds", "size"), strict=True):
                ax.plot(
                    range(len(rows)),
                    rows[column],
                    f"{mark}-",
                    color=colour,
                    lw=2.4,
                    ms=9,
                    label=_said(stage, self.table),
                )
                ax.set_xticks(range(len(rows)), rows.index.get_level_values(1), fontsize=11)
                ax.set_xlabel("activation, of the neuron's strongest", fontsize=12)
                ax.set_ylim(-0.02, 1.02)
        axes[0].set_title("top hypothesis holds at", fontsize=12, loc="left")
        axes[1].set_title("share of all activation", fontsize=12, loc="left")
        axes[0].legend(fontsize=11, frameon=False)
        open_frames(*axes)
        return figure


def low_activations(model: Model) -> LowActivations:
    """Do weak firings mean what the strong ones mean? The interpretable neurons' distinct inputs by strength, before and after the LayerNorm.

    Raises FeatureError for a model whose text is not known."""
    ranges = [f"{a:.0%}–{b:.0%}" for a, b in zip(BINS[:-1], BINS[1:], strict=True)]
    rows = []
    for (stage, layer), found in interpretable_neurons(model).neurons.groupby(level=[0, 1], sort=False):
        index, holds = _inputs(model, layer, "distinct inputs")
        x, kept = firings(model, stage)[layer][index], found[found["interpretable"]]
        where = holds[:, kept["concept"].to_numpy()].toarray().T
        for neuron, true in zip(kept.index.get_level_values(2), where, strict=True):
            values = x[:, neuron] / x[:, neuron].max()
            of = np.digitize(values, BINS[1:-1])
            for i, name in enumerate(ranges):
                here = (of == i) & (values > 0)
                precision = true[here].mean() if here.any() else np.nan
                rows.append((stage, name, precision, here.sum() / (values > 0).sum(), values[here].sum() / values[values > 0].sum()))  # fmt: skip
    table = pd.DataFrame(rows, columns=["stage", "activation", "holds", "inputs", "size"])
    return LowActivations(model.name, table.groupby(["stage", "activation"], sort=False).mean())


@torch.no_grad()
def superlinearity(model: Model, times: float = 1.1) -> pd.DataFrame:
    """By which power the strongest neuron of each input grows with the layer's pre-activations: log of its growth / log ``times``, when all are
    multiplied by ``times``. 1 is linear. One row per stage: median and quartiles over layers and distinct beginnings of sentences."""
    out: dict[str, list[np.ndarray]] = {stage: [] for stage in stages(model)}
    for layer, pre in enumerate(firings(model, "pre")):
        inside, x = mlp(model, layer), torch.from_numpy(pre)
        now, then = inside.act_fn(x), inside.act_fn(times * x)
        pairs = (
            {"mid": (now, then), "post": (inside.ln(now), inside.ln(then))} if len(out) == 2 else {"post": (now, then)}
        )
        for stage, (a, b) in pairs.items():
            strongest, at = a.max(1)
            grown = b.gather(1, at[:, None])[:, 0]
            kept = (strongest > 0) & (grown > 0)
            out[stage].append(((grown / strongest)[kept].log() / np.log(times)).numpy())
    quartiles = {stage: np.quantile(np.concatenate(parts), [0.5, 0.25, 0.75]) for stage, parts in out.items()}
    return pd.DataFrame.from_dict(quartiles, orient="index", columns=["median", "lower quartile", "upper quartile"])


def sparsity(model: Model, stage: str = "post") -> float:
    """Share of a layer's squared activation that is in its strongest neuron: the mean over layers and distinct beginnings of sentences at which any
    neuron is active. 1 is one neuron alone, 1 / d_mlp all alike."""
    squares = [x.astype(float) ** 2 for x in firings(model, stage)]
    return float(np.mean([(x.max(1)[on] / x.sum(1)[on]).mean() for x in squares if (on := x.any(1)).any()]))
