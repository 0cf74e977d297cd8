"""Reads JSON files entry by entry, so that neither their size nor their nesting can exhaust memory or stack."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn, TextIO

from cxr_faith.data.tally import PrepareError
from cxr_faith.data.text_files import MAX_LINE, LimitError, check_rows, open_text, short_lines

_BLOCK = 2**20
_LONGEST_WORD = 16
_MARK = re.compile(r"\S")
_KINDS = {"[": "list", "{": "dict", '"': "str"}


def _whole(digits: str) -> int | float:
    """A whole number; one that no 64-bit program writes becomes a NaN rather than an error of the interpreter."""
    return int(digits) if len(digits) <= 400 else float("nan")


_DECODER = json.JSONDecoder(parse_int=_whole)


def json_entries(path: Path, kind: type[list[Any]] | type[dict[str, Any]]) -> Iterator[tuple[Any, Any]]:
    """Read the entries of a JSON file, plain or gzipped, that holds a list or mapping.

    Args:
        path: the file.
        kind: `list` or `dict`, the type that the file must hold.

    Yields:
        (position, entry) for a list, (key, value) for a mapping.

    Raises:
        PrepareError: the file is missing, damaged or empty, holds another type, or has an entry or a number of entries
            beyond the limits of `text_files`.
    """
    with open_text(path, "JSON file") as file:
        yield from _Reader(file, path, kind).entries()


def json_lines(path: Path) -> Iterator[Any]:
    """Read the values of a JSON Lines file, plain or gzipped.

    Raises:
        PrepareError: the file is missing or damaged, or a line is not valid JSON; the message has its number.
    """
    count = 0
    with open_text(path, "file") as file:
        for number, line in enumerate(short_lines(file, path), 1):
            if line.strip():
                count += 1
                check_rows(count, path)
                try:
                    yield _DECODER.decode(line)
                except (json.JSONDecodeError, RecursionError) as error:
                    raise PrepareError(f"{path}: line {number} is not valid JSON ({_fault(error)})") from error


class _Reader:
    """Decodes one entry at a time from a window on the file."""

    def __init__(self, file: TextIO, path: Path, kind: type[Any]) -> None:
        self.file, self.path, self.kind = file, path, kind
        self.text, self.at, self.count = "", 0, 0
        self.ended = False

    def entries(self) -> Iterator[tuple[Any, Any]]:
        first = self._next_mark()
        if not first:
            raise PrepareError(f"{self.path}: is empty; is the download complete?")
        if _KINDS.get(first) != self.kind.__name__:
            if first not in _KINDS:
                self._value()
            raise PrepareError(f"{self.path}: holds a {_KINDS.get(first, 'value')}, expected a {self.kind.__name__}")
        close = {"[": "]", "{": "}"}[first]
        self.at += 1
        mark = self._next_mark()
        while mark != close or self.count:
            self.count += 1
            check_rows(self.count, self.path)
            if self.kind is dict:
                key = self._value()
                if not isinstance(key, str):
                    self._refuse("a name in quotes is expected")
                self._expect(":")
                yield key, self._value()
            else:
                yield self.count - 1, self._value()
            if (mark := self._next_mark()) == close:
                break
            self._expect(",")
        self.at += 1
        if self._next_mark():
            self._refuse("text after the end")

    def _next_mark(self) -> str:
        """The next character that is not white space; empty at the end of the file."""
        while True:
            if match := _MARK.search(self.text, self.at):
                self.at = match.start()
                return match[0]
            self.at = len(self.text)
            if not self._read_on():
                return ""

    def _expect(self, mark: str) -> None:
        if self._next_mark() != mark:
            self._refuse(f"{mark!r} is expected")
        self.at += 1

    def _value(self) -> Any:
        self._next_mark()
        while True:
            try:
                value, end = _DECODER.raw_decode(self.text, self.at)
            except RecursionError as error:
                self._refuse(_fault(error))
            except json.JSONDecodeError as error:
                # Only where it stops at the window's end may the value go on beyond it.
                cut = error.msg.startswith("Unterminated") or error.pos > len(self.text) - _LONGEST_WORD
                if not cut or not self._read_on():
                    self._refuse(error.msg)
                continue
            if end < len(self.text) or not self._read_on():
                self.at = end
                return value

    def _read_on(self) -> bool:
        """Move the window to the current entry and double it; False at the end of the file."""
        self.text, self.at = self.text[self.at :], 0
        if len(self.text) > MAX_LINE:
            raise LimitError(f"{self.path}: entry {self.count} has more than {MAX_LINE:,} characters")
        more = "" if self.ended else self.file.read(max(_BLOCK, len(self.text)))
        self.ended = not more
        self.text += more
        return bool(more)

    def _refuse(self, fault: str) -> NoReturn:
        raise PrepareError(
            f"{self.path}: not valid JSON (entry {self.count}: {fault}); is the download complete?"
        ) from None


def _fault(error: Exception) -> str:
    return error.msg if isinstance(error, json.JSONDecodeError) else "nested too deeply"
