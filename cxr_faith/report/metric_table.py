"""The board of the torchmetrics as a table for the terminal: all that a shard can say before the others are done."""

from collections.abc import Collection, Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from cxr_faith.printable import printable
from cxr_faith.report.fitting import fitted
from cxr_faith.report.formats import number
from cxr_faith.summary.metric_rows import MetricRow

COLUMNS = {
    "deletion_auc": "del ↓",
    "insertion_auc": "ins ↑",
    "srg": "srg ↑",
    "drop_50": "drop@50 ↑",
    "gap_srg_random": "Δ random ↑",
    "gap_srg_center": "Δ center ↑",
}
"""Columns of the torchmetrics → their titles."""

_LEAST_FIRST = ("gap_srg_random", "drop_50", "insertion_auc", "deletion_auc")


def render_metrics(rows: Sequence[MetricRow], substrate: str, width: int | None = None) -> Table:
    """The methods under one substrate, best srg first; without columns for which a terminal is too narrow."""
    return fitted(lambda without: _drawn(rows, substrate, without), _LEAST_FIRST, width)


def _drawn(rows: Sequence[MetricRow], substrate: str, without: Collection[str]) -> Table:
    titles = {name: title for name, title in COLUMNS.items() if name not in without}
    shown = [row for row in rows if row.substrate == substrate]
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.title = Text(f"torchmetrics over all ranks · {substrate} · samples that are ok", style="bold")
    table.add_column("method", overflow="fold", max_width=30)
    table.add_column("n", justify="right")
    table.add_column("cov", justify="right")
    for title in titles.values():
        table.add_column(title, justify="right", no_wrap=True)
    for row in sorted(shown, key=lambda row: -(row.means["srg"] if row.means["srg"] is not None else float("-inf"))):
        cells = [number(row.means[name], signed=name.startswith("gap")) for name in titles]
        table.add_row(Text(printable(row.method)), str(row.n_ok), f"{row.coverage:.0%}", *cells)
    return table
