"""A summary's numbers as tables of text: a board with its intervals, srg by finding, and the model's answers."""

from dataclasses import dataclass

from cxr_faith.report.columns import (
    COLUMNS,
    columns_of,
    flat_share,
    method_label,
    samples_in,
    setting_title,
    slice_title,
)
from cxr_faith.report.formats import number, p_value, patients, percent, with_interval
from cxr_faith.report.legend import BY_FINDING
from cxr_faith.summary.board import Board
from cxr_faith.summary.board_row import BoardRow
from cxr_faith.summary.subgroups import SUBGROUP
from cxr_faith.summary.summary import Summary

FINDING = "finding:"
"""Begins the name of a slice that holds one finding's samples."""


@dataclass(frozen=True)
class TextTable:
    """A table whose cells are text already."""

    title: str
    """What the table shows, for a heading."""
    header: list[str]
    """The columns' names."""
    rows: list[list[str]]
    """The cells, row by row, each row as long as the header."""
    note: str = ""
    """How to read the table; may be empty."""


def board_table(board: Board) -> TextTable:
    """A board with intervals over patients, best method first."""
    titles = (" ".join(filter(None, (column.top, column.bottom, column.arrow))) for column in COLUMNS)
    rows = []
    for row in board.ranked():
        test = row.intervals[board.headline]
        means = [with_interval(row, column.key, column.signed) for column in columns_of(board)]
        counts = [str(samples_in(board, row)), str(row.n_clusters), f"{row.coverage:.0%}", flat_share(row)]
        rows.append([method_label(row), *counts, *means, p_value(test.p_holm), number(test.d_z, signed=True)])
    title = slice_title(board.slice)
    return TextTable(title, ["method", "n", "patients", "coverage", "flat", *titles, "p", "d"], rows)


def finding_tables(summary: Summary) -> list[TextTable]:
    """Srg by method with intervals, by finding and by sex, age and view: a table for each and each setting."""
    kinds = {"finding": FINDING, **{name.removesuffix(":"): name for name in SUBGROUP}}
    return [table for name, prefix in kinds.items() for table in _by_slice(summary, name, prefix)]


def _by_slice(summary: Summary, name: str, prefix: str) -> list[TextTable]:
    several = len({setting[1:] for setting in summary.settings}) > 1
    tables = []
    for setting in summary.settings:
        boards = [board for board in summary.boards if board.setting == setting and board.slice.startswith(prefix)]
        if boards:
            columns = [{row.method: _srg_of_finding(board, row) for row in board.rows} for board in boards]
            rows = [[method, *(column.get(method, "–") for column in columns)] for method in summary.methods]
            title = f"srg by {name} · {', '.join(setting if several else setting[:1])}"
            tables.append(TextTable(title, ["method", *map(_slice_title, boards)], rows, BY_FINDING))
    return tables


def _slice_title(board: Board) -> str:
    """A finding's or group's name, how many of its samples count, and from how many patients."""
    count = max((row.n_clusters for row in board.rows), default=0)
    name = board.slice.partition(":")[2]
    return f"{name} (n={board.n_common} of {board.n_samples}, {patients(count)})"


def _srg_of_finding(board: Board, row: BoardRow) -> str:
    differs = row.n_common != board.n_common
    return with_interval(row, "srg") + (f" ({row.n_common})" if differs else "")


def slice_table(summary: Summary) -> TextTable:
    """The score that ranks the methods, for every slice and setting: one line for each board."""
    ranked = summary.boards[0].ranked() if summary.boards else []
    methods = list(dict.fromkeys([*(row.method for row in ranked), *summary.methods]))
    rows = []
    for board in summary.boards:
        values = {row.method: number(row.value(board.headline)) for row in board.rows}
        counts = [f"{board.n_scored if board.by_scored else board.n_common} of {board.n_samples}"]
        score = "srg logit" if board.by_scored else "srg"
        names = [slice_title(board.slice), setting_title(summary, board.setting), score]
        rows.append([*names, *counts, *(values.get(method, "–") for method in methods)])
    return TextTable("Slices", ["slice", "substrate", "score", "samples", *methods], rows)


def answer_table(summary: Summary) -> TextTable:
    """How the model answered, slice by slice."""
    rows = [
        [
            slice_title(answers.slice),
            str(answers.n_samples),
            str(answers.n_patients),
            percent(answers.accuracy),
            "–" if answers.n_not_parsed is None else str(answers.n_not_parsed),
            number(answers.yes_no_mass),
            percent(answers.answer_mismatch),
        ]
        for answers in summary.answers
    ]
    header = ["slice", "samples", "patients", "accuracy", "not parsed", "p(yes)+p(no)", "text differs from margin"]
    return TextTable("Answers", header, rows)
