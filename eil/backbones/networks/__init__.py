"""One file per network: ``INFO``, and a builder function named as the file."""
