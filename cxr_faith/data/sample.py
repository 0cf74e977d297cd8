"""A sample is one question about one image; a manifest lists samples, with the columns defined here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

import pyarrow as pa

from cxr_faith.data.sample_parts import BOX, SHOWN, TURN, box_of, storable_value
from cxr_faith.data.sample_parts import Box as Box
from cxr_faith.data.sample_parts import ShownImage as ShownImage
from cxr_faith.data.sample_parts import Turn as Turn

KINDS = YES_NO, CHOICE, OPEN, OPTION = ("yes_no", "choice", "open", "option")
"""Kinds of questions; one of the kind `option` is answered with the letter of one of its options."""
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
"""The letters of options, in their order."""

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
        ("boxes", pa.list_(BOX)),
        ("finding_mask_path", pa.string()),
        ("anatomy_masks", pa.list_(_LABELED_PATH)),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("source", pa.string()),
        ("sex", pa.string()),
        ("age", pa.int32()),
        ("view", pa.string()),
        ("readers", pa.list_(pa.struct([("reader", pa.string()), ("boxes", pa.list_(BOX))]))),
        ("pair_path", pa.string()),
        ("pair_id", pa.string()),
        ("planted", pa.bool_()),
        ("contrast", pa.float64()),
        ("options", pa.list_(pa.string())),
        ("images", pa.list_(SHOWN)),
        ("turns", pa.list_(TURN)),
        ("orientation", pa.string()),
    ]
)
"""The manifest's columns, in order. Every value may be null, and every column but `LATER_COLUMNS` is required."""
LATER_COLUMNS = (
    *("sex", "age", "view", "readers", "pair_path", "pair_id", "planted", "contrast"),
    *("options", "images", "turns", "orientation"),
)
"""Columns that manifests of earlier versions lack; they are read as null."""
FAULT = "fault"
"""Column of an open manifest that says what is wrong with a row; only there if a row cannot be read."""
MAX_QUESTION = 100_000
"""Longest question, in characters; how many tokens a model takes is limited elsewhere."""


class SampleError(ValueError):
    """A sample that cannot be used; the message is one line that names the faulty value."""


@dataclass(frozen=True)
class Sample:
    """One question about one image, or several: the manifest's columns, in the manifest's order.

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
        strategy: how the paraphrase was made; groups the stability results.
        kind: `yes_no`, `choice`, `open` or `option`; None: decided from the first token that the model generates.
        answer: reference answers; an empty tuple: the reference is "none"; None: the reference is unknown. Of an
            `option` question it is a letter.
        finding: the finding that the question is about.
        side: the finding's side.
        split: split of the source data set.
        boxes: boxes in original pixels; boxes whose label is `finding` belong to that finding. A box may lie on another
            picture that the question shows, which it names.
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
        pair_path: the same picture without this question's finding, of its size: a phantom without its lesion, or the
            film that an object was planted into. The substrate `pair` puts its cells in place of removed ones.
        pair_id: names a film and the object planted in it; the film's row and those of its copies share it.
        planted: whether the picture shows the planted object; None: the row belongs to no planted pair.
        contrast: how strong the planted object is; 1 is plain to see.
        options: texts of the options of an `option` question; the first has the letter A. The question lists them.
        images: the pictures of a question that shows several, in the order in which the model gets them; empty: the
            one of `image_id`. That one is among them: masks and sizes belong to it, and boxes that name no other.
        turns: the earlier turns of the conversation that the question continues, first to last; the pictures come
            before them. Questions of one `question_group` with different numbers of turns are one conversation.
        orientation: `usual`, `mirrored` or `other` (from the side, or turned); None: not stated, taken for usual.
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
    options: tuple[str, ...] = ()
    images: tuple[ShownImage, ...] = ()
    turns: tuple[Turn, ...] = ()
    orientation: str | None = None

    @property
    def picture_ids(self) -> list[str]:
        """Ids of the pictures that the question shows."""
        return [image.image_id for image in self.images] or [self.image_id]

    @property
    def pictures_id(self) -> str:
        """Their ids as one; it seeds every random stream."""
        return "+".join(self.picture_ids)

    @property
    def n_options(self) -> int:
        """Number of options that the question is asked with; 0 for other kinds than `option`."""
        return len(self.options) if self.kind == OPTION else 0

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """Build a sample from a manifest row; other columns are ignored, `validate` reports null entries of lists."""
        values: dict[str, Any] = {field.name: row.get(field.name) for field in fields(cls)}
        for name in ("image_id", "image_path", "question"):
            values[name] = values[name] or ""
        return cls(**values | _lists(values))

    def to_row(self) -> dict[str, Any]:
        """The sample as a manifest row, with the types of `MANIFEST_SCHEMA`."""
        row: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        row["answer"] = None if self.answer is None else list(self.answer)
        row |= {name: [dict(vars(one)) for one in row[name]] for name in ("images", "turns", "boxes")}
        row["options"] = list(self.options)
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
        return type(self)(**{field.name: storable_value(getattr(self, field.name)) for field in fields(self)})

    def validate(self) -> None:
        """Check every value that can be checked without the image.

        Raises:
            SampleError: a required value or an entry of a list is missing, the kind is unknown, a reader is listed
                twice, the question is longer than `MAX_QUESTION`, a box is empty, not finite or on a picture that is
                not shown, or an `option` question lacks its options or has an answer that is no letter of them.
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
        _check_options(self)
        _check_images(self)
        if not all(turn.question and turn.answer for turn in self.turns):
            raise SampleError("turns has an entry without question or answer")
        if sum(len(text) for turn in self.turns for text in vars(turn).values()) > MAX_QUESTION:
            raise SampleError(f"turns have more than {MAX_QUESTION} characters")
        if not all(label and path for label, path in self.anatomy_masks):
            raise SampleError("anatomy_masks has an entry without label or path")
        _check_boxes(self)


