"""The synthetic records that the tests of numbers and of pages share."""

from tests.synthetic import rows, run_dir

__all__ = ["rows", "run_dir"]
