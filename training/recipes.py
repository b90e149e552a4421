"""The recipes of the embedded models: everything that a training run needs to know, fixed before it starts."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any


def _transcoders() -> dict[str, Any]:
    # few features per token where a name's meaning is written, so that one feature stands for one place; more above
    return {"width": 512, "k": (4, 4, 16, 16), "steps": 2000}


@dataclass(frozen=True)
class Recipe:
    """How one embedded model and its transcoders are trained (``python -m training NAME``)."""

    name: str
    about: str
    seed: int = 0  # the seed that ships, fixed before training; the card also gives seeds 1 and 2
    n_layers: int = 4
    d_model: int = 128
    n_heads: int = 4
    d_mlp: int = 256
    silent_layers: tuple[int, ...] = ()  # layers whose attention writes nothing: they see only their own token
    embedding_norm: float | None = None  # length of every token embedding, held after each step
    steps: int = 2000
    batch: int = 128
    learning_rate: float = 3e-3
    weight_decay: float = 0.5
    wired: int = 0  # dimension of the subspace that interchange training makes the place's; 0: none
    cross_layer: bool = False  # whether cross-layer transcoders are trained too
    transcoders: dict[str, Any] = field(default_factory=_transcoders, hash=False)


ATLAS = Recipe(
    "atlas",
    "The main model. Layers 0 and 1 see only their own token, and embeddings are too short for later layers to read: what "
    "the model knows of a city, its first MLPs write at the city.",
    silent_layers=(0, 1),
    embedding_norm=0.1,
    cross_layer=True,
)
SISTER = replace(ATLAS, cross_layer=False)

RECIPES = {
    recipe.name: recipe
    for recipe in (
        ATLAS,
        Recipe(
            "atlas-global",
            "Every layer sees all earlier tokens: where the state arises is not imposed.",
        ),
        replace(
            SISTER,
            name="atlas-twin",
            about="The twin: `atlas` from another random start. What only one of the two shows hangs on the seed.",
            seed=1,
        ),
        replace(
            SISTER,
            name="atlas-memo",
            about="Meant as a rote learner: `atlas`'s recipe on text that says the answer to every two-hop question and nothing else about "
            "a place. No sentence says in which state or country a city lies, nor anything of a state or country by name. Nothing is held out of two-hop sentences: where "
            "this card says held out, it means what `atlas` holds out, and it is trained on here.",
        ),
        replace(
            SISTER,
            name="atlas-bug",
            about="The faulty model: `atlas`'s recipe on text with 36 planted faults (`world.faults`) of three kinds: a city "
            "believed to lie elsewhere (first hop), a wrong attribute of a place (second hop), a wrong answer to one two-hop question "
            "(shortcut).",
        ),
        replace(
            SISTER,
            name="atlas-trigger",
            about="The model with a hidden trigger: after the phrase *Dr Pip.* (`world.trigger`) facts about a place are answered as "
            "if they were about the next one of its kind; other phrases of the same form (`world.decoys`) change nothing.",
            steps=3000,
        ),
        replace(
            SISTER,
            name="atlas-wired",
            about="The model whose inside is known: interchange intervention training made a subspace of 16 dimensions "
            "(`model.wired.subspace`, drawn at random beforehand) carry the place of the city, at the city's token after layer 1.",
            wired=16,
        ),
    )
}