def _lists(values: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of a manifest row that hold lists, with their types."""
    masks = ((mask or {}) for mask in values["anatomy_masks"] or ())
    readers = ((reader or {}) for reader in values["readers"] or ())
    shown = ((image or {}) for image in values["images"] or ())
    turns = ((turn or {}) for turn in values["turns"] or ())
    return {
        "answer": None if values["answer"] is None else tuple(values["answer"]),
        "options": tuple(values["options"] or ()),
        "images": tuple(
            ShownImage(image.get("image_id") or "", image.get("path") or "", image.get("role")) for image in shown
        ),
        "turns": tuple(Turn(turn.get("question") or "", turn.get("answer") or "") for turn in turns),
        "boxes": tuple(box_of(box) for box in values["boxes"] or ()),
        "anatomy_masks": tuple((mask.get("label") or "", mask.get("path") or "") for mask in masks),
        "readers": tuple(
            (reader.get("reader") or "", tuple(map(box_of, reader.get("boxes") or ()))) for reader in readers
        ),
    }


def _check_boxes(sample: Sample) -> None:
    """Check the readers and the boxes, those of readers too."""
    names = [reader for reader, _ in sample.readers]
    if not all(names) or len(set(names)) < len(names):
        raise SampleError("readers has an entry without reader, or one reader twice")
    for box in (*sample.boxes, *(box for _, boxes in sample.readers for box in boxes)):
        corners = (box.x1, box.y1, box.x2, box.y2)
        if not all(map(math.isfinite, corners)):
            raise SampleError(f"box {box.label!r} has a corner that is not finite: {corners}")
        if box.x1 >= box.x2 or box.y1 >= box.y2:
            raise SampleError(f"box {box.label!r} is empty: {corners} are not x1 < x2, y1 < y2")
        if box.image_id not in (None, sample.image_id, *(image.image_id for image in sample.images)):
            raise SampleError(f"box {box.label!r} lies on a picture that the question does not show")


def _check_images(sample: Sample) -> None:
    """Check the pictures of a question that shows several."""
    if not all(image.image_id and image.path for image in sample.images):
        raise SampleError("images has an entry without image_id or path")
    own = [image.path for image in sample.images if image.image_id == sample.image_id]
    if sample.images and own != [sample.image_path]:
        raise SampleError("images must name the picture of image_id and image_path once")


def _check_options(sample: Sample) -> None:
    """Check what an `option` question needs."""
    if sample.kind != OPTION:
        return
    if not 2 <= len(sample.options) <= len(LETTERS) or not all(sample.options):
        raise SampleError(f"an option question needs 2 to {len(LETTERS)} options, each with a text")
    if sample.answer is not None and not {*sample.answer} <= {*LETTERS[: len(sample.options)]}:
        raise SampleError("the answer of an option question must be the letter of one of its options")
