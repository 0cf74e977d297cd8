"""Questions from labels: one rule for all data sets that say which findings a picture has, and have no questions."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from cxr_faith.data.sample import Sample
from cxr_faith.data.tables import text
from cxr_faith.data.tally import Tally

PHRASINGS = (
    "Is there evidence of {finding}?",
    "Does this chest X-ray show {finding}?",
    "Can {finding} be seen in this image?",
    "Are there signs of {finding}?",
    "Is {finding} present?",
)
"""The first one is the default; several form a question group, each as one variant."""
YES, NO = "yes", "no"
UNCERTAIN = "uncertain"
"""A label that says neither: the question is asked, and its reference is unknown."""
_CHEXPERT = {1.0: YES, 0.0: NO, -1.0: UNCERTAIN}


class Asked(NamedTuple):
    """A question to ask: the picture, the finding, and `YES`, `NO` or `UNCERTAIN`."""

    image: str
    finding: str
    answer: str


def questions_from_labels(labels: Iterable[tuple[str, Mapping[str, str]]], balanced: bool, purpose: str) -> list[Asked]:
    """Choose the questions about labeled pictures.

    Every finding is asked about on each picture that has it, and on each where it is uncertain. Of the pictures without
    it all are asked about, or as many as have it. A hash of the finding and the picture's id chooses them, so neither
    the order of a table nor the other findings play a part.

    Args:
        labels: each finding with its pictures: id → `YES`, `NO` or `UNCERTAIN`. Pictures that are left out are not
            asked about.
        balanced: as many pictures without a finding as with it.
        purpose: goes into the hash, such as the split.

    Returns:
        the questions by picture and finding.
    """
    asked: list[Asked] = []
    for finding, pictures in labels:
        present = [name for name, answer in pictures.items() if answer == YES]
        absent = [name for name, answer in pictures.items() if answer == NO]
        if balanced:
            absent = shuffled(absent, f"{purpose}/{finding}")[: len(present)]
        asked += [Asked(name, finding, YES) for name in present]
        asked += [Asked(name, finding, NO) for name in absent]
        asked += [Asked(name, finding, UNCERTAIN) for name, answer in pictures.items() if answer == UNCERTAIN]
    return sorted(asked)


def presence_samples(
    source: str, asked: Asked, columns: Mapping[str, Any], count: int, tally: Tally
) -> Iterator[Sample]:
    """The question whether a finding is present, in `count` phrasings.

    Args:
        source: name of the data set.
        asked: picture, finding and answer.
        columns: what the picture gives to the manifest: its path, patient, split, boxes, …
        count: number of phrasings.
        tally: takes a note of an uncertain label.
    """
    group = f"{source}/{asked.image}/{asked.finding}"
    if asked.answer == UNCERTAIN:
        tally.note("uncertain labels, asked with an unknown reference")
    for variant, question in enumerate(phrasings(asked.finding, count)):
        yield Sample(
            sample_id=f"{group}/{variant}",
            question=question,
            question_group=group,
            variant=str(variant),
            strategy="template",
            kind="yes_no",
            answer=None if asked.answer == UNCERTAIN else (asked.answer,),
            finding=asked.finding,
            source=source,
            **{"image_id": asked.image, **columns},
        )


def chexpert_label(value: object) -> str | None:
    """A label as CheXpert writes it: 1 is yes, 0 is no, −1 is uncertain; None where the finding is not mentioned.

    Raises:
        ValueError: another value.
    """
    word = text(value)
    if word is None:
        return None
    try:
        return _CHEXPERT[float(word)]
    except (KeyError, ValueError):
        raise ValueError("label is not 1, 0, -1 or blank") from None


def phrasings(finding: str, count: int) -> list[str]:
    """The first `count` phrasings of the question about a finding.

    Raises:
        ValueError: `count` is less than 1 or more than there are.
    """
    if not 1 <= count <= len(PHRASINGS):
        raise ValueError(f"phrasings must be 1 to {len(PHRASINGS)}, got {count}")
    return [phrasing.format(finding=finding) for phrasing in PHRASINGS[:count]]


def shuffled(ids: list[str], purpose: str) -> list[str]:
    """Ids in a pseudo-random order that depends only on the ids and the purpose, the same on every machine."""
    return sorted(ids, key=lambda name: hashlib.blake2b(f"{purpose}/{name}".encode(), digest_size=8).digest())
