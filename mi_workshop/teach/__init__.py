"""Teaching aids: exercises that answer back."""

from . import (
    attention_exercises,
    attribution_graphs,
    catch_and_fix_exercises,
    counterfactuals,
    dallas_to_austin,
    families_exercises,
    feature_key_exercises,
    logit_lens,
    patching,
    saliency_maps,
    start_here,
)
from .exercises import check, find, hint, solution

__all__ = [
    "attention_exercises",
    "attribution_graphs",
    "catch_and_fix_exercises",
    "check",
    "counterfactuals",
    "dallas_to_austin",
    "families_exercises",
    "feature_key_exercises",
    "find",
    "hint",
    "logit_lens",
    "patching",
    "saliency_maps",
    "solution",
    "start_here",
]
