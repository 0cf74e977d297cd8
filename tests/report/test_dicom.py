"""DICOM objects of one answer, as pydicom and highdicom read them back, laid over their film."""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid

import cxr_faith
from cxr_faith.__main__ import main
from cxr_faith.data.phantoms_only import PHANTOMS_ONLY
from cxr_faith.explainer.asked import Asked
from cxr_faith.explainer.dicom import check_dicom
from cxr_faith.explainer.options import ExplainOptions
from cxr_faith.explainer.pictures import read_oriented
from cxr_faith.records import RecordWriter
from cxr_faith.report.dicom.result import DicomResult, on_pixels
from cxr_faith.report.dicom.source import read_source
from cxr_faith.summary.summarize import write_summary
from tests.synthetic import make_rows

hd = pytest.importorskip("highdicom", reason="extra dicom-out")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def film(folder: Path, rows: int, columns: int, **header: object) -> Path:
    """A real film's header with another size, and a frame of reference if the header has one."""
    source = dcmread(get_testdata_file("RG1_UNCR.dcm"), stop_before_pixels=True)
    source.Rows, source.Columns = rows, columns
    source.add_new("PixelData", "OW", bytes(2 * rows * columns))
    for keyword, value in header.items():
        setattr(source, keyword, value)
    source.save_as(folder / "film.dcm")
    return folder / "film.dcm"


def result(rows: int, columns: int, values: np.ndarray, **changes: object) -> DicomResult:
    known = DicomResult(
        question="Is there a pleural effusion on the left side of the chest?",
        answer="yes",
        p_yes=0.93,
        method="chefer",
        map=values,
        order=np.argsort(-values.ravel(), kind="stable"),
        region=(0, 0, rows, columns),
        scores={"srg": 0.41, "random_p": 0.048, "gap_srg_center": 0.2, "effect": float("nan")},
        verdict="Believe: better than random orders and than the center (srg +0.41).",
        believed=True,
        sanity="passed",
        model={"source": "google/medgemma-4b-it", "hash": "ab" * 32},
        figure=np.full((30, 50, 3), (200, 40, 10), np.uint8),
    )
    return replace(known, **changes)


def written(path: Path, of: DicomResult) -> dict[str, Dataset]:
    from cxr_faith.report.dicom.write import write_dicom

    files = write_dicom(path, of, path.parent / "out", "film-chefer")
    assert [file.name for file in files] == [f"film-chefer-{kind}.dcm" for kind in ("map", "cells", "report", "figure")]
    return {file.stem.rsplit("-", 1)[1]: dcmread(file) for file in files}


def by_hand(values: np.ndarray, region: tuple[int, int, int, int], rows: int, columns: int) -> np.ndarray:
    """The value of the cell that holds each pixel's center, pixel by pixel."""
    film, (top, left, height, width) = np.zeros((rows, columns), values.dtype), region
    for y in range(rows):
        for x in range(columns):
            row, column = (y + 0.5 - top) / height * values.shape[0], (x + 0.5 - left) / width * values.shape[1]
            if 0 <= row < values.shape[0] and 0 <= column < values.shape[1]:
                film[y, x] = values[int(row), int(column)]
    return film


@pytest.mark.parametrize(
    ("size", "grid", "region"),
    [
        ((96, 96), (16, 16), (0, 0, 96, 96)),
        ((61, 83), (12, 12), (0, 0, 61, 83)),  # odd, wider than high
        ((83, 61), (5, 7), (4, 3, 75, 55)),  # a border that the model did not see
        ((20, 24), (30, 30), (0, 0, 20, 24)),  # more cells than pixels
    ],
)
def test_cells_land_on_their_pixels(
    tmp_path: Path, size: tuple[int, int], grid: tuple[int, int], region: tuple[int, int, int, int]
) -> None:
    values = np.random.default_rng(0).standard_normal(grid).astype(np.float32)
    made = written(film(tmp_path, *size), result(*size, values, region=region))
    expected = by_hand(values, region, *size)
    assert (on_pixels(values, region, size) == expected).all()
    drawn = np.frombuffer(made["map"].FloatPixelData, "<f4").reshape(size)
    assert (drawn == expected).all()
    top = np.zeros(values.size, bool)
    top[np.argsort(-values.ravel(), kind="stable")[: round(0.2 * values.size)]] = True
    inside = by_hand(top.reshape(grid).astype(np.uint8), region, *size)
    assert (made["cells"].pixel_array.squeeze() == inside).all()
    again = hd.seg.segread(tmp_path / "out" / "film-chefer-cells.dcm")
    assert (again.pixel_array.squeeze() == inside).all()
    assert hd.imread(tmp_path / "out" / "film-chefer-map.dcm").pixel_array.squeeze() == pytest.approx(expected)


