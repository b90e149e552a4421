"""Saliency maps, and the answer keys that they are scored against."""

from .attribution import METHODS, Attribution, SaliencyError, attribute
from .checks import label_check, permuted, sanity_check
from .inputs import Problem, problem
from .keys import Key, answer_keys
from .scores import scores, summary, table

__all__ = [
    "METHODS", "Attribution", "Key", "Problem", "SaliencyError", "answer_keys", "attribute", "label_check", "permuted", "problem",
    "sanity_check", "scores", "summary", "table",
]  # fmt: skip
