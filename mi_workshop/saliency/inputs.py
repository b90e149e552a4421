"""What can be explained: one number that a model computes from one picture or one text, as a function of pixels or embeddings.

``problem(model, input, target, baseline)`` puts every model into the form that the methods of ``saliency`` need.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from mi_workshop.counterfactual.run import hooked, true_gradients
from mi_workshop.models import Model, network
from mi_workshop.models.attention_rnn import PassageModel
from mi_workshop.models.small import ImageModel, ImageTextModel, suggest
from mi_workshop.worlds.passages import Passage
from mi_workshop.worlds.scenes import Scene

FILLED = {"grey": 0.5, "black": 0.0, "white": 1.0}  # baselines of pictures, and "blur"
BLUR = 15 / 64  # of a picture's side: what a blurred pixel is the mean of, across and down


class SaliencyError(ValueError):
    """A target, method, baseline or option that is not there or does not fit; the message names it and what does."""


class Scalar(nn.Module):
    """``run`` as a module. ``parts``: the submodules of ``root`` that the input passes, in order (by default all of them): there methods look for the
    layers that they need."""

    def __init__(self, run: Callable[[Tensor], Tensor], root: nn.Module, *names: str) -> None:
        super().__init__()
        self.run = run
        self.parts = nn.ModuleDict({n: m for n, m in root.named_children() if n in names}) if names else root

    def forward(self, x: Tensor) -> Float[Tensor, " row"]:
        return self.run(x)


@dataclass(eq=False)
class Problem:
    """``forward`` computes the number to explain for each row of what is like ``x``.

    ``x``: pixels [1, rgb, y, x] or embeddings [1, token, width]; ``baseline``: one or several such inputs that stand for "nothing here";
    ``shown``: the picture as bytes, or the tokens; ``target``: the number, in words. ``patterns``: modules that pass attention weights
    [row, head, query, key] through, first layer first; the number is read at the queries ``read``; the first key is no part of the input
    where there is a ``class_token``. ``one_query``: the answer alone attends, not each token.
    """

    forward: Scalar
    x: Tensor
    baseline: Tensor
    shown: np.ndarray | list[str]
    target: str
    model: str
    said_baseline: str
    patterns: list[nn.Module] = field(default_factory=list)
    read: list[int] = field(default_factory=list)
    class_token: bool = False
    one_query: bool = False

    @property
    def picture(self) -> bool:
        return isinstance(self.shown, np.ndarray)


def problem(model: Any, input: Any, target: Any = None, baseline: Any = None) -> Problem:
    """What ``attribute`` explains; see there. Raises SaliencyError."""
    try:
        if isinstance(model, ImageModel):
            return _classified(model, input, target, baseline)
        if isinstance(model, ImageTextModel):
            text, picture = isinstance(input, str), isinstance(target, str)
            if text == picture:
                raise SaliencyError(
                    f"{model.name} compares a picture with a query: attribute(model, picture, query) asks which pixels matter, "
                    "attribute(model, query, picture) which words."
                )
            return (_query_words if text else _query_pixels)(model, input, target, baseline)
        if isinstance(model, PassageModel):
            return _passage(model, input, target, baseline)
        if hasattr(network(model), "hook_embed"):
            return _continued(model, input, target, baseline)
    except SaliencyError:
        raise
    except ValueError as error:  # one sentence of the model or its world
        raise SaliencyError(str(error)) from None
    raise SaliencyError(
        f"attribute explains models of pictures, of passages and of TransformerLens, not {type(model).__name__}."
    )


def _class(target: Any, classes: Sequence[str], logits: Callable[[], Tensor], name: str) -> int:
    """The number of a class, given as name, number or None for the likeliest."""
    if target is None:
        return int(logits()[0].argmax())
    if isinstance(target, int) and 0 <= target < len(classes):
        return target
    if target not in classes:
        raise SaliencyError(f"There is no target {target!r} in {name}; {suggest(target, classes)}.")
    return classes.index(target)


# ------------------------------------------------------------------- pictures
def _pixels(model: Any, picture: Any, baseline: Any) -> tuple[Tensor, Tensor, np.ndarray, str]:
    """Pixels, baselines, the picture that the model sees as bytes, and the baseline in words."""
    given = picture.image if isinstance(picture, Scene) else np.asarray(picture)
    if given.ndim != 3:
        raise SaliencyError(
            f"Give one picture, an array [y, x, rgb] of bytes, not one of {list(given.shape)}: attribute explains one at a time."
        )
    x = model.pixels(given)
    shown = (255 * x[0].permute(1, 2, 0)).round().byte().cpu().numpy()
    name = "grey" if baseline is None else baseline
    if not isinstance(name, str):
        try:
            return x, model.pixels(baseline), shown, "own"
        except ValueError as error:
            raise SaliencyError(f"The baseline does not fit. {error}") from None
    if name == "blur":
        half = int(BLUR * x.shape[-1]) // 2
        blurred = nn.functional.avg_pool2d(x, 2 * half + 1, 1, half, count_include_pad=False)
        return x, blurred, shown, name
    if name not in FILLED:
        raise SaliencyError(
            f"There is no baseline {name!r}: choose {', '.join(FILLED)}, blur or give a picture (for gradient_shap also several)."
        )
    return x, torch.full_like(x, FILLED[name]), shown, name


@torch.no_grad()
def _classified(model: ImageModel, picture: Any, target: Any, baseline: Any) -> Problem:
    x, base, shown, said = _pixels(model, picture, baseline)
    k = _class(target, model.classes, lambda: model.module(x), model.name)
    forward = Scalar(lambda pixels: model.module(pixels)[:, k], model.module)
    patterns = getattr(model.module, "image_patterns", [])
    return Problem(
        forward, x, base, shown, f"logit of {model.classes[k]}", model.name, said, patterns, [0], bool(patterns)
    )


@torch.no_grad()
def _query_pixels(model: ImageTextModel, picture: Any, query: str, baseline: Any) -> Problem:
    x, base, shown, said = _pixels(model, picture, baseline)
    clip = model.module
    toward = clip.encode_text(model.tokens(query))[0]
    forward = Scalar(lambda pixels: clip.encode_image(pixels) @ toward, clip, *clip.image_parts)
    return Problem(forward, x, base, shown, f"likeness to {query!r}", model.name, said, clip.image_patterns, [0], True)


# ----------------------------------------------------------------------- text
def _embedded(module: Any, path: str, call: Callable[[int], Tensor]) -> Callable[[Tensor], Tensor]:
    """The function of embeddings [row, token, width] that ``call`` (of the number of rows) is when the first output of the submodule
    ``path`` is replaced by them."""

    def run(embeddings: Tensor) -> Tensor:
        waiting = [embeddings]
        with hooked(module, [(path, lambda own: waiting.pop() if waiting else None)]):
            return call(len(embeddings))

    return run


def _text_baseline(x: Tensor, table: Tensor, baseline: Any, id_of: Callable[[str], int]) -> tuple[Tensor, str]:
    """Baseline embeddings [n, token, width] and their name: "mean" over the vocabulary, "zero", a word's, or as given."""
    name = "mean" if baseline is None else baseline
    if isinstance(name, str):
        if name == "mean":
            one = table.float().mean(0).to(x)
        else:
            one = torch.zeros_like(x[0, 0]) if name == "zero" else table[id_of(name)].to(x)
        return one.expand_as(x).clone(), name
    given = torch.as_tensor(baseline).to(x)
    n, width = x.shape[1:]
    if given.shape not in ((width,), (n, width), (len(given), n, width)):
        raise SaliencyError(
            f"The baseline does not fit: give 'mean', 'zero', a word, or embeddings [{width}], [{n}, {width}] or [any number, {n}, {width}], "
            f"not {list(given.shape)}."
        )
    return given.expand(given.shape[0] if given.ndim == 3 else 1, n, width).clone(), "own"


