"""Writes phantoms at two times: both pictures of each, the masks of their lesion, and the samples of the questions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cxr_faith.data.boxes import box_of_mask
from cxr_faith.data.sample import YES_NO, Box, Sample, ShownImage
from cxr_faith.data.sources.phantom import SIZE
from cxr_faith.data.sources.phantom_body import ANATOMY
from cxr_faith.data.sources.phantom_changes import ChangeQuestion, Comparison, Role, change_questions, sample_comparison
from cxr_faith.data.sources.phantom_files import SOURCE, write_mask, write_picture
from cxr_faith.data.sources.phantom_render import render

ROLES: tuple[Role, Role] = ("prior", "current")
"""The pictures of a question, in the order in which the model gets them."""


def write_comparisons(
    root: Path,
    patients: int,
    seed: int = 0,
    split: str = "test",
    size: tuple[int, int] = SIZE,
    pairs: bool = False,
) -> Iterator[Sample]:
    """Write pictures and masks, and yield the samples; a patient has two studies and up to three questions.

    Args:
        root: folder to write into.
        patients: number of patients.
        seed: seed of the data set.
        split: name of the split.
        size: height and width of the pictures.
        pairs: also write the picture without the lesion that a question asks about.
    """
    for number in range(patients):
        comparison = sample_comparison(f"c{seed}-{number:05d}", seed)
        images, masks = render([comparison.prior, comparison.current, comparison.without], size)
        name = comparison.current.image_id
        for role, image in zip(ROLES, images, strict=False):
            write_picture(root / _image_path(name, role), image)
        for organ in ANATOMY:
            write_mask(root / _mask_path(name, organ), masks[organ][0])
        lesion = masks[f"{comparison.lesion.finding}/{comparison.lesion.side}"]
        of_role = {role: lesion[place] for place, role in enumerate(ROLES) if lesion[place].any()}
        for role, mask in of_role.items():
            write_mask(root / _mask_path(name, f"{comparison.lesion.finding} {role}"), mask)
        # The picture without the lesion is the other one, unless both show it.
        bare = next((_image_path(name, role) for role in ROLES if role not in of_role), f"images/{name}-without.jpg")
        if pairs and len(of_role) == len(ROLES):
            write_picture(root / bare, images[2])
        for question in change_questions(comparison):
            yield _sample(comparison, question, of_role, split, size, bare if pairs else None)


def _image_path(name: str, role: Role) -> str:
    return f"images/{name}-{role}.jpg"


def _mask_path(name: str, what: str) -> str:
    return f"masks/{name}-{what.replace(' ', '_')}.png"


def _sample(
    comparison: Comparison,
    question: ChangeQuestion,
    masks: Mapping[Role, NDArray[np.bool_]],
    split: str,
    size: tuple[int, int],
    bare: str | None,
) -> Sample:
    """The sample of one question. It belongs to the picture that holds the evidence; boxes mark the other one's."""
    patient, finding = comparison.current.patient_id, comparison.lesion.finding
    own = question.evidence[0] if question.evidence else "current"
    corners = {role: box_of_mask(masks[role]) for role in question.evidence}
    topic = f"{question.topic}/{finding.replace(' ', '_')}"
    return Sample(
        sample_id=f"{patient}.{topic.replace('/', '.')}.{question.variant}",
        patient_id=patient,
        study_id=f"{patient}-current",
        image_id=f"{patient}-{own}",
        image_path=_image_path(patient, own),
        question=question.text,
        question_group=f"{patient}/{topic}",
        variant=str(question.variant),
        strategy="template",
        kind=YES_NO,
        answer=(question.answer,),
        finding=finding,
        side=comparison.lesion.side,
        split=split,
        boxes=tuple(Box(finding, *box, f"{patient}-{role}") for role, box in corners.items() if box is not None),
        finding_mask_path=_mask_path(patient, f"{finding} {own}") if question.evidence else None,
        anatomy_masks=tuple((organ, _mask_path(patient, organ)) for organ in ANATOMY),
        height=size[0],
        width=size[1],
        source=SOURCE,
        pair_path=bare if len(question.evidence) == 1 else None,
        images=tuple(ShownImage(f"{patient}-{role}", _image_path(patient, role), role) for role in ROLES),
    )
