import base64
import hashlib
import io
import itertools
import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from PIL import Image
from pydicom import dcmread
from pydicom.data import get_testdata_file

from cxr_faith.explainer.clinical import picture_file
from cxr_faith.metrics.regions import border_weights
from cxr_faith.report.charts import AnswerCurves
from cxr_faith.report.clinical.answer import Answer, Faithfulness, ModelCalibration, PictureFile
from cxr_faith.report.clinical.evidence import FRACTIONS_CAVEAT, NOT_PLACED, evidence_of
from cxr_faith.report.clinical.lines import lines_of, width_of
from cxr_faith.report.clinical.page import clinical_page
from cxr_faith.report.clinical.sheet import HEIGHT, LEAST_SIDE, MARGIN, clinical_sheet
from cxr_faith.report.clinical.summary import SCHEMA_VERSION, clinical_summary
from cxr_faith.report.formats import whole_percent
from tests.synthetic import NASTY

MODEL = {"source": "<b>model</b>", "weights": "abc123", "parameters": 1_680_000}
GOOD = {"status": "ok", "srg": 0.8, "random_z": 4.0, "random_p": 0.05, "effect": 9.0, "gap_srg_center": 0.2}


def answer(values: np.ndarray, **changes: Any) -> Answer:
    known: dict[str, Any] = {
        "question": NASTY,
        "answer": "yes",
        "p_yes": 0.9,
        "map": values,
        "method": "chefer",
        "model": MODEL,
    }
    scores = changes.pop("scores", GOOD)
    return Answer(**known | changes, faithfulness=Faithfulness.from_record(scores) if scores else None)


def cell(row: int, column: int, grid: tuple[int, int] = (12, 12)) -> np.ndarray:
    values = np.zeros(grid)
    values[row, column] = 2
    return values


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (cell(1, 2), "upper third, patient's right"),
        (cell(6, 9), "middle third, patient's left"),
        (cell(10, 1), "lower third, patient's right"),
        (cell(1, 3, (3, 7)), "middle third, midline"),
    ],
)
def test_the_peak_is_on_the_patients_side(values: np.ndarray, words: str) -> None:
    evidence = evidence_of(values, {})
    assert evidence.peak.words == words and evidence.words.startswith(f"Strongest in the {words}.")


def test_words_follow_the_films_orientation() -> None:
    """A mirrored film and its mirrored map say what the usual ones do; a lateral film has no sides."""
    values = np.maximum(np.random.default_rng(1).standard_normal((6, 10)), 0)
    usual, mirrored = evidence_of(values, {}), evidence_of(values[:, ::-1], {}, ("L", "R"))
    assert (mirrored.words, mirrored.peak.words) == (usual.words, usual.peak.words)
    assert mirrored.sides == pytest.approx(usual.sides) and mirrored.organs == pytest.approx(usual.organs)
    assert mirrored.peak.cell == (usual.peak.cell[0], 9 - usual.peak.cell[1])
    lateral = evidence_of(cell(1, 2), {"heart": cell(1, 2) / 4}, ("", ""))
    assert lateral.sides is None and lateral.organs == {"heart": 0.5} and lateral.caveat == NOT_PLACED
    assert "patient" not in lateral.words and "100% of it is in the left half of the picture" in lateral.words
    assert lateral.words.startswith("Strongest in the upper third, left half of the picture.")
    summary = clinical_summary(answer(cell(1, 2), sides=("", "")))
    drawn = np.zeros((40, 40), np.uint8), cell(1, 2), None, None, ("", "")
    assert "no sides are marked" in clinical_page(summary, *drawn) and "<span>R</span>" not in clinical_page(
        summary, *drawn
    )
    assert not any("patient's sides" in text.get_text() for text in clinical_sheet(summary, *drawn).texts)


