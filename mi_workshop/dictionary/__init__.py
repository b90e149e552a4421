"""Sparse dictionaries of activations: x ≈ b + Σ fᵢ(x) dᵢ. ``train`` one in seconds, ``load`` one that ships, score it against the answer key."""

from mi_workshop.dictionary.activations import activations as activations
from mi_workshop.dictionary.core import KINDS as KINDS
from mi_workshop.dictionary.core import DictionaryError as DictionaryError
from mi_workshop.dictionary.core import SparseDictionary as SparseDictionary
from mi_workshop.dictionary.formats import load as load
from mi_workshop.dictionary.formats import read as read
from mi_workshop.dictionary.formats import save as save
from mi_workshop.dictionary.quality import quality as quality
from mi_workshop.dictionary.training import train as train
