"""Where in a model: sites, positions, and how their activations are read and written.

A site is the output of one named module (a hook of TransformerLens, or any submodule of a PyTorch model). What is there is
always looked at as ``[row, position, unit, width]``: the residual stream is one unit as wide as the model, heads are units as
wide as ``d_head``, neurons and features are units of width 1. ``basis`` replaces the coordinates: rows of a matrix (directions, a
subspace), or a sparse dictionary with ``encode`` and ``W_dec``.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from mi_workshop.models import Model, ModelError, network

HOOKS = {
    "embed": "hook_embed",
    "resid_pre": "blocks.{}.hook_resid_pre",
    "resid_mid": "blocks.{}.hook_resid_mid",
    "resid_post": "blocks.{}.hook_resid_post",
    "attn_out": "blocks.{}.hook_attn_out",
    "mlp_out": "blocks.{}.hook_mlp_out",
    "q": "blocks.{}.attn.hook_q",
    "k": "blocks.{}.attn.hook_k",
    "v": "blocks.{}.attn.hook_v",
    "z": "blocks.{}.attn.hook_z",
    "pattern": "blocks.{}.attn.hook_pattern",
    "neuron": "blocks.{}.mlp.hook_post",
    "feature": "blocks.{}.mlp.hook_in",
}
HEADS = ("q", "k", "v", "z", "pattern")
Position = int | str | Sequence[int | str] | None


class InterventionError(ValueError):
    """An experiment that cannot be run; the message says what is wrong and what to do."""


@dataclass(frozen=True, eq=False)
class Site:
    """A place in the model.

    ``kind``: one of ``HOOKS``, or the path of any submodule (then without ``layer``). ``position``: a number (from 0, negative from
    the end), ``"last"``, a token, ``"{city}"`` (the slot of the world's sentence), several of them, or None for every position.
    ``units``: heads, neurons, features, or coordinates of the residual stream; None for all of them (for the residual stream:
    the vector as one). ``basis`` [k, d_model]: only along these orthonormal rows; or a dictionary with ``encode`` and ``W_dec``.
    """

    kind: str
    layer: int | None = None
    position: Position = None
    units: int | Sequence[int] | None = None
    basis: Any = None

    def __str__(self) -> str:
        parts = [self.kind if self.layer is None else f"{self.kind} of layer {self.layer}"]
        if self.units is not None:
            name = {"neuron": "neuron", "feature": "feature"}.get(
                self.kind, "head" if self.kind in HEADS else "feature" if self.sparse else "coordinate"
            )
            units = self.unit_list(0)
            parts.append(f"{name} {units[0]}" if len(units) == 1 else f"{len(units)} {name}s")
        if isinstance(self.basis, Tensor):
            parts.append("one direction" if len(self.basis) == 1 else f"a subspace of {len(self.basis)} directions")
        where = "every position" if self.position is None else f"position {self.position}"
        return ", ".join([*parts, f"at {where}" if isinstance(self.position, int | None) else f"at {self.position!r}"])

    @property
    def sparse(self) -> bool:
        """Are its units features of a dictionary?"""
        return self.basis is not None and not isinstance(self.basis, Tensor)

    def unit_list(self, n: int) -> list[int]:
        if self.units is None:
            return list(range(n))
        return [self.units] if isinstance(self.units, int) else [int(u) for u in self.units]

    def view(self, x: Tensor) -> Float[Tensor, "row position unit width"]:
        """What a module put out, as units; a view of it wherever there is no basis."""
        if self.kind == "pattern":
            return x.transpose(1, 2)  # [row, query, head, key]
        if x.ndim == 4:
            return x
        x = x[:, None] if x.ndim == 2 else x  # a module without positions has one
        if self.basis is None:
            return x[..., None] if self.kind == "neuron" or self.units is not None else x[:, :, None]
        if self.sparse:
            return self.basis.encode(x)[..., None]
        return (x @ self.basis.to(x).T)[:, :, None]


def layers_of(model: Any) -> int:
    return int(network(model).cfg.n_layers)


def path_of(model: Any, site: Site) -> str:
    """The submodule whose output the site is. Raises InterventionError for an unknown kind, module or layer."""
    module = network(model)
    if isinstance(model, Model) and model.backend != "transformerlens":
        raise InterventionError(
            f"{model.name} runs on {model.backend}: load it with backend='transformerlens' to experiment inside."
        )
    path = HOOKS.get(site.kind, site.kind)
    if "{}" in path and site.layer is None:
        raise InterventionError(f"Say in which layer: Site({site.kind!r}, layer=...).")
    path = path.format(site.layer)
    if site.kind == "feature":  # where the transcoders read
        if not hasattr(module, "feature_input_hook"):
            raise InterventionError("This model has no transcoders, so it has no sites of kind 'feature'.")
        path = f"blocks.{site.layer}.{module.feature_input_hook}"
    for name in (path, path.replace(".mlp.", ".mlp.old_mlp.")):  # circuit-tracer wraps the MLP
        try:
            module.get_submodule(name)
            return name or _unknown(module, site)
        except AttributeError:
            continue
    return _unknown(module, site)


def _unknown(module: Any, site: Site) -> str:
    layers = getattr(getattr(module, "cfg", None), "n_layers", None)
    if site.kind in HOOKS and layers is not None and site.layer is not None and not 0 <= site.layer < layers:
        raise InterventionError(f"There is no layer {site.layer}: the model has layers 0 to {layers - 1}.")
    names = [name for name, _ in module.named_modules() if name]
    if site.kind in HOOKS:
        raise InterventionError(
            f"This model has no {site.kind!r}; name one of its submodules instead, such as {names[-1]!r}."
        )
    close = difflib.get_close_matches(site.kind, [*HOOKS, *names], n=2) or list(HOOKS)[1:4]
    raise InterventionError(f"There is no site {site.kind!r}; did you mean {' or '.join(close)}?")


def tokens_of(model: Any, prompt: Any) -> Int[Tensor, " position"]:
    """Token ids of a prompt; ids are taken as they are, and so are the inputs of a model without tokens."""
    if isinstance(prompt, Tensor):
        return prompt
    if isinstance(model, Model):
        return model.tokens(prompt)
    if hasattr(model, "to_tokens"):
        return model.to_tokens(prompt)[0]
    raise InterventionError(
        "This model has no tokenizer of ours: give its input as a tensor, without the batch dimension."
    )


def words_of(model: Any, tokens: Tensor) -> list[str]:
    """The tokens as text."""
    if isinstance(model, Model):
        return model.words(tokens.tolist())
    tokenizer = getattr(model, "tokenizer", None)
    ids = tokens.tolist()
    return [str(i) for i in ids] if tokenizer is None else tokenizer.convert_ids_to_tokens(ids)


def token_id(model: Any, word: str | int) -> int:
    """The id of a word that is one token. Raises InterventionError for any other."""
    if isinstance(word, int):
        return word
    if isinstance(model, Model) and model.world is None:
        try:
            return model.token_id(word)
        except ModelError as error:
            raise InterventionError(str(error)) from None
    tokenizer = getattr(model, "tokenizer", None)
    if tokenizer is None:
        raise InterventionError("This model has no tokenizer: give the answer as a number.")
    ids = tokenizer(word, add_special_tokens=False).input_ids
    if len(ids) != 1:
        raise InterventionError(
            f"An answer must be one token, and {word!r} is {len(ids)}: choose another, or its first token."
        )
    if ids[0] == tokenizer.unk_token_id:
        raise InterventionError(f"The model does not know the token {word!r}, so it cannot be an answer.")
    return int(ids[0])


def positions(model: Any, position: Position, prompt: Any) -> list[int]:
    """The positions that are meant in a prompt, ascending. Raises InterventionError for one that is not there."""
    tokens = tokens_of(model, prompt)
    n = len(tokens) if not tokens.is_floating_point() else 1
    if position is None:
        return list(range(n))
    found: set[int] = set()
    for one in [position] if isinstance(position, int | str) else position:
        if isinstance(one, int):
            if not -n <= one < n:
                raise InterventionError(f"Position {one} is outside the prompt, which has {n} tokens (0 to {n - 1}).")
            found.add(one % n)
        elif one == "last":
            found.add(n - 1)
        else:
            word = _slot(model, one, prompt)
            words = words_of(model, tokens)
            if not (here := {i for i, w in enumerate(words) if w.strip("Ġ▁ ") == word}):
                raise InterventionError(f"The prompt has no token {word!r}; its tokens are {', '.join(words)}.")
            found |= here
    return sorted(found)


def _slot(model: Any, name: str, prompt: Any) -> str:
    """``{city}`` → the city that the prompt names."""
    if not (name.startswith("{") and name.endswith("}")):
        return name
    world = getattr(model, "world", None)
    slots = world.parse(prompt).slots if world is not None and isinstance(prompt, str) else {}
    if name[1:-1] not in slots:
        has = f"it has {', '.join(slots)}" if slots else "slots need a world's sentence"
        raise InterventionError(f"The prompt has no slot {name}: {has}.")
    return str(slots[name[1:-1]])


def align(model: Any, prompt: Any, donor: Any) -> dict[int, int]:
    """Which position of ``donor`` belongs to each of ``prompt``: equal tokens, and stretches of equal length between them."""
    a, b = (words_of(model, tokens_of(model, p)) for p in (prompt, donor))
    pairs: dict[int, int] = {}
    for _, i, j, k, m in difflib.SequenceMatcher(a=a, b=b, autojunk=False).get_opcodes():
        if j - i == m - k:
            pairs |= dict(zip(range(i, j), range(k, m), strict=True))
    return pairs


def matched(model: Any, position: Position, prompt: Any, donor: Any, aligned: bool) -> tuple[list[int], list[int]]:
    """The positions meant in ``prompt``, and those of ``donor`` from which their values come.

    Raises InterventionError where the two do not correspond, saying where the prompts part.
    """
    here, there = positions(model, position, prompt), None
    a, b = tokens_of(model, prompt), tokens_of(model, donor)
    if aligned:
        pairs = align(model, prompt, donor)
        here = [p for p in here if p in pairs]
        return here, [pairs[p] for p in here]
    numbers = position is None or isinstance(position, int) or not isinstance(position, str) and any(
        isinstance(p, int) for p in position
    )  # fmt: skip
    try:
        there = positions(model, position, donor) if a.shape == b.shape or not numbers else None
    except InterventionError:
        if a.shape != b.shape:
            raise
        there = here  # a token that only the prompt has: the same place in the donor
    if there is None or len(there) != len(here):
        x, y = words_of(model, a), words_of(model, b)
        part = next((i for i, (s, t) in enumerate(zip(x, y, strict=False)) if s != t), min(len(x), len(y)))
        raise InterventionError(
            f"The prompts have {len(x)} and {len(y)} tokens and part at token {part} ({' / '.join(w[part] for w in (x, y) if part < len(w))}): "
            "name the positions ('last', a token, '{city}') instead of numbers, or say align=True."
        )
    return here, there
