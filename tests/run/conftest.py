"""A small run that the tests of faults and of invariance share."""

from tests.disks import small_disk
from tests.runs import reference, reference_without_use, small

__all__ = ["reference", "reference_without_use", "small", "small_disk"]
