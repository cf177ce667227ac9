"""What a study costs: time of an iteration, profiles, operations."""
