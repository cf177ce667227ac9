"""From score maps to boxes, IoU curves, metrics and their statistics. Does not depend on networks."""

from eil.evaluation import jit_cache

jit_cache.ensure()  # before modules of this package define compiled functions
