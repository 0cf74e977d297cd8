"""Data sources: one module per data set, each able to write a manifest."""
