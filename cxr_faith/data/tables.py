"""Reads the tables and JSON files of published data sets; every error is one line that names the file."""

from __future__ import annotations

import gzip
import json
import math
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from cxr_faith.data.tally import PrepareError

# What reading a truncated, damaged or differently encoded file raises.
_FAULTS = (OSError, EOFError, zlib.error, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError)


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
        PrepareError: the file is missing, damaged or empty, lacks a column, or has rows with more fields than its
            header.
    """
    try:
        with _open_text(path) as file, warnings.catch_warnings():
            # pandas drops a trailing comma in each row silently, but warns before it cuts off values.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(file, dtype=str, keep_default_na=False, na_values=["", "nan", "NaN"], index_col=False)
    except pd.errors.ParserWarning as error:
        raise PrepareError(f"{path}: rows have more fields than the header; quote what holds a comma") from error
    except FileNotFoundError as error:
        raise PrepareError(f"{path}: file not found") from error
    except _FAULTS as error:
        raise PrepareError(f"{path}: not a readable CSV file: {_one_line(error)}") from error
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise PrepareError(
            f"{path}: lacks the column {', '.join(missing)}; it has {', '.join(map(str, table.columns))}"
        )
    if optional is None:
        return table
    return table[[*columns, *(name for name in optional if name in table.columns)]]


def read_json(path: Path, kind: type[list[Any]] | type[dict[str, Any]]) -> Any:
    """Read a JSON file, plain or gzipped, that holds a list or mapping which is not empty.

    Args:
        path: the file.
        kind: `list` or `dict`, the type that the file must hold.

    Raises:
        PrepareError: the file is missing, damaged or empty, or holds another type.
    """
    try:
        with _open_text(path) as file:
            content = json.load(file)
    except json.JSONDecodeError as error:
        fault = "is empty" if not path.stat().st_size else f"not valid JSON ({_one_line(error)})"
        raise PrepareError(f"{path}: {fault}; is the download complete?") from error
    except FileNotFoundError as error:
        raise PrepareError(f"{path}: file not found") from error
    except _FAULTS as error:
        raise PrepareError(f"{path}: not a readable JSON file: {_one_line(error)}") from error
    if not isinstance(content, kind):
        raise PrepareError(f"{path}: holds a {type(content).__name__}, expected a {kind.__name__}")
    if not content:
        raise PrepareError(f"{path}: holds no entry; is the download complete?")
    return content


def read_lines(path: Path) -> list[Any]:
    """Read a JSON Lines file, plain or gzipped.

    Raises:
        PrepareError: the file is missing, damaged or empty, or a line is not valid JSON; the message has its number.
    """
    rows, number = [], 0
    try:
        with _open_text(path) as file:
            for line in file:
                number += 1
                if line.strip():
                    rows.append(json.loads(line))
    except json.JSONDecodeError as error:
        raise PrepareError(f"{path}: line {number} is not valid JSON ({_one_line(error)})") from error
    except FileNotFoundError as error:
        raise PrepareError(f"{path}: file not found") from error
    except _FAULTS as error:
        raise PrepareError(f"{path}: not a readable file: {_one_line(error)}") from error
    if not rows:
        raise PrepareError(f"{path}: holds no entry")
    return rows


def text(value: object) -> str | None:
    """A table's value as text; None if it is missing or blank."""
    if value is None or value != value:  # only NaN differs from itself
        return None
    return str(value).strip() or None


def number(value: object) -> float:
    """A table's value as a number; NaN if it is not one."""
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
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


def _open_text(path: Path) -> Any:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
