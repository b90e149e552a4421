"""Run a model with changes inside, many variants in one batch; every hook comes off again, whatever happens.

One mechanism for all PyTorch models: a forward hook on the submodule whose output is to be read or changed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from tqdm.auto import tqdm

from mi_workshop.models import network

from .sites import InterventionError, Site, layers_of, path_of

MEMORY = 2**28  # bytes that the activations of one batch may take on a CPU; on a GPU a quarter of what is free


@dataclass
class Edit:
    """Set units of one site: ``values`` [n, width] at (``row``, ``position``, ``unit``), each [n]."""

    site: Site
    row: Tensor
    position: Tensor
    unit: Tensor
    values: Tensor

    def rows(self, start: int, stop: int) -> Edit:
        keep = (self.row >= start) & (self.row < stop)
        return replace(
            self,
            row=self.row[keep] - start,
            position=self.position[keep],
            unit=self.unit[keep],
            values=self.values[keep],
        )


@contextmanager
def hooked(model: Any, hooks: Iterable[tuple[str, Callable[[Tensor], Tensor | None]]]) -> Iterator[nn.Module]:
    """While it is open, each function sees the output of its submodule, and may return another in its place.

    Only these hooks are removed at the end, also after an error or an interrupt: experiments can be nested.
    """
    module, handles = network(model), []
    try:
        for path, function in hooks:
            handles.append(module.get_submodule(path).register_forward_hook(_forward_hook(function)))
        yield module
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def true_gradients(model: Any) -> Iterator[None]:
    """While it is open, gradients are those of the model: circuit-tracer's replacement model stops them at attention patterns, norms and
    MLPs, by permanent hooks of TransformerLens, which are off meanwhile. What the model computes is the same with and without them."""
    points = [m for m in network(model).modules() if any(h.is_permanent for h in getattr(m, "fwd_hooks", ()))]
    before = [point._forward_hooks for point in points]
    try:
        for point in points:
            permanent = {h.hook.id for h in point.fwd_hooks if h.is_permanent}
            kept = {i: hook for i, hook in point._forward_hooks.items() if i not in permanent}
            point._forward_hooks = OrderedDict(kept)
        yield
    finally:
        for point, hooks in zip(points, before, strict=True):
            point._forward_hooks = hooks


@contextmanager
def differentiable(model: Any, hooks: Iterable[tuple[str, Callable[[Tensor], Tensor | None]]]) -> Iterator[nn.Module]:
    """``hooked``, with gradients, and those of the model (``true_gradients``)."""
    with true_gradients(model), hooked(model, hooks) as module, torch.enable_grad():
        yield module


def _forward_hook(function: Callable[[Tensor], Tensor | None]) -> Callable[[nn.Module, Any, Any], Any]:
    def hook(module: nn.Module, args: Any, output: Any) -> Any:
        if isinstance(output, Tensor):
            return function(output)
        if isinstance(output, tuple):
            new = function(output[0])
            return None if new is None else (new, *output[1:])
        key = next(k for k, v in output.items() if isinstance(v, Tensor))
        if (new := function(output[key])) is not None:
            output[key] = new
        return output

    return hook


def _writer(edit: Edit) -> Callable[[Tensor], Tensor]:
    """The hook that makes the change where the site has no transcoder between reading and writing."""
    site, row, position, unit = edit.site, edit.row, edit.position, edit.unit

    def write(x: Tensor) -> Tensor:
        values = edit.values.to(x)
        if site.basis is None:
            x = x.clone()
            view = site.view(x)
            view[row, position, unit] = values
            return x
        flat = x[:, None] if x.ndim == 2 else x
        here = flat[row, position]  # [n, d_model]
        if site.sparse:
            now, back = site.basis.encode(here).gather(-1, unit[:, None].to(x.device)), site.basis.W_dec[unit].to(x)
            change = (values - now) * back
        else:
            basis = site.basis.to(x)
            change = (values - here @ basis.T) @ basis
        return flat.index_put((row.to(x.device), position.to(x.device)), change, accumulate=True).reshape(x.shape)

    return write


def _feature_hooks(model: Any, edit: Edit) -> list[tuple[str, Any]]:
    """A transcoder feature is read before the MLP and written after it (and, cross-layer, after later ones)."""
    from mi_workshop.circuits.intervene import decoders

    m, layer = network(model), edit.site.layer
    assert layer is not None
    change: dict[int, Tensor] = {}

    def read(x: Tensor) -> None:
        row, position, unit = (i.to(x.device) for i in (edit.row, edit.position, edit.unit))
        now = encode(model, layer, x[row, position]).gather(-1, unit[:, None])
        delta = edit.values.to(now) - now  # [n, 1]
        vectors = decoders(model, layer, unit)  # [n, target, d_model]
        for i in range(vectors.shape[1]):
            total = torch.zeros_like(x)
            change[layer + i] = total.index_put((row, position), (delta * vectors[:, i]).to(x), accumulate=True)

    out: list[tuple[str, Any]] = [(f"blocks.{layer}.{m.feature_input_hook}", read)]
    for target in range(layer, layers_of(model)):

        def add(y: Tensor, target: int = target) -> Tensor | None:
            return y + change[target] if target in change else None

        out.append((f"blocks.{target}.{m.original_feature_output_hook}", add))
    return out


def encode(model: Any, layer: int, x: Float[Tensor, "*any d_model"]) -> Float[Tensor, "*any feature"]:
    """Transcoder features of MLP inputs."""
    m = network(model)
    if not hasattr(m, "transcoders"):
        raise InterventionError("This model has no transcoders, so it has no sites of kind 'feature'.")
    return m.transcoders.encode_layer(x.unsqueeze(0) if x.ndim == 2 else x, layer).reshape(*x.shape[:-1], -1)


def hooks_of(model: Any, edits: Iterable[Edit]) -> list[tuple[str, Any]]:
    out: list[tuple[str, Any]] = []
    for edit in edits:
        if not len(edit.row):
            continue
        if not torch.isfinite(edit.values).all():
            raise InterventionError(f"The values for {edit.site} hold NaN or infinity: nothing was run.")
        out += (
            _feature_hooks(model, edit) if edit.site.kind == "feature" else [(path_of(model, edit.site), _writer(edit))]
        )
    return out


def _reader(model: Any, site: Site, kept: list[Tensor]) -> tuple[str, Any]:
    def read(x: Tensor) -> None:
        found = encode(model, site.layer or 0, x)[..., None] if site.kind == "feature" else site.view(x)
        kept.append(found.detach().float().cpu().clone())

    return path_of(model, site), read


@torch.no_grad()
def run(
    model: Any,
    tokens: Int[Tensor, "row position"],
    edits: Iterable[Edit] = (),
    read: Iterable[Site] = (),
    frozen: dict[int, Tensor] | None = None,
    memory: int | None = None,
    progress: str | None = None,
) -> tuple[Float[Tensor, "row d_vocab"], list[Float[Tensor, "row position unit width"]]]:
    """Outputs after the last position for each row, and what is then found at the sites ``read`` (after the edits), float32 on the CPU.

    ``frozen``: attention patterns by layer [row, head, query, key] to hold (see ``patterns``). Rows run together as far as
    ``memory`` bytes allow (by default 256 MB, on a GPU a quarter of what is free). With ``progress`` (a label) a bar is shown, and an interrupt keeps what is done: the other rows are NaN.
    """
    edits, read = list(edits), list(read)
    hooks_of(model, edits)  # complains before anything runs
    size = rows_at_once(model, tokens, memory)
    logits: list[Tensor] = []
    found: list[list[Tensor]] = [[] for _ in read]
    starts = range(0, len(tokens), size)
    done = 0
    try:
        for start in tqdm(starts, desc=progress, disable=progress is None or len(starts) == 1, leave=False):
            stop = min(start + size, len(tokens))
            hooks = hooks_of(model, [e.rows(start, stop) for e in edits])
            for layer, pattern in (frozen or {}).items():
                name = path_of(model, Site("pattern", layer))
                hooks.append((name, lambda x, p=pattern[start:stop]: p.to(x)))
            kept: list[list[Tensor]] = [[] for _ in read]
            hooks += [_reader(model, site, k) for site, k in zip(read, kept, strict=True)]
            with hooked(model, hooks) as module:
                logits.append(_last(module(tokens[start:stop])))
            for whole, part in zip(found, kept, strict=True):
                whole += part
            done = stop
    except KeyboardInterrupt:
        if progress is None or not logits:
            raise
        logits.append(torch.full((len(tokens) - done, logits[0].shape[-1]), torch.nan).to(logits[0]))
    return torch.cat(logits), [torch.cat(parts) for parts in found]


def _last(output: Any) -> Tensor:
    logits = output if isinstance(output, Tensor) else output.logits if hasattr(output, "logits") else output[0]
    return (logits[:, -1] if logits.ndim == 3 else logits).float().cpu()


def rows_at_once(model: Any, tokens: Tensor, memory: int | None = None) -> int:
    """How many rows fit into ``memory`` bytes of activations (an estimate from the model's sizes)."""
    cfg = getattr(network(model), "cfg", None)
    if cfg is None:
        return 64
    if memory is None:
        on_gpu = torch.device(cfg.device or "cpu").type == "cuda"
        memory = max(MEMORY, torch.cuda.mem_get_info(cfg.device)[0] // 4) if on_gpu else MEMORY
    width = 12 * cfg.d_model + 2 * (cfg.d_mlp or 0) + 4 * cfg.n_heads * tokens.shape[1] + 2 * cfg.d_vocab
    return max(1, memory // (4 * width * tokens.shape[1]))


def patterns(model: Any, tokens: Int[Tensor, "row position"]) -> dict[int, Float[Tensor, "row head query key"]]:
    """The attention patterns of each layer without any edit, to hold them with ``run(..., frozen=)``."""
    layers = range(layers_of(model))
    _, read = run(model, tokens, read=[Site("pattern", layer) for layer in layers])
    return {layer: p.transpose(1, 2) for layer, p in zip(layers, read, strict=True)}
