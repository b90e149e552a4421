"""The recipes of the embedded models: everything that a training run needs to know, fixed before it starts."""

from __future__ import annotations

from dataclasses import dataclass, field
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
    transcoders: dict[str, Any] = field(default_factory=_transcoders, hash=False)


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            "atlas",
            "The main model. Layers 0 and 1 see only their own token, and embeddings are too short for later layers to read: what "
            "the model knows of a city, its first MLPs write at the city.",
            silent_layers=(0, 1),
            embedding_norm=0.1,
        ),
        Recipe("atlas-global", "Every layer sees all earlier tokens: where the state arises is not imposed."),
    )
}