@torch.no_grad()
def _query_words(model: ImageTextModel, query: str, picture: Any, baseline: Any) -> Problem:
    if picture is None:
        raise SaliencyError("Give the picture as the target: which words matter for what is compared with them?")
    clip, tokens, words = model.module, model.tokens(query), model.words(query)
    toward = clip.encode_image(_pixels(model, picture, None)[0])[0]
    x = clip.words(tokens)
    base, said = _text_baseline(x, clip.words.weight, baseline, _finder(model.vocabulary, model.name))
    framing = torch.tensor([i in model.framing for i in tokens[0].tolist()], device=x.device)
    base = torch.where(framing[:, None], x, base)
    run = _embedded(clip, "words", lambda rows: clip.encode_text(tokens.expand(rows, -1)) @ toward)
    forward, read = Scalar(run, clip, *clip.text_parts), clip.text_read(len(words))
    return Problem(forward, x, base, words, "likeness to the picture", model.name, said, clip.text_patterns, read)


def _finder(vocabulary: Sequence[str], name: str) -> Callable[[str], int]:
    def find(word: str) -> int:
        if word not in vocabulary:
            raise SaliencyError(f"There is no baseline {word!r}: choose 'mean', 'zero' or a word of {name}.")
        return vocabulary.index(word)

    return find


