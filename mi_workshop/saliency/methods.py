"""The methods behind ``saliency.attribute``, each a function of a ``Problem`` and its own options. Captum computes them, shap the Kernel SHAP."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from captum.attr import (
    GradientShap,
    GuidedBackprop,
    InputXGradient,
    IntegratedGradients,
    LayerAttribution,
    LayerGradCam,
    NoiseTunnel,
    Occlusion,
    Saliency,
)
from jaxtyping import Float
from torch import Tensor, nn

from mi_workshop.show import either
from mi_workshop.worlds.scenes import SIDE

from .inputs import Problem, SaliencyError
from .weights import gradient_weighted, norm_weighted, raw, rollout

ADDING = (
    "integrated_gradients",
    "gradient_shap",
    "kernel_shap",
)  # their scores add up to output minus output at the baseline
ATTENTION = ("attention", "attention_norm", "attention_gradient", "rollout", "relevance")  # made of attention weights
UNSIGNED = (
    "gradient",
    "smoothgrad",
    "guided_backprop",
    "grad_cam",
    *ATTENTION,
)  # they say how much, not in which direction
DRAWING = ("smoothgrad", "gradient_shap", "kernel_shap")  # they draw at random
PATCH = 8  # 64ths of a picture's side: the patches that Kernel SHAP switches on and off, and that a waterfall sums over
TOGETHER = 64  # changed inputs that the model is given at a time


def _length(share: int, side: int) -> int:
    """Pixels of so many 64ths of a picture's side: of a Scene so many pixels."""
    return max(1, round(share * side / SIDE))


