"""The commands of the ``eil`` program: one typed function each, whose docstring is its help.

These modules import only what the help needs; everything else is imported by the functions, since ``eil --help`` must
not wait for torch.
"""
