"""Rival methods: the first plug-in to the contract of eil.methods.base. One method, one file."""
