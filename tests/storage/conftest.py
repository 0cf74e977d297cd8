"""Fixtures of this folder."""

from tests.disks import small_disk  # noqa: F401
