"""Runs side by side: which samples they share, paired differences, rankings, the command, the page and the JSON."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import cxr_faith
from cxr_faith.__main__ import main
from cxr_faith.app.pages import Pages
from cxr_faith.records import RecordWriter
from cxr_faith.report.compare_page import comparison_page
from cxr_faith.summary.compare import Comparison, compare
from cxr_faith.summary.load import read_summary
from tests.reference import compare as reference
from tests.report.browser import chromium
from tests.synthetic import make_rows

REAL = ("chefer", "attention", "integrated_gradients")
Rows = list[dict[str, Any]]


def grouped(row: dict[str, Any]) -> dict[str, Any]:
    """The row with a patient of its own for each sample, half of them women, and a picture."""
    number = int(row["sample_id"][1:])
    own = {"patient_id": f"p{number:02d}", "sex": "F" if number % 4 < 2 else "M"}
    return row | own | {"picture_hash": f"hash of {row['image_id']}"}


@pytest.fixture(scope="module")
def left() -> Rows:
    return [grouped(row) for row in make_rows()]


@pytest.fixture(scope="module")
def right(left: Rows) -> Rows:
    """Another model: weaker maps of `chefer`, another ranking, another effect, some other answers; and other samples.

    It lacks two samples and has one of its own; one has another question, two are of another picture.
    """
    rows = []
    for old in left:
        row, number = dict(old), int(old["sample_id"][1:])
        if number in (0, 1):
            continue
        if row.get("srg") is not None:
            factor = {"chefer": 0.5, "attention": 1.2, "integrated_gradients": 0.9}.get(row["method"], 1.0)
            row |= {"srg": row["srg"] * factor, "effect": row["effect"] * (1 + number / 40)}
        if number % 5 == 0 and row["correct"] is not None:
            row["correct"] = not row["correct"]
        if number == 10:
            row["question"] = "Is there an effusion?"
        if number in (12, 13):
            row["picture_hash"] = "of another film"
        if number == 14:
            row["picture_hash"] = None
        if number == 15:
            row["sample_id"] = "t15"
        rows.append(row)
    return rows


def write(folder: Path, rows: Rows, /, **provenance: Any) -> Path:
    RecordWriter(folder, rank=0, start=0).write(rows)
    values = {"methods": [*REAL, "random_map", "center", "oracle", "random"], "model": {"source": folder.name}}
    (folder / "provenance.json").write_text(json.dumps(values | provenance))
    return folder


@pytest.fixture(scope="module")
def runs(left: Rows, right: Rows, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("runs")
    same = {"identity": {"perturbation": {"steps": 8, "substrates": ["blur:0.1"]}}}
    other = {"identity": {"perturbation": {"steps": 12, "substrates": ["mean"]}}, "samples_total": 50}
    return [write(folder / "large", left, **same), write(folder / "small", right, **other)]


@pytest.fixture(scope="module")
def comparison(runs: list[Path]) -> Comparison:
    return cxr_faith.compare(runs)


def test_what_is_shared_is_joined_by_id_question_and_picture(comparison: Comparison, left: Rows, right: Rows) -> None:
    shared, questions, pictures = reference.joined([left, right])
    assert comparison.n_shared == len(shared) == 40 - 2 - 1 - 1 - 2 and comparison.n_unknown_picture == 1
    first, second = comparison.runs
    assert (first.name, second.name, first.model) == ("large", "small", "large")
    assert (first.n_samples, second.n_samples) == (40, 38)
    assert (first.n_not_shared, second.n_not_shared) == (3, 1)
    for run in comparison.runs:
        assert (run.n_other_question, run.n_other_picture) == (len(questions), len(pictures)) == (1, 2)


def test_differences_and_rankings_are_those_of_single_samples(comparison: Comparison, left: Rows, right: Rows) -> None:
    shared, _, _ = reference.joined([left, right])
    found = {one.of: one for one in comparison.differences if one.slice == "all"}
    assert set(found) == {*REAL, "accuracy", "effect"}
    for method in REAL:
        mean, n = reference.srg_difference(left, right, method, shared)
        assert found[method].mean == pytest.approx(mean, abs=1e-9) and found[method].n == n == found[method].n_patients
    mean, n = reference.accuracy_difference(left, right, shared)
    assert found["accuracy"].mean == pytest.approx(mean, abs=1e-9) and found["accuracy"].n == n
    (ranking,) = (one for one in comparison.rankings if one.slice == "all")
    tau = reference.tau(left, right, REAL, shared)
    assert ranking.kendall_tau == pytest.approx(tau) and ranking.n_methods == 3 and tau < 1


def test_a_difference_that_is_there_is_found_and_none_where_there_is_none(
    comparison: Comparison, runs: list[Path]
) -> None:
    """`chefer` has half of its srg in the second run; the answers' effect is the same everywhere."""
    found = {one.of: one for one in comparison.differences if one.slice == "all"}
    chefer, effect = found["chefer"], found["effect"]
    assert chefer.t_low is not None and chefer.p_holm is not None
    assert 0.1 < chefer.t_low < chefer.mean and chefer.p <= chefer.p_holm < 0.01
    assert effect.mean == 0 and not (effect.p_holm is not None and effect.p_holm < 0.05)


