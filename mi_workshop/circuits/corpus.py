"""What fires where: the activations of all units (transcoder features, neurons) at every token of the training text.

Computed on first use, in one pass over the text, kept sparse and remembered for each model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from scipy.sparse import csc_array, csr_array, vstack
from torch import Tensor

from mi_workshop.circuits.intervene import decoders
from mi_workshop.models import Model, ModelError, mlp
from mi_workshop.worlds.atlas import Sentence

if TYPE_CHECKING:
    from mi_workshop.dictionary import SparseDictionary


class FeatureError(ModelError):
    """There is no such feature, or nothing to show of it; the message says why."""


@dataclass(frozen=True)
class Dictionary:
    """Units that read one place of each layer and write directions: all that a page needs to know about them, be they
    transcoder features, neurons or the features of a sparse autoencoder.

    ``reads``: the hook, after ``blocks.<layer>.``; ``encode(x, layer)``: activations [..., unit] from what the hook sees;
    ``writes(layer)``: what each unit adds to the residual stream [unit, d_model]; ``table``: labels, where there are any; ``layers``: those that have units.
    """

    reads: str
    encode: Callable[[Tensor, int], Float[Tensor, "*item unit"]]
    writes: Callable[[int], Float[Tensor, "unit d_model"]]
    table: pd.DataFrame | None
    layers: tuple[int, ...]


def _features(model: Model) -> Dictionary:
    m = model.replacement
    return Dictionary(
        m.feature_input_hook, m.transcoders.encode_layer, lambda layer: decoders(model, layer).sum(1), model.features, tuple(range(m.cfg.n_layers)),
    )  # fmt: skip


def _neurons(model: Model) -> Dictionary:
    reads, layers = mlp(model, 0).hook_post.name.removeprefix("blocks.0."), tuple(range(model.replacement.cfg.n_layers))
    return Dictionary(reads, lambda x, _: x, lambda layer: mlp(model, layer).W_out, None, layers)


KINDS: dict[str, Callable[[Model], Dictionary]] = {"feature": _features, "neuron": _neurons}


def dictionary_of(model: Model, kind: str | SparseDictionary) -> Dictionary:
    """One of ``KINDS``, or a sparse dictionary, which is of one layer."""
    if isinstance(kind, str):
        return KINDS[kind](model)
    hook = kind.reads.split(".", 2)[2]
    return Dictionary(hook, lambda x, _: kind.encode(x), lambda _: kind.W_dec.detach(), None, (kind.layer,))


@dataclass(frozen=True)
class Text:
    """Sentences, one entry per token (<bos> left out): its id, its sentence, the id of the token after it."""

    sentences: list[Sentence]
    words: list[list[str]]  # of each sentence
    tokens: list[np.ndarray]  # ids [sentence, position] of the sentences of one length, <bos> first
    ids: np.ndarray
    sentence: np.ndarray
    following: np.ndarray
    start: np.ndarray  # first entry of each sentence

    def batches(self) -> Iterator[Tensor]:
        """The ids of at most 64 sentences of one length at a time [sentence, position], <bos> first, in the order of the entries."""
        for group in self.tokens:
            yield from torch.from_numpy(group).split(64)


@lru_cache(maxsize=8)
def training_text(model: Model) -> Text:
    """Every sentence of ``world.training_text``, by length."""
    if model.world is None:
        raise FeatureError(
            f"The text that {model.name!r} was trained on is not known, so its features have no pages; choose an embedded model."
        )
    return _text(model, model.world.training_text())


@lru_cache(maxsize=8)
def validation_text(model: Model) -> Text:
    """The two-hop questions kept out of training for validation: held-out cities, pairs of city and attribute, and places."""
    training_text(model)
    assert model.world is not None
    return _text(model, [s for s in model.world.facts if (s.stratum or "").endswith(":validation")])


def _text(model: Model, trained: list[Sentence]) -> Text:
    ids = model.tokenizer([s.prompt for s in trained], add_special_tokens=False).input_ids
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    sentences = [trained[i] for i in order]
    lengths = np.array([len(ids[i]) for i in order])
    rows = [[model.tokenizer.bos_token_id, *ids[i]] for i in order]
    same = np.split(np.arange(len(rows)), np.flatnonzero(np.diff(lengths)) + 1)
    after = [[*row[2:], model.token_id(s.answer)] for row, s in zip(rows, sentences, strict=True)]
    return Text(
        sentences, [model.tokenizer.convert_ids_to_tokens(row[1:]) for row in rows],
        [np.array([rows[i] for i in group]) for group in same],
        np.concatenate([row[1:] for row in rows]), np.repeat(np.arange(len(rows)), lengths), np.concatenate(after),
        np.concatenate([[0], np.cumsum(lengths)[:-1]]),
    )  # fmt: skip


@lru_cache(maxsize=8)
@torch.no_grad()
def text_activations(model: Model, kind: str | SparseDictionary = "feature") -> csc_array:
    """Activation of every unit of every layer that has any at every token of the training text [token, layer * unit], remembered."""
    if not isinstance(kind, str):
        from mi_workshop.dictionary.activations import firings

        return firings(model, kind)
    m, dictionary, blocks = model.replacement, dictionary_of(model, kind), []
    for tokens in training_text(model).batches():
        found: list[Tensor] = []

        def read(x: Tensor, hook: Any, found: list[Tensor] = found) -> None:
            found.append(dictionary.encode(x, int(hook.name.split(".")[1]))[:, 1:].flatten(0, 1))

        hooks = [(f"blocks.{layer}.{dictionary.reads}", read) for layer in dictionary.layers]
        m.run_with_hooks(tokens, fwd_hooks=hooks, stop_at_layer=m.cfg.n_layers)
        blocks.append(csr_array(torch.cat(found, 1).float().cpu().numpy()))
    return vstack(blocks, format="csc")


@lru_cache(maxsize=8)
def directions(model: Model, kind: str | SparseDictionary) -> np.ndarray:
    """What the units of all layers write [layer * unit, d_model], each at length 1."""
    dictionary = dictionary_of(model, kind)
    written = torch.cat([dictionary.writes(layer).detach().float() for layer in dictionary.layers])
    return (written / written.norm(dim=1, keepdim=True).clamp(min=1e-8)).cpu().numpy()
