"""The contract of a method, EIL and MEIL. ``from eil.methods import EIL, MEIL``."""

from eil.core import registry

__getattr__ = registry.class_finder(__name__)
