"""Rival methods: the first plug-in to the contract of eil.method. One method, one file."""
