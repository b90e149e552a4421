"""Saliency maps, and the answer keys that they are scored against."""

from .attribution import METHODS, Attribution, SaliencyError, attribute
from .checks import label_check, permuted, sanity_check
from .explore import explore, picture_upload
from .gallery import Gallery, gallery
from .inputs import Problem, problem
from .keys import Key, answer_keys
from .scores import scores, summary, table

__all__ = [
    "METHODS", "Attribution", "Gallery", "Key", "Problem", "SaliencyError", "answer_keys", "attribute", "explore", "gallery",
    "label_check", "permuted", "picture_upload", "problem", "sanity_check", "scores", "summary", "table",
]  # fmt: skip
