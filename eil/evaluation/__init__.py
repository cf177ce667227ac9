"""From maps to scores. Knows nothing of networks."""

from eil.evaluation import jit_cache

jit_cache.ensure()  # before the modules of this package tell numba of their functions
