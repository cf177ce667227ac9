"""Train a run and compute its maps."""
