"""Opens the text files of data sets, plain or gzipped, so that no file can exhaust the memory."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TextIO

from cxr_faith.data.tally import PrepareError
from cxr_faith.storage.atomic import check_regular

MAX_LINE = 16_000_000
"""Longest line of a table, and longest entry of a JSON file, in characters."""
MAX_ROWS = 10_000_000
"""Most rows or entries that are read from one file."""
MAX_COLUMNS = 10_000
"""Most columns of a table."""
MAX_GROWTH = 200
"""Most times its own size that a gzipped file may grow to, beyond its first `FREE_BYTES`; tables grow 3- to 30-fold."""
FREE_BYTES = 64 * 2**20


class LimitError(PrepareError):
    """A file that is larger than any table; the message names the limit."""


# What reading a truncated, damaged or differently encoded file raises.
_FAULTS = (OSError, EOFError, zlib.error, UnicodeError)


class _Unzipped(io.RawIOBase):
    """A gzipped file's content, which may not grow without limit."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path, self._file, self._content = path, file, gzip.GzipFile(fileobj=file)
        self._given = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        part = self._content.read(len(buffer))
        self._given += len(part)
        if self._given > FREE_BYTES + MAX_GROWTH * self._file.tell():
            raise LimitError(f"{self._path}: grows to more than {MAX_GROWTH} times its size when it is decompressed")
        buffer[: len(part)] = part
        return len(part)


@contextmanager
def open_text(path: Path, what: str) -> Iterator[TextIO]:
    """Open a text file, plain or gzipped (.gz), in UTF-8.

    Args:
        path: the file.
        what: what it should be, for the error: `CSV file`.

    Raises:
        PrepareError: it is missing, damaged or not UTF-8, or grows beyond `MAX_GROWTH`; also while it is read.
    """
    try:
        check_regular(path)
        with path.open("rb") as file:
            content = io.BufferedReader(_Unzipped(path, file)) if path.suffix == ".gz" else file
            with io.TextIOWrapper(content, encoding="utf-8-sig", newline="") as lines:
                yield lines
    except FileNotFoundError as error:
        raise PrepareError(f"{path}: file not found") from error
    except UnicodeError as error:
        raise PrepareError(f"{path}: not a readable {what}: not in UTF-8 ({one_line(error)})") from error
    except _FAULTS as error:
        raise PrepareError(f"{path}: not a readable {what}: {one_line(error)}") from error


def short_lines(file: TextIO, path: Path) -> Iterator[str]:
    """The lines of a file with their ends.

    Raises:
        LimitError: a line is longer than `MAX_LINE`; the message has its number.
    """
    number = 0
    while line := file.readline(MAX_LINE + 1):
        number += 1
        if len(line) > MAX_LINE:
            raise LimitError(f"{path}: line {number} has more than {MAX_LINE:,} characters")
        yield line


def check_rows(count: int, path: Path) -> None:
    """Refuse a file with more than `MAX_ROWS` rows.

    Raises:
        LimitError: it has more.
    """
    if count > MAX_ROWS:
        raise LimitError(f"{path}: has more than {MAX_ROWS:,} rows; split it")


def one_line(error: BaseException) -> str:
    """The error's message on one line."""
    return " ".join(str(error).split()) or type(error).__name__


def names_of(columns: object) -> str:
    """Names of columns for a message: the first ones, cut and with control characters escaped."""
    shown = [str(name) for name in columns] if isinstance(columns, list | tuple | dict) else [str(columns)]
    short = [name if len(name) <= 40 else f"{name[:40]}…" for name in shown[:30]]
    safe = [name if name.isprintable() else repr(name)[1:-1] for name in short]
    return ", ".join(safe) + (f" and {len(shown) - 30} more" if len(shown) > 30 else "")
