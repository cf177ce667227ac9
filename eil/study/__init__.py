"""Studies: read from YAML files, checked, and expanded into runs."""
