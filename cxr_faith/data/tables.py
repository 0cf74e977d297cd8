"""Reads the tables and JSON files of published data sets; every error is one line that names the file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd

from cxr_faith.data.csv_files import csv_rows
from cxr_faith.data.json_files import json_entries
from cxr_faith.data.tally import PrepareError
from cxr_faith.data.text_files import names_of

MAX_CELLS = 20_000_000
"""Most values of a table that is held in memory, five times those of MIMIC-CXR's largest."""


def find_file(folder: str | Path, *names: str) -> Path:
    """The first of these files that exists in the folder.

    Args:
        folder: folder to search, or the file itself.
        names: paths below the folder, the usual one first.

    Raises:
        PrepareError: None of them exists.
    """
    folder = Path(folder)
    if folder.is_file():
        return folder
    for name in names:
        if (folder / name).is_file():
            return folder / name
    if (folder / names[0]).exists() and not (folder / names[0]).is_file():
        raise PrepareError(f"{folder / names[0]}: is not a file")
    others = f" (nor {', '.join(names[1:])})" if names[1:] else ""
    raise PrepareError(f"{folder / names[0]}: file not found{others}")


def read_table(path: Path, columns: Sequence[str], optional: Sequence[str] | None = None) -> pd.DataFrame:
    """Read a CSV file, plain or gzipped, with every value as text.

    Args:
        path: the file.
        columns: required columns.
        optional: further columns to read if the file has them; None: all other columns.

    Returns:
        the columns as strings; an empty field is NaN.

    Raises:
        PrepareError: the file cannot be read (see `csv_rows`), lacks a column, or has more than `MAX_CELLS` values.
    """
    rows = csv_rows(path)
    header = next(rows)
    if missing := [name for name in columns if name not in header]:
        raise PrepareError(f"{path}: lacks the column {', '.join(missing)}; it has {names_of(header)}")
    wanted = header if optional is None else [*columns, *(name for name in optional if name in header)]
    places = [header.index(name or "") for name in wanted]
    values: list[list[str | None]] = [[] for _ in wanted]
    for count, row in enumerate(rows, 1):
        if count * len(wanted) > MAX_CELLS:
            raise PrepareError(f"{path}: has more than {MAX_CELLS:,} values; split it")
        for column, place in zip(values, places, strict=True):
            column.append(row[place])
    return pd.DataFrame(dict(zip(wanted, values, strict=True)), columns=wanted, dtype="str")


def read_json(path: Path, kind: type[list[Any]] | type[dict[str, Any]]) -> Any:
    """Read a JSON file, plain or gzipped, that holds a list or mapping which is not empty.

    Args:
        path: the file.
        kind: `list` or `dict`, the type that the file must hold.

    Raises:
        PrepareError: the file cannot be read (see `json_entries`), or is empty.
    """
    entries = json_entries(path, kind)
    content = dict(entries) if kind is dict else [entry for _, entry in entries]
    if not content:
        raise PrepareError(f"{path}: holds no entry; is the download complete?")
    return content


def text(value: object) -> str | None:
    """A table's value as text; None if it is missing, blank, or no text and no number."""
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    if isinstance(value, str):
        return value.strip() or None
    if isinstance(value, Decimal) and value.is_nan():  # comparing a signaling NaN raises
        return None
    if not isinstance(value, int | float | Decimal | date) or value != value:  # only NaN differs from itself
        return None
    return None if isinstance(value, int) and abs(value) >= 2**63 else str(value)


def number(value: object) -> float:
    """A table's value as a number; NaN if it is not one."""
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return float("nan")


def length(value: object) -> int | None:
    """A table's value as a length in pixels; None if it is not a positive whole number."""
    pixels = number(value)
    return int(pixels) if math.isfinite(pixels) and 1 <= pixels < 2**31 and pixels == int(pixels) else None


def listed(names: str, known: Sequence[str] | None, what: str) -> list[str]:
    """Split an option's value at its commas.

    Args:
        names: the option's value.
        known: names that are allowed; None: any.
        what: what is named, for the error: the option is `--{what}s`.

    Raises:
        PrepareError: `names` is empty, or has a name that is not in `known`; the message lists those.
    """
    given = [name.strip() for name in names.split(",") if name.strip()]
    unknown = [name for name in given if known is not None and name not in known]
    if unknown or not given:
        fault = f"no {what} {', '.join(unknown)}" if unknown else f"--{what}s names no {what}"
        raise PrepareError(f"{fault}; there are {', '.join(known)}" if known else fault)
    return given


def among(value: object, known: Sequence[str]) -> str:
    """A table's value as part of a printed reason: one of `known`, else words that quote no text of the data set."""
    word = text(value)
    if word is None:
        return "not stated"
    return next((name for name in known if name.casefold() == word.casefold()), "of another name")
