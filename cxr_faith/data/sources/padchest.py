"""PadChest-GR: presence questions from the findings of its reports, with the boxes of both readers.

Layout of the root: `grounded_reports_*.json`, `master_table.csv`, and the pictures in any folder below it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cxr_faith.data.boxes import fuse, limited
from cxr_faith.data.images import ImageError, read_size
from cxr_faith.data.padchest_gr import Study, in_pixels, read_studies
from cxr_faith.data.picture_files import PictureFiles
from cxr_faith.data.sample import Box, Sample
from cxr_faith.data.sources.presence import NO, YES, presence_samples, questions_from_labels
from cxr_faith.data.tables import find_file, listed, read_table, text
from cxr_faith.data.tally import PrepareError, Tally

SPLITS = ("train", "validation", "test")
TABLE = "master_table.csv"
NOT_A_FINDING = "normal"


def padchest_gr(
    root: Path, tally: Tally, splits: str = "test", phrasings: int = 1, balanced: bool = True
) -> Iterator[Sample]:
    """Presence questions for the labels of PadChest-GR's reports.

    A label is present where an abnormal finding of the report has it, and absent where none has. A finding that does
    not say whether it is abnormal is so if it has boxes. The boxes of both readers are merged; the column `readers` has
    those of each (`boxes` as reader 1, `extra_boxes` as reader 2).

    Args:
        root: folder of PadChest-GR.
        tally: takes the counts.
        splits: splits to take, separated by commas (train, validation, test).
        phrasings: how many phrasings of each question, 1 to 5; they form a question group.
        balanced: for each label, as many images without it as with it, chosen by a hash of their ids; false: all.
    """
    wanted = listed(splits, SPLITS, "split")
    reports = sorted(root.glob("grounded_reports_*.json*"))
    if not reports:
        raise PrepareError(f"{root}: no file grounded_reports_*.json")
    patients = _patients(root, tally)
    studies: dict[str, Study] = {}
    for study in read_studies(reports[-1], tally):
        if study.study_id not in patients:
            tally.drop("row", study.image_id, f"its study is not in {TABLE}")
        elif study.image_id in studies:
            tally.drop("row", study.image_id, "image has two reports, the first is taken")
        else:
            studies[study.image_id] = study
    present = {
        name: {label for f in study.findings if f.abnormal for label in f.labels} for name, study in studies.items()
    }
    findings = sorted(set().union(*present.values()) - {NOT_A_FINDING})
    files = PictureFiles(root, tally)
    for split in wanted:
        here = [name for name, study in studies.items() if patients[study.study_id or ""]["split"] == split]
        labels = ((each, {name: YES if each in present[name] else NO for name in here}) for each in findings)
        asked = questions_from_labels(labels, balanced, split)
        tally.expected = (tally.expected or 0) + len(asked) * phrasings
        last: dict[str, Any] = {}
        for each in asked:
            if last.get("image_id") != each.image:
                study = studies[each.image]
                last = {**patients[study.study_id or ""], **_picture(study, files, root, tally)}
            yield from presence_samples("padchest-gr", each, last, phrasings, tally)


def _patients(root: Path, tally: Tally) -> dict[str, dict[str, Any]]:
    """Patient and split of each study; the table has a row for each of its labels."""
    path = find_file(root, TABLE, f"{TABLE}.gz")
    patients: dict[str, dict[str, Any]] = {}
    for position, row in enumerate(read_table(path, ("StudyID", "PatientID", "split"), ()).to_dict("records")):
        study, patient, split = (text(row[name]) for name in ("StudyID", "PatientID", "split"))
        if study is None or split not in SPLITS:
            tally.drop("row", study or "", "row without study or split", f"{TABLE} row {position + 1}")
        else:
            patients.setdefault(study, {"study_id": study, "patient_id": patient, "split": split})
    return patients


def _picture(study: Study, files: PictureFiles, root: Path, tally: Tally) -> dict[str, Any]:
    """Path, size, boxes and readers of a study's image."""
    path = files.find(f"{study.image_id}.png") or f"{study.image_id}.png"
    columns: dict[str, Any] = {"image_id": study.image_id, "image_path": path}
    try:
        size = read_size(path, root)
    except ImageError:  # the picture costs its questions later
        return columns
    readers: list[tuple[str, tuple[Box, ...]]] = []
    for reader, key in (("reader 1", "boxes"), ("reader 2", "extra_boxes")):
        drawn = [box for finding in study.findings for box in finding.labeled(getattr(finding, key))]
        usable = in_pixels(drawn, size, study.image_id, tally, reader)
        readers.append((reader, tuple(limited(usable, study.image_id, tally))))
    columns |= {"height": size[0], "width": size[1], "boxes": fuse([box for _, boxes in readers for box in boxes])}
    # Most studies have one reader: without extra boxes there was no second one.
    return columns | {"readers": tuple((reader, boxes) for reader, boxes in readers if boxes)}