@torch.no_grad()
def _passage(model: PassageModel, text: str | Passage, target: Any, baseline: Any) -> Problem:
    passage = text if isinstance(text, Passage) else model.world.parse(text)
    (tokens, question), module, world = model.tokens([passage]), model.module, model.world
    weights = model.guide([passage]) if model.guide else None
    name = type(world).__name__
    k = _class(target, world.classes, lambda: model.predict([passage])[0], name)

    def logit(rows: int) -> Tensor:
        parts = (None if t is None else t.expand(rows, -1) for t in (tokens, question, weights))
        return module(*parts)[0][:, k]

    x = module.embed(tokens)
    base, said = _text_baseline(x, module.embed.weight, baseline, _finder(world.vocabulary, name))
    forward = Scalar(_embedded(module, "embed", logit), module)
    words, said_target = list(passage.words), f"logit of {world.classes[k]}"
    return Problem(forward, x, base, words, said_target, name, said, [module.mean.pattern], [0], one_query=True)


@torch.no_grad()
def _continued(model: Any, prompt: Any, target: Any, baseline: Any) -> Problem:
    from mi_workshop.lens import Vocabulary, token_ids

    if isinstance(model, Model) and model.backend != "transformerlens":
        raise SaliencyError(
            f"Gradients need the model in TransformerLens: load {model.name} without backend='nnsight'."
        )
    net, ids, vocabulary = network(model), token_ids(model, prompt), Vocabulary(model)
    tokens = ids[None].to(net.cfg.device)
    asked = (target,) if target is None or isinstance(target, str | int) else tuple(target)
    if len(asked) not in (1, 2):
        raise SaliencyError("The target is one token, or two: the logit of the first minus that of the second.")
    k = [vocabulary.id(int(net(tokens)[0, -1].argmax()) if t is None else t) for t in asked]

    def logit(rows: int) -> Tensor:
        with true_gradients(net):
            last = net(tokens.expand(rows, -1))[:, -1].float()
        return last[:, k[0]] - last[:, k[1]] if len(k) == 2 else last[:, k[0]]

    x, words = net.embed(tokens), [vocabulary.name(int(i)) for i in ids]
    base, said = _text_baseline(x, net.W_E, baseline, vocabulary.id)
    said_target = "logit of " + " minus ".join(map(vocabulary.name, k))
    patterns = [block.attn.hook_pattern for block in net.blocks]
    name = getattr(model, "name", None) or net.cfg.model_name
    forward = Scalar(_embedded(net, "hook_embed", logit), net, "blocks", "ln_final", "unembed")
    return Problem(forward, x, base, words, said_target, name, said, patterns, [len(words) - 1])
