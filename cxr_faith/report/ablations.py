"""Does a method's idea matter? Each method beside its ablation, in which noise stands for the idea."""

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
