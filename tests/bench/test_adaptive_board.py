"""Adaptive curves that take their scores from full ones are those of a real run; and when they may be a default."""

import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from cxr_faith.records import read_records
from cxr_faith.summary.load import read_summary
from tests.runs import ROOT, VOLATILE, run_here

sys.path.insert(0, str(ROOT / "benchmarks"))

import adaptive_board  # noqa: E402

pytestmark = pytest.mark.slow


def test_replayed_adaptive_curves_are_those_of_a_real_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(adaptive_board, "METHODS", {"attention": {}})
    given = ["--questions", "1", "--out", str(tmp_path)]
    assert adaptive_board.main(given) == 0
    printed = capsys.readouterr().out
    assert "steps adaptive: " in printed and ", 0 of them run now" in printed  # no picture is run for the replay
    assert printed.endswith("significances that change on 0 boards: 0\n") or "be a default" in printed
    assert run_here(tmp_path / "adaptive.yaml", tmp_path / "alone") == 0
    replayed, alone = (
        read_records(tmp_path / name).drop(columns=[*VOLATILE, "forwards", "backwards"])
        for name in ("adaptive", "alone")
    )
    pd.testing.assert_frame_equal(replayed, alone, rtol=1e-9, atol=1e-9)
    full = read_records(tmp_path / "full")
    assert replayed["auc_error"].notna().any() and full["auc_error"].isna().all()
    assert adaptive_board.main(given) == 0  # a run that is done is not made again
    assert capsys.readouterr().out.count(" 0 pictures, 0 of them run now") == 2
    summary = read_summary(tmp_path / "full")
    (board, *others), method = summary.boards, "attention"
    rows = [replace(row, gap_srg_random=0.3 if row.method == method else row.gap_srg_random) for row in board.rows]
    first = replace(summary, boards=(replace(board, rows=tuple(rows)), *others))
    rows = [replace(row, gap_srg_random=0.306 if row.method == method else row.gap_srg_random) for row in board.rows]
    second = replace(summary, boards=(replace(board, rows=tuple(rows)), *others))
    assert list(adaptive_board.lines(first, first))[-1] == "steps: adaptive may be a default"
    center = [replace(row, srg=0.4, gap_srg_center=None) for row in board.rows if row.method == "center"]
    alone = replace(summary, boards=(replace(board, rows=tuple(center)), *others))
    (line,) = [line for line in adaptive_board.lines(alone, alone) if line.startswith("center")]
    assert line.endswith("–       –")  # it has no gap to itself
    *_, move, _, verdict = adaptive_board.lines(first, second)
    assert move == "largest move of a gap: 0.0060 (gap_srg_random of attention), allowed 0.005"
    assert verdict == "steps: adaptive may not be a default"
