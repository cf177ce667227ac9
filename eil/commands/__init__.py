"""The commands of the `eil` program."""
