"""Where a summary gets its rows from: a table in memory, or the Parquet files of a run, a few columns at a time."""

from collections.abc import Collection, Iterator, Sequence
from functools import cached_property
from typing import Protocol

import pandas as pd

from cxr_faith.perturb.condition import NONE
from cxr_faith.records import KEY
from cxr_faith.records.controls import ORACLE, SETTING
from cxr_faith.records.view import RecordView, text
from cxr_faith.summary import samples
from cxr_faith.summary.board import Setting

ROWS_AT_ONCE = 1_000_000
"""Rows of a part at most, but for a method that has more."""


class Rows(Protocol):
    """The records of a run, sorted by key."""

    def settings(self) -> list[Setting]:
        """Settings of the rows without a condition: most rows first, by name where two have as many."""

    def methods(self) -> set[str]:
        """Methods that have rows without a condition."""

    def samples(self) -> pd.DataFrame:
        """One row per sample with rows without a condition, as `samples.sample_table` gives it."""

    def frame(
        self,
        columns: Sequence[str],
        setting: Setting | None = None,
        plain: bool = True,
        samples: Collection[str] | None = None,
        known: Sequence[str] = (),
    ) -> pd.DataFrame:
        """The key and some columns of the rows of a setting; for rows that are few.

        Args:
            columns: columns of the records.
            setting: None: rows of all settings.
            plain: only rows without a condition.
            samples: only the rows of these samples; None: all.
            known: only rows with a value in one of these columns.
        """

    def parts(
        self, columns: Sequence[str], setting: Setting | None, methods: Sequence[str], plain: bool = True
    ) -> Iterator[pd.DataFrame]:
        """What `frame` gives, some methods at a time, so that the rows of a large run are never all in memory.

        Args:
            columns: columns of the records.
            setting: None: rows of all settings.
            methods: the methods, in this order; each has all its rows in one part.
            plain: only rows without a condition.
        """


class FrameRows:
    """Rows that are in memory.

    Args:
        records: rows sorted by key.
    """

    def __init__(self, records: pd.DataFrame) -> None:
        plain = records["condition"].eq(NONE)
        self._all, self._plain = records, records if plain.all() else records[plain]

    def settings(self) -> list[Setting]:
        """As in `Rows`."""
        return _settings(self._plain[list(SETTING)].value_counts(sort=False))

    def methods(self) -> set[str]:
        """As in `Rows`."""
        return set(self._plain["method"])

    def samples(self) -> pd.DataFrame:
        """As in `Rows`."""
        return samples.sample_table(self._plain)

    def frame(
        self,
        columns: Sequence[str],
        setting: Setting | None = None,
        plain: bool = True,
        samples: Collection[str] | None = None,
        known: Sequence[str] = (),
    ) -> pd.DataFrame:
        """As in `Rows`."""
        rows = (self._plain if plain else self._all)[list(dict.fromkeys((*KEY, *columns)))]
        if setting is not None:
            rows = rows[(rows[list(SETTING)] == list(setting)).all(axis=1)]
        if samples is not None:
            rows = rows[rows["sample_id"].isin(list(samples))]
        return rows[rows[list(known)].notna().any(axis=1)] if known else rows

    def parts(
        self, columns: Sequence[str], setting: Setting | None, methods: Sequence[str], plain: bool = True
    ) -> Iterator[pd.DataFrame]:
        """As in `Rows`; all rows are one part."""
        yield self.frame(columns, setting, plain)


class ViewRows:
    """Rows that are read from the files of a run whenever they are asked for.

    Args:
        view: the run's records.
    """

    def __init__(self, view: RecordView) -> None:
        self._view = view

    def settings(self) -> list[Setting]:
        """As in `Rows`."""
        return _settings(self._counts.groupby(list(SETTING))["n"].sum())

    def methods(self) -> set[str]:
        """As in `Rows`."""
        return set(self._counts["method"])

    def samples(self) -> pd.DataFrame:
        """As in `Rows`: the values of a sample's rows are equal or null, so the least is the first."""
        if not len(self._view):
            return samples.sample_table(self.frame(samples.COLUMNS))
        least = ", ".join(f"min({name}) AS {name}" for name in samples.COLUMNS)
        masked = f"bool_or(method = {text(ORACLE)}) AS masked"
        table = self._grouped(f"sample_id, {least}, {masked}", "GROUP BY sample_id ORDER BY sample_id")
        return samples.with_patients(table.set_index("sample_id"))

    def frame(
        self,
        columns: Sequence[str],
        setting: Setting | None = None,
        plain: bool = True,
        samples: Collection[str] | None = None,
        known: Sequence[str] = (),
    ) -> pd.DataFrame:
        """As in `Rows`."""
        asked = [f"({' OR '.join(f'{name} IS NOT NULL' for name in known)})"] if known else []
        return self._frame(columns, setting, plain, asked, samples)

    def parts(
        self, columns: Sequence[str], setting: Setting | None, methods: Sequence[str], plain: bool = True
    ) -> Iterator[pd.DataFrame]:
        """As in `Rows`; without methods one empty part."""
        if not methods:
            yield self.frame(columns, setting, plain)
        for some in self._together(setting, methods):
            yield self._frame(columns, setting, plain, [f"method IN ({', '.join(map(text, some))})"])

    def _frame(
        self,
        columns: Sequence[str],
        setting: Setting | None,
        plain: bool,
        asked: Sequence[str],
        samples: Collection[str] | None = None,
    ) -> pd.DataFrame:
        asked = [*asked, f"condition = {text(NONE)}"] if plain else [*asked]
        if setting is not None:
            asked += [f"{name} = {text(value)}" for name, value in setting._asdict().items()]
        return self._view.frame(list(dict.fromkeys((*KEY, *columns))), " AND ".join(asked) or "true", samples)

    def _together(self, setting: Setting | None, methods: Sequence[str]) -> Iterator[list[str]]:
        """The methods, as many at a time as have `ROWS_AT_ONCE` rows without a condition."""
        counts = self._counts
        if setting is not None:
            counts = counts[(counts[list(SETTING)] == list(setting)).all(axis=1)]
        of_method = counts.groupby("method")["n"].sum()
        some, total = list[str](), 0
        for method in methods:
            count = int(of_method.get(method, 0))
            if some and total + count > ROWS_AT_ONCE:
                yield some
                some, total = [], 0
            some, total = [*some, method], total + count
        if some:
            yield some

    @cached_property
    def _counts(self) -> pd.DataFrame:
        """Number of rows, `n`, by method and setting, of the rows without a condition."""
        names = ", ".join((*SETTING, "method"))
        return self._grouped(f"{names}, count(*) AS n", f"GROUP BY {names}")

    def _grouped(self, selected: str, rest: str = "") -> pd.DataFrame:
        if not len(self._view):
            return pd.DataFrame(columns=[*KEY, "n"])
        return self._view.query(f"SELECT {selected} FROM records WHERE condition = {text(NONE)} {rest}")


def _settings(counts: "pd.Series[int]") -> list[Setting]:
    """The settings, by their numbers of rows, most rows first, then by name."""
    sizes = counts.sort_index().sort_values(ascending=False, kind="stable")
    return [Setting(*map(str, name)) for name in sizes.index]
