"""Saliency: how much each pixel or token matters for one number that a model computes. ``attribute(model, input, target)``.

Thin over Captum and, for Kernel SHAP, over shap; the relevance propagation is ours. Saliency is correlational: a map shows what the
method's formula says about this one input, not what the model did. ``scores`` compares it with the answer keys.
"""

from __future__ import annotations

import inspect
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from mi_workshop.show import Shown, either

from .inputs import Problem, SaliencyError, problem
from .methods import ADDING, DRAWING, METHODS, NO_BASELINE, kernel_explainer, patches

__all__ = ["METHODS", "Attribution", "SaliencyError", "attribute"]


@dataclass(eq=False)
class Attribution(Shown):
    """How much each pixel [y, x] or token [token] matters, as ``scores``; it shows itself.

    ``input``: the picture as bytes [y, x, rgb], or the tokens. ``target``: the number explained. ``seconds``: what the method took.
    For methods of ``ADDING``: ``output`` and ``base``, the number for the input and for the baseline (mean over several), and ``gap``, the
    completeness gap: what the scores add up to, minus what they should (output - base). ``parts``: {name: mask} for the waterfall.
    """

    scores: Float[np.ndarray, ...] = field(repr=False)
    input: np.ndarray | list[str] = field(repr=False)
    target: str
    method: str
    baseline: str
    seconds: float
    model: str = ""
    output: float | None = None
    base: float | None = None
    parts: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False)

    problem = SaliencyError

    @property
    def gap(self) -> float | None:
        if self.output is None or self.base is None:
            return None
        return float(self.scores.sum(dtype=float)) - (self.output - self.base)

    @property
    def picture(self) -> bool:
        return isinstance(self.input, np.ndarray)

    @cached_property
    def by_part(self) -> dict[str, float]:
        """Sum of the scores over each part: a token, an object, or one of 8 × 8 patches."""
        return {name: float(self.scores[mask].sum()) for name, mask in (self.parts or patches(self.input)).items()}

    def words(self) -> str:
        top = sorted(self.by_part.items(), key=lambda item: -abs(item[1]))[:4]
        said = ", ".join(f"{name} {value:+.3g}" for name, value in top)
        gap = "" if self.gap is None else f" Completeness gap {self.gap:+.2g}."
        against = f" against the baseline {self.baseline!r}" if self.baseline else ""
        return f"{self.method} for the {self.target} in {self.model}{against}. Most: {said}.{gap} {self.seconds:.2f} s."

    def figure(self) -> Any:
        from .plots import draw_attribution

        return draw_attribution(self)

    def waterfall(self, top: int = 9) -> Waterfall:
        """From the number at the baseline to the number for the input, one step for each of the ``top`` strongest parts.

        Raises SaliencyError for a method whose scores do not add up."""
        if self.output is None:
            raise SaliencyError(f"The scores of {self.method} add up to nothing: a waterfall needs {either(ADDING)}.")
        return Waterfall(self, top)


@dataclass(frozen=True, eq=False)
class Waterfall(Shown):
    """How the steps of an ``attribution`` add up, the ``top`` strongest one by one."""

    attribution: Attribution
    top: int

    def words(self) -> str:
        a = self.attribution
        return f"From {a.base:.3g} at the baseline to {a.output:.3g} for the input. {a.words()}"

    def figure(self) -> Any:
        from .plots import draw_waterfall

        return draw_waterfall(self.attribution, self.top)


def attribute(
    model: Any, input: Any, target: Any = None, method: str = "integrated_gradients", baseline: Any = None, seed: int = 0, **options: Any
) -> Attribution:  # fmt: skip
    """How much each part of ``input`` matters for ``target``.

    ==================== ============================== ========================================================== =================
    ``model``            ``input``                      ``target`` (by default the likeliest)                      ``scores``
    ==================== ============================== ========================================================== =================
    an ImageModel        a Scene or bytes [y, x, 3]     a class: its logit                                         [y, x]
    an ImageTextModel    a picture                      a query (must be given): their cosine similarity           [y, x]
    an ImageTextModel    a query                        a picture (must be given): their cosine similarity         [word]
    a PassageModel       a Passage or its text          a class: its logit                                         [word]
    a language model     a prompt                       the next token: its logit, or two: the first's minus the   [token]
                                                        second's
    ==================== ============================== ========================================================== =================

    ``method`` is one of ``METHODS``, ``options`` are its own (``METHODS[name].__doc__``). Unsigned methods (``UNSIGNED``) give
    magnitudes, the others are signed: what raised the number is positive. ``baseline`` stands for "nothing here": for pictures "grey" (the default),
    "black", "white", "blur" or a picture; for text, as embeddings, "mean" (over the vocabulary, the default), "zero", a word, or a
    tensor [width] or [token, width]. ``gradient_shap`` takes several, the others one. ``seed`` decides all chance; torch's and numpy's own
    generators, the model's weights, gradients and hooks are left as they were.

    Raises SaliencyError, one sentence, for a target, method, baseline or option that is not there or does not fit.
    """
    if method not in METHODS:
        raise SaliencyError(f"There is no method {method!r}; choose {either(METHODS)}.")
    run = METHODS[method]
    known = dict(list(inspect.signature(run).parameters.items())[1:]) if options else {}
    if unknown := [name for name in options if name not in known]:
        raise SaliencyError(f"{method} has no option {unknown[0]!r}; it has {', '.join(known) or 'none'}.")
    for name, value in options.items():
        if isinstance(known[name].default, int) and (not isinstance(value, int) or value < 1):
            raise SaliencyError(f"{name} must be a whole number from 1 on, not {value!r}.")
    p = model if isinstance(model, Problem) else problem(model, input, target, baseline)
    if len(p.baseline) > 1 and method != "gradient_shap":
        raise SaliencyError(f"{method} takes one baseline, not {len(p.baseline)}; gradient_shap takes several.")
    if method == "kernel_shap":
        kernel_explainer()  # the import is not the method's time
    start = time.perf_counter()
    with _seeded(seed) if method in DRAWING else nullcontext(), warnings.catch_warnings(), torch.enable_grad():
        warnings.filterwarnings("ignore", category=UserWarning, module="captum")
        found = run(p, **options)
    scores, parts = found if isinstance(found, tuple) else (found, {})
    out = Attribution(
        scores.detach().float().cpu().numpy(), p.shown, p.target, method, p.said_baseline if method not in NO_BASELINE else "",
        time.perf_counter() - start, p.model, parts=parts,
    )  # fmt: skip
    if method in ADDING:
        with torch.no_grad():
            out.output, out.base = float(p.forward(p.x)), float(p.forward(p.baseline).mean())
    return out


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Captum draws with torch, shap with numpy: both begin with ``seed`` and go on afterwards as if nothing had been drawn."""
    before = np.random.get_state()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        np.random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(before)
