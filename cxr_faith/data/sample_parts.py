"""Parts of a sample: boxes, the pictures that a question shows, the earlier turns of a conversation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

_CORNERS = tuple((corner, pa.float64()) for corner in ("x1", "y1", "x2", "y2"))
BOX = pa.struct([("label", pa.string()), *_CORNERS, ("image_id", pa.string())])
SHOWN = pa.struct([("image_id", pa.string()), ("path", pa.string()), ("role", pa.string())])
TURN = pa.struct([("question", pa.string()), ("answer", pa.string())])


@dataclass(frozen=True)
class Box:
    """A labeled box in original pixels, half open: it includes `(x1, y1)` and excludes `(x2, y2)`."""

    label: str
    x1: float
    y1: float
    x2: float
    y2: float
    image_id: str | None = None
    """The picture that it lies on, of those that the question shows; None: the sample's own."""


@dataclass(frozen=True)
class ShownImage:
    """One of the pictures that a question shows."""

    image_id: str
    path: str
    role: str | None = None
    """Such as current, prior, frontal, lateral or slice."""


@dataclass(frozen=True)
class Turn:
    """An earlier turn of a conversation, which the model sees before the question."""

    question: str
    answer: str


def storable_value(value: Any) -> Any:
    """A value of a sample with texts that any file can hold, see `Sample.storable`."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, Box):
        return replace(value, label=storable_value(value.label), image_id=storable_value(value.image_id))
    if isinstance(value, ShownImage | Turn):
        return type(value)(*map(storable_value, vars(value).values()))
    return tuple(map(storable_value, value)) if isinstance(value, tuple) else value


def box_of(row: Mapping[str, Any] | None) -> Box:
    """A box of a manifest row; null corners become NaN, which `Sample.validate` reports."""
    row = row or {}
    x1, y1, x2, y2 = (math.nan if row.get(corner) is None else row[corner] for corner in ("x1", "y1", "x2", "y2"))
    return Box(row.get("label") or "", x1, y1, x2, y2, row.get("image_id"))
