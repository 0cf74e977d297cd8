"""The same phantom without one of its findings: what a picture would show if the patient did not have it."""

from __future__ import annotations

from dataclasses import replace

from cxr_faith.data.sources.phantom_questions import Question
from cxr_faith.data.sources.phantom_spec import HEART_LARGE, HEART_NORMAL, Phantom


def without_finding(phantom: Phantom, question: Question) -> Phantom | None:
    """The phantom without the lesions that a question asks about; None if it shows none of them.

    Pose, anatomy, exposure, noise and every other lesion stay as they are, so that the two pictures differ where the
    lesion is and nowhere else. An enlarged heart becomes one of normal size, as large among normal ones as it was among
    enlarged ones.
    """
    asked = [p for p in phantom.lesions if p.finding == question.finding and question.side in (None, p.side)]
    if not asked:
        return None
    healthy = replace(phantom, lesions=tuple(p for p in phantom.lesions if p not in asked))
    if question.finding != "cardiomegaly":
        return healthy
    place = (phantom.heart_size - HEART_LARGE[0]) / (HEART_LARGE[1] - HEART_LARGE[0])
    return replace(healthy, heart_size=HEART_NORMAL[0] + place * (HEART_NORMAL[1] - HEART_NORMAL[0]))
