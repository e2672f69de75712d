"""Measurements of speed that anyone can repeat: ``make bench``, or ``python -m benchmarks --help``."""
