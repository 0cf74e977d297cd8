"""Which samples could not be scored, and why."""

from dataclasses import dataclass

import pandas as pd

from cxr_faith.summary.method_rows import UNSCORED
from cxr_faith.summary.result import Result

LISTED = 20
"""Samples that are listed at most."""


@dataclass(frozen=True)
class Failure(Result):
    """A sample that could not be scored."""

    sample_id: str
    """Name of the sample."""
    methods: str
    """"all", or the names of the methods that failed, with commas."""
    status: str
    """Status of the first row that failed: "off_format" or "invalid"."""
    reason: str | None
    """Reason that this row gives."""


@dataclass(frozen=True)
class Failures(Result):
    """Samples that some method could not score."""

    n: int
    """Number of such samples."""
    first: tuple[Failure, ...]
    """The first 20 of them by `sample_id`."""


def failures_of(n: int, records: pd.DataFrame) -> Failures:
    """The samples with rows that could not be scored.

    Args:
        n: number of such samples.
        records: rows of the first `LISTED` of them, sorted by key, condition "none".
    """
    listed = records.groupby("sample_id", sort=True)
    return Failures(n=n, first=tuple(_failure(str(sample), rows) for sample, rows in listed))


def _failure(sample: str, rows: pd.DataFrame) -> Failure:
    failed = rows[rows["status"].isin(UNSCORED)]
    reason = failed["reason"].iloc[0]
    return Failure(
        sample_id=sample,
        methods="all" if len(failed) == len(rows) else ", ".join(dict.fromkeys(failed["method"])),
        status=failed["status"].iloc[0],
        reason=None if pd.isna(reason) else reason,
    )
