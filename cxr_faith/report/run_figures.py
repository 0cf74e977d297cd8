"""The figures of a run for a paper, from its summary and records: curves, forest, scatter, reliability."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from cxr_faith.perturb.condition import NONE
from cxr_faith.records import read_records
from cxr_faith.records.controls import RANDOM
from cxr_faith.report.charts import (
    Interval,
    faithfulness_scatter,
    gap_forest,
    mean_curves,
    reliability_diagram,
)
from cxr_faith.report.figures import COLUMN_WIDTH
from cxr_faith.report.page_data import interval
from cxr_faith.summary import bands

GAP = "gap_srg_center"
FINDING = "finding:"


def run_figures(run_dir: str | Path) -> dict[str, Figure]:
    """Figures of one column's width, of the run's first substrate, target and space.

    Args:
        run_dir: with the `summary.json` that `evaluate` and `report` write.

    Returns:
        `curves` (mean curves with 95 % bands over patients), `forest` and `forest_findings` (gaps in srg to the
        center prior, over all samples and by finding), `scatter` (srg against localization) and `reliability`, in the
        same colors; what the run has no data for is left out.

    Raises:
        FileNotFoundError: there is no `summary.json`.
    """
    summary = json.loads((Path(run_dir) / "summary.json").read_text(encoding="utf-8"))
    records = read_records(run_dir, (*bands.COLUMNS, "p_yes", "correct"))
    records = records[records["condition"].eq(NONE)]
    bands.add_bands(summary, records)
    found = {
        "curves": _curves(summary),
        "forest": _forest(summary, by_finding=False),
        "forest_findings": _forest(summary, by_finding=True),
        "scatter": scatter_of(summary),
        "reliability": reliability_of(records),
    }
    return {name: figure for name, figure in found.items() if figure is not None}


def reliability_of(records: pd.DataFrame) -> Figure | None:
    """p(yes) against the reference, over samples; None where there is no yes/no question with a reference."""
    answers = records.drop_duplicates("sample_id")
    answers = answers[answers["p_yes"].notna() & answers["correct"].notna()]
    if answers.empty:
        return None
    said_yes = answers["p_yes"].ge(0.5)
    is_yes = said_yes.eq(answers["correct"].astype(bool))
    return reliability_diagram(answers["p_yes"].tolist(), is_yes.tolist())


def scatter_of(summary: Mapping[str, Any]) -> Figure | None:
    """Faithfulness against localization, over methods; None where the data have no boxes and no masks."""
    points = {
        entry["method"]: (entry["energy_inside"], entry["srg_located"])
        for entry in summary["localization"]
        if entry["energy_inside"] is not None and entry["srg_located"] is not None
    }
    return faithfulness_scatter(points, "share of the map inside", "srg") if points else None


def _boards(summary: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The boards of the first setting."""
    boards = summary["boards"]
    return [b for b in boards if all(b[name] == boards[0][name] for name in ("substrate", "target", "space"))]


def _curves(summary: Mapping[str, Any]) -> Figure | None:
    rows = [row for board in _boards(summary) if board["slice"] == "all" for row in board["rows"]]
    curves = {row["method"]: row["curves"] for row in rows if "curves" in row}
    return mean_curves(curves, width=COLUMN_WIDTH) if curves else None


def _forest(summary: Mapping[str, Any], by_finding: bool) -> Figure | None:
    """Gaps to the center prior, in the leaderboard's order; random orders are no explanation and are left out."""
    boards = [b for b in _boards(summary) if b["slice"].startswith(FINDING if by_finding else "all")]
    place = {row["method"]: row[GAP] or 0.0 for b in _boards(summary) if b["slice"] == "all" for row in b["rows"]}
    lines = []
    for board in boards:
        rows = [row for row in board["rows"] if row[GAP] is not None and row["method"] != RANDOM]
        for row in sorted(rows, key=lambda row: -place[row["method"]]):
            low, high = interval(row, GAP) or (None, None)
            name = board["slice"].removeprefix(FINDING) if by_finding else "all samples"
            lines.append(Interval(row["method"], name, row[GAP], low, high, row["n_common"]))
    label = "gap in srg to the center prior (positive = better)"
    return gap_forest(lines, label, summary["methods"]) if lines else None
