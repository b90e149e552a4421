"""The exercises of notebook 08_activation_cubes."""

from __future__ import annotations

from functools import cache
from typing import Any

from .exercises import Exercise, add, unreadable, whole

UNSEEN = ("Oakland", "Miami", "Denver")  # cities of the prompts that a lamp is tried on


def _parting(value: Any) -> tuple[Any, int]:
    """(How far apart the streams of the two prompts are at the last token [layer], the layer named). TypeError or LookupError for anything else."""
    difference, layer = value
    layer = whole(layer)
    if difference.provenance["kind"] != "difference" or difference.data.sizes["prompt"] != 1:
        raise TypeError("not the difference of two prompts")
    return difference.measured("norm").select(token="last", site="resid_post")["norm"].values[0, :, 0], layer


def _tried(value: Any) -> Any:
    """What a metric gives for one vector with one strong unit among four [2 rows, 3 tokens], or for random ones. TypeError if it cannot be called."""
    import torch

    x = torch.tensor([3.0, 0.0, -4.0, 0.0]).expand(2, 3, 4)
    try:
        return value(x)
    except Exception as error:
        raise TypeError(str(error)) from None


def _shape(value: Any) -> Any:
    return tuple(getattr(_tried(value), "shape", ()))


def _is(value: Any, number: float) -> bool:
    found = _tried(value)
    return _shape(value) == (2, 3) and bool((found - number).abs().max() < 1e-4)


@cache
def agreement(site: str, metric: str) -> float:
    """Mean rank correlation between the metric at ``site`` and what zeroing the cell costs, over the unseen prompts, in atlas."""
    from mi_workshop.counterfactual import zero
    from mi_workshop.cube import capture
    from mi_workshop.models import load

    model = load("atlas")
    found = [
        capture(model, f"Fact: the capital of the state containing {city} is", site, metric).matters(change=zero()).correlation
        for city in UNSEEN
    ]  # fmt: skip
    return sum(found) / len(found)


def _lamp(value: Any) -> float:
    """The agreement of (site, metric); TypeError or ValueError for anything else."""
    site, metric = value
    if not isinstance(site, str) or not isinstance(metric, str):
        raise TypeError("two names")
    if site not in ("resid_post", "attn_out", "mlp_out", "resid_mid", "neuron"):
        raise ValueError("not a site that is tried")
    return agreement(site, metric)


add(
    Exercise(
        name="where they part",
        minutes=5,
        difficulty="easy",
        statement=(
            "`difference` compares Dallas with Oakland. At the city's own token the two streams differ from layer 0 on. In which layer do they first differ at the **last** token, where the answer is "
            "given? Put `(difference, the layer)` into `parted`. `difference.measured(\"norm\")` has the norm of the difference, and its `.select(token=\"last\", site=\"resid_post\")` is a smaller cube."
        ),
        expect="zeros up to the layer in which attention brings the state from the city to the end.",
        hints=('Look at difference.measured("norm").select(token="last", site="resid_post")["norm"].', "It is the first layer with a number other than zero."),
        right=lambda value: (p := _parting(value))[0][p[1]] > 1e-4 and all(p[0][: p[1]] < 1e-4) and p[1] >= 0,
        wrong=(
            (lambda value: unreadable(value, lambda v: _parting(v)[0][_parting(v)[1]]), "Two things are asked for: the difference of the two cubes, and the number of a layer."),
            (lambda value: _parting(value)[1] == 0, "In layer 0 they differ at the city's token. Look at the last one."),
            (lambda value: (p := _parting(value))[0][p[1]] > 1e-4, "They do differ there, but not for the first time."),
            (lambda value: (p := _parting(value))[0][p[1]] <= 1e-4, "There both streams are the same to the last digit."),
        ),
        why="Until then the last token does not know the city: whatever its cells show in the layers below cannot be about Dallas. A difference vector of length zero is the one "
        "thing that a cube proves without an intervention; two equal norms prove nothing.",
        solution='parted = (difference, 2)',
    ),
    Exercise(
        name="a metric of your own",
        minutes=6,
        difficulty="easy",
        statement=(
            "Write a metric: the **share of the squared norm that the single strongest unit carries** (1: it carries everything). A metric takes a tensor `[..., unit]` and gives one number for each vector, "
            "`[...]`. Put the function into `top_share`; `mi.capture(model, prompt, metrics=[top_share])` uses it."
        ),
        expect="a number between 0 and 1 for every layer and token.",
        hints=("x.square() squares every number; .sum(-1) adds up the last axis.", "Divide x.square().amax(-1) by x.square().sum(-1)."),
        right=lambda value: _is(value, 16 / 25),
        wrong=(
            (lambda value: unreadable(value, _tried), "That is no function of one tensor, or it fails on one of the shape [2, 3, 4]."),
            (lambda value: _shape(value) == (), "It gives one number for the whole tensor: reduce the last axis alone, with (-1)."),
            (lambda value: _shape(value) != (2, 3), "It must give one number for each vector: reduce the last axis and no other."),
            (lambda value: _is(value, 9 / 25), "The strongest unit may be negative: square first, then take the largest."),
            (lambda value: _is(value, 4 / 7) or _is(value, 3 / 7), "Those are shares of the sum of absolute values: square before you add."),
            (lambda value: _is(value, 4 / 5) or _is(value, 3 / 5), "That is the share of the norm: the squared norm is asked for."),
        ),
        why="Your function runs inside the hook, on a whole batch, where the model is; the activations are gone afterwards and your number stays.",
        solution="top_share = lambda x: x.square().amax(-1) / x.square().sum(-1)",
    ),
    Exercise(
        name="a better lamp",
        minutes=10,
        difficulty="takes some thought",
        statement=(
            "The norm of the residual stream is large in the wrong places. Find a **site** (`resid_post`, `resid_mid`, `attn_out`, `mlp_out` or `neuron`) and a **metric** of `mi.cube.METRICS` whose size agrees with "
            "what setting the cell to zero costs: a rank correlation above 0.3, on average over three prompts that you have not seen. Put `(site, metric)` into `lamp`. "
            "`mi.capture(model, prompt, site, metric).matters()` tries it on ours."
        ),
        expect="a rank correlation above 0.3, and a p that warns you.",
        hints=("What is written only where something is moved?", "Try what attention writes: attn_out."),
        right=lambda value: _lamp(value) > 0.3,
        wrong=(
            (lambda value: unreadable(value, _lamp), "Two names are asked for: one of the five sites, and one of mi.cube.METRICS."),
            (lambda value: _lamp(value) < -0.1, "That one is largest where nothing happens: its correlation is negative."),
            (lambda value: value[0] == "attn_out", "The site is promising. With this metric the correlation stays below 0.3 on the unseen prompts."),
            (lambda value: _lamp(value) <= 0.3, "The correlation stays below 0.3 on the unseen prompts."),
        ),
        why="Heads of atlas's first two layers write nothing, and where later ones write, something is being moved. But look at p in the title: with the tokens shuffled the correlation is as "
        "high. This lamp knows which layers write; ranked within each row it knows a little of which token matters, and on other prompts less than on ours. And you found it by trying: on another model, try again, on prompts that you have put aside.",
        solution='lamp = ("attn_out", "norm")',
    ),
    notebook="08_activation_cubes",
)  # fmt: skip