def test_a_run_beside_itself_differs_in_nothing(runs: list[Path], tmp_path: Path, left: Rows) -> None:
    same = compare([runs[0], write(tmp_path / "again", left)])
    assert {one.mean for one in same.differences} == {0.0}
    assert [one.kendall_tau for one in same.rankings if one.slice == "all"] == [1.0]
    scores = [[vars(one) | {"run": ""} for one in same.scores if one.run == name] for name in ("large", "again")]
    assert scores[0] == scores[1]


def test_slices_are_those_of_questions_and_patients_not_of_answers(comparison: Comparison) -> None:
    assert {"all", "present", "absent", "sex:F", "sex:M", "finding:nodule"} <= set(comparison.slices)
    assert not {"correct", "wrong"} & set(comparison.slices)
    groups = [one for one in comparison.differences if one.slice == "sex:F" and one.of == "chefer"]
    assert len(groups) == 1 and groups[0].n_patients > 5
    assert {one.slice for one in comparison.scores if one.verdict == "believe"} >= {"all"}
    assert all(one.verdict is None for one in comparison.scores if one.method in ("oracle", "random", "center"))


def test_readers_are_told_what_differs(comparison: Comparison) -> None:
    assert comparison.warnings == (
        "Partial: small has 38 of 50 samples.",
        "The protocols differ in steps: 8, 12.",
        "1 of 34 shared samples lack the hash of their picture in a run: they were joined by id and question.",
    )


def test_other_substrates_are_compared_and_said(runs: list[Path], left: Rows, tmp_path: Path) -> None:
    other = write(tmp_path / "mean", [row | {"substrate": "mean"} for row in left])
    (said,) = (line for line in compare([runs[0], other]).warnings if "settings" in line)
    assert said == (
        "The runs are compared in different settings (large: blur:0.1, answer, pixels; mean: mean, answer, pixels)."
    )
    both = write(tmp_path / "both", [*left, *(row | {"substrate": "mean"} for row in left)])
    assert {run.substrate for run in compare([other, both]).runs} == {"mean"}


def test_rows_of_methods_that_were_taken_out_do_not_count(left: Rows, tmp_path: Path) -> None:
    """They stay in the records. Here `attention` could not explain half of the samples, which must not be lost."""
    kept = ["chefer", "integrated_gradients", "center", "random"]
    shown = {"scored": {"blur:0.1": kept}, "conditions": ["none"], "masked": {}}
    without = [row for row in left if row["method"] in kept]
    failed = [
        row | ({"status": "invalid", "srg": None} if row["method"] == "attention" and row["sample_id"] < "s20" else {})
        for row in left
    ]
    whole = write(tmp_path / "whole", without, methods=kept, rows=shown)
    shrunk = write(tmp_path / "shrunk", failed, methods=kept, rows=shown)
    result = compare([whole, shrunk])
    counts = {run.name: {one.method: one.n for one in result.scores if one.run == run.name} for run in result.runs}
    assert counts["shrunk"] == counts["whole"] and set(counts["whole"]) == set(kept)
    assert {one.mean for one in result.differences} == {0.0} and result.warnings == ()


def test_a_run_with_the_summary_of_an_older_version_is_compared(runs: list[Path], tmp_path: Path) -> None:
    for run in runs:
        shutil.copytree(run, tmp_path / run.name)
        (tmp_path / run.name / "summary.json").write_text('{"schema_version": 1, "boards": []}')
    assert compare([tmp_path / run.name for run in runs]) == compare(runs)
    with pytest.raises(ValueError, match=f"report {tmp_path / 'large'}` writes it anew"):
        read_summary(tmp_path / "large")
    assert "1–40 of 40" in Pages(tmp_path / "large").listing({})[1].decode()


