"""Slow, obvious versions of every number, written from the definitions with plain loops."""
