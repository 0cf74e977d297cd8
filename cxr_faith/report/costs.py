"""The table of costs for the terminal: does a method beat random orders, does it hit the finding, what does a map cost?

Costs come from the records, not from the summary: two runs of one config write the same summary, byte for byte, but
never take the same time.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from rich import box
from rich.table import Table
from rich.text import Text

from cxr_faith.perturb.condition import NONE
from cxr_faith.records import read_records
from cxr_faith.records.controls import first_setting
from cxr_faith.report.columns import method_label
from cxr_faith.report.fitting import fitted
from cxr_faith.report.formats import number, percent, with_interval
from cxr_faith.report.trust import pointing_ceilings
from cxr_faith.summary.columns import mean, numbers
from cxr_faith.summary.load import shown_in, while_it_runs
from cxr_faith.summary.summary import Summary

COSTS = ("forwards", "backwards", "seconds", "peak_memory")
HEADERS = {
    "srg": "srg ↑\n[95 %]",
    "n": "with\nmask",
    "hit": "hit\n↑",
    "energy": "energy\n↑",
    "forwards": "for-\nwards",
    "backwards": "back-\nwards",
    "seconds": "sec-\nonds ↓",
    "memory": "GPU\nMiB",
}
_LEAST_FIRST = ("memory", "backwards", "forwards", "n", "energy", "hit")
_WIDTH = 92
CAPTION = (
    "[95 %] over patients; random orders have an srg of 0. Where there is a mask: hit = share of "
    "a map's maxima on the finding (pointing game), energy = share of its positive mass there.",
    "Of one map: mean passes forwards and backwards, median seconds, highest GPU memory. Passes "
    "that methods share, as for a gradient, count for each of them, their time for the first.",
)


@dataclass(frozen=True)
class MethodCost:
    """What one map of a method takes; None if no record has a value."""

    forwards: float | None
    """Mean number of forward passes."""
    backwards: float | None
    """Mean number of backward passes."""
    seconds: float
    """Median seconds."""
    peak_memory: float | None
    """Highest GPU memory, in bytes."""


def method_costs(records: pd.DataFrame) -> dict[str, MethodCost]:
    """Method → what one of its maps takes; methods without maps, such as `random`, are left out.

    Args:
        records: the key and `COSTS`; maps do not depend on the substrate, so the rows of the first setting count.
    """
    costs = {}
    for name, rows in first_setting(records[records["condition"].eq(NONE)]).groupby("method", sort=True):
        forwards, backwards, seconds, peak_memory = (numbers(rows[column].dropna()) for column in COSTS)
        if len(seconds):
            costs[str(name)] = MethodCost(
                forwards=mean(forwards),
                backwards=mean(backwards),
                seconds=float(np.median(seconds)),
                peak_memory=float(peak_memory.max()) if len(peak_memory) else None,
            )
    return costs


def render_costs(summary: Summary, run_dir: str | Path, width: int | None = None) -> Table:
    """Localization and cost of each method of a run, in the order of the leaderboard.

    Args:
        summary: the run's summary.
        run_dir: the run directory, for its records.
        width: of the terminal; columns that do not fit are left out. Default: none is.
    """
    costs = method_costs(while_it_runs(lambda: read_records(run_dir, COSTS, shown_in(summary))))
    return fitted(lambda without: _drawn(summary, costs, without, min(_WIDTH, width or _WIDTH)), _LEAST_FIRST, width)


def _drawn(summary: Summary, costs: Mapping[str, MethodCost], without: Collection[str], least: int) -> Table:
    """The table without some columns, at least so many letters wide."""
    places = {entry.method: entry for entry in summary.localization}
    table = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False, caption_justify="left")
    table.min_width = least
    table.title = Text("better than random? on the finding? at what cost?", style="bold")
    table.caption = Text("\n".join((*CAPTION, *_ceiling(summary))), style="dim")
    table.add_column("\nmethod", overflow="fold", max_width=30)
    for name, header in HEADERS.items():
        if name not in without:
            table.add_column(header, justify="right", no_wrap=True)
    for row in summary.board().ranked():
        if row.method in costs and row.method in places:
            place = places[row.method]
            hits = (percent(place.pointing_game), percent(place.energy_inside))
            cells = (with_interval(row, "srg"), str(place.n), *hits, *_spent(costs[row.method]))
            kept = [cell for name, cell in zip(HEADERS, cells, strict=True) if name not in without]
            table.add_row(Text(method_label(row)), *kept)
    return table


def _ceiling(summary: Summary) -> list[str]:
    """The most hits that a map can have, if findings do not cover whole cells."""
    ceilings = pointing_ceilings(summary.localization, percent)
    return [f"No map can hit more than {ceilings}: findings cover some cells only in part."] if ceilings else []


def _spent(cost: MethodCost) -> list[str]:
    mebibytes = None if cost.peak_memory is None else cost.peak_memory / 2**20
    return [number(value) for value in (cost.forwards, cost.backwards, cost.seconds, mebibytes)]
