"""One sample, that is one question about one image, and the columns of the manifest that lists them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

import pyarrow as pa

KINDS = ("yes_no", "choice", "open")

_BOX = pa.struct(
    [("label", pa.string()), ("x1", pa.float64()), ("y1", pa.float64()), ("x2", pa.float64()), ("y2", pa.float64())]
)
_LABELED_PATH = pa.struct([("label", pa.string()), ("path", pa.string())])

MANIFEST_SCHEMA = pa.schema(
    [
        ("sample_id", pa.string()),
        ("patient_id", pa.string()),
        ("study_id", pa.string()),
        ("image_id", pa.string()),
        ("image_path", pa.string()),
        ("question", pa.string()),
        ("question_group", pa.string()),
        ("variant", pa.string()),
        ("strategy", pa.string()),
        ("kind", pa.string()),
        ("answer", pa.list_(pa.string())),
        ("finding", pa.string()),
        ("side", pa.string()),
        ("split", pa.string()),
        ("boxes", pa.list_(_BOX)),
        ("finding_mask_path", pa.string()),
        ("anatomy_masks", pa.list_(_LABELED_PATH)),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("source", pa.string()),
    ]
)
"""The manifest's columns, in order. Every column must be there; every value but ``sample_id`` may be null."""


class SampleError(ValueError):
    """A sample that cannot be used; the message is one line and says which value is at fault."""


@dataclass(frozen=True)
class Box:
    """A box around something, ``(x1, y1)`` inside and ``(x2, y2)`` outside (half open), in original pixels."""

    label: str
    x1: float
    y1: float
    x2: float
    y2: float


@dataclass(frozen=True)
class Sample:
    """One question about one image: the manifest's columns, in the manifest's order.

    A value is kept as it stands in the manifest, so that a faulty one can be shown; `validate` judges it.

    Attributes:
        sample_id: Names this (image, question) pair; unique in a manifest.
        patient_id: Patient, the unit that statistics cluster by.
        study_id: Study of that patient.
        image_id: The image; it seeds every random stream, so all questions of an image share one.
        image_path: Image file, relative to the data root.
        question: The question as it is put to the model.
        question_group: Names the paraphrases of one question.
        variant: Which paraphrase of the group this is.
        strategy: How the paraphrase was made; stability is told by it. A turn of a conversation is a variant too: the
            same question, with the turns before it as text.
        kind: ``yes_no``, ``choice`` or ``open``; None: decided from the first token that the model generates.
        answer: Reference answers; an empty tuple is a reference that says "none"; None: unknown.
        finding: The finding that the question is about.
        side: Its side.
        split: Split of the source data set.
        boxes: Boxes in original pixels; those labeled as `finding` are that finding's.
        finding_mask_path: PNG mask of the finding, relative to the data root, of the image's size.
        anatomy_masks: Pairs (label, path) of PNG masks of organs.
        height: Height of the image file, pixels.
        width: Width of the image file, pixels.
        source: Data set that the sample comes from.
    """

    sample_id: str
    patient_id: str | None = None
    study_id: str | None = None
    image_id: str = ""
    image_path: str = ""
    question: str = ""
    question_group: str | None = None
    variant: str | None = None
    strategy: str | None = None
    kind: str | None = None
    answer: tuple[str, ...] | None = None
    finding: str | None = None
    side: str | None = None
    split: str | None = None
    boxes: tuple[Box, ...] = ()
    finding_mask_path: str | None = None
    anatomy_masks: tuple[tuple[str, str], ...] = ()
    height: int | None = None
    width: int | None = None
    source: str | None = None

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """Build a sample from a manifest row; columns that a manifest does not have are ignored."""
        values: dict[str, Any] = {field.name: row.get(field.name) for field in fields(cls)}
        for name in ("image_id", "image_path", "question"):
            values[name] = values[name] or ""
        values["answer"] = None if values["answer"] is None else tuple(values["answer"])
        values["boxes"] = tuple(_box(box) for box in values["boxes"] or ())
        values["anatomy_masks"] = tuple((mask["label"], mask["path"]) for mask in values["anatomy_masks"] or ())
        return cls(**values)

    def to_row(self) -> dict[str, Any]:
        """The manifest row of this sample, in the types of `MANIFEST_SCHEMA`."""
        row: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        row["answer"] = None if self.answer is None else list(self.answer)
        row["boxes"] = [dict(vars(box)) for box in self.boxes]
        row["anatomy_masks"] = [{"label": label, "path": path} for label, path in self.anatomy_masks]
        return row

    def validate(self) -> None:
        """Judge every value that can be judged without the image.

        Raises:
            SampleError: A required value is missing, the kind is unknown, or a box is empty or not finite.
        """
        for name in ("image_path", "image_id", "question"):
            if not getattr(self, name):
                raise SampleError(f"{name} is missing")
        if self.kind is not None and self.kind not in KINDS:
            # Where a table's columns are mixed up, the value is a text of the data set, which is not to be shown.
            shown = f" {self.kind!r}" if self.kind.isidentifier() and len(self.kind) <= 12 else ""
            raise SampleError(f"unknown kind{shown}: expected {', '.join(KINDS)} or null")
        for box in self.boxes:
            corners = (box.x1, box.y1, box.x2, box.y2)
            if not all(map(math.isfinite, corners)):
                raise SampleError(f"box {box.label!r} has a corner that is not finite: {corners}")
            if box.x1 >= box.x2 or box.y1 >= box.y2:
                raise SampleError(f"box {box.label!r} is empty: {corners} are not x1 < x2, y1 < y2")


def _box(row: Mapping[str, Any] | None) -> Box:
    """A box of a manifest row; what is null there is no number here, for `Sample.validate` to find."""
    row = row or {}
    x1, y1, x2, y2 = (math.nan if row.get(corner) is None else row[corner] for corner in ("x1", "y1", "x2", "y2"))
    return Box(row.get("label") or "", x1, y1, x2, y2)
