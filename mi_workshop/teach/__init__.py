"""Teaching aids: exercises that answer back."""

from . import attribution_graphs, dallas_to_austin, logit_lens, start_here
from .exercises import check, find, hint, solution

__all__ = ["attribution_graphs", "check", "dallas_to_austin", "find", "hint", "logit_lens", "solution", "start_here"]
