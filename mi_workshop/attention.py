"""Attention patterns and what each head attends to: ``patterns(model, prompt)`` shows itself, ``head_scores(model)`` is a table.

Both take a model of ours or any TransformerLens ``HookedTransformer``. A pattern says where a head looks, not what it writes:
heads that write nothing (an output matrix of zeros) attend like any other, and are marked *silent*.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from mi_workshop.models import Model, network

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from mi_workshop.widgets.attention_view import AttentionView

ROWS = 64  # random passages (and passages about people) that a score is the mean of
HALF = 20  # tokens of a random passage, which is read twice


@dataclass(frozen=True, eq=False)
class Attention:
    """Where each head looks: ``pattern`` [layer, head, query, key], each query's weights summing to 1, and the ``tokens``.

    ``silent`` [layer, head] marks heads whose output matrix is zero: whatever they attend to, they write nothing.
    """

    pattern: Float[np.ndarray, "layer head query key"]
    tokens: list[str]
    silent: np.ndarray

    def head(self, layer: int, head: int) -> pd.DataFrame:
        """One head's weights, queries as rows and keys as columns, named ``token [position]``.

        Raises ValueError if there is no such head.
        """
        n_layers, n_heads = self.silent.shape
        if not (0 <= layer < n_layers and 0 <= head < n_heads):
            raise ValueError(f"There is no head {layer}.{head}: layers are 0 to {n_layers - 1}, heads 0 to {n_heads - 1}.")  # fmt: skip
        names = [f"{token} [{i}]" for i, token in enumerate(self.tokens)]
        return pd.DataFrame(
            self.pattern[layer, head], pd.Index(names, name="query"), pd.Index(names, name="key"), copy=True
        )

    def describe(self) -> str:
        """In words: size, and which heads write nothing."""
        n_layers, n_heads = self.silent.shape
        silent = ", ".join(f"{layer}.{head}" for layer, head in np.argwhere(self.silent))
        what = f"Attention patterns of {n_layers * n_heads} heads in {n_layers} layers over {len(self.tokens)} tokens"
        return f"{what}; silent, because they write nothing: {silent}." if silent else f"{what}."

    def show(self, **traits: Any) -> AttentionView:
        """The interactive head browser; ``traits`` as ``layer=2, head=1, query=5`` say what it opens with."""
        from mi_workshop.widgets.attention_view import AttentionView

        return AttentionView(self, **traits)

    def figure(self) -> Figure:
        """All heads as one picture, layers upwards."""
        from mi_workshop.heat_plots import draw_attention

        return draw_attention(self)

    def save(self, path: str | Path) -> Path:
        """Write the browser as one ``.html`` file that opens offline, or the picture as ``.png`` or ``.svg``."""
        return self.show().save(path)

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        return self.show()._repr_mimebundle_(**kwargs)


def _patterns(network: Any, tokens: Tensor, take: Callable[[Tensor], Tensor]) -> Tensor:
    """``take`` of each layer's attention [row, head, query, key] for token ids [row, position], stacked over layers."""
    names = [f"blocks.{layer}.attn.hook_pattern" for layer in range(network.cfg.n_layers)]
    with torch.no_grad():
        _, cache = network.run_with_cache(tokens.to(network.cfg.device), names_filter=lambda name: name in names)
    return torch.stack([take(cache[name].float().cpu()) for name in names])


def _silent(network: Any) -> np.ndarray:
    return np.array([(block.attn.W_O.detach() == 0).flatten(1).all(1).cpu().numpy() for block in network.blocks])


def patterns(model: Any, prompt: str | Tensor) -> Attention:
    """The attention pattern of every head on ``prompt`` (<bos> is put before it) or on token ids [position]; shows itself.

    Raises WorldError for a prompt that the model's world does not know.
    """
    net = network(model)
    if not isinstance(prompt, str):
        ids = torch.as_tensor(prompt)
    else:
        ids = model.tokens(prompt) if isinstance(model, Model) else net.to_tokens(prompt)[0]
    if net.tokenizer is None:
        tokens = [str(i) for i in ids.tolist()]
    else:
        tokens = net.tokenizer.batch_decode([[i] for i in ids.tolist()], clean_up_tokenization_spaces=False)
    found = _patterns(net, ids[None], lambda pattern: pattern[0])
    return Attention(found.numpy(), tokens, _silent(net))


