"""Teaching aids: exercises that answer back."""

from . import attribution_graphs, dallas_to_austin, patching, start_here
from .exercises import check, find, hint, solution

__all__ = ["attribution_graphs", "check", "dallas_to_austin", "find", "hint", "patching", "solution", "start_here"]