def test_shares_are_those_of_a_loop_over_pixels() -> None:
    rng = np.random.default_rng(0)
    values = rng.standard_normal((6, 10))
    mass = np.maximum(values, 0) / np.maximum(values, 0).sum()
    side = 600  # pixels; every region's edge falls between two of them
    sums = {"patient_right": 0.0, "upper": 0.0, "border": 0.0, "heart": 0.0, "lungs": 0.0}
    for i, y in enumerate((np.arange(side) + 0.5) / side):
        x = (np.arange(side) + 0.5) / side
        row = mass[i * 6 // side, np.arange(side) * 10 // side] / (side * side / 60)
        sums["patient_right"] += row[x < 0.5].sum()
        sums["upper"] += row.sum() * (y < 1 / 3)
        sums["border"] += row[(x < 0.05) | (x > 0.95) | (y < 0.05) | (y > 0.95)].sum()
        sums["heart"] += row[(x > 0.4) & (x < 0.75)].sum() * (0.45 < y < 0.8)
        sums["lungs"] += row[((x > 0.1) & (x < 0.4)) | ((x > 0.6) & (x < 0.9))].sum() * (0.1 < y < 0.75)
    got = evidence_of(values, {})
    flat = {**got.sides, **got.thirds, **got.organs, "border": got.border}
    assert {name: flat[name] for name in sums} == pytest.approx(sums, abs=1e-6)
    assert got.caveat == FRACTIONS_CAVEAT
    assert border_weights((16, 16)).mean() == pytest.approx(0.19)


def test_masks_replace_the_fractions_and_their_caveat() -> None:
    evidence = evidence_of(cell(3, 3), {"heart": cell(3, 3) / 4})
    assert set(evidence.organs) == {"heart", "lungs", "mediastinum"}
    assert evidence.organs["heart"] == 0.5
    assert evidence.caveat == f"{FRACTIONS_CAVEAT} By fractions: lungs, mediastinum."
    every = {name: cell(3, 3) / 4 for name in ("heart", "left lung", "right lung", "mediastinum")}
    evidence = evidence_of(cell(3, 3), every)
    assert evidence.organs == dict.fromkeys(every, 0.5) and evidence.caveat is None


def test_half_of_the_mass_in_how_much_of_the_picture() -> None:
    assert evidence_of(cell(0, 0), {}).coverage == pytest.approx(1 / 144)
    assert evidence_of(np.ones((4, 4)), {}).coverage == pytest.approx(0.5)


def test_the_empty_map_has_no_evidence() -> None:
    summary = clinical_summary(answer(-np.ones((4, 4))))
    assert summary.evidence.sides is None and "The map is empty." in summary.flags
    assert "Strongest" not in clinical_page(summary, np.zeros((40, 40), np.uint8), -np.ones((4, 4)))


def test_no_flag_without_a_reason() -> None:
    calibrated = ModelCalibration("demo", n=64, accuracy=0.97, ece=0.02, confidence_range=(0.6, 1.0))
    same = {"attention": cell(5, 5) + 0.1 * cell(5, 6)}
    assert clinical_summary(answer(cell(5, 5), calibration=calibrated, others=same)).flags == ()


@pytest.mark.parametrize(
    ("changes", "flag"),
    [
        ({"map": cell(0, 0)}, "Border evidence"),
        ({"scores": GOOD | {"status": "degenerate", "srg": float("nan")}}, "Low effect (degenerate)"),
        ({"scores": GOOD | {"status": "inverted"}}, "Inverted effect"),
        ({"scores": GOOD | {"random_p": 0.4}}, "Not better than random"),
        ({"scores": {}}, "not tested"),
        ({"others": {"attention": np.random.default_rng(1).random((12, 12))}}, "Disagreement"),
        ({"paraphrases": ["No", "yes"]}, "Paraphrase flips: 1 of 2"),
        ({"calibration": None}, "Calibration unknown"),
        ({"p_yes": None}, "No confidence"),
        ({"cautions": ["It knows circles only."]}, "It knows circles only."),
        ({"calibration": ModelCalibration("d", n=9, accuracy=1, ece=0, confidence_range=(0.95, 1))}, "Out of"),
        (
            {"calibration": ModelCalibration("d", n=9, accuracy=1, ece=0.15, confidence_range=(0, 1))},
            "Poorly calibrated: such probabilities are off by 0.15",
        ),
    ],
)
def test_each_safety_flag(changes: dict[str, Any], flag: str) -> None:
    values = np.random.default_rng(0).random((12, 12))
    summary = clinical_summary(answer(changes.get("map", values), **{k: v for k, v in changes.items() if k != "map"}))
    assert any(flag in one for one in summary.flags), summary.flags


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"p_yes": None, "scores": {}, "paraphrases": ["no"], "masks": {"heart": np.ones((12, 12))}},
        {"map": -np.ones((4, 4)), "scores": {"status": "off_format"}, "others": {"edges": np.eye(4)}},
        {
            "scores": GOOD | {"status": "degenerate", "srg": float("nan")},
            "others": {"edges": np.eye(12)},
            "calibration": ModelCalibration("d", n=9, accuracy=1, ece=0.2, confidence_range=(0.95, 1)),
        },
    ],
)
def test_the_json_is_as_its_schema_says(changes: dict[str, Any]) -> None:
    schema = json.loads(files("cxr_faith.report").joinpath("clinical.schema.json").read_text())
    Draft202012Validator.check_schema(schema)
    summary = json.loads(json.dumps(clinical_summary(answer(**{"values": cell(5, 2)} | renamed(changes))).to_dict()))
    Draft202012Validator(schema).validate(summary)
    assert schema["properties"]["schema_version"] == {
        "const": SCHEMA_VERSION,
        "description": schema["properties"]["schema_version"]["description"],
    }
    for broken in ({"p_yes": 2}, {"schema_version": 2}, {"flags": None}, {"more": 1}):
        assert not Draft202012Validator(schema).is_valid(summary | broken)


