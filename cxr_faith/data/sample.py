"""A sample is one question about one image; a manifest lists samples, with the columns defined here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import pyarrow as pa

KINDS = YES_NO, CHOICE, OPEN = ("yes_no", "choice", "open")

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
        ("sex", pa.string()),
        ("age", pa.int32()),
        ("view", pa.string()),
        ("readers", pa.list_(pa.struct([("reader", pa.string()), ("boxes", pa.list_(_BOX))]))),
        ("pair_path", pa.string()),
        ("pair_id", pa.string()),
        ("planted", pa.bool_()),
        ("contrast", pa.float64()),
    ]
)
"""The manifest's columns, in order. Every value may be null, and every column but `LATER_COLUMNS` is required."""
LATER_COLUMNS = ("sex", "age", "view", "readers", "pair_path", "pair_id", "planted", "contrast")
"""Columns that manifests of earlier versions lack; they are read as null."""
FAULT = "fault"
"""Column of an open manifest that says what is wrong with a row; only there if a row cannot be read."""
MAX_QUESTION = 100_000
"""Longest question, in characters; how many tokens a model takes is limited elsewhere."""


class SampleError(ValueError):
    """A sample that cannot be used; the message is one line that names the faulty value."""


@dataclass(frozen=True)
class Box:
    """A labeled box in original pixels, half open: it includes `(x1, y1)` and excludes `(x2, y2)`."""

    label: str
    x1: float
    y1: float
    x2: float
    y2: float


@dataclass(frozen=True)
class Sample:
    """One question about one image: the manifest's columns, in the manifest's order.

    Values are kept as they are in the manifest, so that an error can show a faulty one; `validate` checks them.

    Attributes:
        sample_id: id of this (image, question) pair, unique in a manifest.
        patient_id: id of the patient, the unit that statistics cluster by.
        study_id: id of the patient's study.
        image_id: id of the image. It seeds every random stream, so all questions about an image share them.
        image_path: image file, relative to the data root.
        question: the question as it is put to the model.
        question_group: id that the paraphrases of one question share.
        variant: which paraphrase of the group this is.
        strategy: how the paraphrase was made; groups the stability results. A turn of a conversation is a variant too:
            the same question, with the earlier turns as text.
        kind: `yes_no`, `choice` or `open`; None: decided from the first token that the model generates.
        answer: reference answers; an empty tuple: the reference is "none"; None: the reference is unknown.
        finding: the finding that the question is about.
        side: the finding's side.
        split: split of the source data set.
        boxes: boxes in original pixels; boxes whose label is `finding` belong to that finding.
        finding_mask_path: PNG mask of the finding, relative to the data root, of the image's size.
        anatomy_masks: (label, path) of each PNG mask of an organ.
        height: height of the image file, pixels.
        width: width of the image file, pixels.
        source: data set that the sample comes from.
        sex: the patient's sex, `M` or `F`.
        age: the patient's age in whole years.
        view: `AP`, `PA` or `LATERAL`; `OTHER`: a view that is none of them.
        readers: (reader, boxes) of each reader who marked the image, in original pixels; `boxes` holds what they agree
            on. A reader without boxes saw nothing to mark.
        pair_path: the same picture without the finding of this question, relative to the data root and of the image's
            size, where it is known exactly: a phantom without its lesion, or the film that an object was planted into.
            The substrate `pair` puts its cells in place of removed ones.
        pair_id: names a film and the object that was planted in it: the film's row and those of its planted copies,
            one for each contrast, share it and their question.
        planted: whether the picture shows the planted object; None: the row belongs to no planted pair.
        contrast: how strong the planted object is; 1 is plain to see.
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
    sex: str | None = None
    age: int | None = None
    view: str | None = None
    readers: tuple[tuple[str, tuple[Box, ...]], ...] = ()
    pair_path: str | None = None
    pair_id: str | None = None
    planted: bool | None = None
    contrast: float | None = None

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """Build a sample from a manifest row; other columns are ignored, `validate` reports null entries of lists."""
        values: dict[str, Any] = {field.name: row.get(field.name) for field in fields(cls)}
        for name in ("image_id", "image_path", "question"):
            values[name] = values[name] or ""
        values["answer"] = None if values["answer"] is None else tuple(values["answer"])
        values["boxes"] = tuple(_box(box) for box in values["boxes"] or ())
        masks = ((mask or {}) for mask in values["anatomy_masks"] or ())
        values["anatomy_masks"] = tuple((mask.get("label") or "", mask.get("path") or "") for mask in masks)
        readers = ((reader or {}) for reader in values["readers"] or ())
        values["readers"] = tuple(
            (reader.get("reader") or "", tuple(map(_box, reader.get("boxes") or ()))) for reader in readers
        )
        return cls(**values)

    def to_row(self) -> dict[str, Any]:
        """The sample as a manifest row, with the types of `MANIFEST_SCHEMA`."""
        row: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        row["answer"] = None if self.answer is None else list(self.answer)
        row["boxes"] = [dict(vars(box)) for box in self.boxes]
        row["anatomy_masks"] = [{"label": label, "path": path} for label, path in self.anatomy_masks]
        row["readers"] = [
            {"reader": reader, "boxes": [dict(vars(box)) for box in boxes]} for reader, boxes in self.readers
        ]
        return row

    def storable(self) -> Self:
        """The same sample with texts that any file can hold.

        JSON can spell half a surrogate pair, which no UTF-8 file can store: each becomes `�`. All other characters stay
        as they are, control characters too; whatever prints them escapes them.
        """
        return type(self)(**{field.name: _storable(getattr(self, field.name)) for field in fields(self)})

    def validate(self) -> None:
        """Check every value that can be checked without the image.

        Raises:
            SampleError: a required value or an entry of a list is missing, the kind is unknown, the question is longer
                than `MAX_QUESTION`, or a box is empty or not finite.
        """
        for name in ("image_path", "image_id", "question"):
            if not getattr(self, name):
                raise SampleError(f"{name} is missing")
        if self.kind is not None and self.kind not in KINDS:
            # If a table's columns are mixed up, the value may be text of the data set, which must not be printed.
            shown = f" {self.kind!r}" if self.kind.isidentifier() and len(self.kind) <= 12 else ""
            raise SampleError(f"unknown kind{shown}: expected {', '.join(KINDS)} or null")
        if len(self.question) > MAX_QUESTION:
            raise SampleError(f"question has more than {MAX_QUESTION} characters")
        if self.answer is not None and None in self.answer:
            raise SampleError("answer has an entry without text")
        if not all(label and path for label, path in self.anatomy_masks):
            raise SampleError("anatomy_masks has an entry without label or path")
        for box in (*self.boxes, *(box for _, boxes in self.readers for box in boxes)):
            corners = (box.x1, box.y1, box.x2, box.y2)
            if not all(map(math.isfinite, corners)):
                raise SampleError(f"box {box.label!r} has a corner that is not finite: {corners}")
            if box.x1 >= box.x2 or box.y1 >= box.y2:
                raise SampleError(f"box {box.label!r} is empty: {corners} are not x1 < x2, y1 < y2")


def _storable(value: Any) -> Any:
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, Box):
        return replace(value, label=_storable(value.label))
    return tuple(map(_storable, value)) if isinstance(value, tuple) else value


def _box(row: Mapping[str, Any] | None) -> Box:
    """A box of a manifest row; null corners become NaN, which `Sample.validate` reports."""
    row = row or {}
    x1, y1, x2, y2 = (math.nan if row.get(corner) is None else row[corner] for corner in ("x1", "y1", "x2", "y2"))
    return Box(row.get("label") or "", x1, y1, x2, y2)
