"""A small run that the tests of faults and of invariance share."""

from tests.runs import reference, small

__all__ = ["reference", "small"]
