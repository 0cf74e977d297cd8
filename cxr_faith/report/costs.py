"""The table of costs for the terminal: does a method beat random orders, does it hit the finding, what does a map cost?

Costs come from the records, not from the summary: two runs of one config write the same summary, byte for byte, but
never take the same time.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from rich import box
from rich.table import Table
from rich.text import Text

from cxr_faith.perturb.condition import NONE
from cxr_faith.records import read_records
from cxr_faith.records.controls import first_setting
from cxr_faith.report.columns import method_label
from cxr_faith.report.formats import number, percent, with_interval
from cxr_faith.report.leaderboard import find_board, ranked
from cxr_faith.summary.columns import mean, numbers
from cxr_faith.summary.load import while_it_runs

COSTS = ("forwards", "backwards", "seconds", "peak_memory")
CAPTION = (
    "[95 %] over patients; random orders have an srg of 0. Where there is a mask: hit = share of",
    "a map's maxima on the finding (pointing game), energy = share of its positive mass there.",
    "Of one map: mean passes forwards and backwards, median seconds, highest GPU memory. What",
    "methods share, such as image tokens or a gradient, counts for the first of them.",
)


def method_costs(records: pd.DataFrame) -> dict[str, dict[str, float | None]]:
    """What one map of each method takes.

    Args:
        records: the key and `COSTS`; maps do not depend on the substrate, so the rows of the first one are taken.

    Returns:
        method -> mean `forwards` and `backwards`, median `seconds`, largest `peak_memory` in bytes; None where no row
        has a value. Methods whose maps cost nothing, such as `random`, which has none, are left out.
    """
    costs: dict[str, dict[str, float | None]] = {}
    for name, rows in first_setting(records[records["condition"].eq(NONE)]).groupby("method", sort=True):
        values = {column: numbers(rows[column].dropna()) for column in COSTS}
        if len(values["seconds"]):
            costs[str(name)] = {
                "forwards": mean(values["forwards"]),
                "backwards": mean(values["backwards"]),
                "seconds": float(pd.Series(values["seconds"]).median()),
                "peak_memory": float(values["peak_memory"].max()) if len(values["peak_memory"]) else None,
            }
    return costs


def render_costs(summary: Mapping[str, Any], run_dir: str | Path) -> Table:
    """Hits and cost of each method of a run as a rich table, in the order of the leaderboard.

    Args:
        summary: as `write_summary` gives it.
        run_dir: the run directory, for its records.
    """
    costs = method_costs(while_it_runs(lambda: read_records(run_dir, COSTS)))
    places = {entry["method"]: entry for entry in summary["localization"]}
    table = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False, caption_justify="left", min_width=92)
    table.title = Text("better than random? on the finding? at what cost?", style="bold")
    table.caption = Text("\n".join(CAPTION), style="dim")
    table.add_column("\nmethod", overflow="fold", max_width=28)
    for header in (
        "srg ↑\n[95 %]",
        "with\nmask",
        "hit\n↑",
        "energy\n↑",
        "for-\nwards",
        "back-\nwards",
        "sec-\nonds ↓",
        "GPU\nMiB",
    ):
        table.add_column(header, justify="right", no_wrap=True)
    for row in ranked(find_board(summary)):
        if row["method"] in costs and row["method"] in places:
            place, cost = places[row["method"]], costs[row["method"]]
            hits = (percent(place["pointing_game"]), percent(place["energy_inside"]))
            spent = (number(cost[column]) for column in ("forwards", "backwards", "seconds"))
            memory = cost["peak_memory"]
            mebibytes = number(None if memory is None else memory / 2**20)
            label, srg = Text(method_label(row)), with_interval(row, "srg")
            table.add_row(label, srg, str(place["n"]), *hits, *spent, mebibytes)
    return table
