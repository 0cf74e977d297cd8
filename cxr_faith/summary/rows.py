"""Where a summary gets its rows from: a table in memory, or the Parquet files of a run, a few columns at a time."""

from collections.abc import Sequence
from typing import Protocol

import pandas as pd

from cxr_faith.perturb.condition import NONE
from cxr_faith.records import KEY
from cxr_faith.records.controls import ORACLE, SETTING
from cxr_faith.records.view import RecordView, text
from cxr_faith.summary import samples
from cxr_faith.summary.board import Setting


class Rows(Protocol):
    """The records of a run, sorted by key."""

    def settings(self) -> list[Setting]:
        """Settings of the rows without a condition: most rows first, by name where two have as many."""

    def methods(self) -> set[str]:
        """Methods that have rows without a condition."""

    def samples(self) -> pd.DataFrame:
        """One row per sample with rows without a condition, as `samples.sample_table` gives it."""

    def frame(self, columns: Sequence[str], setting: Setting | None = None, plain: bool = True) -> pd.DataFrame:
        """The key and some columns of the rows of a setting.

        Args:
            columns: columns of the records.
            setting: None: rows of all settings.
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
        counts = self._plain[list(SETTING)].value_counts(sort=False).sort_index()
        return [Setting(*map(str, name)) for name in counts.sort_values(ascending=False, kind="stable").index]

    def methods(self) -> set[str]:
        """As in `Rows`."""
        return set(self._plain["method"])

    def samples(self) -> pd.DataFrame:
        """As in `Rows`."""
        return samples.sample_table(self._plain)

    def frame(self, columns: Sequence[str], setting: Setting | None = None, plain: bool = True) -> pd.DataFrame:
        """As in `Rows`."""
        rows = (self._plain if plain else self._all)[list(dict.fromkeys((*KEY, *columns)))]
        return rows if setting is None else rows[(rows[list(SETTING)] == list(setting)).all(axis=1)]


class ViewRows:
    """Rows that are read from the files of a run whenever they are asked for.

    Args:
        view: the run's records.
    """

    def __init__(self, view: RecordView) -> None:
        self._view = view

    def settings(self) -> list[Setting]:
        """As in `Rows`."""
        names = ", ".join(SETTING)
        counts = self._grouped(f"{names}, count(*) AS n", f"GROUP BY {names} ORDER BY n DESC, {names}")
        return [Setting(*map(str, name)) for name in counts[list(SETTING)].itertuples(index=False)]

    def methods(self) -> set[str]:
        """As in `Rows`."""
        return set(self._grouped("DISTINCT method")["method"])

    def samples(self) -> pd.DataFrame:
        """As in `Rows`: the values of a sample's rows are equal or null, so the least is the first."""
        if not len(self._view):
            return samples.sample_table(self.frame(samples.COLUMNS))
        least = ", ".join(f"min({name}) AS {name}" for name in samples.COLUMNS)
        masked = f"bool_or(method = {text(ORACLE)}) AS masked"
        table = self._grouped(f"sample_id, {least}, {masked}", "GROUP BY sample_id ORDER BY sample_id")
        return samples.with_patients(table.set_index("sample_id"))

    def frame(self, columns: Sequence[str], setting: Setting | None = None, plain: bool = True) -> pd.DataFrame:
        """As in `Rows`."""
        asked = [f"condition = {text(NONE)}"] if plain else []
        if setting is not None:
            asked += [f"{name} = {text(value)}" for name, value in setting._asdict().items()]
        return self._view.frame(list(dict.fromkeys((*KEY, *columns))), " AND ".join(asked) or "true")

    def _grouped(self, selected: str, rest: str = "") -> pd.DataFrame:
        if not len(self._view):
            return pd.DataFrame(columns=[*KEY])
        return self._view.query(f"SELECT {selected} FROM records WHERE condition = {text(NONE)} {rest}")
