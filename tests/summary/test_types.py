"""The classes of the summary: JSON and back, tables; a sentence under every field, also in the report's classes."""

import ast
import inspect
import json
import shutil
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import cxr_faith.summary
from cxr_faith.records import read_records
from cxr_faith.report.markdown import markdown
from cxr_faith.report.trust import trust_tables
from cxr_faith.summary.bands import with_bands
from cxr_faith.summary.caveats import Caveat
from cxr_faith.summary.changes import AnswerChange, MapChange
from cxr_faith.summary.compare import compare
from cxr_faith.summary.compare_differences import Measured
from cxr_faith.summary.compare_join import Joined, Lost, RunRecords
from cxr_faith.summary.conditions import ConditionAnswers, ConditionMaps, Conditions
from cxr_faith.summary.image_use import Changed, Grounding, ImageUse, Share, UseOfSlice
from cxr_faith.summary.interval import Interval
from cxr_faith.summary.load import Run
from cxr_faith.summary.localization import LocalizationScores
from cxr_faith.summary.method_rows import MethodRows, SharedSamples
from cxr_faith.summary.metric_rows import MetricRow
from cxr_faith.summary.pairs import Flips, Pairs
from cxr_faith.summary.regions import Organ
from cxr_faith.summary.result import Result
from cxr_faith.summary.sets import Sets
from cxr_faith.summary.stability import Stability, VariantAnswers, VariantMaps
from cxr_faith.summary.subgroups import Group, GroupDifference, Subgroups
from cxr_faith.summary.substrates import SubstratePair, Substrates
from cxr_faith.summary.summarize import summarize
from cxr_faith.summary.summary import Summary
from cxr_faith.summary.uncertainty import Uncertainty
from cxr_faith.summary.verdict import verdict_of
from tests.synthetic import METHODS

ROOM = Path(cxr_faith.summary.__path__[0])


@pytest.fixture
def values(run_dir: Path) -> dict[str, Any]:
    return json.loads(json.dumps(summarize(read_records(run_dir), METHODS).to_dict(), allow_nan=False))


def test_a_summary_survives_json(values: dict[str, Any], run_dir: Path) -> None:
    summary = Summary.from_dict(values)
    assert summary == summarize(read_records(run_dir), METHODS)
    assert values["schema_version"] == 2 and summary.to_dict() == values


def test_a_file_without_a_version_opens_and_one_that_lacks_a_key_says_what_to_do(values: dict[str, Any]) -> None:
    values.pop("schema_version", None)
    Summary.from_dict(values)
    del values["boards"][2]["rows"][1]["intervals"]
    with pytest.raises(ValueError, match=r"boards\[2\]\.rows\[1\] has no 'intervals'.*`cxr-faith report RUN_DIR`") as e:
        Summary.from_dict(values)
    assert "\n" not in str(e.value)


def test_a_summary_of_the_first_version_opens(values: dict[str, Any]) -> None:
    """It has neither bootstrap-t nor plain means, nor the columns of flat maps and sets."""
    for board in values["boards"]:
        for row in board["rows"]:
            for name in ("plain_means", "medians", "flat_share"):
                row.pop(name, None)
            for interval in row["intervals"].values():
                for name in ("t_low", "t_high", "p_sign_flip"):
                    interval.pop(name, None)
        for pair in board["differences"]:
            for name in ("t_low", "t_high", "p_sign_flip"):
                pair.pop(name, None)
    del values["sets"], values["subgroups"]
    for answers in values["answers"]:
        del answers["n_not_parsed"]
    summary = Summary.from_dict(values | {"schema_version": 1})
    row = summary.board().rows[0]
    assert row.plain_means is None and row.intervals["srg"].ends == (
        row.intervals["srg"].bca_low,
        row.intervals["srg"].bca_high,
    )
    assert "chefer" in markdown(summary, trust_tables(summary))


