"""Reads the tables of MIMIC-CXR-JPG: each picture's patient, study, view, split and size."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from cxr_faith.data.subgroups import read_age, read_sex, read_view
from cxr_faith.data.tables import among, find_file, length, listed, number, read_table, text
from cxr_faith.data.tally import Tally

IDS = ("dicom_id", "subject_id", "study_id")
VIEWS = (
    "PA",
    "AP",
    "LATERAL",
    "LL",
    "AP AXIAL",
    "PA LLD",
    "AP LLD",
    "AP RLD",
    "LAO",
    "RAO",
    "XTABLE LATERAL",
    "SWIMMERS",
)


@dataclass(frozen=True)
class Pictures:
    """Pictures of MIMIC-CXR-JPG.

    Attributes:
        taken: metadata by id, of the pictures with a wanted view and a split.
        sizes: (height, width) by id, of all pictures whose size the metadata have.
        ids: ids of all pictures.
        studies: ids of all studies.
    """

    taken: dict[str, dict[str, Any]]
    sizes: dict[str, tuple[int, int]]
    ids: set[str]
    studies: set[str]


def read_pictures(root: Path, views: str, tally: Tally, patients: str | None = None) -> Pictures:
    """Read the tables of metadata and splits, and of patients.

    Args:
        root: folder of MIMIC-CXR-JPG.
        views: view positions to take, separated by commas.
        tally: takes the pictures and rows that are dropped.
        patients: table of patients of MIMIC-IV, for sex and age; None: they are not known.

    Raises:
        PrepareError: a table or a column is missing, or `views` is empty.
    """
    wanted = {view.upper() for view in listed(views, None, "view")}
    metadata = read_table(table_file(root, "metadata"), (*IDS, "ViewPosition"), ("Rows", "Columns", "StudyDate"))
    people = _patients(Path(patients), tally) if patients else {}
    splits = _splits(root, tally)
    pictures = Pictures({}, {}, set(), set())
    for position, row in enumerate(metadata.to_dict("records")):
        picture = {str(name): text(value) for name, value in row.items()}
        name, study, view = picture["dicom_id"], picture["study_id"], (picture["ViewPosition"] or "").upper()
        if study:
            pictures.studies.add(study)
        if not name or not picture["subject_id"] or not study:
            tally.drop("row", name or "", "metadata row without its three ids", f"row {position + 1}")
        elif name in pictures.ids:
            tally.drop("row", name, "image is in the metadata twice", f"row {position + 1}")
        else:
            _add_size(pictures, name, picture, tally)
            if view not in wanted:
                tally.drop("image", name, f"view {among(view, VIEWS)}")
            elif name not in splits:
                tally.drop("image", name, "in the metadata, not in the split table")
            else:
                person = people.get(picture["subject_id"] or "", _Person())
                age = person.age_in(number((picture.get("StudyDate") or "")[:4]))
                pictures.taken[name] = {**picture, "split": splits[name], "sex": person.sex, "age": age}
        if name:
            pictures.ids.add(name)
    for name in sorted(splits.keys() - pictures.ids):
        tally.drop("row", name, "in the split table, not in the metadata")
    return pictures


def picture_columns(picture: Mapping[str, Any], sizes: Mapping[str, tuple[int, int]]) -> dict[str, Any]:
    """The manifest's columns that a sample takes from its picture."""
    subject, study, name = picture["subject_id"], picture["study_id"], picture["dicom_id"]
    height, width = sizes.get(name, (None, None))
    return {
        "patient_id": subject,
        "study_id": study,
        "image_id": name,
        "image_path": f"files/p{subject[:2]}/p{subject}/s{study}/{name}.jpg",
        "split": picture["split"],
        "view": read_view(picture["ViewPosition"]),
        "sex": picture["sex"],
        "age": picture["age"],
        "height": height,
        "width": width,
    }


def table_file(root: Path, name: str) -> Path:
    """Path of one of the tables, gzipped as published or plain."""
    return find_file(root, f"mimic-cxr-2.0.0-{name}.csv.gz", f"mimic-cxr-2.0.0-{name}.csv")


class _Person(NamedTuple):
    """Sex of a patient, and the age in a year; the years of MIMIC are shifted by the same number in all its tables."""

    sex: str | None = None
    age: float = math.nan
    year: float = math.nan

    def age_in(self, year: float) -> int | None:
        return read_age(self.age + year - self.year)


def _patients(path: Path, tally: Tally) -> dict[str, _Person]:
    """Patients of MIMIC-IV by id, from `patients.csv.gz` or the folder that has it."""
    names = ("hosp/patients.csv.gz", "patients.csv.gz", "hosp/patients.csv", "patients.csv")
    table = read_table(find_file(path, *names), ("subject_id", "gender", "anchor_age", "anchor_year"), ())
    people = {}
    for position, row in enumerate(table.to_dict("records")):
        name = text(row["subject_id"])
        if name is None:
            tally.drop("row", "", "patient without an id", f"row {position + 1}")
        else:
            people[name] = _Person(read_sex(row["gender"]), number(row["anchor_age"]), number(row["anchor_year"]))
    return people


def _splits(root: Path, tally: Tally) -> dict[str, str]:
    """Split of each picture; its first row counts."""
    splits: dict[str, str] = {}
    table = read_table(table_file(root, "split"), ("dicom_id", "split"), ())
    for position, row in enumerate(table.to_dict("records")):
        name, split = text(row["dicom_id"]), text(row["split"])
        if name is None or split is None:
            tally.drop("row", name or "", "split row without image or split", f"row {position + 1}")
        elif name in splits:
            tally.drop("row", name, "image is in the split table twice", f"row {position + 1}")
        else:
            splits[name] = split
    return splits


def _add_size(pictures: Pictures, name: str, picture: Mapping[str, str | None], tally: Tally) -> None:
    stated = picture.get("Rows"), picture.get("Columns")
    height, width = map(length, stated)
    if height and width:
        pictures.sizes[name] = height, width
    elif any(stated):
        tally.note("invalid sizes, read from the picture instead")
