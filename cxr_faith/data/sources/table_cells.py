"""Values of a table's cells that hold more than a text: masks and boxes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

from cxr_faith.data.answers import UnreadableError
from cxr_faith.data.boxes import damaged_locs, from_loc, from_padded, from_unit, from_xywh
from cxr_faith.data.literals import looks_like_literal, read_cell
from cxr_faith.data.sample import Box, Turn
from cxr_faith.data.tables import number, text
from cxr_faith.data.tally import Tally


def _parsed(value: Any) -> Any:
    """A list, or a list as text; None for anything else."""
    if isinstance(value, str) and looks_like_literal(value):
        value = read_cell(value)
    return value if isinstance(value, list) else None


def _entries(value: Any, what: str, name: str, tally: Tally) -> list[Any]:
    """Entries of a list of lists or mappings; any other value counts as dropped."""
    entries = _parsed(value)
    if entries is None:
        unusable = text(value) is not None
    else:
        unusable = bool(entries) and not any(isinstance(entry, list | dict) for entry in entries)
    if unusable:
        tally.drop(what, name, "is not written as a list of lists or mappings")
        return []
    return entries or []


def path_in(value: Any) -> str:
    """Path of a picture: a text, a list of one, or a list of one as text; empty where there is none.

    Raises:
        UnreadableError: the value holds several paths.
    """
    if isinstance(value, dict):  # a picture as the `datasets` library stores it
        value = value.get("path")
    paths = _parsed(value)
    if paths is None:
        return text(value) or ""
    given = [path for path in map(text, paths) if path]
    if len(given) > 1:
        raise UnreadableError("row has several pictures, one is expected")
    return given[0] if given else ""


def paths_in(values: Iterable[Any]) -> Iterator[str]:
    """Paths of the pictures of a column, without the cells that hold several."""
    for value in values:
        with suppress(UnreadableError):
            yield path_in(value)


def masks_in(value: Any, name: str, tally: Tally) -> Iterator[tuple[str, str]]:
    """(label, path) of each organ mask of one row; unusable masks count as dropped."""
    for position, entry in enumerate(_entries(value, "mask", name, tally)):
        label, path = (text(entry.get(key)) if isinstance(entry, dict) else None for key in ("label", "path"))
        if label is None or path is None:
            tally.drop("mask", name, "has no label or path", position)
        else:
            yield label, path


def boxes_in(
    value: Any, box_format: str, label: str, size: tuple[int, int] | None, name: str, tally: Tally
) -> Iterator[Box]:
    """Boxes of one row: a text with <loc_…>, or a list whose entries are four numbers or mappings.

    Args:
        value: the cell.
        box_format: one of the formats of the source `table`.
        label: label of boxes without one.
        size: (height, width) of the image, which the formats unit and padded need.
        name: id of the row, for the list of drops.
        tally: takes the boxes that are dropped.
    """
    if box_format == "loc":
        located = text(value) or ""
        yield from (Box(label, *corners) for corners in from_loc(located))
        for position in range(damaged_locs(located)):
            tally.drop("box", name, "is not <loc_x1_y1_x2_y2>", position)
        return
    for position, entry in enumerate(_entries(value, "box", name, tally)):
        own = (text(entry.get("label")) or label) if isinstance(entry, dict) else label
        keys = ("x1", "y1", "x2", "y2") if box_format != "xywh" else ("x", "y", "w", "h")
        numbers = [entry.get(key) for key in keys] if isinstance(entry, dict) else entry
        if not isinstance(numbers, list) or len(numbers) != 4:
            tally.drop("box", name, "is not four numbers", position)
            continue
        a, b, c, d = map(number, numbers)
        if box_format in ("unit", "padded"):
            if size is None:
                tally.drop("box", name, "is relative to a size that the table does not state", position)
            else:
                yield Box(own, *(from_unit if box_format == "unit" else from_padded)((a, b, c, d), size))
        else:
            yield Box(own, *(from_xywh(a, b, c, d) if box_format == "xywh" else (a, b, c, d)))


def turns_in(value: Any) -> tuple[Turn, ...]:
    """Earlier turns of a conversation: a list of (question, answer) or of mappings with these keys, or such a text.

    Raises:
        UnreadableError: the value is no such list, or lacks a question or an answer.
    """
    entries = _parsed(value)
    if entries == [] or (entries is None and text(value) is None):
        return ()
    turns = []
    for entry in entries or [None]:
        pair = [entry.get("question"), entry.get("answer")] if isinstance(entry, dict) else entry
        texts = [text(part) for part in pair] if isinstance(pair, list | tuple) else []
        if len(texts) != 2 or not texts[0] or not texts[1]:
            raise UnreadableError("turns are not a list of questions and answers")
        turns.append(Turn(texts[0], texts[1]))
    return tuple(turns)
