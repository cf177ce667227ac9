"""What every room shares: runs, records, settings, the registry, files, hashes of sources, provenance."""
