"""Attention patterns and what each head attends to: ``patterns(model, prompt)`` shows itself, ``head_scores(model)`` is a table.

A pattern says where a head looks, not what it writes: heads that write nothing (an output matrix of zeros) attend like any other, and
are marked *silent*. ``norm_weighted`` and ``gradient_weighted`` ask what comes of the weights, ``rollout`` follows them through the layers, and
``compare_with_key`` says which of them is right. ``brush`` changes them by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from mi_workshop.models import Model, network
from mi_workshop.show import counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from mi_workshop.models.attention_rnn import PassageModel
    from mi_workshop.widgets.attention_brush import AttentionBrush
    from mi_workshop.widgets.attention_view import AttentionView
    from mi_workshop.worlds.passages import Passage

ROWS = 64  # random passages (and passages about people) that a score is the mean of
HALF = 20  # tokens of a random passage, which is read twice


@dataclass(frozen=True, eq=False)
class Attention:
    """Where each head looks: ``pattern`` [layer, head, query, key], each query's weights summing to 1, and the ``tokens``.

    ``silent`` [layer, head] marks heads whose output matrix is zero: whatever they attend to, they write nothing. ``queries``: the names of
    the rows where they are not the tokens. ``kind``: what the numbers are; weighted attention sums to nothing in particular.
    """

    pattern: Float[np.ndarray, "layer head query key"]
    tokens: list[str]
    silent: np.ndarray
    queries: list[str] | None = None
    kind: str = "attention"

    @property
    def top(self) -> float:
        """What is drawn darkest: 1 for weights that sum to 1, otherwise the largest number."""
        return 1.0 if self.kind in ("attention", "rollout") else float(self.pattern.max()) or 1.0

    def head(self, layer: int, head: int) -> pd.DataFrame:
        """One head's weights, queries as rows and keys as columns, named ``token [position]``.

        Raises ValueError if there is no such head.
        """
        n_layers, n_heads = self.silent.shape
        if not (0 <= layer < n_layers and 0 <= head < n_heads):
            raise ValueError(f"There is no head {layer}.{head}: layers are 0 to {n_layers - 1}, heads 0 to {n_heads - 1}.")  # fmt: skip
        keys = [f"{token} [{i}]" for i, token in enumerate(self.tokens)]
        queries = pd.Index(self.queries or keys, name="query")
        return pd.DataFrame(self.pattern[layer, head], queries, pd.Index(keys, name="key"), copy=True)

    def describe(self, layer: int | None = None, head: int = 0, query: int | None = None) -> str:
        """In words: size, which heads write nothing, and where one looks from one token (by default those that ``show`` opens with)."""
        n_layers, n_heads = self.silent.shape
        silent = ", ".join(f"{layer}.{head}" for layer, head in np.argwhere(self.silent))
        name = "Attention patterns" if self.kind == "attention" else self.kind.capitalize()
        what = f"{name} of {counted(n_layers * n_heads, 'head')} in {counted(n_layers, 'layer')} over {len(self.tokens)} tokens"
        layer = n_layers - 1 if layer is None else layer
        query = (0 if self.tokens[0] == "<class>" else -1) if query is None else query
        row = self.head(layer, head).iloc[query]
        most = ", ".join(f"{key} ({weight:.2g})" for key, weight in row.nlargest(3).items())
        looks = f"Head {layer}.{head} looks from {row.name} most at {most}."
        return f"{what}{f'; silent, because they write nothing: {silent}' if silent else ''}. {looks}"

    def show(self, **traits: Any) -> AttentionView:
        """The interactive head browser; ``traits`` as ``layer=2, head=1, query=5, mode="lines"`` say what it opens with."""
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


def silent_heads(network: Any) -> np.ndarray:
    """Heads [layer, head] whose output matrix is zero."""
    return np.array([(block.attn.W_O.detach() == 0).flatten(1).all(1).cpu().numpy() for block in network.blocks])


def patterns(model: Any, input: Any, target: Any = None) -> Attention:
    """The attention pattern of every head; shows itself.

    ``model``, ``input`` and ``target`` are those of ``attribute``: a prompt (<bos> is put before it) or token ids [position] for a language
    model, a picture and a query (or a query and a picture) for ``scenes-clip``, where patches of 8 × 8 pixels attend, a passage for a model of
    passages, which has one head and one query, the answer. The raw pattern does not depend on the target.

    Raises SaliencyError, one sentence, for what the model does not know and for models without attention.
    """
    return _attention(model, input, target, "attention")


def norm_weighted(model: Any, input: Any, target: Any = None) -> Attention:
    """Attention × value norm: α · ‖v W_O‖, how long what each head passes on from each token is (Kobayashi et al. 2020); in models of passages the
    state of a word stands for v W_O. Silent heads get 0. Takes and raises what ``patterns`` does."""
    return _attention(model, input, target, "attention × value norm")


def gradient_weighted(model: Any, input: Any, target: Any = None) -> Attention:
    """Attention × gradient of the target's number (a logit, a likeness), where positive (Chefer et al. 2021). Takes and raises what ``patterns`` does."""
    return _attention(model, input, target, "attention × gradient")


