"""From maps to scores. Knows nothing of networks."""
