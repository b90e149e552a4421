"""Teaching aids: exercises that answer back."""

from . import dallas_to_austin, start_here
from .exercises import check, find, hint, solution

__all__ = ["check", "dallas_to_austin", "find", "hint", "solution", "start_here"]
