"""The classes of the summary: JSON and back, tables; a sentence under every field, also in the report's classes."""

import ast
import json
from pathlib import Path
from typing import Any

import pytest

import cxr_faith.summary
from cxr_faith.records import read_records
from cxr_faith.summary.interval import Interval
from cxr_faith.summary.summarize import summarize
from cxr_faith.summary.summary import Summary
from tests.synthetic import METHODS

ROOM = Path(cxr_faith.summary.__path__[0])


@pytest.fixture
def values(run_dir: Path) -> dict[str, Any]:
    return json.loads(json.dumps(summarize(read_records(run_dir), METHODS).to_dict(), allow_nan=False))


def test_a_summary_survives_json(values: dict[str, Any], run_dir: Path) -> None:
    summary = Summary.from_dict(values)
    assert summary == summarize(read_records(run_dir), METHODS)
    assert values["schema_version"] == 1 and summary.to_dict() == values


def test_a_file_without_a_version_opens_and_one_that_lacks_a_key_says_what_to_do(values: dict[str, Any]) -> None:
    values.pop("schema_version", None)
    Summary.from_dict(values)
    del values["boards"][2]["rows"][1]["intervals"]
    with pytest.raises(ValueError, match=r"boards\[2\]\.rows\[1\] has no 'intervals'.*`cxr-faith report RUN_DIR`") as e:
        Summary.from_dict(values)
    assert "\n" not in str(e.value)


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
            low = interval["low"] if interval["bca_low"] is None else interval["bca_low"]
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


def test_the_shown_interval_is_bca_where_there_is_one() -> None:
    both = Interval(0.5, 40, 10, low=0.1, high=0.9, bca_low=0.2, bca_high=0.8, p=0.01, d_z=1.0, p_holm=0.02)
    percentile = Interval(0.5, 40, 10, low=0.1, high=0.9, bca_low=None, bca_high=None, p=0.01, d_z=1.0, p_holm=0.02)
    neither = Interval(0.5, 4, 2, low=None, high=None, bca_low=None, bca_high=None, p=0.5, d_z=1.0, p_holm=1.0)
    assert (both.ends, percentile.ends, neither.ends) == ((0.2, 0.8), (0.1, 0.9), None)


def is_dataclass(node: ast.ClassDef) -> bool:
    return any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list)


def test_every_field_has_a_sentence() -> None:
    classes = [
        (file.name, node)
        for file in sorted([*ROOM.glob("*.py"), *(ROOM.parent / "report").rglob("*.py")])
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ClassDef) and (is_dataclass(node) or "NamedTuple" in map(ast.unparse, node.bases))
    ]
    assert len(classes) > 35
    for name, node in classes:
        for field, after in zip(node.body, [*node.body[1:], None], strict=True):
            if isinstance(field, ast.AnnAssign):
                text = after.value if isinstance(after, ast.Expr) else ast.Constant("")
                said = str(text.value).strip() if isinstance(text, ast.Constant) else ""
                assert said.endswith((".", "?")), f"{name}: {node.name}.{ast.unparse(field.target)} has no sentence"
