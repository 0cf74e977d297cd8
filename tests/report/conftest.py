"""The synthetic records that tests of numbers and of pages share."""

from tests.synthetic import rows, run_dir

__all__ = ["rows", "run_dir"]