def renamed(changes: dict[str, Any]) -> dict[str, Any]:
    return {"values" if name == "map" else name: value for name, value in changes.items()}


def test_the_page_is_self_contained_and_says_what_it_is() -> None:
    summary = clinical_summary(answer(cell(5, 2)))
    assert summary.to_dict()["schema_version"] == SCHEMA_VERSION
    json.dumps(summary.to_dict(), allow_nan=False)
    x = np.linspace(0, 1, 5)
    page = clinical_page(summary, np.full((60, 50), 90, np.uint8), cell(5, 2), AnswerCurves(x, -x, x))
    assert "not for diagnosis" in page and "1,680,000" in page and "abc123" in page and "<svg" in page
    assert "<script" not in page and "<b>model" not in page and "&lt;b&gt;model" in page
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org", "")


@pytest.mark.parametrize("status", ["degenerate", "inverted", "off_format", "invalid", "flat", None])
def test_a_map_is_no_evidence_unless_its_status_is_ok(status: str | None) -> None:
    values, picture = cell(5, 2), np.full((60, 50), 90, np.uint8)
    scores = GOOD | {"status": status, "srg": None, "random_p": None} if status else {}
    summary = clinical_summary(answer(values, scores=scores))
    content = summary.to_dict()
    assert content["evidence"]["words"] == f"No evidence to show. {summary.no_evidence}"
    assert not any(content["evidence"][name] for name in ("peak", "coverage", "sides", "thirds", "organs", "border"))
    page, sheet = clinical_page(summary, picture, values), clinical_sheet(summary, picture, values)
    written = " ".join(text.get_text() for text in sheet.texts)
    for text in (page, written):
        assert "No evidence to show" in text and "What the map shows" not in text and "Strongest" not in text
    _, overlaid = (Image.open(io.BytesIO(base64.b64decode(one))) for one in re.findall(r"png;base64,([^\"]+)", page))
    assert np.ptp(np.asarray(overlaid.convert("RGB")).astype(int), axis=2).max() == 0  # gray, in letters and map
    assert clinical_summary(answer(values)).no_evidence is None


