"""Does a method's idea matter? Each method beside its ablation, in which noise stands for the idea."""

from rich import box
from rich.table import Table
from rich.text import Text

from cxr_faith.printable import printable
from cxr_faith.records.controls import ABLATED
from cxr_faith.report.formats import number, p_value
from cxr_faith.report.tables import TextTable
from cxr_faith.summary.board import Board
from cxr_faith.summary.interval import Difference
from cxr_faith.summary.summary import Summary

NOTE = (
    "Ablated: the same method with noise in place of its idea. Difference: on the samples that both have, with the "
    "95 % interval over patients. A method passes if the interval lies above 0; else its score comes from elsewhere."
)


def ablation_tables(summary: Summary) -> list[TextTable]:
    """A table for each setting that has ablations, over all samples; best method first."""
    tables = (_table(board) for board in summary.boards if board.slice == "all")
    return [table for table in tables if table.rows]


def render_ablations(summary: Summary) -> list[Table]:
    """The same tables for the terminal."""
    return [_rendered(table) for table in ablation_tables(summary)]


def _table(board: Board) -> TextTable:
    pairs = {min(pair.a, pair.b, key=len): pair for pair in board.differences if ABLATED in pair.a + pair.b}
    rows = [_cells(board, row.method, pairs[row.method]) for row in board.ranked() if row.method in pairs]
    score = "srg logit" if board.by_scored else "srg"
    title = f"Does a method's idea matter? {board.substrate}: {score} of methods and of their ablations"
    return TextTable(title, ["method", "n", score, "ablated", "difference", "95 %", "p", "passes"], rows, NOTE)


def _cells(board: Board, method: str, pair: Difference) -> list[str]:
    sign = 1 if pair.a == method else -1
    low, high = (None, None) if pair.ends is None else sorted(sign * end for end in pair.ends)
    means = [None if row is None else row.value(board.headline) for row in map(board.row, (method, method + ABLATED))]
    return [
        method,
        str(pair.n),
        *map(number, means),
        number(sign * pair.mean, signed=True),
        "–" if low is None else f"[{number(low)}, {number(high)}]",
        p_value(pair.p),
        "–" if low is None else "yes" if low > 0 else "no",
    ]


def _rendered(content: TextTable) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, caption_justify="left")
    table.title, table.caption = Text(content.title, style="bold"), Text(content.note, style="dim")
    for place, name in enumerate(content.header):
        table.add_column(name, justify="right" if place else "left", no_wrap=True)
    for row in content.rows:
        table.add_row(*map(Text, map(printable, row)))
    return table