def test_a_newer_file_and_a_wrong_type_are_one_line(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="newer version.*schema 99.*update") as newer:
        Summary.from_dict(values | {"schema_version": 99})
    with pytest.raises(ValueError, match="n_samples: expected int, got str") as wrong:
        Summary.from_dict(values | {"n_samples": "40"})
    assert "\n" not in f"{newer.value}{wrong.value}"


def test_a_frame_has_a_row_for_each_setting_slice_and_method(values: dict[str, Any]) -> None:
    frame = Summary.from_dict(values).to_frame()
    assert len(frame) == sum(len(board["rows"]) for board in values["boards"])
    assert not frame.duplicated(["substrate", "target", "space", "slice", "method"]).any()
    for board in values["boards"]:
        for row in board["rows"]:
            (line,) = frame[frame["slice"].eq(board["slice"]) & frame["method"].eq(row["method"])].to_dict("records")
            interval = row["intervals"]["srg"]
            low = next((interval[name] for name in ("t_low", "bca_low") if interval.get(name)), interval["low"])
            pairs = {"srg": row["srg"], "gap_srg_center": row["gap_srg_center"], "n_common": row["n_common"]}
            pairs |= {"srg_low": low, "srg_p_holm": interval["p_holm"], "status_ok": row["status"]["ok"]}
            for name, value in pairs.items():
                assert line[name] == value or (value is None and line[name] != line[name]), name


def test_boards_are_picked_by_slice_and_setting(values: dict[str, Any]) -> None:
    summary = Summary.from_dict(values)
    assert summary.board("present").slice == "present" and summary.board(substrate="blur:0.1") is summary.boards[0]
    assert summary.board().ranked()[0].method == "oracle"
    assert summary.settings == [("blur:0.1", "answer", "pixels")] and summary.first_boards == list(summary.boards)
    with pytest.raises(KeyError, match="no board of all, mean"):
        summary.board(substrate="mean")
    with pytest.raises(KeyError, match="no column 'sgr'"):
        summary.board().rows[0].value("sgr")


def test_the_shown_interval_is_bootstrap_t_else_bca_else_percentile() -> None:
    both = Interval(0.5, 40, 10, low=0.1, high=0.9, bca_low=0.2, bca_high=0.8, p=0.01, d_z=1.0, p_holm=0.02)
    percentile = Interval(0.5, 40, 10, low=0.1, high=0.9, bca_low=None, bca_high=None, p=0.01, d_z=1.0, p_holm=0.02)
    neither = Interval(0.5, 4, 2, low=None, high=None, bca_low=None, bca_high=None, p=0.5, d_z=1.0, p_holm=1.0)
    studentized = replace(both, t_low=0.05, t_high=0.7)
    assert (both.ends, percentile.ends, neither.ends) == ((0.2, 0.8), (0.1, 0.9), None)
    assert studentized.ends == (0.05, 0.7)


def results_in(value: object) -> Iterator[Result]:
    """A result and the results inside it."""
    if isinstance(value, Result):
        yield value
    if is_dataclass(value):
        inside = [getattr(value, field.name) for field in fields(value)]
    else:
        inside = list(value.values() if isinstance(value, dict) else value if isinstance(value, tuple) else ())
    for item in inside:
        yield from results_in(item)


