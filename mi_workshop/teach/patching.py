"""Notebook 04_patching_and_induction: the prompts that it works on, and its exercises."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from .exercises import Exercise, add, world


def capital_questions(world: Any, split: int = 4) -> tuple[list[str], list[str]]:
    """The capital question about a city of each state (the fifth of its list, by default: trained on), and as donor for each the
    same question about the state seven places on."""
    from mi_workshop.answer_key import questions

    asked, donors, _ = questions(world, split)
    return asked, donors


def meetings(world: Any, n: int = 40, seed: int = 5) -> list[str]:
    """``n`` passages in which titled people meet, cut after a title that has occurred before: its surname is the answer."""
    rng = np.random.default_rng(seed)
    found: list[str] = []
    while len(found) < n:
        words = world.names_passage(rng, 3)[:-2]  # "... Mr Dursley met Mrs"
        if words[-1] in words[:-1]:
            found.append(" ".join(words))
    return found


@cache
def _lost(kind: str, layer: int, change: str, unit: int | None = None, passages: bool = False) -> float:
    """Mean share of the answer's probability that is lost when the site is changed at every position."""
    import mi_workshop as mi
    from mi_workshop import counterfactual as cf

    prompts = meetings(world()) if passages else capital_questions(world())[0]
    what = {"zero": cf.zero, "mean": lambda: cf.mean(prompts), "resample": lambda: cf.resample(prompts)}[change]()
    experiment = cf.Experiment(cf.Site(kind, layer, units=unit), what)
    return float(experiment.run(mi.load("atlas"), prompts, controls=False).table.lost.mean())


@cache
def _arrives(layer: int) -> float:
    import mi_workshop as mi
    from mi_workshop import counterfactual as cf

    lyon, osaka = (f"Fact: the language of the country containing {city} is" for city in ("Lyon", "Osaka"))
    return float(
        cf.sweep(mi.load("atlas"), lyon, osaka, layers=[layer], positions=["last"], progress=False).mean[0, 0, 0]
    )


def _misleads(kind: str, layer: int) -> bool:
    return _lost(kind, layer, "zero") >= 0.5 and _lost(kind, layer, "resample") <= 0.2


add(
    Exercise(
        name="where it arrives",
        minutes=5,
        difficulty="easy",
        statement=(
            "Ask for the *language* of the country containing Lyon, with the same question about Osaka as donor. After which layer does patching the "
            "residual stream at the **last** token first take the answer at least half of the way to *Japanese*? Put its number into `layer`."
        ),
        expect="a column in which one layer is dark and those below it are not.",
        hints=(
            'sweep(model, prompt, donor, positions=["last"]) looks at the last token alone.',
            "The numbers of the sweep are in .mean [layer, position, unit].",
        ),
        right=lambda value: _arrives(int(value)) >= 0.5 and all(_arrives(i) < 0.5 for i in range(int(value))),
        wrong=(
            (lambda value: not isinstance(value, int), "The number of a layer is asked for, 0 to 3."),
            (lambda value: _arrives(value) < 0.5, "After that layer it is not there yet."),
            (lambda value: _arrives(value) >= 0.5, "It is there, but it is there after an earlier layer too."),
        ),
        why="Below, the last token knows only what is asked; attention brings the country, and then the answer is decided there.",
        solution=(
            "from mi_workshop.counterfactual import sweep\n"
            "prompt, donor = (f'Fact: the language of the country containing {city} is' for city in ('Lyon', 'Osaka'))\n"
            "layer = int((sweep(model, prompt, donor, positions=['last']).mean[:, 0, 0] >= 0.5).argmax())"
        ),
    ),
    Exercise(
        name="names but not capitals",
        minutes=8,
        difficulty="takes some thought",
        statement=(
            "Find a head of `atlas` whose loss breaks the *names* (resampled, it costs at least half of the answer's probability in the passages) and leaves "
            "the *capitals* (at most a fifth). Put `(layer, head)` into `head`."
        ),
        expect="two grids of heads that do not agree.",
        hints=(
            'sweep(model, prompts, kind="z", positions=None, change=resample(prompts), metric="lost") tries every head.',
            "Run it on the passages and on the capital questions, and compare .mean[:, 0] of the two.",
        ),
        right=lambda value: _lost("z", value[0], "resample", value[1], True) >= 0.5 and _lost("z", value[0], "resample", value[1]) <= 0.2,
        wrong=(
            (lambda value: len(value) != 2, "Two numbers are asked for: (layer, head)."),
            (lambda value: _lost("z", value[0], "resample", value[1], True) < 0.5, "Without that head the names are still known."),
            (lambda value: _lost("z", value[0], "resample", value[1]) > 0.2, "That head is needed for the capitals too."),
        ),
        why="The circuit that repeats a name is not the one that looks up a capital: a head's part depends on the task.",
        solution="head = (2, 1)",
    ),
    Exercise(
        name="an ablation that misleads",
        minutes=10,
        difficulty="hard",
        statement=(
            "Find a whole layer's `attn_out` or `mlp_out` of which *zeroing* says that the capitals depend on it (at least half of the probability is lost, at every "
            "position) and *resampling* says that they hardly do (at most a fifth). Put `(kind, layer)` into `site`."
        ),
        expect="two bars of very different length for one and the same site.",
        hints=(
            "Resampling keeps what every question has in common; zero takes that too.",
            'Try kind="mlp_out" and compare change=zero() with change=resample(asked).',
        ),
        right=lambda value: _misleads(*value),
        wrong=(
            (lambda value: value[0] not in ("attn_out", "mlp_out"), 'The kind is "attn_out" or "mlp_out".'),
            (lambda value: _lost(value[0], value[1], "zero") < 0.5, "Zeroing does not say so there."),
            (lambda value: _lost(value[0], value[1], "resample") > 0.2, "There resampling agrees that it matters."),
        ),
        why="The layer writes nearly the same for every question. Later layers count on that, but which capital it is does not come from there.",
        solution='site = ("mlp_out", 1)',
    ),
    notebook="04_patching_and_induction",
)  # fmt: skip
