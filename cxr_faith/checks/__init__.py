"""Checks before a benchmark: `doctor` and `sanity`."""
