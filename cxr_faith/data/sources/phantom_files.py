"""Writes phantoms to disk: pictures, their pairs, masks and the manifest with the questions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from cxr_faith.data.boxes import box_of_mask
from cxr_faith.data.sample import MANIFEST_SCHEMA, Box, Sample
from cxr_faith.data.sources.phantom_body import ANATOMY
from cxr_faith.data.sources.phantom_pairs import without_finding
from cxr_faith.data.sources.phantom_questions import Question
from cxr_faith.data.sources.phantom_render import MARKER, render
from cxr_faith.data.sources.phantom_spec import Phantom
from cxr_faith.storage.atomic import replacing

JPEG_QUALITY = 93
BATCH = 32
SOURCE = "phantom"
"""Where the samples of drawn pictures come from, in their manifest."""


def write_samples(
    root: Path,
    asked: Sequence[tuple[Phantom, Sequence[Question]]],
    size: tuple[int, int],
    split: str,
    pairs: bool = False,
    markers: bool = False,
) -> Path:
    """Write pictures, masks and a manifest.

    Args:
        root: folder to write into; created if it is missing.
        asked: phantoms, each with its questions.
        size: height and width of the pictures.
        split: name of the split.
        pairs: also write each picture without the finding that a question asks about.
        markers: also write the mask of each side marker, among the masks of the anatomy.

    Returns:
        path of the manifest.
    """
    samples: list[Sample] = []
    for start in range(0, len(asked), BATCH):
        part = asked[start : start + BATCH]
        images, masks = render([phantom for phantom, _ in part], size)
        for i, (phantom, questions) in enumerate(part):
            write_picture(root / _image_path(phantom), images[i])
            own = {name: mask[i] for name, mask in masks.items()}
            drawn = [*ANATOMY, *([MARKER] if markers and phantom.marker else [])]
            for name in drawn:
                write_mask(root / _mask_path(phantom, name), own[name])
            of_phantom = [_sample(root, phantom, question, own, drawn, size, split) for question in questions]
            samples += _paired(root, phantom, questions, of_phantom) if pairs else of_phantom
    path = root / "manifest.parquet"
    rows = pa.Table.from_pylist([sample.to_row() for sample in samples], schema=MANIFEST_SCHEMA)
    with replacing(path) as file:
        pq.write_table(rows, file, compression="zstd")
    return path


def _paired(root: Path, phantom: Phantom, questions: Sequence[Question], samples: Sequence[Sample]) -> Iterator[Sample]:
    """The samples of a phantom with their pairs, which are written; questions about one lesion share a pair."""
    written: set[str] = set()
    for question, sample in zip(questions, samples, strict=True):
        other = without_finding(phantom, question)
        if other is None:
            yield sample
            continue
        what = f"{question.finding} {question.side or ''}".strip().replace(" ", "_")
        path = f"images/{phantom.image_id}-without-{what}.jpg"
        if path not in written:
            written.add(path)
            write_picture(root / path, render([other], (sample.height or 0, sample.width or 0))[0][0])
        yield replace(sample, pair_path=path)


def write_picture(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Write a gray picture [H, W] as JPEG."""
    with replacing(path, durable=False) as file:
        Image.fromarray(pixels).save(file, "JPEG", quality=JPEG_QUALITY)


def _image_path(phantom: Phantom) -> str:
    return f"images/{phantom.image_id}.jpg"


def _mask_path(phantom: Phantom, name: str) -> str:
    return f"masks/{phantom.image_id}-{name.replace('/', '-').replace(' ', '_')}.png"


def write_mask(path: Path, mask: NDArray[np.bool_]) -> None:
    """Write a mask [H, W] as a one-bit PNG."""
    with replacing(path, durable=False) as file:
        Image.fromarray(mask).save(file, "PNG", optimize=True)


def _sample(
    root: Path,
    phantom: Phantom,
    question: Question,
    masks: dict[str, NDArray[np.bool_]],
    drawn: Sequence[str],
    size: tuple[int, int],
    split: str,
) -> Sample:
    """The sample of one question; writes the mask of its finding if the phantom has that finding."""
    finding = question.finding
    sides = [p.side for p in phantom.lesions if p.finding == finding and question.side in (None, p.side)]
    name = f"{finding}/{question.side}" if question.side else finding
    mask_path, boxes = None, []
    if finding and sides:
        mask_path = _mask_path(phantom, str(name))
        write_mask(root / mask_path, masks[str(name)])
        parts = [masks[f"{finding}/{side}" if side else finding] for side in sides]
        boxes = [Box(finding, *corners) for part in parts if (corners := box_of_mask(part)) is not None]
    known_side = sides[0] if len(sides) == 1 else None
    return Sample(
        sample_id=f"{phantom.image_id}.{question.group.replace('/', '.')}.{question.variant}",
        patient_id=phantom.patient_id,
        study_id=phantom.study_id,
        image_id=phantom.image_id,
        image_path=_image_path(phantom),
        question=question.text,
        question_group=f"{phantom.image_id}/{question.group}",
        variant=str(question.variant),
        strategy="template",
        kind=question.kind,
        answer=tuple(question.answer.split(", ")),
        finding=finding,
        side=question.side or known_side,
        split=split,
        boxes=tuple(boxes),
        finding_mask_path=mask_path,
        anatomy_masks=tuple((name, _mask_path(phantom, name)) for name in drawn),
        height=size[0],
        width=size[1],
        source=SOURCE,
    )
