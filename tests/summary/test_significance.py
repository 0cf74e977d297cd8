"""Intervals, tests and comparisons of a summary: against the records, and on methods whose ranking is known."""

from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cxr_faith.metrics.statistics import estimate, holm
from cxr_faith.records import read_records
from cxr_faith.report.comparisons import comparisons, few_patients
from cxr_faith.report.markdown import markdown
from cxr_faith.report.tables import board_table, finding_tables
from cxr_faith.summary.significance import paired_differences
from cxr_faith.summary.summarize import summarize
from cxr_faith.summary.summary import Summary

METHODS = ("chefer", "attention", "integrated_gradients", "random_map", "center", "oracle")


@pytest.fixture
def frame(run_dir: Path) -> pd.DataFrame:
    return read_records(run_dir)


@pytest.fixture
def summary(frame: pd.DataFrame) -> Summary:
    return summarize(frame, METHODS)


def paired(frame: pd.DataFrame, column: str) -> pd.DataFrame:
    """Samples x methods over the samples that are ok for all; the index is the patient."""
    ok = frame.groupby("sample_id")["status"].transform(lambda s: s.eq("ok").all())
    wide = frame[ok].pivot(index=["patient_id", "sample_id"], columns="method", values=column)
    return wide.reset_index("sample_id", drop=True).astype(float)


def weights_of(frame: pd.DataFrame, column: str) -> np.ndarray:
    """The samples' weights for a column: the effect if it is in units of it, else 1; [samples, 1]."""
    effect = paired(frame, "effect")["chefer"].to_numpy()[:, None]
    return np.ones_like(effect) if column == "srg_logit" else effect


def test_intervals_are_those_of_the_paired_columns(frame: pd.DataFrame, summary: Summary) -> None:
    board = summary.board()
    for column in ("gap_srg_center", "gap_deletion_random", "srg_logit"):
        wide = paired(frame, column)
        expected = estimate(wide.to_numpy(), wide.index.to_numpy(), weights_of(frame, column))
        adjusted = dict(zip(wide.columns, holm(expected.p), strict=True))
        for row in board.rows:
            interval, place = row.intervals[column], list(wide.columns).index(row.method)
            for name in ("t_low", "t_high", "low", "high", "bca_low", "bca_high", "p", "p_sign_flip", "d_z"):
                value = getattr(expected, name)[place]
                assert getattr(interval, name) == (None if np.isnan(value) else pytest.approx(value, rel=1e-8)), name
            assert (interval.n, interval.clusters) == (expected.n[place], expected.clusters[place])
            wanted, mean = adjusted[row.method], row.value(column)
            assert interval.p_holm == (None if np.isnan(wanted) else pytest.approx(wanted))
            assert interval.mean == (None if mean is None else pytest.approx(mean, abs=1e-9))


def test_differences_are_paired_and_adjusted_over_all_pairs(frame: pd.DataFrame, summary: Summary) -> None:
    pairs = summary.board().differences
    assert {(pair.a, pair.b) for pair in pairs} == set(combinations(METHODS, 2))
    wide = paired(frame, "srg")
    values = np.stack([wide[pair.a] - wide[pair.b] for pair in pairs], axis=1)
    expected = estimate(values, wide.index.to_numpy(), weights_of(frame, "srg"))
    assert [pair.p for pair in pairs] == pytest.approx(expected.p)
    assert [pair.p_holm for pair in pairs] == pytest.approx(holm(expected.p))
    assert all(not board.differences for board in summary.boards if board.slice.startswith("finding:"))


def test_many_methods_can_still_differ_significantly() -> None:
    """Holm multiplies the smallest p by the number of pairs: 10,000 flips for 703 pairs would leave none below .05."""
    rng, patients = np.random.default_rng(0), np.arange(60)
    names = [f"m{index}" for index in range(38)]
    values = 0.02 * np.arange(38) + 0.001 * rng.standard_normal((60, 38))
    pairs = paired_differences(names, values, patients)
    assert len(pairs) == 703 and max(pair.p_holm for pair in pairs) < 0.05


def test_equal_methods_do_not_differ_significantly_and_others_do(rows: list[dict[str, Any]]) -> None:
    """Two copies of one method that differ by noise only, among methods that truly differ; 60 patients."""
    rng, many = np.random.default_rng(0), []
    for copy in range(6):
        for row in rows:
            if row["status"] == "ok":
                ids = {name: f"{copy}-{row[name]}" for name in ("sample_id", "image_id", "patient_id")}
                noise = {name: 0.05 * rng.standard_normal() for name in ("srg", "gap_srg_random")}
                many.append(row | ids | (noise if row["method"] == "random_map" else {}))
                if row["method"] == "chefer":
                    many.append(row | ids | {"method": "twin", "srg": row["srg"] + 0.02 * rng.standard_normal()})
    summary = summarize(pd.DataFrame(many), METHODS)
    board = summary.board()
    assert board.rows[0].n_clusters == 60
    names = [row.method for row in board.ranked()]
    better, worse = sorted(("chefer", "twin"), key=names.index)
    lines = comparisons(board)
    assert f"{better} is not significantly better in srg than {worse}." in lines
    assert not any(line.startswith("oracle ") for line in lines)
    assert lines[0] in markdown(summary)
    random_map = board.row("random_map").intervals["gap_srg_random"]
    assert random_map.low < 0 < random_map.high and random_map.p_holm > 0.05
    oracle = board.row("oracle").intervals["gap_srg_random"]
    assert oracle.p_holm < 0.05 and oracle.low > 0 and oracle.d_z > 1


