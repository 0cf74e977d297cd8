"""A small run that the tests of faults and of invariance share."""

from tests.disks import small_disk
from tests.runs import reference, small

__all__ = ["reference", "small", "small_disk"]