def test_objects_stand_in_the_films_study(tmp_path: Path) -> None:
    """The frame of reference is the film's where it states one."""
    place = {"FrameOfReferenceUID": generate_uid(), "ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}
    place |= {"ImagePositionPatient": [10, 20, 30], "PixelSpacing": [0.2, 0.2], "SliceThickness": 1}
    path = film(tmp_path, 40, 30, **place)
    source, made = dcmread(path), written(path, result(40, 30, np.eye(4, dtype=np.float32)))
    for kind, one in made.items():
        for keyword in ("StudyInstanceUID", "PatientID", "PatientName", "StudyDate", "AccessionNumber"):
            assert one.get(keyword) == source.get(keyword), (kind, keyword)
        assert one.SeriesInstanceUID != source.SeriesInstanceUID and one.Manufacturer == "cxr_faith"
    assert (
        len({one.SOPInstanceUID for one in made.values()}) == len({one.SeriesInstanceUID for one in made.values()}) == 4
    )
    for one in (made["map"], made["cells"]):
        assert (one.Rows, one.Columns) == (40, 30) and one.FrameOfReferenceUID == source.FrameOfReferenceUID
        assert str(source.SOPInstanceUID) in str(one)
        shared = one.SharedFunctionalGroupsSequence[0]
        assert shared.PixelMeasuresSequence[0].PixelSpacing == [0.2, 0.2]
        assert shared.PlaneOrientationSequence[0].ImageOrientationPatient == [0, 1, 0, 0, 0, -1]
    assert made["figure"].pixel_array.shape == (30, 50, 3) and (made["figure"].pixel_array == (200, 40, 10)).all()


def test_a_film_without_a_frame_gets_one_of_its_own(tmp_path: Path) -> None:
    path = get_testdata_file("RG1_UNCR.dcm")  # a real film: MONOCHROME1, 1955 by 1841, PixelSpacing of 0
    first, again = read_source(path), read_source(path)
    assert first.FrameOfReferenceUID == again.FrameOfReferenceUID and first.PixelSpacing == [1, 1]
    values = np.zeros((16, 16), np.float32)
    values[2, 13] = 7
    made = written(film(tmp_path, 195, 184), result(195, 184, values))
    rows, columns = np.nonzero(np.frombuffer(made["map"].FloatPixelData, "<f4").reshape(195, 184))
    assert (rows.min(), rows.max()) == (24, 36) and (columns.min(), columns.max()) == (149, 160)
    assert made["map"].FrameOfReferenceUID == made["cells"].FrameOfReferenceUID


def texts(report: Dataset) -> dict[str, str]:
    items = report.ContentSequence
    return {one.ConceptNameCodeSequence[0].CodeMeaning: one.TextValue for one in items if one.ValueType == "TEXT"}


def numbers(report: Dataset) -> dict[str, float]:
    found, waiting = {}, list(report.ContentSequence)
    while waiting:
        item = waiting.pop()
        waiting += item.get("ContentSequence", [])
        if item.ValueType == "NUM":
            value = item.MeasuredValueSequence[0].NumericValue
            found[item.ConceptNameCodeSequence[0].CodeMeaning] = float(value)
    return found


def test_the_report_says_what_was_asked_answered_and_measured(tmp_path: Path) -> None:
    path = film(tmp_path, 40, 30)
    of = result(40, 30, np.eye(4, dtype=np.float32))
    report = written(path, of)["report"]
    assert report.ContentTemplateSequence[0].TemplateIdentifier == "1500" and report.VerificationFlag == "UNVERIFIED"
    said = texts(report)
    assert said["Question"] == of.question and said["Answer"] == "yes" and said["Verdict"] == of.verdict
    assert said["Sanity check of the method"] == "passed" and said["Model: hash"] == "ab" * 32
    assert "not for diagnosis" in said["Statement"] and said["Whether the map is to be believed"] == "yes"
    expected = {"Probability of yes": 0.93, "Symmetric relevance gain": 0.41, "p against random orders": 0.048}
    assert numbers(report) == pytest.approx(expected | {"Gap of srg to the center": 0.2})
    assert hd.sr.srread(tmp_path / "out" / "film-chefer-report.dcm").SOPInstanceUID == report.SOPInstanceUID


def test_questions_in_any_script_and_the_names_of_the_film_are_kept(tmp_path: Path) -> None:
    path = film(tmp_path, 40, 30, SpecificCharacterSet="ISO_IR 100", PatientName="Müller^Zoë")
    asked = "肺炎 🫁: is it à gauche?"
    made = written(path, replace(result(40, 30, np.eye(4, dtype=np.float32)), question=asked))
    assert texts(made["report"])["Question"] == asked and asked in made["figure"].ImageComments
    assert all(str(dataset.PatientName) == "Müller^Zoë" for dataset in made.values())


@pytest.mark.parametrize("believed", [True, False])
def test_a_map_that_is_not_to_be_believed_says_so_in_every_object(tmp_path: Path, believed: bool) -> None:
    verdict = "Believe: better." if believed else "Do not believe: no better than random orders (srg +0.01)."
    of = result(40, 30, np.eye(4, dtype=np.float32), believed=believed, verdict=verdict)
    made = written(film(tmp_path, 40, 30), of)
    for one in (made["map"], made["cells"]):
        assert one.ContentLabel.startswith("DOUBTED_") != believed
        assert ("NOT TO BE BELIEVED" in one.ContentDescription) != believed
        assert ("not to be believed" in one.SeriesDescription) != believed
    assert texts(made["report"])["Verdict"] == verdict and verdict in made["figure"].ImageComments
    assert "not for diagnosis" in made["figure"].ImageComments


@pytest.mark.parametrize(
    ("method", "code"),
    [("grad_cam", ("130403", "Gradient weighted class activation")), ("chefer", ("130404", "Saliency"))],
)
def test_maps_have_the_code_of_their_method(tmp_path: Path, method: str, code: tuple[str, str]) -> None:
    made = written(film(tmp_path, 40, 30), result(40, 30, np.eye(4, dtype=np.float32), method=method))
    segment = made["cells"].SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0]
    assert (segment.CodeValue, segment.CodeMeaning, segment.CodingSchemeDesignator) == (*code, "DCM")
    assert f"'{code[0]}'" in str(made["map"]) and f"'{code[1]}'" in str(made["map"])


