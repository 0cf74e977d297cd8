"""One board of a summary as a table for the terminal, best method first."""

from collections.abc import Collection

from rich import box
from rich.table import Table
from rich.text import Text

from cxr_faith.report.columns import COLUMNS, board_title, columns_of, flat_share, method_label, samples_in
from cxr_faith.report.fitting import fitted
from cxr_faith.report.formats import number
from cxr_faith.report.legend import legend
from cxr_faith.summary.board import Board
from cxr_faith.summary.summary import Summary

_LEAST_FIRST = (
    "gap_insertion_center",
    "gap_deletion_center",
    "gap_insertion_random",
    "gap_deletion_random",
    "drop_50",
    "srg_logit",
    "flat",
    "insertion_auc",
    "deletion_auc",
)
"""Columns that a narrow terminal may lack, the least important one first."""


def render_leaderboard(
    summary: Summary,
    slice: str = "all",
    substrate: str | None = None,
    target: str | None = None,
    space: str | None = None,
    width: int | None = None,
) -> Table:
    """One board as a table, best method first, with its legend as the caption; all its columns take 110 letters.

    Args:
        summary: the run's summary.
        slice: all, present, absent, answered_yes, answered_no, correct, wrong, with_oracle, finding:NAME, or a subgroup
            such as sex:F, age:60-79 or view:AP.
        substrate: e.g. "blur:0.1"; default that of the first board.
        target: where a run has several; default that of the first board.
        space: where a run has several; default that of the first board.
        width: of the terminal; columns that do not fit are left out, the least important first. Default: none is.

    Raises:
        KeyError: the summary has no such board.
    """
    board = summary.board(slice, substrate, target, space)
    optional = [key for key in _LEAST_FIRST if key != board.headline]
    return fitted(lambda without: _drawn(board_title(summary, board), board, without), optional, width)


def _drawn(title: str, board: Board, without: Collection[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False, caption_justify="left")
    table.title = Text(title, style="bold")
    table.caption = Text("\n".join(legend(board)), style="dim")
    table.add_column("\nmethod", overflow="fold", max_width=30)
    table.add_column("\nn", justify="right")
    table.add_column("\ncov", justify="right")
    flat = "flat" not in without
    if flat:
        table.add_column("\nflat", justify="right")
    kept = [(at, column) for at, column in enumerate(COLUMNS) if column.key not in without]
    for _, column in kept:
        header = f"{column.top} {column.arrow}\n{column.bottom}" if column.bottom else f"\n{column.top} {column.arrow}"
        table.add_column(header, justify="right", no_wrap=True)
    for row in board.ranked():
        values = columns_of(board)
        cells = [number(row.value(values[at].key), column.signed) for at, column in kept]
        counts = [str(samples_in(board, row)), f"{row.coverage:.0%}", *([flat_share(row)] if flat else [])]
        table.add_row(Text(method_label(row)), *counts, *cells)
    return table
