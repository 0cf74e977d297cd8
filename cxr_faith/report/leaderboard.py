"""One board of a summary as a table for the terminal, best method first."""

from rich import box
from rich.table import Table
from rich.text import Text

from cxr_faith.report.columns import COLUMNS, board_title, columns_of, flat_share, method_label, samples_in
from cxr_faith.report.formats import number
from cxr_faith.report.legend import legend
from cxr_faith.summary.summary import Summary


def render_leaderboard(
    summary: Summary,
    slice: str = "all",
    substrate: str | None = None,
    target: str | None = None,
    space: str | None = None,
) -> Table:
    """One board as a table of at most 110 columns, best method first, with its legend as the caption.

    Args:
        summary: the run's summary.
        slice: all, present, absent, answered_yes, answered_no, correct, wrong, with_oracle, finding:NAME, or a subgroup
            such as sex:F, age:60-79 or view:AP.
        substrate: e.g. "blur:0.1"; default that of the first board.
        target: where a run has several; default that of the first board.
        space: where a run has several; default that of the first board.

    Raises:
        KeyError: the summary has no such board.
    """
    board = summary.board(slice, substrate, target, space)
    table = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False, caption_justify="left")
    table.title = Text(board_title(summary, board), style="bold")
    table.caption = Text("\n".join(legend(board)), style="dim")
    table.add_column("\nmethod", overflow="fold", max_width=30)
    table.add_column("\nn", justify="right")
    table.add_column("\ncov", justify="right")
    table.add_column("\nflat", justify="right")
    for column in COLUMNS:
        header = f"{column.top} {column.arrow}\n{column.bottom}" if column.bottom else f"\n{column.top} {column.arrow}"
        table.add_column(header, justify="right", no_wrap=True)
    for row in board.ranked():
        cells = [number(row.value(column.key), column.signed) for column in columns_of(board)]
        table.add_row(
            Text(method_label(row)), str(samples_in(board, row)), f"{row.coverage:.0%}", flat_share(row), *cells
        )
    return table