def test_explain_writes_the_objects_of_a_real_film(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = get_testdata_file("RG1_UNCR.dcm")  # MONOCHROME1, 1955 by 1841
    asked = ["--question", "Is there a nodule?", "--out", str(tmp_path), "--steps", "2", "--dicom", str(tmp_path / "d")]
    assert main(["explain", path, *asked]) == 0
    assert "as private as the film" in capsys.readouterr().out
    (numbers_file,) = tmp_path.glob("*.json")
    content = json.loads(numbers_file.read_text())
    made = {file.stem.rsplit("-", 1)[1]: dcmread(file) for file in (tmp_path / "d").iterdir()}
    drawn = np.frombuffer(made["map"].FloatPixelData, "<f4").reshape(1955, 1841)
    assert (drawn == on_pixels(np.array(content["map"], np.float32), (0, 0, 1955, 1841), (1955, 1841))).all()
    row, column = content["strongest_cell"]
    y, x = (round((at + 0.5) * side / len(content["map"])) for at, side in ((row, 1955), (column, 1841)))
    assert drawn[y, x] == drawn.max() and made["cells"].pixel_array.squeeze()[y, x] == 1
    assert made["cells"].pixel_array.mean() == pytest.approx(0.2, abs=0.01)
    said = texts(made["report"])
    assert said["Answer"] == content["answer"] and said["Question"] == "Is there a nodule?"
    # A model of phantoms knows nothing of a film, whatever its map is worth.
    assert said["Verdict"].startswith(PHANTOMS_ONLY) and said["Whether the map is to be believed"] == "no"
    assert made["map"].ContentLabel.startswith("DOUBTED_")
    assert not any("/" in text for name, text in said.items() if name.startswith("Model"))


@pytest.mark.parametrize(
    ("stated", "said"),
    [
        ("L\\F", None),
        (None, None),
        ("R\\F", "is mirrored (its columns run to R)"),
        ("A\\F", "is a lateral or turned picture (its columns run to A)"),
    ],
)
def test_a_film_whose_sides_are_not_where_the_marks_are_is_named(
    tmp_path: Path, stated: str | None, said: str | None
) -> None:
    header = {} if stated is None else {"PatientOrientation": stated}
    path = film(tmp_path, 40, 30, **header)
    cautions = Asked.of(str(path), ExplainOptions("Is there a nodule?")).cautions()
    assert len(cautions) == (said is not None) and all("film.dcm" in one and str(said) in one for one in cautions)


@pytest.mark.parametrize(
    ("header", "stated", "frame"),
    [
        ({}, ["L", "F"], [1, 0, 0, 0, 0, -1]),
        ({"PatientOrientation": ["R", "F"]}, ["R", "F"], [-1, 0, 0, 0, 0, -1]),
        ({"PatientOrientation": ["A", "F"]}, ["A", "F"], [0, -1, 0, 0, 0, -1]),
        ({"PatientOrientation": ["LA", "F"]}, ["LA", "F"], [1, 0, 0, 0, 0, -1]),
        ({"PatientOrientation": None}, ["L", "F"], [1, 0, 0, 0, 0, -1]),
        ({"PatientOrientation": None, "ViewPosition": "LL"}, [], [1, 0, 0, 0, 0, -1]),
    ],
)
def test_objects_have_the_orientation_of_their_film(
    tmp_path: Path, header: dict[str, object], stated: list[str], frame: list[int]
) -> None:
    made = written(film(tmp_path, 40, 30, **header), result(40, 30, np.eye(4, dtype=np.float32)))
    assert list(made["figure"].get("PatientOrientation") or ()) == stated
    for one in (made["map"], made["cells"]):
        shared = one.SharedFunctionalGroupsSequence[0]
        assert list(shared.PlaneOrientationSequence[0].ImageOrientationPatient) == frame


@pytest.mark.parametrize(
    ("stated", "marks"),
    [(None, ["R", "L"]), (["R", "F"], ["L", "R"]), (["P", "F"], [])],
    ids=["usual", "mirrored", "side"],
)
def test_figures_of_a_film_mark_the_sides_of_its_header(
    tmp_path: Path, stated: list[str] | None, marks: list[str]
) -> None:
    header = {} if stated is None else {"PatientOrientation": stated}
    path = film(tmp_path, 40, 30, PixelData=np.arange(1200, dtype="<u2").tobytes(), **header)
    picture = Asked.of(str(path), ExplainOptions("Is there a nodule?"))
    for given in (path, path.read_bytes(), dcmread(path), io.BytesIO(path.read_bytes())):
        assert [side for side in read_oriented(given).sides if side] == marks
    assert [side for side in picture.read().sides if side] == marks
    explainer = cxr_faith.Explainer.from_pretrained("bundled", device="cpu", max_new_tokens=1)
    axes = explainer.explain(path, "Is there a nodule?", "center").plot(Figure().subplots())
    assert [text.get_text() for text in axes.texts] == marks


def test_the_clinical_page_of_a_mirrored_film_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mirrored = dcmread(get_testdata_file("RG1_UNCR.dcm"))
    mirrored.PatientOrientation = ["R", "F"]
    mirrored.save_as(tmp_path / "mirrored.dcm")
    asked = ["--question", "Is there a nodule?", "--method", "attention", "--steps", "2", "--clinical", "true"]
    assert main(["explain", str(tmp_path / "mirrored.dcm"), *asked, "--out", str(tmp_path / "out")]) == 0
    caution = (
        "mirrored.dcm is mirrored (its columns run to R): R and L are drawn for that, and the model sees it as it is."
    )
    assert f"caution     {caution}" in capsys.readouterr().out
    (page,) = (tmp_path / "out").glob("*-clinical.html")
    assert (
        caution in page.read_text()
        and "<span>L</span><span>the patient's sides</span><span>R</span>" in page.read_text()
    )
    assert caution in json.loads(page.with_suffix(".json").read_text())["flags"]


def test_a_picture_that_is_no_film_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "film.jpg").write_bytes(b"no film")
    with pytest.raises(ValueError, match="film.jpg: DICOM objects belong to a DICOM film"):
        check_dicom(str(tmp_path / "film.jpg"))
    path = film(tmp_path, 40, 30, StudyInstanceUID="")
    with pytest.raises(ValueError, match="has no StudyInstanceUID"):
        check_dicom(str(path))


