"""Which maps to believe: the classes, the three sentences, and where they are shown."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cxr_faith.__main__ import main
from cxr_faith.metrics.statistics import LEVEL
from cxr_faith.records.controls import is_control
from cxr_faith.report.head import head_of
from cxr_faith.report.markdown import markdown
from cxr_faith.report.results import write_results
from cxr_faith.summary.board import Board
from cxr_faith.summary.cautions import cautions
from cxr_faith.summary.interval import Interval
from cxr_faith.summary.summarize import summarize
from cxr_faith.summary.summary import Summary
from cxr_faith.summary.verdict import (
    BELIEVE,
    FAILED,
    FEW,
    NOISE,
    UNKNOWN,
    VERDICTS,
    WEAK,
    WORSE,
    verdict_lines,
    verdict_of,
)
from tests.reference import verdict as reference
from tests.synthetic import METHODS


@pytest.fixture(scope="module")
def summary(rows: list[dict[str, Any]]) -> Summary:
    return summarize(pd.DataFrame(rows), METHODS)


def classes(board: Board) -> dict[str, str]:
    return {one.method: one.verdict for one in verdict_of(board).methods}


def shaken(board: Board, rng: np.random.Generator) -> Board:
    """The board with other intervals, p and marks; many lie at the edges of the rules."""

    def test(old: Interval) -> Any:
        low, width = float(rng.choice([-0.3, -0.1, 0.0, 0.1])), float(rng.choice([0.1, 0.15, 0.4]))
        ends = (None, None) if rng.random() < 0.1 else (low, low + width)
        p = float(rng.choice([0.001, 0.049, 1 - LEVEL, 0.2]))
        return replace(old, t_low=ends[0], t_high=ends[1], low=None, high=None, bca_low=None, bca_high=None, p_holm=p)

    rows = tuple(
        replace(
            row,
            intervals={name: test(old) for name, old in row.intervals.items()},
            sanity_failed=[None, False, True][rng.choice(3, p=[0.6, 0.3, 0.1])],
            own_substrate=bool(rng.random() < 0.1),
            curves=None,
        )
        for row in board.rows
    )
    differences = tuple(test(pair) for pair in board.differences if rng.random() < 0.8)
    headline = "srg" if rng.random() < 0.9 else "srg_logit_scored"
    return replace(board, rows=rows, differences=differences, headline=headline)


def test_classes_are_those_that_the_rows_give_one_by_one(summary: Summary) -> None:
    rng, seen = np.random.default_rng(0), set()
    for board in [*summary.boards, *(shaken(summary.boards[0], rng) for _ in range(120))]:
        values = json.loads(json.dumps(board.to_dict()))
        expected = {row["method"]: reference.class_of(values, row) for row in values["rows"]}
        assert classes(board) == {method: one for method, one in expected.items() if one is not None}
        seen |= set(classes(board).values())
    assert seen == set(VERDICTS)


def test_the_sentences_name_each_method_once_and_never_a_control(summary: Summary) -> None:
    rng = np.random.default_rng(1)
    for board in [shaken(summary.boards[0], rng) for _ in range(100)]:
        verdict = verdict_of(board)
        believed, rest, effects = verdict.sentences
        assert all(sentence.endswith(".") for sentence in verdict.sentences) and "effect" in effects
        for one in verdict.methods:
            words = believed.replace(",", "").split()
            assert (one.method in words) == (one.verdict == BELIEVE)
        assert not any(is_control(one.method) for one in verdict.methods)
        for name in ("random_map", "oracle"):
            assert name not in believed + rest
        best = [one.gap_center for one in verdict.methods if one.verdict == BELIEVE and one.gap_center is not None]
        if best:
            stated = float(believed.rstrip(".)").split()[-1])
            assert stated <= min(best) < stated + 0.01 + 1e-12


def with_row(board: Board, method: str, **changes: Any) -> Board:
    return replace(board, rows=tuple(replace(r, **changes) if r.method == method else r for r in board.rows))


def test_a_method_that_is_as_good_as_noise_or_failed_sanity_is_not_believed(summary: Summary) -> None:
    """`chefer` is far above every baseline; each reason alone takes it from the first sentence."""
    board = summary.board()
    row = board.row("chefer")
    assert row is not None and classes(board)["chefer"] == BELIEVE
    nothing = replace(row.intervals["srg"], t_low=-0.1, t_high=0.1)
    below = replace(row.intervals["srg"], t_low=-0.2, t_high=-0.1)
    short = replace(row.intervals["srg"], t_low=None, t_high=None, low=None, high=None, bca_low=None, bca_high=None)
    center = replace(row.intervals["gap_srg_center"], p_holm=0.06)
    changes: list[tuple[dict[str, Any], str]] = [
        ({"sanity_failed": True}, FAILED),
        ({"own_substrate": True}, UNKNOWN),
        ({"intervals": {**row.intervals, "srg": short}}, FEW),
        ({"intervals": {**row.intervals, "srg": below}}, WORSE),
        ({"intervals": {**row.intervals, "srg": nothing}}, NOISE),
        ({"intervals": {**row.intervals, "gap_srg_center": center}}, WEAK),
    ]
    for change, expected in changes:
        after = with_row(board, "chefer", **change)
        assert classes(after)["chefer"] == expected
        assert "chefer" not in verdict_of(after).sentences[0]
    pairs = tuple(replace(p, p_holm=0.2) if "random_map" in (p.a, p.b) else p for p in board.differences)
    assert classes(replace(board, differences=pairs))["chefer"] == NOISE


def test_blurred_copies_and_ablations_are_not_recommended(summary: Summary) -> None:
    """They score as `chefer` does, which is believed."""
    board = summary.board()
    row = board.row("chefer")
    assert row is not None
    copies = tuple(replace(row, method=f"chefer/{kind}") for kind in ("blurred", "ablated"))
    verdict = verdict_of(replace(board, rows=(*copies, *board.rows)))
    assert verdict.of("chefer") == BELIEVE
    assert verdict.of("chefer/blurred") is None and verdict.of("chefer/ablated") is None
    assert "/" not in "".join(verdict.sentences[:2])


def test_a_method_with_this_substrate_is_judged_under_another_one(summary: Summary) -> None:
    first = replace(with_row(summary.boards[0], "chefer", own_substrate=True), target="answer", slice="all")
    other = replace(summary.boards[0], substrate="mean", target="answer", slice="all")
    believe, rest, effects = verdict_of(first).sentences
    assert "chefer" in rest and verdict_of(other).of("chefer") == BELIEVE
    said = verdict_lines([first, other])
    assert said[2].startswith("Under mean: believe chefer (Δsrg +") and len(said) == 4
    assert (said[0], said[3]) == (believe, effects) and "chefer" not in said[1]
    # Another slice, target or space has other samples or another question.
    for key, value in (("slice", "present"), ("target", "first"), ("space", "tokens")):
        assert verdict_lines([first, replace(other, **{key: value})]) == verdict_of(first).sentences
    alone = [
        replace(board, rows=tuple(row for row in board.rows if row.method == "chefer")) for board in (first, other)
    ]
    assert verdict_lines(alone)[0] == "No map can be judged here." and verdict_lines(alone)[2] == said[2]
    assert verdict_lines([first]) == verdict_of(first).sentences and verdict_lines([]) == ()


def test_few_patients_and_slices_without_an_effect_are_not_judged(summary: Summary, rows: list[dict[str, Any]]) -> None:
    few = summarize(pd.DataFrame([row for row in rows if row["patient_id"] < "p08"]), METHODS)
    verdict = verdict_of(few.board())
    assert set(classes(few.board()).values()) == {FEW, UNKNOWN}  # integrated_gradients has the run's substrate
    assert verdict.sentences[:2] == ("No map can be judged here.", "An interval needs 10 patients; this board has 8.")
    absent = verdict_of(summary.board("answered_no"))
    assert {one.verdict for one in absent.methods} == {UNKNOWN}
    assert absent.sentences[1] == "Hardly any question has an effect that a map could explain."
    assert absent.sentences[2] == "94% of the questions have no effect to explain."


def test_the_share_without_effect_counts_questions(summary: Summary, rows: list[dict[str, Any]]) -> None:
    status = {row["sample_id"]: row["status"] for row in rows}
    share = sum(one in ("degenerate", "inverted") for one in status.values()) / len(status)
    verdict = verdict_of(summary.board())
    assert verdict.no_effect == share > 0 and verdict.sentences[2].startswith(f"{share:.0%} of the questions")


def test_only_controls(rows: list[dict[str, Any]]) -> None:
    some = [row for row in rows if is_control(row["method"])]
    assert verdict_of(summarize(pd.DataFrame(some)).board()).sentences[1] == "Only baselines and controls were scored."


def provenance(total: int = 40) -> str:
    values = {
        "methods": list(METHODS),
        "samples_total": total,
        "model": {"source": "google/medgemma-4b-it", "hash": "0123456789abcdef", "revision": "main"},
        "data": {"manifest": "/data/manifests/mimic", "fingerprint": "fedcba98"},
        "identity": {"model": {"dtype": "bfloat16"}},
    }
    return json.dumps(values)


HISTORY = """{"started": "2026-03-01T09:30:00+00:00", "command": "cxr-faith evaluate --config old"}
{"seconds": 60.0}
{"started": "2026-03-02T09:30:00+00:00", "command": "cxr-faith evaluate --config mimic"}
{"seconds": 7140.0}
{"started": "2026-03-02T1"""


def test_the_first_lines_say_what_was_run_and_what_to_believe(
    run_dir: Path, summary: Summary, capsys: pytest.CaptureFixture[str]
) -> None:
    (run_dir / "provenance.json").write_text(provenance(total=90))
    (run_dir / "history.jsonl").write_text(HISTORY)
    (run_dir / "doctor.json").write_text(
        json.dumps({"checks": [{"name": "disk", "status": "fail", "figure": "", "advice": ""}]})
    )
    (run_dir / "sanity.json").write_text(json.dumps({"methods": {"attention": {"failed": True}}}))
    assert main(["report", str(run_dir)]) == 0
    lines = capsys.readouterr().out.splitlines()
    expected = [
        "model        google/medgemma-4b-it (main, bfloat16, 01234567)",
        "data         manifests/mimic (fedcba98)",
        "questions    40 of 90 (10 patients)",
        "substrate    blur:0.1",
        "run          2026-03-01 09:30 UTC, 2 h 0 min, 2 starts",
        "command      cxr-faith evaluate --config mimic",
        "verdict      Believe chefer here: clearly better than the center prior (Δsrg +0.28).",
        "             Do not rely on attention (failed the sanity check); not judged: integrated_gradients.",
        "             45% of the questions have no effect to explain.",
        "note         Partial: 40 of 90 samples have records, 50 are missing.",
    ]
    assert lines[: len(expected)] == expected
    head = "\n".join(lines[: next(n for n, line in enumerate(lines) if "method" in line and "cov" in line)])
    assert "cxr-faith doctor failed: disk." in head and "Not run" not in head and "Failed the sanity check" not in head
    text, page = (run_dir / "summary.md").read_text(), (run_dir / "report" / "index.html").read_text()
    for line in expected[:4] + expected[6:9]:
        assert line[13:] in page, line
        assert line[13:].replace("_", "") in text.replace("_", "").replace("\\", ""), line
    assert "2 h 0 min" in page and "2 h 0 min" not in text  # two runs of one config write the same summary.md


def test_checks_that_were_not_run_are_named(run_dir: Path) -> None:
    write_results(run_dir)
    for name in ("summary.md", "report/index.html"):
        assert "Not run for this directory: cxr-faith doctor" in (run_dir / name).read_text()


def test_low_coverage_and_missing_samples_come_before_the_tables(summary: Summary) -> None:
    boards = tuple(replace(board, n_common=5) for board in summary.boards)
    low = replace(summary, boards=boards, samples_total=50, missing=10, partial=True)
    low = replace(low, warnings=tuple(cautions(low)))
    first = head_of(low).warnings
    assert [line.split()[0] for line in first] == ["Partial:", "2", "Low"] and len(low.warnings) > len(first)


def test_the_verdict_of_a_summary_alone(summary: Summary) -> None:
    assert "**Believe chefer and attention here: clearly better than the center prior (Δsrg ≥ +" in markdown(summary)
