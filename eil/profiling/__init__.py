"""Measure and estimate cost: time of an iteration, profiles, operations."""
