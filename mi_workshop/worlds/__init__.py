"""Worlds: generators of text whose answers, causes and counterfactuals are known (the *world key*)."""

from mi_workshop.worlds.atlas import Atlas, WorldError

__all__ = ["Atlas", "WorldError"]
