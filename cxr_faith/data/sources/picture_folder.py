"""A folder of pictures and one question about each of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cxr_faith.data.answers import read_question, read_reference
from cxr_faith.data.picture_files import pictures_below
from cxr_faith.data.sample import Sample
from cxr_faith.data.tally import PrepareError, Tally

SPLITS = ("train", "val", "valid", "validation", "test")


def folder(
    root: Path, tally: Tally, question: str, answer: str | None = None, finding: str | None = None
) -> Iterator[Sample]:
    """The same question about every picture in a folder, DIR, and the folders below it.

    A picture's path is its id. A folder right below DIR that is named train, val, valid, validation or test is a split.
    With an answer of yes or no the question is yes/no; without an answer the reference is unknown.

    Args:
        root: folder of the pictures.
        tally: takes the counts.
        question: the question.
        answer: the right answer to it for every picture.
        finding: the finding that the question is about.
    """
    asked = read_question(question)
    if not asked:
        raise PrepareError("--question is empty")
    kind, answers = read_reference(answer, asked, tally)
    for path in pictures_below(root):
        first = path.split("/")[0].lower()
        yield Sample(
            sample_id=f"folder/{path}",
            image_id=path,
            image_path=path,
            question=asked,
            kind=kind,
            answer=answers,
            finding=finding,
            split=first if "/" in path and first in SPLITS else None,
            source="folder",
        )