def test_every_class_survives_json_and_becomes_a_frame(run_dir: Path, tmp_path: Path) -> None:
    records, copy = read_records(run_dir), tmp_path / "copy"
    shutil.copytree(run_dir / "records", copy / "records")
    answers, maps = {"n": 4, "flip_rate": 0.5, "n_margin": 4, "margin_shift": None}, {"method": "chefer", "n": 4}
    maps |= {"spearman": 0.9, "n_gap": 0, "gap_change": None}
    summary = summarize(records, METHODS)
    examples = list(results_in(with_bands(summary, records)))
    examples += [
        *results_in(Stability((VariantAnswers(**answers, strategy="all"),), (VariantMaps(**maps, strategy="all"),))),
        *results_in(Conditions((ConditionAnswers(**answers, condition="a"),), (ConditionMaps(**maps, condition="a"),))),
        *results_in(Substrates((SubstratePair("blur", "mean", 3, 9, 0.5),), {"blur": 0.1}, {"blur": None})),
        AnswerChange(**answers),
        MapChange(**maps),
        Organ(3, 0.2, 1.4),
        LocalizationScores(0.5, 0.5, None, 0.1, 0.2),
        Sets("cleann", "blur:0.1", 3, 4.0, 0.5, None),
        Caveat("tam", 3, "not assessable", 3, 0, None, None),
        *results_in(Pairs(2, 0, 1, (Flips("nodule", 0.5, 2, 2, 2, 1, 0.5, 0.1, 0.9, 0),), ())),
        *results_in(
            ImageUse(
                4,
                0,
                2,
                (UseOfSlice("all", 4, 0.5, 0.25, part := Share(4, 3, 0.25, 0.1, 0.6)),),
                (Changed("blank", part),),
                (Grounding("blur:0.1", "all", part, None),),
            )
        ),
        Uncertainty("chefer", 4, 0.9, 3, 3, 0.5, None, None),
        *results_in(verdict_of(summary.board())),
        *results_in(compare([run_dir, copy])),
        *results_in(
            Subgroups(
                (Group("sex:F", 20, 12),),
                (GroupDifference("sex:F", "sex:M", "accuracy", 0.1, -0.1, None, 0.4, 0.8, 12, 11),),
            )
        ),
    ]
    modules = [import_module(f"cxr_faith.summary.{file.stem}") for file in ROOM.glob("[a-z]*.py")]
    classes = {
        kind
        for module in modules
        for _, kind in inspect.getmembers(module, is_dataclass)
        if kind.__module__ == module.__name__
    }
    assert classes - {type(example) for example in examples} == {
        Run,
        MethodRows,
        MetricRow,
        SharedSamples,
        RunRecords,
        Lost,
        Joined,
        Measured,
    }
    for example in examples:
        kind = type(example)
        assert kind.from_dict(json.loads(json.dumps(example.to_dict(), allow_nan=False))) == example, kind
        frame = example.to_frame()
        assert isinstance(frame, pd.DataFrame) and len(frame) >= 1 and frame.columns.is_unique, kind


def test_frames_have_a_row_for_each_entry_or_point(run_dir: Path) -> None:
    records = read_records(run_dir)
    summary = with_bands(summarize(records, METHODS), records)
    calibration = summary.calibration
    frame = calibration.to_frame()
    assert frame["reliability_p_yes"].tolist() == [one.p_yes for one in calibration.reliability]
    assert set(frame["ece"]) == {calibration.ece} and set(frame["n"]) == {calibration.n}
    assert set(frame["selective_accuracy_0.8"]) == {calibration.selective_accuracy["0.8"]}
    curves = summary.board().rows[0].curves
    assert curves is not None and curves.bands is not None
    points = curves.to_frame()
    assert list(points["x"]) == list(curves.x) and set(points["n"]) == {curves.n}
    assert list(points["bands_insertion_high"]) == list(curves.bands.insertion_high)
    assert len(summary.boards[0].differences[0].to_frame()) == 1


def declares_dataclass(node: ast.ClassDef) -> bool:
    return any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list)


def test_every_field_has_a_sentence() -> None:
    classes = [
        (file.name, node)
        for file in sorted([*ROOM.glob("*.py"), *(ROOM.parent / "report").rglob("*.py")])
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ClassDef) and (declares_dataclass(node) or "NamedTuple" in map(ast.unparse, node.bases))
    ]
    assert len(classes) > 35
    for name, node in classes:
        for field, after in zip(node.body, [*node.body[1:], None], strict=True):
            if isinstance(field, ast.AnnAssign):
                text = after.value if isinstance(after, ast.Expr) else ast.Constant("")
                said = str(text.value).strip() if isinstance(text, ast.Constant) else ""
                assert said.endswith((".", "?")), f"{name}: {node.name}.{ast.unparse(field.target)} has no sentence"
