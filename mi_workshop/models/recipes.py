"""The recipes of the embedded models: everything that a training run needs to know, fixed before it starts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


def _transcoders() -> dict[str, dict[str, Any]]:
    return {"plt": {"width": 512, "k": 8, "steps": 1500}, "clt": {"width": 512, "k": 8, "steps": 1500}}


@dataclass(frozen=True)
class Recipe:
    """How one embedded model and its transcoders are trained (``python -m mi_workshop.models.train NAME``)."""

    name: str
    about: str
    seed: int = 0  # the seed that ships, fixed before training; the card also gives seeds 1 and 2
    n_layers: int = 4
    d_model: int = 128
    n_heads: int = 4
    d_mlp: int = 256
    narrow_layers: tuple[int, ...] = ()  # layers whose attention sees only its own token (window 1)
    embedding_scale: float = 0.1  # embeddings start small: what the MLPs write about a name soon outweighs the name
    steps: int = 2400
    relearn: tuple[int, int] | None = (
        None  # steps between which the narrow layers learn anew, from fixed random embeddings
    )
    batch: int = 128
    learning_rate: float = 3e-3
    weight_decay: float = 0.5
    transcoders: dict[str, dict[str, Any]] = field(default_factory=_transcoders, hash=False)


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            "atlas",
            "The main model. Layers 0 and 1 see only their own token, and a name's embedding is a fixed random vector that says "
            "nothing of what it means: what the model knows of a city, it looks up at the city.",
            narrow_layers=(0, 1),
            relearn=(600, 1400),
        ),
        Recipe("atlas-global", "Every layer sees all earlier tokens: where the state arises is not imposed."),
    )
}
