"""The table of what maps cost, and what the command prints of it."""

from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd
from rich.console import Console

from cxr_faith.__main__ import main
from cxr_faith.records import RecordWriter
from cxr_faith.report.costs import method_costs, render_costs
from cxr_faith.report.results import write_results


def with_costs(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Chefer has one pass each way, the oracle costs time alone, and the third sample's map took long."""
    more = [dict(row) for row in rows]
    for index, row in enumerate(more):
        row.pop("seconds", None)
        if row["method"] == "chefer":
            slow = 9.0 if row["sample_id"] == "s04" else 0.25 + index / 1e4
            row |= {"forwards": 1, "backwards": 1 + index % 2, "seconds": slow, "peak_memory": 2**20 * (1 + index % 3)}
            row |= {"pointing_game": float(index % 2), "energy_inside": 0.25}
        elif row["method"] == "oracle":
            row |= {"forwards": 0, "backwards": 0, "seconds": 0.001, "peak_memory": None}
    return more


def test_costs_are_plain_means_of_one_substrate(rows: list[dict[str, Any]]) -> None:
    more = with_costs(rows)
    twice = [*more, *(row | {"substrate": "mean"} for row in more), *(row | {"condition": "seed:1"} for row in more)]
    costs = method_costs(pd.DataFrame(twice).reindex(columns=list(pd.DataFrame(more).columns)))
    mine = [row for row in more if row["method"] == "chefer"]
    assert set(costs) == {"chefer", "oracle"}
    assert costs["chefer"].seconds == median(row["seconds"] for row in mine) < 0.5
    assert costs["chefer"].backwards == sum(row["backwards"] for row in mine) / len(mine)
    assert costs["chefer"].peak_memory == 3 * 2**20 and costs["oracle"].peak_memory is None


def test_table_is_in_the_order_of_the_leaderboard_and_printed(
    rows: list[dict[str, Any]], tmp_path: Path, capsys: Any
) -> None:
    RecordWriter(tmp_path, rank=0, start=0).write(with_costs(rows))
    summary = write_results(tmp_path).summary
    console = Console(width=200, record=True, file=open("/dev/null", "w"))
    console.print(render_costs(summary, tmp_path))
    text = console.export_text()
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 113
    oracle, chefer = (next(line for line in text.splitlines() if line.startswith(name)) for name in ("oracle", "chef"))
    assert text.index(oracle) < text.index(chefer)
    assert "25.0%" in chefer and chefer.split()[-1] == "3.000" and oracle.split()[-1] == "–" and "[" in chefer
    assert "seconds" not in (tmp_path / "summary.md").read_text() + (tmp_path / "summary.json").read_text()
    assert main(["report", str(tmp_path)]) == 0
    assert "better than random? on the finding? at what cost?" in capsys.readouterr().out


def test_sets_and_the_most_hits_are_printed(rows: list[dict[str, Any]], tmp_path: Path, capsys: Any) -> None:
    sets = {"set_size": 3, "set_removal_flips": True, "set_keeps": False, "pointing_ceiling": 0.8}
    more = [row | (sets if row["method"] == "chefer" else {}) for row in with_costs(rows)]
    RecordWriter(tmp_path, rank=0, start=0).write(more)
    write_results(tmp_path)
    assert main(["report", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "No map can hit more than 80.0%" in printed
    (line,) = [line for line in printed.split("Are the explaining sets")[1].splitlines() if line.startswith("chefer")]
    assert line.split()[-3:] == ["3.000", "100.0%", "0.0%"]