def rollout(model: Any, input: Any, target: Any = None) -> Attention:
    """Attention rollout (Abnar and Zuidema 2020) up to each layer, as one "head" per layer: patterns, averaged over heads and mixed half and half
    with the identity (the residual stream), multiplied. Takes and raises what ``patterns`` does, and raises it where tokens do not attend to each other."""
    return _attention(model, input, target, "rollout")


def _attention(model: Any, input: Any, target: Any, kind: str) -> Attention:
    from mi_workshop.saliency import problem, weights
    from mi_workshop.saliency.inputs import SaliencyError

    p = problem(model, input, target)
    found = weights.KINDS[kind](p)
    if len({each.shape for each in found}) > 1:
        raise SaliencyError(
            f"The layers of {p.model} do not all attend to the same tokens: they cannot be shown together."
        )
    pattern = torch.stack(found).cpu().numpy()
    shown = p.shown
    tokens = shown if isinstance(shown, list) else _patches(shown, pattern.shape[-1], p.class_token)
    language = kind != "rollout" and hasattr(network(model), "blocks")
    silent = silent_heads(network(model)) if language else np.zeros(pattern.shape[:2], bool)
    return Attention(pattern, tokens, silent, ["answer"] if p.one_query else None, kind)


def _patches(picture: np.ndarray, keys: int, class_token: bool) -> list[str]:
    """Names of the patches that attend in a picture, by the pixel in their upper left corner."""
    side = round((keys - class_token) ** 0.5)
    height, width = (n // side for n in picture.shape[:2])
    return ["<class>"] * class_token + [f"x {x * width}, y {y * height}" for y in range(side) for x in range(side)]


VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {  # the methods of ``attribute`` that are made of attention weights
    "raw, last layer": ("attention", {}), "raw, mean of layers": ("attention", {"layers": "all"}), "× value norm": ("attention_norm", {}),
    "× gradient": ("attention_gradient", {}), "rollout": ("rollout", {}), "relevance": ("relevance", {}),
}  # fmt: skip
ACROSS = ("raw, mean of layers", "rollout", "relevance")  # need several layers in which tokens attend to each other


def compare_with_key(model: Any, inputs: Sequence[tuple[Any, Any]]) -> pd.DataFrame:
    """Which way of reading attention agrees with the answer keys: a row for each way that fits the model, means over (input, target) pairs.

    Columns are those of ``saliency.scores``: against the model key (what changes this model's number) ``pointing``, ``mass``, ``found`` and ``tau``; against the
    world key (what should matter) ``pointing_world``, ``mass_world`` and ``auc``. ``chance``: the same for maps drawn at random, ten per pair.
    Raises SaliencyError.
    """
    from mi_workshop.saliency import answer_keys, attribute, problem
    from mi_workshop.saliency.scores import against_keys

    rows: dict[str, list[dict[str, float]]] = {}
    rng = np.random.default_rng(0)
    for given, target in inputs:
        p, key = problem(model, given, target), answer_keys(model, given, target)
        fitting = {k: v for k, v in VARIANTS.items() if not (p.one_query and k in ACROSS)}
        maps = [(name, attribute(p, None, method=method, **options)) for name, (method, options) in fitting.items()]
        maps += [("chance", replace(maps[0][1], scores=rng.random(maps[0][1].scores.shape))) for _ in range(10)]
        for name, a in maps:
            rows.setdefault(name, []).append(against_keys(a, key))
    return pd.DataFrame({name: pd.DataFrame(each).mean() for name, each in rows.items()}).T.rename_axis("attention")


def brush(model: PassageModel, passage: Passage | str) -> AttentionBrush:
    """Change a passage's attention weights by hand and see what the prediction does: the view of ``widgets.attention_brush``.

    Raises WorldError for a text that the model's world does not know.
    """
    from mi_workshop.widgets.attention_brush import AttentionBrush

    return AttentionBrush(model, model.world.parse(passage) if isinstance(passage, str) else passage)


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
    table["silent"] = silent_heads(net).flatten()
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
