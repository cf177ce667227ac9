"""Training a run, and computing its maps."""
