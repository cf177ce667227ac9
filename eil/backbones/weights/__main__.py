"""``python -m eil.backbones.weights RUNS``: see the package."""

from eil.backbones.weights import main

main()
