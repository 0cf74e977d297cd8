"""Reads CSV files row by row."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from cxr_faith.data.tally import PrepareError
from cxr_faith.data.text_files import MAX_COLUMNS, MAX_LINE, LimitError, check_rows, one_line, open_text, short_lines

_EMPTY = ("", "nan", "NaN")


def csv_rows(path: Path) -> Iterator[list[str | None]]:
    """Read a CSV file, plain or gzipped, with every value as text; only one row is in memory at a time.

    Yields:
        the names of the columns; then the values of each row, None for an empty field.

    Raises:
        PrepareError: the file is missing, damaged or empty, has a row with more fields than its header, or a row, a
            number of rows or of columns beyond the limits of `text_files`.
    """
    csv.field_size_limit(MAX_LINE)
    with open_text(path, "CSV file") as file:
        pending: list[str] = []  # the lines of the row that is being read

        def kept() -> Iterator[str]:
            for line in short_lines(file, path):
                pending.append(line)
                yield line

        width, count, line = 0, 0, 1
        try:
            for row in csv.reader(kept()):
                _check_quotes("".join(pending), line, path)
                line += len(pending)
                pending.clear()
                if not row:
                    continue
                if not width:
                    width = len(row)
                    yield list(_names(row, path))
                    continue
                count += 1
                check_rows(count, path)
                if len(row) > width and any(row[width:]):
                    raise PrepareError(f"{path}: rows have more fields than the header; quote what holds a comma")
                values = [None if value in _EMPTY else value for value in row[:width]]
                yield values + [None] * (width - len(values))
        except csv.Error as error:
            fault = LimitError if "field limit" in str(error) else PrepareError
            raise fault(f"{path}: not a readable CSV file: {one_line(error)}") from error
        if not width:
            raise PrepareError(f"{path}: not a readable CSV file: it is empty")


def _check_quotes(row: str, line: int, path: Path) -> None:
    """Refuse a row whose quote is still open at the end of the file: it swallowed the rows after it."""
    if row.count('"') % 2:
        try:
            list(csv.reader([row], strict=True))
        except csv.Error as error:
            if "unexpected end of data" in str(error):
                raise PrepareError(f"{path}: not a readable CSV file: a quote in line {line} is never closed") from None


def _names(header: list[str], path: Path) -> Iterator[str]:
    """The names of the columns; a name that is empty or repeated gets a number."""
    if len(header) > MAX_COLUMNS:
        raise LimitError(f"{path}: has more than {MAX_COLUMNS:,} columns")
    seen: dict[str, int] = {}
    for position, name in enumerate(header):
        count = seen[name] = seen.get(name, -1) + 1
        yield (f"{name}.{count}" if count else name) if name else f"Unnamed: {position}"