def _at_once(p: Problem) -> int:
    """Copies of an input that gradients are taken of together: fewer of larger pictures, by their pixels."""
    return max(1, TOGETHER * SIDE**2 // p.x[0, 0].numel()) if p.picture else TOGETHER


def _mean(p: Problem, samples: int, drawn: Callable[[int], Tensor]) -> Tensor:
    """Mean over ``samples``, of which ``drawn`` gives the mean of so many."""
    most = _at_once(p)
    parts = [most] * (samples // most) + [samples % most] * bool(samples % most)
    return sum(n * drawn(n) for n in parts) / samples  # type: ignore[return-value]


def _signed(p: Problem, each: Tensor) -> Tensor:
    """One score per pixel or token: the sum over its colours or its embedding's coordinates."""
    return each[0].sum(0 if p.picture else -1)


def _magnitude(p: Problem, each: Tensor) -> Tensor:
    """The largest absolute value over the colours (Simonyan et al. 2013), or the length over the embedding's coordinates."""
    return each[0].abs().amax(0) if p.picture else each[0].norm(dim=-1)


def _gradient(p: Problem) -> Tensor:
    """The gradient's magnitude (Simonyan et al. 2013)."""
    return _magnitude(p, Saliency(p.forward).attribute(p.x, abs=False))


def _gradient_x_input(p: Problem) -> Tensor:
    """Gradient times input (Shrikumar et al. 2016)."""
    return _signed(p, InputXGradient(p.forward).attribute(p.x))


def _smoothgrad(p: Problem, samples: int = 32, noise: float = 0.15) -> Tensor:
    """Magnitude of the mean gradient over ``samples`` noisy copies (Smilkov et al. 2017); ``noise``: their standard deviation, as a
    share of the input's range."""
    if not noise >= 0:
        raise SaliencyError(f"noise must be 0 or more, not {noise!r}.")
    spread = noise * float(p.x.max() - p.x.min())
    tunnel = NoiseTunnel(Saliency(p.forward))
    return _magnitude(p, _mean(p, samples, lambda n: tunnel.attribute(p.x, nt_type="smoothgrad", nt_samples=n, stdevs=spread, abs=False)))  # fmt: skip


def _integrated_gradients(p: Problem, steps: int = 64) -> Tensor:
    """Mean gradient on the straight line from the baseline, ``steps`` points (Gauss-Legendre), times the way (Sundararajan et al. 2017)."""
    found = IntegratedGradients(p.forward).attribute(p.x, p.baseline, n_steps=steps, internal_batch_size=_at_once(p))
    return _signed(p, found)


def _gradient_shap(p: Problem, samples: int = 64, noise: float = 0.0) -> Tensor:
    """Expected gradients (Erion et al. 2021): gradient at random points between random baselines and the input, times the way.
    ``noise``: standard deviation added to the input."""
    if not noise >= 0:
        raise SaliencyError(f"noise must be 0 or more, not {noise!r}.")
    shap = GradientShap(p.forward)
    return _signed(p, _mean(p, samples, lambda n: shap.attribute(p.x, p.baseline, n_samples=n, stdevs=noise)))


def _guided_backprop(p: Problem) -> Tensor:
    """The gradient's magnitude, where each ReLU lets only positive gradients back (Springenberg et al. 2014)."""
    if not any(isinstance(m, nn.ReLU) for m in p.forward.modules()):
        raise SaliencyError(
            f"guided_backprop changes how ReLU layers pass gradients back, and {p.model} has none here: choose {_fitting(p)}."
        )
    return _magnitude(p, GuidedBackprop(p.forward).attribute(p.x))


def _grad_cam(p: Problem, layer: str | None = None) -> Tensor:
    """Feature maps of ``layer`` (a convolution's or ReLU's name; by default the last), weighted by their mean gradients, where positive
    (Selvaraju et al. 2017). Without convolutions (one that cuts the picture into patches is none): ``attention_gradient`` of the last layer."""
    maps = {n: m for n, m in p.forward.parts.named_modules() if isinstance(m, nn.Conv2d | nn.ReLU)}
    last = max((i for i, m in enumerate(maps.values()) if _overlapping(m)), default=-1)
    if layer is not None and layer not in maps:
        have = f"it has {', '.join(maps)}" if maps else "it has no convolutions"
        raise SaliencyError(f"There is no layer {layer!r} of feature maps in {p.model}; {have}.")
    if (layer is None and last < 0) or not p.picture:
        if p.patterns and not p.one_query:
            return _attention_gradient(p)
        raise SaliencyError(
            f"grad_cam needs a convolution or self-attention layer, and {p.model} has none here: choose {_fitting(p)}."
        )
    after = list(maps.values())[last : last + 2]
    chosen = maps[layer] if layer else after[-1] if isinstance(after[-1], nn.ReLU) else after[0]
    found = LayerGradCam(p.forward, chosen).attribute(p.x, relu_attributions=True)
    return LayerAttribution.interpolate(found, tuple(p.x.shape[-2:]), "bilinear")[0, 0]


def _overlapping(m: nn.Module) -> bool:
    """A convolution whose places share pixels (or see one each): not the embedding of separate patches."""
    return isinstance(m, nn.Conv2d) and (m.kernel_size != m.stride or m.kernel_size == (1, 1))


def _relevance(p: Problem) -> Tensor:
    """Relevance propagated through all attention layers (Chefer et al. 2021, self-attention): from the identity on, R += Ā R, Ā being
    the mean over heads of pattern times gradient, where positive. The identity itself is taken off at the end."""
    _attends(p, "relevance", between=True)
    weighted = [each.mean(0) for each in gradient_weighted(p)]
    whole = torch.eye(len(weighted[0])).to(weighted[0])
    for each in weighted:
        whole = whole + each @ whole
    return _on_input(p, whole - torch.eye(len(whole)).to(whole))


def _attends(p: Problem, method: str, between: bool = False) -> None:
    """Raises SaliencyError for a model without attention layers; ``between``: in which tokens attend to each other."""
    if not p.patterns or (between and p.one_query):
        kind = "self-attention" if between else "attention"
        raise SaliencyError(f"{method} needs {kind} layers, and {p.model} has none: choose {_fitting(p)}.")


def _chosen(p: Problem, layers: str, weights: Callable[[Problem], list[Float[Tensor, "head query key"]]]) -> Tensor:
    if layers not in ("last", "all"):
        raise SaliencyError(f"There are no layers {layers!r}: choose 'last' or 'all'.")
    found = torch.stack([each.mean(0) for each in weights(p)])
    return _on_input(p, found[-1] if layers == "last" else found.mean(0))


def _attention(p: Problem, layers: str = "last") -> Tensor:
    """Attention weights as they are, mean over heads, of the ``"last"`` layer or as the mean over ``"all"``."""
    _attends(p, "attention")
    return _chosen(p, layers, raw)


def _attention_norm(p: Problem, layers: str = "last") -> Tensor:
    """Attention times the length of what it passes on (Kobayashi et al. 2020), mean over heads; ``layers`` as for ``attention``."""
    _attends(p, "attention_norm")
    return _chosen(p, layers, norm_weighted)


def _attention_gradient(p: Problem, layers: str = "last") -> Tensor:
    """Attention times its gradient, where positive, mean over heads; ``layers`` as for ``attention``."""
    _attends(p, "attention_gradient")
    return _chosen(p, layers, gradient_weighted)


def _rollout(p: Problem) -> Tensor:
    """Attention rolled out through all layers, each mixed with the identity (Abnar and Zuidema 2020)."""
    _attends(p, "rollout", between=True)
    return _on_input(p, rollout(p)[-1][0])


def _on_input(p: Problem, weights: Float[Tensor, "query key"]) -> Tensor:
    """What the queries that are read give to each token, or to each pixel (interpolated between patches)."""
    row = weights[p.read].mean(0)[int(p.class_token) :]
    if not p.picture:
        return row
    side = int(len(row) ** 0.5)
    grid = row.reshape(1, 1, side, side)
    return nn.functional.interpolate(grid, tuple(p.x.shape[-2:]), mode="bilinear")[0, 0]


def _occlusion(p: Problem, window: int = PATCH, stride: int = PATCH // 2) -> Tensor:
    """What is lost when the baseline covers it (Zeiler and Fergus 2014): for a pixel the mean over the windows of ``window`` × ``window``,
    ``stride`` apart, that cover it, in 64ths of the picture's side (pixels of a Scene); for text one token at a time."""
    if p.picture and not stride <= window <= SIDE:
        raise SaliencyError(
            f"The window must be at least the stride and at most the picture, not {window} with stride {stride}."
        )
    side, step = (_length(n, p.x.shape[-1]) for n in (window, stride))
    shape = (p.x.shape[1], side, side) if p.picture else (1, p.x.shape[-1])
    strides = (1, step, step) if p.picture else (1, 1)
    with torch.no_grad():
        found = Occlusion(p.forward).attribute(p.x, shape, strides, p.baseline, perturbations_per_eval=TOGETHER)
    return found[0].mean(0 if p.picture else -1)


def kernel_explainer() -> Any:
    """shap's class, imported on first use: it takes seconds. Raises SaliencyError where shap is not installed."""
    try:
        from shap import KernelExplainer
    except ImportError:
        raise SaliencyError("kernel_shap needs the package shap: pip install shap.") from None
    return KernelExplainer


def _kernel_shap(p: Problem, samples: int = 1024, segments: Any = None) -> tuple[Tensor, dict[str, np.ndarray]]:
    """Shapley values of parts switched between input and baseline, estimated by weighted regression from ``samples`` of them (Lundberg
    and Lee 2017, without their selection of ten). ``segments``: {name: mask [y, x]} for a picture, by default 8 × 8 patches; a part's value is
    spread evenly over its pixels; pixels in no mask are a part of their own, "rest". For text each token is a part."""
    parts = patches(p.shown) if segments is None else _checked(p, segments)
    masks = torch.from_numpy(np.stack(list(parts.values()))).float().to(p.x.device)  # [part, y, x] or [part, token]

    @torch.no_grad()
    def output(on: Float[np.ndarray, "row part"]) -> Float[np.ndarray, " row"]:
        off = (torch.from_numpy(1 - on).float().to(masks) @ masks.flatten(1)).unflatten(1, masks.shape[1:]) > 0
        off = off[:, None] if p.picture else off[..., None]
        return torch.cat([p.forward(torch.where(o, p.baseline, p.x)) for o in off.split(TOGETHER)]).cpu().numpy()

    n = len(parts)
    explainer = kernel_explainer()(output, np.zeros((1, n)))
    values = torch.from_numpy(explainer.shap_values(np.ones((1, n)), nsamples=samples, l1_reg=0, silent=True)[0])
    share = masks.cpu() / masks.cpu().flatten(1).sum(1).view(-1, *[1] * (masks.ndim - 1))
    return torch.einsum("p,p...->...", values.float(), share), parts


def patches(shown: np.ndarray | list[str]) -> dict[str, np.ndarray]:
    """The parts of an input: its tokens, or the patches of a picture [y, x, rgb] by their pixels, as masks."""
    if not isinstance(shown, np.ndarray):
        own = np.eye(len(shown), dtype=bool)
        return {f"{word} [{i}]": own[i] for i, word in enumerate(shown)}
    out, side = {}, _length(PATCH, shown.shape[1])
    for y, x in np.ndindex(-(-shown.shape[0] // side), -(-shown.shape[1] // side)):
        mask = np.zeros(shown.shape[:2], bool)
        mask[y * side : (y + 1) * side, x * side : (x + 1) * side] = True
        out[f"x {x * side}, y {y * side}"] = mask
    return out


def _checked(p: Problem, segments: Any) -> dict[str, np.ndarray]:
    shape = tuple(p.x.shape[-2:])
    masks = {str(name): np.asarray(mask) for name, mask in segments.items()} if isinstance(segments, Mapping) else {}
    fits = p.picture and masks and all(m.shape == shape and m.dtype == bool and m.any() for m in masks.values())
    if not fits or np.sum(list(masks.values()), axis=0).max() > 1:
        raise SaliencyError(f"segments must be names with masks of a picture, {{name: mask [{shape[0]}, {shape[1]}]}}, none empty, no two overlapping.")  # fmt: skip
    rest = ~np.any(list(masks.values()), axis=0)
    return masks | {"rest": rest} if rest.any() else masks


METHODS: dict[str, Callable[..., Any]] = {
    "gradient": _gradient, "gradient_x_input": _gradient_x_input, "smoothgrad": _smoothgrad, "integrated_gradients": _integrated_gradients,
    "guided_backprop": _guided_backprop, "grad_cam": _grad_cam, "relevance": _relevance, "occlusion": _occlusion, "kernel_shap": _kernel_shap,
    "gradient_shap": _gradient_shap, "attention": _attention, "attention_norm": _attention_norm,
    "attention_gradient": _attention_gradient, "rollout": _rollout,
}  # fmt: skip
NO_BASELINE = ("gradient", "gradient_x_input", "smoothgrad", "guided_backprop", "grad_cam", *ATTENTION)


def _fitting(p: Problem) -> str:
    """The methods that fit a problem, in words."""
    relu = any(isinstance(m, nn.ReLU) for m in p.forward.modules())
    maps = p.picture and any(map(_overlapping, p.forward.modules()))
    lacks = {name: not p.patterns or (p.one_query and name in ("rollout", "relevance")) for name in ATTENTION}
    lacks |= {"guided_backprop": not relu, "grad_cam": not maps and (p.one_query or not p.patterns)}
    return either([name for name in METHODS if not lacks.get(name)])
