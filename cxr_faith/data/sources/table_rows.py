"""The rows of a table of any format, read from its file each time they are gone through."""

from __future__ import annotations

from collections.abc import Iterator, Set
from pathlib import Path
from typing import Any

from cxr_faith.data.csv_files import csv_rows
from cxr_faith.data.json_files import json_entries, json_lines
from cxr_faith.data.parquet_files import parquet_batches, parquet_head, parquet_rows
from cxr_faith.data.tally import PrepareError
from cxr_faith.data.text_files import MAX_COLUMNS

_BATCH_ROWS = 1000


class TableRows:
    """The rows of a table, as mappings from column name to value; only a few of them are in memory.

    Attributes:
        columns: names of all columns, in order.
        count: number of rows.
    """

    def __init__(self, path: Path) -> None:
        """Go through the table once.

        Raises:
            PrepareError: the file is missing, damaged, empty, beyond the limits of `text_files`, or of another format.
        """
        suffix = "".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix
        self._path, self._format = path, suffix.lower().removesuffix(".gz")
        if self._format not in (".csv", ".json", ".jsonl", ".ndjson", ".parquet") or suffix.lower() == ".parquet.gz":
            raise PrepareError(f"{path}: expected .csv, .json, .jsonl or .parquet")
        self._kept: Set[str] | None = None
        self.columns: dict[str, None] = {}
        self.count = 0
        if self._format == ".parquet":
            names, self.count = parquet_head(path)
            self.columns = dict.fromkeys(names)
        else:
            self._look()
        if not self.count:
            raise PrepareError(f"{path}: holds no row")

    def _look(self) -> None:
        for row in self:
            self.count += 1
            self.columns.update(dict.fromkeys(row))
            if len(self.columns) > MAX_COLUMNS:
                raise PrepareError(f"{self._path}: has more than {MAX_COLUMNS:,} columns")

    def keep(self, columns: Set[str]) -> None:
        """Leave out all other columns from now on."""
        self._kept = columns

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Read the rows."""
        for row in self._read():
            if not isinstance(row, dict):
                raise PrepareError(f"{self._path}: holds something other than rows with named columns")
            yield {name: value for name, value in row.items() if self._kept is None or name in self._kept}

    def _read(self) -> Iterator[Any]:
        if self._format == ".csv":
            rows = csv_rows(self._path)
            header = [str(name) for name in next(rows)]
            yield from (dict(zip(header, row, strict=True)) for row in rows)
        elif self._format == ".json":
            yield from (entry for _, entry in json_entries(self._path, list))
        elif self._format == ".parquet":
            names = [name for name in self.columns if self._kept is None or name in self._kept]
            for batch in parquet_batches(self._path, names, _BATCH_ROWS):
                yield from parquet_rows(batch)
        else:
            yield from json_lines(self._path)
