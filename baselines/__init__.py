"""Rival methods: one file each, registered as entry points like any other package's. ``from baselines import CAM``."""

from eil.core import registry

__getattr__ = registry.class_finder(__name__)
