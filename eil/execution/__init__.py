"""Doing a step safely: locks, GPU leases, signals, and whether results are of the present data."""
