"""What to compare: a YAML file, checked, and spread into runs."""
