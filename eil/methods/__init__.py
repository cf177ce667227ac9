"""The contract of a method, EIL and MEIL."""