def test_a_run_that_has_not_grown_to_the_end_is_partial(left: Rows, tmp_path: Path) -> None:
    kept = ["chefer", "attention", "center", "random"]
    shown = {"scored": {"blur:0.1": kept}, "conditions": ["none"], "masked": {}}
    rows = [row for row in left if row["method"] in kept]
    half = [row for row in rows if row["method"] != "attention" or row["sample_id"] < "s10"]
    values = {"methods": kept, "rows": shown, "samples_total": 40}
    growing = write(tmp_path / "growing", half, **values)
    result = compare([write(tmp_path / "whole", rows, **values), growing])
    assert result.warnings == ("Partial: growing has 10 of 40 samples with all rows.",)


def test_what_the_models_were_asked_and_options_of_methods_are_told(left: Rows, tmp_path: Path) -> None:
    runs = []
    for name, template, rise, commit in (
        ("a", "{question}", {}, "1" * 40),
        ("b", "{question}?", {"masks": 9}, "2" * 40),
    ):
        model = {"hash": name, "dtype": "float32", "prompt_template": template}
        methods = {"chefer": {"class": "chefer"} | rise, f"only_{name}": {"class": "rise"}, "weights": {name: name}}
        identity = {"model": model, "methods": methods, "perturbation": {"steps": 8}}
        runs.append(write(tmp_path / name, left, identity=identity, model={"source": "org/model", "revision": commit}))
    result = compare(runs)
    assert [run.model for run in result.runs] == ["org/model @ 111111111111", "org/model @ 222222222222"]
    assert result.warnings == (
        "The models are loaded or asked differently in prompt_template: '{question}', '{question}?'.",
        "chefer has other options in each run: masks: not given, 9.",
    )


def _empty(folder: Path) -> Path:
    (folder / "records").mkdir(parents=True)
    return folder


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda folder: folder / "none", "no such run directory"),
        (_empty, "has no records yet"),
    ],
)
def test_what_is_no_run_is_one_line(
    runs: list[Path], tmp_path: Path, make: Callable[[Path], Path], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["compare", str(runs[0]), str(make(tmp_path / "run")), "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and not out.exists()


def test_runs_without_a_shared_sample_and_newer_ones_are_one_line(
    runs: list[Path], left: Rows, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = [row for row in left if row["sample_id"] < "s04"]
    asked = write(tmp_path / "asked", [row | {"question": "Why?"} for row in few])
    films = write(tmp_path / "films", [row | {"picture_hash": "x"} for row in few])
    newer = write(tmp_path / "newer", few)
    (newer / "summary.json").write_text('{"schema_version": 99}')
    for other, said in (
        (asked, "share no sample: 36 are not in every run, 4 ask another question"),
        (films, "share no sample: 36 are not in every run, 4 have another picture"),
        (newer, "written by a newer version"),
    ):
        assert main(["compare", str(runs[0]), str(other), "--out", str(tmp_path / "out")]) == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1
    assert main(["compare", str(runs[0]), "--out", str(tmp_path / "out")]) == 2
    assert main(["compare", *map(str, runs), "--names", "a,a", "--out", str(tmp_path / "out")]) == 2
    assert "all different" in capsys.readouterr().err


def test_the_command_writes_page_and_json(
    runs: list[Path], comparison: Comparison, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", *map(str, runs), "--out", str(tmp_path)]) == 0
    printed, page = capsys.readouterr().out, (tmp_path / "index.html").read_text()
    assert Comparison.from_dict(json.loads((tmp_path / "compare.json").read_text())) == comparison
    assert printed.startswith("large: Believe chefer") and "Paired differences" in printed
    for text in ("srg by method and run", "large − small", "Accuracy beside faithfulness", "sex F", "<svg"):
        assert text in page, text
    assert "http" not in page.replace("http://www.w3.org/", "").replace("http-equiv", "")
    assert "<script" not in page


def test_a_page_without_differences_says_why(left: Rows, tmp_path: Path) -> None:
    one = [row for row in left if row["sample_id"] == "s00"]
    result = compare([write(tmp_path / "a", one), write(tmp_path / "b", one)])
    page = comparison_page(result)
    assert result.differences == () and "needs two patients" in page and "A hollow marker" not in page


def test_the_page_fits_every_screen(comparison: Comparison, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text(comparison_page(comparison), encoding="utf-8")
    with chromium(tmp_path / "profile") as browser:
        for width in (390, 1024, 1400):
            browser.size(width, 900, mobile=width < 500)
            browser.visit((tmp_path / "index.html").as_uri())
            assert browser.run("document.documentElement.scrollWidth") <= width + 1
            assert browser.run("document.querySelectorAll('figure svg').length") == 3
        assert browser.errors == [] and all(one.startswith(("file:", "data:")) for one in browser.requests)
