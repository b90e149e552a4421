"""Sparse dictionaries of activations: x ≈ b + Σ fᵢ(x) dᵢ. ``train`` one in seconds, ``load`` one that ships, score it against the answer key."""

from mi_workshop.dictionary.activations import activations as activations
from mi_workshop.dictionary.core import KINDS as KINDS
from mi_workshop.dictionary.core import DictionaryError as DictionaryError
from mi_workshop.dictionary.core import SparseDictionary as SparseDictionary
from mi_workshop.dictionary.effects import ablations as ablations
from mi_workshop.dictionary.effects import boosts as boosts
from mi_workshop.dictionary.effects import recovered as recovered
from mi_workshop.dictionary.key import feature_key as feature_key
from mi_workshop.dictionary.training import train as train
from mi_workshop.dictionary.units import units_of as units_of