def test_a_run_is_exported_and_a_bad_film_costs_its_sample(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "films").mkdir()
    path = film(tmp_path / "films", 61, 83)
    pixels = np.linspace(0, 30000, 61 * 83).astype("<u2")
    whole = dcmread(path)
    whole.PixelData = pixels.tobytes()
    whole.save_as(path)
    (tmp_path / "films" / "s02.dcm").write_bytes(b"no film")
    rows = [row for row in make_rows(6) if row["method"] in ("chefer", "center", "random")]
    for row in rows:
        name = {"s00": "film.dcm", "s01": "film.dcm", "s02": "s02.dcm"}.get(row["sample_id"], "gone.dcm")
        row |= {"image_path": name, "grids": [{"h": 12, "w": 12}], "random_p": 1 / 21}
        if row.get("map") is not None:
            row["order"] = np.argsort(-row["map"].ravel(), kind="stable")
    RecordWriter(tmp_path / "run", rank=0, start=0).write(rows)
    write_summary(tmp_path / "run")
    asked = ["--data_root", str(tmp_path / "films"), "--out", str(tmp_path / "out")]
    assert main(["export", "dicom", str(tmp_path / "run"), *asked]) == 0
    printed = capsys.readouterr().out
    assert "2 maps" in printed and all(f"left out     {name}: " in printed for name in ("s02", "s03", "s04", "s05"))
    assert sorted(folder.name for folder in (tmp_path / "out").iterdir()) == ["s00", "s01"]  # no control, no bad film
    for sample, believed in (("s00", True), ("s01", False)):  # s01 is inverted
        row = next(row for row in rows if (row["sample_id"], row["method"]) == (sample, "chefer"))
        made = {one.stem.rsplit("-", 1)[1]: dcmread(one) for one in (tmp_path / "out" / sample).iterdir()}
        drawn = np.frombuffer(made["map"].FloatPixelData, "<f4").reshape(61, 83)
        assert (drawn == by_hand(row["map"], (0, 0, 61, 83), 61, 83)).all()
        assert made["map"].ContentLabel.startswith("DOUBTED_") != believed
        assert texts(made["report"])["Question"] == row["question"]
    assert main(["export", "dicom", str(tmp_path / "run"), *asked, "--method", "rollout"]) == 2
    assert "has no maps of rollout" in capsys.readouterr().err
    assert main(["export", "pdf", str(tmp_path / "run"), *asked]) == 2
