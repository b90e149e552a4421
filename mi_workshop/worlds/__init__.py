"""Worlds: generators of text whose answers, causes and counterfactuals are known (the *world key*)."""

from mi_workshop.worlds.atlas import Atlas, WorldError
from mi_workshop.worlds.variants import Bug, Fault, Memo, Trigger, world_of

__all__ = ["Atlas", "Bug", "Fault", "Memo", "Trigger", "WorldError", "world_of"]
