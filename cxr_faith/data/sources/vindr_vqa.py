"""VinDr-CXR-VQA: questions with answers and boxes about abnormal pictures of VinDr-CXR."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cxr_faith.data.answers import UnreadableError, read_question, read_reference
from cxr_faith.data.boxes import damaged_locs, from_loc
from cxr_faith.data.sample import Box, Sample
from cxr_faith.data.tables import find_file, read_json, text
from cxr_faith.data.tally import PrepareError, Tally

FOLDERS = ("train", "test")


def vindr_cxr_vqa(root: Path, tally: Tally, vqa: str) -> Iterator[Sample]:
    """Questions of VinDr-CXR-VQA; all its pictures are abnormal.

    A question whose answer begins with yes or no is yes/no, with that word as its reference; the others are open. The
    boxes come from `gt_location` and are labeled with `gt_finding`.

    Args:
        root: folder of VinDr-CXR (train/<id>.dicom, test/<id>.dicom).
        tally: takes the counts.
        vqa: JSON file of VinDr-CXR-VQA, or a folder with exactly one JSON file.
    """
    path = Path(vqa)
    if path.is_dir():
        files = sorted(path.glob("*.json"))
        if len(files) != 1:
            raise PrepareError(f"{path}: {len(files)} JSON files, expected one; name it with --vqa")
        path = files[0]
    entries = read_json(find_file(path), list) if path.is_file() else read_json(path, list)
    tally.expected = sum(len(e["vqa"]) for e in entries if isinstance(e, dict) and isinstance(e.get("vqa"), list))
    for position, entry in enumerate(entries):
        name = text(entry.get("image_id")) if isinstance(entry, dict) else None
        if name is None or not isinstance(entry.get("vqa"), list):
            tally.drop("row", f"entry {position}", "entry without image_id or vqa")
            continue
        folder = next((f for f in FOLDERS if _is_file(root / f / f"{name}.dicom")), FOLDERS[0])
        for number, question in enumerate(entry["vqa"]):
            sample_id = f"vindr-cxr-vqa/{name}/{number}"
            if not isinstance(question, dict) or question.get("question") in (None, ""):
                tally.drop("question", sample_id, "question is missing")
                continue
            try:
                yield _sample(sample_id, name, folder, question, tally)
            except UnreadableError as error:
                tally.drop("question", sample_id, str(error))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long
        return False


def _sample(sample_id: str, name: str, folder: str, question: Mapping[str, Any], tally: Tally) -> Sample:
    asked = read_question(question["question"])
    kind, answers = read_reference(question.get("answer"), asked, tally)
    opening = re.match(r"(yes|no)\b", answers[0], re.IGNORECASE) if answers and len(answers) == 1 else None
    finding = text(question.get("gt_finding"))
    label = finding.lower() if finding else None
    located = text(question.get("gt_location"))
    corners = from_loc(located or "")
    for position in range(damaged_locs(located or "")):
        tally.drop("box", name, "gt_location that is not <loc_x1_y1_x2_y2>", f"{sample_id} {position}")
    return Sample(
        sample_id=sample_id,
        image_id=name,
        image_path=f"{folder}/{name}.dicom",
        question=asked,
        kind="yes_no" if opening else kind or "open",
        answer=(opening[1].lower(),) if opening else answers,
        finding=label,
        split=folder,
        boxes=tuple(Box(label or "", *box) for box in corners),
        source="vindr-cxr-vqa",
    )
