"""What a dictionary is trained on and judged by: a model's activations at one hook, at every token of its training text."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Float
from scipy.sparse import csc_array, csr_array, vstack
from torch import Tensor

from mi_workshop.circuits.corpus import Text, training_text
from mi_workshop.dictionary.core import DictionaryError, SparseDictionary
from mi_workshop.models import Model, network


@lru_cache(maxsize=8)
def activations(model: Model, hook: str, text: Callable[[Model], Text] = training_text) -> Float[Tensor, "token d"]:
    """Activations at ``hook`` for every token of the training text (or another ``text`` of ``circuits.corpus``), in its order, <bos> left out; remembered.

    Raises DictionaryError for a hook that the model does not have, ModelError for a model whose training text is not known.
    """
    return several(model, [hook], text)[0]


@torch.no_grad()
def several(
    model: Model, hooks: list[str], text: Callable[[Model], Text] = training_text, rows: Tensor | None = None
) -> list[Float[Tensor, "token d"]]:
    """``activations`` at several hooks, in one pass over the text; with ``rows``, ascending, only those of these tokens."""
    net = network(model)
    found: dict[str, list[Tensor]] = {hook: [] for hook in hooks}
    for hook in hooks:
        if hook not in net.hook_dict:
            near = ", ".join(h for h in net.hook_dict if h.endswith(hook.rsplit(".", 1)[-1]))
            raise DictionaryError(
                f"{model.name} has no hook {hook!r}; {f'there are {near}' if near else 'see model.replacement.hook_dict'}."
            )

    def read(x: Tensor, hook: Any) -> None:
        found[hook.name].append(x[:, 1:].flatten(0, 1).flatten(1)[kept].float().cpu())

    last = max(int(hook.split(".")[1]) for hook in hooks)
    begin = 0
    kept: slice | Tensor = slice(None)
    for tokens in text(model).batches():
        end = begin + tokens[:, 1:].numel()
        if rows is not None:
            kept = rows[(rows >= begin) & (rows < end)] - begin
        begin = end
        net.run_with_hooks(tokens.to(model.device), fwd_hooks=[(hook, read) for hook in hooks], stop_at_layer=last + 1)
    return [torch.cat(found[hook]) for hook in hooks]


@torch.no_grad()
def encoded(encode: Callable[[Tensor], Tensor], x: Float[Tensor, "token d"]) -> csc_array:
    """What ``encode`` makes of ``x`` [token, unit], some tokens at a time: dense, it would be large."""
    return vstack([csr_array(encode(part).numpy()) for part in x.split(4096)], format="csc")


@lru_cache(maxsize=16)
def firings(model: Model, dictionary: SparseDictionary) -> csc_array:
    """Activation of each feature at every token of the training text [token, feature], remembered. Raises DictionaryError for another model's."""
    if dictionary.model != model.name:
        raise DictionaryError(
            f"This dictionary was trained on {dictionary.model or 'an unnamed model'}, and the model is {model.name}: load that one."
        )
    return encoded(dictionary.encode, activations(model, dictionary.reads))
