"""Map extractors of others, as entry points of the group ``eil.extractors``: one file each, the gradient family in one.

They are rivals' maps, as the other files of ``baselines/`` are rivals' trainings. What an extractor is, and how all
share a forward pass, is in :mod:`eil.methods.extractor` and :mod:`eil.methods.shared_pass`.
"""