def test_a_ranking_that_the_common_samples_reverse_is_reported(rows: list[dict[str, Any]]) -> None:
    """Oracle has only the easy half of the samples, and is worse there than a method that has all of them."""
    many = []
    for copy in range(6):
        for index, row in enumerate(row for row in rows if row["status"] == "ok" and row["method"] == "chefer"):
            ids = {name: f"{copy}-{row[name]}" for name in ("sample_id", "image_id", "patient_id")}
            easy = index % 2 == 0
            many.append(row | ids | {"srg": (0.9 if easy else 0.3) + 0.001 * copy})
            if easy:
                many.append(row | ids | {"method": "oracle", "srg": 0.8 - 0.001 * copy})
    summary = summarize(pd.DataFrame(many), METHODS)
    board = summary.board()
    assert [row.method for row in board.ranked()] == ["oracle", "chefer"]
    n = board.row("oracle").n_common
    assert f"On the {n} samples that both have, chefer is significantly better than oracle." in comparisons(board)


def test_with_five_patients_nothing_can_be_significant(frame: pd.DataFrame) -> None:
    board = summarize(frame[frame["patient_id"].lt("p05")], METHODS).board()
    assert min(pair.p for pair in board.differences) > 0.05
    assert comparisons(board) == ["No difference between two methods can be significant with 5 patients."]


def test_each_finding_has_its_own_intervals_and_counts(frame: pd.DataFrame) -> None:
    """All samples have one finding; oracle lacks a sample."""
    first = frame["sample_id"].min()
    some = frame[frame["method"].ne("oracle") | frame["sample_id"].ne(first)].assign(finding="nodule")
    summary = summarize(some, METHODS)
    board = summary.board("finding:nodule")
    (table,) = finding_tables(summary)
    n, of, patients = board.n_common, board.n_samples, board.rows[0].n_clusters
    assert table.header == ["method", f"nodule (n={n} of {of}, {patients} patients)"]
    cells = dict(table.rows)
    assert cells["oracle"].endswith(f"] ({n - 1})") and cells["chefer"].endswith("]")
    assert "somewhat too short under 30" in markdown(summary)


def marked(summary: Summary, failed: str, own: str) -> str:
    """The Markdown of a summary in which one method failed the sanity check and one perturbs with the substrate."""
    boards = [
        replace(
            board,
            rows=tuple(
                replace(row, sanity_failed=row.method == failed, own_substrate=row.method == own) for row in board.rows
            ),
        )
        for board in summary.boards
    ]
    return markdown(replace(summary, boards=tuple(boards)))


def test_marks_are_explained_only_where_they_occur(summary: Summary) -> None:
    none = marked(summary, failed="", own="")
    assert "† failed" not in none and "perturbs with this" not in none
    text = marked(summary, failed="chefer", own="attention")
    assert "| chefer† " in text and "| attention* " in text
    assert text.count("† failed the sanity check") == 1 and text.count("perturbs with this substrate itself") == 1


def test_tables_show_patients_intervals_and_p(summary: Summary) -> None:
    table = board_table(summary.board())
    oracle = dict(zip(table.header, table.rows[0], strict=True))
    assert (oracle["method"], oracle["n"], oracle["patients"]) == ("oracle", "20", "10")
    assert oracle["srg ↑"].count("[") == 1 and oracle["p"] not in ("–", "")
    d_z = summary.board().row("oracle").intervals["srg"].d_z
    assert float(oracle["d"]) == pytest.approx(d_z, rel=0.01) and d_z > 1
    assert "[…] = 95 % interval" in markdown(summary)
    assert few_patients(summary.board()) == ["Only 10 patients here: under 30, intervals are somewhat too short."]
    assert few_patients(summary.board("wrong")) == ["Only 1 patient here: no interval under 10."]


def test_few_patients_get_a_warning_and_no_interval(frame: pd.DataFrame) -> None:
    few = frame[frame["patient_id"].lt("p08")]
    summary = summarize(few, METHODS)
    assert "Only 8 patients: no interval under 10." in summary.warnings
    assert "Only 1 patient: no interval under 10." in summarize(frame[frame["patient_id"].eq("p00")], METHODS).warnings
    assert "- Only 8 patients here: no interval under 10." in markdown(summary)
    interval = summary.board().rows[0].intervals["srg"]
    assert interval.low is None and interval.bca_high is None and interval.p is not None
    table = board_table(summary.board())
    assert "[" not in dict(zip(table.header, table.rows[0], strict=True))["srg ↑"]
    assert "under 30, intervals are somewhat too short" in "\n".join(summarize(frame, METHODS).warnings)


def test_samples_without_patient_are_counted(frame: pd.DataFrame) -> None:
    unnamed = frame.assign(patient_id=frame["patient_id"].where(frame["sample_id"].ge("s04"), None))
    summary = summarize(unnamed, METHODS)
    assert summary.n_without_patient == 4 and summary.n_patients == 9 + 2
    assert any(warning.startswith("4 samples have no patient_id") for warning in summary.warnings)


def test_a_noise_map_that_scores_and_a_blur_that_helps_get_warnings(frame: pd.DataFrame) -> None:
    assert not any("random_map differs" in line for line in summarize(frame, METHODS).warnings)
    shifted = frame.copy()
    noise = shifted["method"].eq("random_map") & shifted["srg"].notna()
    for column in ("srg", "gap_srg_random"):
        shifted.loc[noise, column] = 0.3 + 0.01 * np.arange(noise.sum())
    blurred = frame[frame["method"].eq("chefer")].assign(method="chefer/blurred", srg=lambda rows: rows["srg"] + 0.1)
    both = pd.concat([shifted, blurred], ignore_index=True)
    warnings = "\n".join(summarize(both, METHODS).warnings)
    assert "random_map differs from random orders under blur:0.1" in warnings
    assert "a blurred copy of the map scores better than the map itself: chefer." in warnings
