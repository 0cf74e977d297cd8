"""The figures of a run for a paper, from its summary and records: curves, forest, scatter, reliability."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from cxr_faith.perturb.condition import NONE
from cxr_faith.records import read_records
from cxr_faith.records.controls import RANDOM
from cxr_faith.report.charts import ForestLine, faithfulness_scatter, gap_forest, mean_curves, reliability_diagram
from cxr_faith.report.figures import COLUMN_WIDTH
from cxr_faith.report.tables import FINDING
from cxr_faith.summary import bands
from cxr_faith.summary.board import Board
from cxr_faith.summary.load import read_summary, shown_in
from cxr_faith.summary.summary import Summary

GAP = "gap_srg_center"
ANSWER_COLUMNS = ("p_yes", "correct", "patient_id", "image_id")
"""The columns of the records that `reliability_of` reads."""


def run_figures(run_dir: str | Path) -> dict[str, Figure]:
    """Figures of one column's width, of the run's first substrate, target and space.

    Args:
        run_dir: with the `summary.json` that `evaluate` and `report` write.

    Returns:
        `curves` (mean curves with 95 % bands over patients), `forest` and `forest_findings` (gaps in srg to the
        center prior, over all samples and by finding), `scatter` (srg against localization) and `reliability`, in the
        same colors; a figure that the run has no data for is left out.

    Raises:
        FileNotFoundError: there is no `summary.json`.
        ValueError: `summary.json` cannot be used; the message says what to do.
    """
    summary = read_summary(Path(run_dir))
    shown = shown_in(summary)
    answers = read_records(run_dir, ANSWER_COLUMNS, shown)
    summary = bands.with_bands_of(run_dir, summary, shown)
    boards = summary.first_boards
    figures = {
        "curves": _curves(boards),
        "forest": _forest(boards, summary.methods, by_finding=False),
        "forest_findings": _forest(boards, summary.methods, by_finding=True),
        "scatter": scatter_of(summary),
        "reliability": reliability_of(answers[answers["condition"].eq(NONE)]),
    }
    return {name: figure for name, figure in figures.items() if figure is not None}


def reliability_of(records: pd.DataFrame) -> Figure | None:
    """p(yes) against the reference, over samples; None if no yes/no question has a reference."""
    answers = records.drop_duplicates("sample_id")
    answers = answers[answers["p_yes"].notna() & answers["correct"].notna()]
    if answers.empty:
        return None
    said_yes = answers["p_yes"].ge(0.5)
    is_yes = said_yes.eq(answers["correct"].astype(bool))
    patients = answers["patient_id"].fillna(answers["image_id"]).astype(str)  # without an id, of a patient of its own
    return reliability_diagram(answers["p_yes"].tolist(), is_yes.tolist(), patients.tolist())


def scatter_of(summary: Summary) -> Figure | None:
    """Faithfulness against localization, over methods; None if the data have neither boxes nor masks."""
    points = {
        entry.method: (entry.energy_inside, entry.srg_located)
        for entry in summary.localization
        if entry.energy_inside is not None and entry.srg_located is not None
    }
    return faithfulness_scatter(points, "share of the map inside", "srg") if points else None


def _curves(boards: Sequence[Board]) -> Figure | None:
    curves = {
        row.method: row.curves
        for board in boards
        if board.slice == "all"
        for row in board.rows
        if row.curves is not None
    }
    return mean_curves(curves, width=COLUMN_WIDTH) if curves else None


def _forest(boards: Sequence[Board], methods: Sequence[str], by_finding: bool) -> Figure | None:
    """Gaps to the center prior, best method first; random orders are left out, since they explain nothing."""
    place = {row.method: row.value(GAP) or 0.0 for board in boards if board.slice == "all" for row in board.rows}
    lines = []
    for board in boards:
        if board.slice.startswith(FINDING if by_finding else "all"):
            name = board.slice.removeprefix(FINDING) if by_finding else "all samples"
            for row in sorted(board.rows, key=lambda row: -place[row.method]):
                gap = row.value(GAP)
                if gap is not None and row.method != RANDOM:
                    low, high = row.intervals[GAP].ends or (None, None)
                    lines.append(ForestLine(row.method, name, gap, low, high, row.n_common))
    return gap_forest(lines, "gap in srg to the center prior (positive = better)", methods) if lines else None