def head_scores(model: Any, rows: int = ROWS, half: int = HALF, seed: int = 0) -> pd.DataFrame:
    """What each head attends to, indexed by (layer, head): mean attention weights, from 0 to 1.

    On ``rows`` random passages of ``half`` tokens, each read twice (``world.repeats``; for other models, tokens drawn evenly
    from the vocabulary): ``previous_token``, ``first_token``, ``current_token``; ``induction``, from a token's second occurrence
    to the token after its first (Olsson et al. 2022, In-context Learning and Induction Heads); ``entropy``, in nats. For models
    of Atlas also ``names``: in passages about people, from the second *Mr* to the name that followed the first. ``silent``
    heads write nothing. ``attrs["uniform"]`` holds what a head would score that attends evenly to all it can see.

    Raises ValueError if the passages are too short, or longer than what the model can read.
    """
    net = network(model)
    if rows < 1 or half < 2 or 1 + 2 * half > net.cfg.n_ctx:
        raise ValueError(f"Take at least one row, and passages of 2 to {(net.cfg.n_ctx - 1) // 2} tokens: the model reads {net.cfg.n_ctx}.")  # fmt: skip
    rng = np.random.default_rng(seed)
    world = model.world if isinstance(model, Model) else None
    if world is not None:
        ids = torch.tensor(world.repeats(rng, rows, half))
    else:
        start = getattr(net.tokenizer, "bos_token_id", None) or 0
        first = rng.integers(0, net.cfg.d_vocab, (rows, half))
        ids = torch.tensor(np.concatenate([np.full((rows, 1), start), first, first], axis=1))

    def all_scores(pattern: Tensor) -> Tensor:
        return torch.stack([*score_patterns(pattern, half).values()])  # [score, head]

    even = torch.ones(1, 1, 2 * half + 1, 2 * half + 1).tril()
    uniform = {name: float(value[0]) for name, value in score_patterns(even / even.sum(-1, keepdim=True), half).items()}
    found = _patterns(net, ids, all_scores)
    index = pd.MultiIndex.from_product([range(found.shape[0]), range(found.shape[2])], names=["layer", "head"])
    table = pd.DataFrame(found.permute(0, 2, 1).flatten(0, 1).numpy(), index, list(uniform))
    if world is not None:
        passages = [world.names_passage(rng) for _ in range(rows)]
        places = [[row, *pair] for row, words in enumerate(passages) for pair in second_mentions(words)]
        row, query, key = torch.tensor(places).T
        known = torch.tensor([[model.tokenizer.bos_token_id, *map(model.token_id, words)] for words in passages])
        named = _patterns(net, known, lambda pattern: pattern[row, :, query, key].mean(0))
        table.insert(4, "names", named.flatten().numpy())
        uniform["names"] = float((1 / (query + 1)).mean())
    table["silent"] = _silent(net).flatten()
    table.attrs["uniform"] = uniform
    return table


def score_patterns(pattern: Float[Tensor, "row head query key"], half: int) -> dict[str, Float[Tensor, " head"]]:
    """The scores of ``head_scores`` from patterns on <bos> and a passage of ``half`` tokens twice: means over rows and queries.

    The first two queries are left out of the first three scores: for them the first token is the current or the previous one.
    """
    query = torch.arange(2, 2 * half + 1)
    again = torch.arange(half + 1, 2 * half + 1)

    def mean(q: Tensor, k: Tensor) -> Tensor:
        return pattern[:, :, q, k].mean((0, 2))

    return {
        "previous_token": mean(query, query - 1),
        "first_token": mean(query, torch.zeros_like(query)),
        "current_token": mean(query, query),
        "induction": mean(again, again - half + 1),
        "entropy": torch.special.entr(pattern).sum(-1)[:, :, 1:].mean((0, 2)),
    }


def second_mentions(words: list[str]) -> list[tuple[int, int]]:
    """For each title that comes up again: the position of its second mention, and of the name after its first (<bos> is 0)."""
    from mi_workshop.worlds.atlas import TITLES

    found = []
    for title in dict.fromkeys(word for word in words if word in TITLES):
        at = [i + 1 for i, word in enumerate(words) if word == title]
        if len(at) > 1:
            found.append((at[1], at[0] + 1))
    return found
