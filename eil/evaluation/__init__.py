"""From score maps to boxes, IoU curves, metrics and their statistics. Does not depend on networks."""
