"""Execute steps safely: locks, GPU leases, signals, crashes, outdated results."""
