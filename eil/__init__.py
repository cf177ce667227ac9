"""eil: a benchmark and ablation harness for weakly supervised object localization (WSOL)."""

__version__ = "0.1.0"
