"""ReXVQA: multiple-choice questions about one chest radiograph.

Layout of the root: `metadata/{train,valid,test}_vqa_data.json` and the pictures in `deid_png/`. Of the entries, which
hold reports and explanations too, only `KEYS` are read.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cxr_faith.data.answers import UnreadableError, read_question
from cxr_faith.data.json_files import json_entries
from cxr_faith.data.options import read_options, read_with_options
from cxr_faith.data.picture_files import PictureFiles
from cxr_faith.data.sample import OPTION, Sample
from cxr_faith.data.subgroups import read_age, read_sex, read_view
from cxr_faith.data.tables import find_file, listed, text
from cxr_faith.data.tally import Tally

SPLITS = ("train", "valid", "test")
FOLDER = "metadata"
KEYS = (
    *("question", "options", "correct_answer", "ImagePath", "ImageViewPosition"),
    *("study_id", "PatientID", "PatientAge", "PatientSex"),
)
"""The keys of an entry that are read."""


def rexvqa(root: Path, tally: Tally, splits: str = "test") -> Iterator[Sample]:
    """Questions of ReXVQA about one picture; those about several are counted.

    The options stand below the question with letters, and the answer is a letter. Options that are yes and no make a
    yes/no question.

    Args:
        root: folder of ReXVQA.
        tally: takes the counts.
        splits: splits to take, separated by commas (train, valid, test).
    """
    files = PictureFiles(root, tally)
    for split in listed(splits, SPLITS, "split"):
        name = f"{split}_vqa_data.json"
        path = find_file(root, f"{FOLDER}/{name}", f"{FOLDER}/{name}.gz", name)
        for key, whole in json_entries(path, dict):
            if not isinstance(whole, dict):
                tally.drop("row", key, "entry is not a mapping")
                continue
            try:
                entry = {name: whole[name] for name in KEYS if name in whole}
                yield _sample(f"rexvqa/{split}/{key}", entry, split, files, tally)
            except UnreadableError as error:
                tally.drop("question", f"rexvqa/{split}/{key}", str(error))


def _sample(name: str, entry: Mapping[str, Any], split: str, files: PictureFiles, tally: Tally) -> Sample:
    """One question.

    Raises:
        UnreadableError: it is not about one picture, or has no options, or its answer is none of them.
    """
    question, options = read_question(entry.get("question")), read_options(entry.get("options"))
    paths, views = _listed(entry.get("ImagePath")), _listed(entry.get("ImageViewPosition"))
    if len(paths) != 1:
        raise UnreadableError(f"question about {'several pictures' if paths else 'no picture'}: one is expected")
    if len(options) < 2:
        raise UnreadableError("question without options")
    question, reference = read_with_options(question, entry.get("correct_answer"), options, tally)
    path = posixpath.normpath(posixpath.join(FOLDER, paths[0]))
    return Sample(
        sample_id=name,
        patient_id=text(entry.get("PatientID")),
        study_id=text(entry.get("study_id")),
        image_id=posixpath.splitext(path)[0].removeprefix("deid_png/"),
        image_path=files.find(path) or path,
        question=question,
        kind=reference.kind,
        answer=reference.answers,
        split=split,
        source="rexvqa",
        sex=read_sex(entry.get("PatientSex")),
        age=read_age(entry.get("PatientAge")),
        view=read_view(views[0]) if len(views) == 1 else None,
        options=options if reference.kind == OPTION else (),
    )


def _listed(value: object) -> list[str]:
    words = value if isinstance(value, list) else [value]
    return [word for word in map(text, words) if word]
