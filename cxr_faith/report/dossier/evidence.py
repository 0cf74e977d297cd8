"""Figures of a dossier: each one is read from a place in a file of a run, and says which."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cxr_faith.printable import printable
from cxr_faith.report.formats import number
from cxr_faith.storage.atomic import read_file

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]
Show = Callable[[Json], str]


def shown(value: Json) -> str:
    """A value as a dossier writes it; an en dash for one that does not exist."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return number(value)
    if isinstance(value, list | dict):
        return printable(json.dumps(value, ensure_ascii=False))
    return "–" if value is None or value == "" else printable(str(value))


@dataclass(frozen=True)
class Column:
    """A column of an evidence table."""

    title: str
    """Its head."""
    place: str
    """Where each row has the value: the end of a JSON pointer, such as `/srg`; empty: the row itself."""
    show: Show = shown
    """How the value is written."""


@dataclass(frozen=True)
class Figure:
    """One value of a dossier."""

    value: Json
    """As the file holds it; None where the file has no such value."""
    text: str
    """As the dossier writes it."""
    place: str
    """Its JSON pointer (RFC 6901) in the file."""


@dataclass(frozen=True)
class Row:
    """One row of an evidence table."""

    name: str
    """What the row is about."""
    place: str
    """Its JSON pointer in the file."""
    figures: tuple[Figure, ...]
    """One for each column."""
    verdict: str = ""
    """What follows from the row by stated rules, in words; no value of the file."""


@dataclass(frozen=True)
class Evidence:
    """A table of figures from one file."""

    topic: str
    """A key of `topics.TOPICS`."""
    title: str
    """What it shows."""
    source: str
    """Name of the run, or of the comparison or plan."""
    file: str
    """Name of the file in it."""
    columns: tuple[Column, ...]
    """What the rows hold."""
    rows: tuple[Row, ...]
    """One or more."""
    note: str = ""
    """What follows from the figures by stated rules; may be empty."""


class Source:
    """A folder with files of results.

    Args:
        name: what the dossier calls it.
        folder: a run directory, or a folder of `cxr-faith compare`.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder, self._read = name, folder, dict[str, Json]()

    def content(self, file: str) -> Json:
        """A JSON file, or the lines of a text file by their number; None if there is no such file.

        Raises:
            ValueError: it is not JSON.
        """
        if file not in self._read:
            path = self.folder / file
            self._read[file] = _content(path) if path.is_file() else None
        return self._read[file]

    def at(self, file: str, place: str) -> Json:
        """The value at a JSON pointer; None if there is none."""
        value = self.content(file)
        for part in place.split("/")[1:]:
            key = part.replace("~1", "/").replace("~0", "~")
            if isinstance(value, dict):
                value = value.get(key)
            elif isinstance(value, list) and key.isdigit() and int(key) < len(value):
                value = value[int(key)]
            else:
                return None
        return value

    def below(self, file: str, place: str) -> Sequence[tuple[str, str, Json]]:
        """(key, JSON pointer, value) of each entry of an object or a list."""
        value = self.at(file, place)
        entries: Mapping[str, Json] = {}
        if isinstance(value, dict):
            entries = value
        elif isinstance(value, list):
            entries = {str(index): one for index, one in enumerate(value)}
        return [(key, f"{place}/{escaped(key)}", one) for key, one in entries.items()]

    def table(
        self,
        topic: str,
        title: str,
        file: str,
        rows: Sequence[tuple[str, str]],
        columns: Sequence[Column] = (Column("value", ""),),
        note: str = "",
        best: str = "",
        verdicts: Mapping[str, str] | None = None,
    ) -> list[Evidence]:
        """The rows that have a value, as one table; no table where none has.

        Args:
            topic: a key of `topics.TOPICS`.
            title: what it shows.
            file: name of the file.
            rows: name and JSON pointer of each row.
            columns: what the rows hold.
            note: what follows from the figures.
            best: place of the column whose highest value goes first; default: the order of `rows`.
            verdicts: JSON pointer of a row → what follows from it in words.
        """
        made = []
        if best:
            rows = sorted(rows, key=lambda row: _high_first(self.at(file, row[1] + best)))
        for name, place in rows:
            values = [(self.at(file, place + column.place), column) for column in columns]
            if any(value is not None and value != "" for value, _ in values):
                figures = [Figure(value, column.show(value), place + column.place) for value, column in values]
                made.append(Row(printable(name), place, tuple(figures), (verdicts or {}).get(place, "")))
        return [Evidence(topic, title, self.name, file, tuple(columns), tuple(made), note)] if made else []


def escaped(key: str) -> str:
    """A key as a part of a JSON pointer."""
    return key.replace("~", "~0").replace("/", "~1")


def _high_first(value: Json) -> tuple[bool, float]:
    """Sorts high values first, and rows without one last."""
    return (False, -float(value)) if isinstance(value, int | float) else (True, 0.0)


def _content(path: Path) -> Json:
    text = read_file(path).decode(errors="replace")
    if path.suffix != ".json":
        return {f"line {number}": line for number, line in enumerate(text.splitlines(), 1) if line.strip()}
    try:
        value: Json = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error})") from None
    return value
