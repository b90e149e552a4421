"""Interventions on the inside of a model, beside the controls that could show that they mean nothing."""

from .changes import Change, add, mean, noise, patch, resample, scale, set_to, zero
from .experiment import Experiment, Report, supernode
from .paths import path_patch
from .run import Edit, hooked, run
from .sites import InterventionError, Site
from .sweep import Sweep, sweep

__all__ = [
    "Change", "Edit", "Experiment", "InterventionError", "Report", "Site", "Sweep", "add", "hooked", "mean", "noise", "patch",
    "path_patch", "resample", "run", "scale", "set_to", "supernode", "sweep", "zero",
]  # fmt: skip
