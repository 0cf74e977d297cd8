"""A run: from a config to a run directory, on one process or many."""
