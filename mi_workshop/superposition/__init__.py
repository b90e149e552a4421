"""Superposition: more features than dimensions. Toy models that are trained in a second, and four experiments with them."""

from .experiments import Bases, OneAxis, OneNeuron, PhaseDiagram, bases, one_axis, one_neuron, phase_diagram
from .toys import Toy, Toys, explore_toy, train_toy

__all__ = [
    "Bases", "OneAxis", "OneNeuron", "PhaseDiagram", "Toy", "Toys", "bases", "explore_toy", "one_axis", "one_neuron", "phase_diagram", "train_toy",
]  # fmt: skip
