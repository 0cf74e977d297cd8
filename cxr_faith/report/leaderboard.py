"""One board of a summary as a table for the terminal, best method first."""

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from cxr_faith.report.columns import COLUMNS, board_title, columns_of, method_label, samples_in
from cxr_faith.report.formats import number
from cxr_faith.report.legend import legend


def find_board(
    summary: Mapping[str, Any], slice: str = "all", substrate: str | None = None, **setting: str
) -> dict[str, Any]:
    """The first board of a slice, of a substrate (default: the first one) and of a `target` or `space`.

    Raises:
        KeyError: the summary has no such board.
    """
    wanted = {"slice": slice, **setting} | ({} if substrate is None else {"substrate": substrate})
    for board in summary["boards"]:
        if all(board[key] == value for key, value in wanted.items()):
            return dict(board)
    raise KeyError(f"the summary has no board with {wanted}")


def leaderboard(
    summary: Mapping[str, Any], slice: str = "all", substrate: str | None = None, **setting: str
) -> list[dict[str, Any]]:
    """The rows of one board, best first by its headline; methods without a value come last, in config order.

    Args:
        summary: as `summarize` gives it.
        slice: all, present, absent, answered_yes, answered_no, with_oracle or finding:NAME.
        substrate: canonical spelling, e.g. "blur:0.1"; default the first one.
        setting: `target` or `space`, where a run has several.

    Raises:
        KeyError: the summary has no such board.
    """
    return ranked(find_board(summary, slice, substrate, **setting))


def ranked(board: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of a board, best first by its headline."""
    headline: str = board["headline"]
    return sorted(board["rows"], key=lambda row: (row[headline] is None, -(row[headline] or 0.0)))


def render_leaderboard(
    summary: Mapping[str, Any], slice: str = "all", substrate: str | None = None, **setting: str
) -> Table:
    """One board as a rich table of at most 110 columns, best first, with its legend as the caption.

    Raises:
        KeyError: the summary has no such board.
    """
    board = find_board(summary, slice, substrate, **setting)
    table = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False, caption_justify="left")
    table.title = Text(board_title(summary, board), style="bold")
    table.caption = Text("\n".join(legend(board)), style="dim")
    table.add_column("\nmethod", overflow="fold", max_width=28)
    table.add_column("\nn", justify="right")
    table.add_column("\ncov", justify="right")
    for column in COLUMNS:
        header = f"{column.top} {column.arrow}\n{column.bottom}" if column.bottom else f"\n{column.top} {column.arrow}"
        table.add_column(header, justify="right", no_wrap=True)
    for row in ranked(board):
        cells = [number(row[column.key], column.signed) for column in columns_of(board)]
        table.add_row(Text(method_label(row)), str(samples_in(board, row)), f"{row['coverage']:.0%}", *cells)
    return table