def test_the_verdict_on_the_map_stands_below_the_answer() -> None:
    values, picture = cell(5, 2), np.full((60, 50), 90, np.uint8)
    said = "Weak: better than random orders, but not than the center."
    for verdict in (said, None):
        summary = clinical_summary(answer(values, verdict=verdict and verdict.replace(".", " (srg +0.38, p = 0.048).")))
        page, sheet = clinical_page(summary, picture, values), clinical_sheet(summary, picture, values)
        written = " ".join(text.get_text() for text in sheet.texts)
        for text in (page, written):
            assert (f"Verdict on the map · {said}" in text) == ("Verdict" in text) == (verdict is not None)
        assert ("p = 0.048" in (summary.to_dict()["verdict"] or "")) == (verdict is not None)  # in a table on the page
    assert page.index("of this answer") < page.index("The picture")


def test_the_picture_is_named_and_no_folder_is() -> None:
    file = PictureFile("film.dcm", "ab" * 32, "1.2.840.99", "20250301")
    summary = clinical_summary(answer(cell(5, 2), picture=file, model=MODEL | {"source": "/data/ann/medgemma"}))
    picture = np.tile(np.arange(50, dtype=np.uint8), (60, 1))
    page, sheet = clinical_page(summary, picture, cell(5, 2)), clinical_sheet(summary, picture, cell(5, 2))
    written = " ".join(text.get_text() for text in sheet.texts)
    for text in (page, written, json.dumps(summary.to_dict())):
        assert all(name in text for name in ("film.dcm", "ab" * 32, "1.2.840.99", "20250301", "medgemma"))
        assert "/data" not in text and "ann/" not in text
    alone, _ = (Image.open(io.BytesIO(base64.b64decode(one))) for one in re.findall(r"png;base64,([^\"]+)", page))
    assert (np.asarray(alone) == picture).all()  # nothing is drawn on it
    assert (np.asarray(sheet.axes[0].images[0].get_array()) == picture).all() and not sheet.axes[0].texts
    bar = sheet.axes[2]
    assert [label.get_text() for label in bar.get_xticklabels()] == ["≤ 0", "≥ 2"]


def test_a_dicom_picture_is_named_by_its_instance_and_dated_only_if_asked() -> None:
    path = get_testdata_file("RG1_UNCR.dcm")
    header = dcmread(path, stop_before_pixels=True)
    file = picture_file(path)
    assert file.name == "RG1_UNCR.dcm" and file.sha256 == hashlib.sha256(Path(path).read_bytes()).hexdigest()
    assert file.sop_instance == header.SOPInstanceUID and file.study_date is None
    assert picture_file(path, dated=True).study_date == header.StudyDate != ""


@pytest.mark.parametrize("bold", [False, True])
def test_lines_reach_the_edge_of_their_box(bold: bool) -> None:
    """No line is wider than its box, and none could hold the next word."""
    text = "Illiquid fillings will lie still until Willi mows WWW MMM: " * 3 + "x" * 90
    lines = lines_of(text, 3.0, 9, bold, most=99)
    assert " ".join(lines).replace(" ", "") == text.replace(" ", "") and len(lines) > 3
    for line, after in itertools.pairwise(lines):
        assert width_of(line, 9, bold) <= 3.0
        first = after.split()[0]
        assert width_of(f"{line} {first}", 9, bold) > 2.9
    cut = lines_of(text, 3.0, 9, bold, most=2)
    assert len(cut) == 2 and cut[1].endswith("…") and width_of(cut[1], 9, bold) <= 3.0


