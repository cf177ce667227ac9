"""Backbones: networks cut into named stages, so that a method can work between any two of them.

Each file of :mod:`eil.backbones.networks` is one network: ``INFO`` (:class:`BackboneInfo`) and a builder function named
as the file. Another package registers its own network in the entry point group ``eil.backbones``, in the same form.
A backbone ends with its last feature map; the localization head (:mod:`eil.methods.head`) follows.
"""

from eil.backbones.base import Backbone, BackboneInfo
from eil.backbones.factory import build, build_shapes, module_of
from eil.backbones.pretrained import fingerprint, read_local

__all__ = ["Backbone", "BackboneInfo", "build", "build_shapes", "fingerprint", "module_of", "read_local"]
