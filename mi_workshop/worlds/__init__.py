"""Worlds: generators of text and pictures whose answers, causes and counterfactuals are known (the *world key*)."""

from mi_workshop.worlds.atlas import Atlas, WorldError
from mi_workshop.worlds.passages import Passage
from mi_workshop.worlds.reviews import Anemia, Diabetes, Reviews
from mi_workshop.worlds.rooms import Rooms
from mi_workshop.worlds.scenes import Scene, Scenes
from mi_workshop.worlds.variants import Bug, Fault, Memo, Trigger, world_of

__all__ = [
    "Anemia",
    "Atlas",
    "Bug",
    "Diabetes",
    "Fault",
    "Memo",
    "Passage",
    "Reviews",
    "Rooms",
    "Scene",
    "Scenes",
    "Trigger",
    "WorldError",
    "world_of",
]