@pytest.mark.parametrize("shape", [(260, 200), (200, 260)])
@pytest.mark.parametrize("length", [18, 106, 264])
def test_nothing_is_cut_off_the_sheet(shape: tuple[int, int], length: int) -> None:
    """All flags, a long model path, four other methods, curves: the picture gives way, then the sheet grows."""
    noise, x = np.random.default_rng(0).random((12, 12)), np.linspace(0, 1, 5)
    summary = clinical_summary(
        answer(
            cell(0, 0),
            question=("Is there a nodule in the right upper lung? " * 9)[:length],
            answer="consolidation in the left lower lung and a small pleural effusion on the same side",
            model=MODEL | {"source": "/a/long/path" * 8},
            scores=GOOD | {"random_p": 0.4},
            others=dict.fromkeys(("attention", "chefer", "gradient", "rollout"), noise),
            calibration=ModelCalibration("d", n=9, accuracy=1, ece=0.2, confidence_range=(0.95, 1)),
            paraphrases=["no", "yes"],
            cautions=["It knows circles only."],
            verdict="Do not believe: no better than random orders (srg +0.80, p = 0.400, +0.20 to the center).",
        )
    )
    assert len(summary.flags) == 7
    curves = AnswerCurves(x, 1 - x, x)
    figure = clinical_sheet(summary, np.full(shape, 90, np.uint8), cell(0, 0), curves)
    figure.canvas.draw()
    places = [one.get_window_extent() for one in (*figure.texts, *figure.axes)]
    assert min(place.y0 for place in places) > 0 and max(place.y1 for place in places) < figure.bbox.height
    written = [one.get_window_extent() for one in figure.texts]
    for number, one in enumerate(written):
        for other in written[:number]:
            across = min(one.x1, other.x1) - max(one.x0, other.x0)
            assert across < 1 or min(one.y1, other.y1) - max(one.y0, other.y0) < 4  # of 100 an inch: no line on another
    picture = figure.axes[0].get_position()
    assert picture.height * figure.get_figheight() > 1.2
    assert any("schema version" in text.get_text() for text in figure.texts)
    assert figure.get_figheight() < 13
    few = clinical_summary(answer(cell(0, 0), others={"attention": noise}, paraphrases=["no"]))
    usual = clinical_sheet(few, np.full(shape, 90, np.uint8), cell(0, 0), curves)
    assert len(few.flags) == 4 and usual.get_figheight() == pytest.approx(11.69)


@pytest.mark.parametrize("others", [4, 5, 6, 7])
def test_a_picture_gives_way_no_more_than_the_text_needs(others: int) -> None:
    rng, x = np.random.default_rng(0), np.linspace(0, 1, 5)
    maps = {f"method {number}": rng.random((12, 12)) for number in range(others)}
    summary = clinical_summary(answer(cell(1, 2), others=maps))
    figure = clinical_sheet(summary, np.zeros((224, 252), np.uint8), cell(1, 2), AnswerCurves(x, 1 - x, x))
    lowest = min(text.get_position()[1] for text in figure.texts) * figure.get_figheight()
    picture = figure.axes[0].get_position().height * figure.get_figheight()
    assert LEAST_SIDE < picture < 3.4 * 224 / 252  # smaller than a sheet with less text has it
    assert figure.get_figheight() == pytest.approx(HEIGHT) and lowest == pytest.approx(MARGIN, abs=0.01)


def test_a_map_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        clinical_summary(answer(np.full((2, 2), np.nan)))


def test_only_certainty_is_called_100_percent() -> None:
    shares = [None, 0.0, 0.004, 0.006, 0.5, 0.994, 0.9951, 0.9986, 1.0]
    shown = ["–", "0%", "under 1%", "1%", "50%", "99%", "over 99%", "over 99%", "100%"]
    assert [whole_percent(share) for share in shares] == shown
    page = clinical_page(clinical_summary(answer(cell(5, 2), p_yes=0.0014)), np.zeros((40, 40), np.uint8), cell(5, 2))
    assert "probability of this answer over 99%" in page


def test_other_wordings_are_counted_on_the_page() -> None:
    summary = clinical_summary(answer(cell(5, 2), paraphrases=["Yes", "no", "yes"]))
    page = clinical_page(summary, np.zeros((40, 40), np.uint8), cell(5, 2))
    assert "2 of 3 other wordings of the question get the same answer." in page
