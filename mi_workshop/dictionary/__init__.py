"""Sparse dictionaries of activations: x ≈ b + Σ fᵢ(x) dᵢ. ``train`` one in seconds, ``load`` one that ships, score it against the answer key."""

from mi_workshop.dictionary.activations import activations as activations
from mi_workshop.dictionary.core import KINDS as KINDS
from mi_workshop.dictionary.core import DictionaryError as DictionaryError
from mi_workshop.dictionary.core import SparseDictionary as SparseDictionary
from mi_workshop.dictionary.cross_layer import Transcoders as Transcoders
from mi_workshop.dictionary.cross_layer import train_cross_layer as train_cross_layer
from mi_workshop.dictionary.effects import ablations as ablations
from mi_workshop.dictionary.effects import boosts as boosts
from mi_workshop.dictionary.formats import load as load
from mi_workshop.dictionary.formats import read as read
from mi_workshop.dictionary.formats import save as save
from mi_workshop.dictionary.key import feature_key as feature_key
from mi_workshop.dictionary.quality import quality as quality
from mi_workshop.dictionary.training import train as train
from mi_workshop.dictionary.units import units_of as units_of
