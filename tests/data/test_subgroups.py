"""Sex, age and view from the columns of data sets and from DICOM headers."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pydicom
import pytest

from cxr_faith.data.subgroups import age_band, read_age, read_sex, read_view
from cxr_faith.data.tally import PrepareError
from tests.data.layouts import save, write_csv, write_dicom

Prepared = Callable[..., tuple[dict[str, dict[str, Any]], dict[str, Any]]]


def test_sex_age_and_view_in_every_form() -> None:
    assert [read_sex(word) for word in ("M", "female", "Unknown", None, 1)] == ["M", "F", None, None, None]
    ages = ("58", 58.0, "058Y", "018M", "030D", "400", "-1", "old", None)
    assert [read_age(age) for age in ages] == [58, 58, 58, 1, 0, None, None, None, None]
    views = ("AP", "antero-posterior", "postero-anterior", "LL", "Lateral", "LAO", "", None)
    assert [read_view(view) for view in views] == ["AP", "AP", "PA", "LATERAL", "LATERAL", "OTHER", None, None]


def test_bands_of_ages() -> None:
    bands = {0: "<40", 39: "<40", 40: "40-59", 59: "40-59", 60: "60-79", 79: "60-79", 80: "≥80", 130: "≥80"}
    assert {age: age_band(age) for age in bands} == bands and age_band(None) is None


def test_headers_of_dicom_fill_what_the_data_set_does_not_state(tmp_path: Path, prepared: Prepared) -> None:
    root = tmp_path / "root"
    for seed, name in enumerate(("a", "b", "c")):
        write_dicom(root / f"{name}.dcm", seed)
    save(root / "d.png", 4)
    for name, age in (("a", "061Y"), ("b", "007D")):
        dataset = pydicom.dcmread(root / f"{name}.dcm")
        dataset.PatientID, dataset.PatientSex, dataset.PatientAge, dataset.ViewPosition = f"p-{name}", "F", age, "PA"
        dataset.PatientOrientation = ["R" if name == "a" else "L", "F"]
        dataset.save_as(root / f"{name}.dcm")
    rows = ("a.dcm,Is it?,M", "a.dcm,Is it there?,", "b.dcm,Is it?,", "c.dcm,Is it?,", "d.png,Is it?,")
    path = write_csv(tmp_path / "q.csv", "image_path,question,sex", *rows)
    taken, _ = prepared("table", root, {"dicom_headers": True}, file=str(path))
    assert [(row["patient_id"], row["sex"], row["age"], row["view"]) for row in taken.values()] == [
        ("p-a", "M", 61, "PA"),
        ("p-a", "F", 61, "PA"),
        ("p-b", "F", 0, "PA"),
        (None, None, None, None),
        (None, None, None, None),
    ]
    assert [row["orientation"] for row in taken.values()] == ["mirrored", "mirrored", "usual", None, None]
    with (root / "b.dcm").open("r+b") as file:
        file.truncate(300)
    _, card = prepared("table", root, {"dicom_headers": True}, file=str(path))
    assert card["questions"] == 4 and "image: cannot be opened" in card["drops"]
    taken, _ = prepared("table", root, file=str(path))
    assert {row["age"] for row in taken.values()} == {None}, "headers are read where that is asked for"


def test_patients_of_mimic_iv(mimic: SimpleNamespace, prepared: Prepared, tmp_path: Path) -> None:
    """The pictures of the small MIMIC are of 2180; the first patient was 52 in 2174."""
    path = write_csv(
        tmp_path / "mimic-iv/hosp/patients.csv.gz",
        "subject_id,gender,anchor_age,anchor_year,anchor_year_group,dod",
        "10000032,F,52,2174,2014 - 2016,",
        "10000764,M,,2174,2014 - 2016,",
        ",M,30,2174,2014 - 2016,",
    )
    options = {"vqa": str(mimic.vqa), "splits": "test", "patients": str(path.parents[1])}
    rows, card = prepared("mimic-cxr-vqa", mimic.root, **options)
    people = {row["patient_id"]: (row["sex"], row["age"], row["view"]) for row in rows.values()}
    assert people == {"10000032": ("F", 58, "PA"), "10000764": ("M", None, "AP")}
    assert card["drops"]["row: patient without an id"] == 1
    with pytest.raises(PrepareError, match="lacks the column anchor_age"):
        write_csv(path, "subject_id,gender,anchor_year", "1,F,2174")
        prepared("mimic-cxr-vqa", mimic.root, **options)
