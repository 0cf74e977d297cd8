"""The leaderboard's columns, and what boards, slices and methods are called."""

from dataclasses import dataclass, replace

from cxr_faith.printable import printable
from cxr_faith.summary.board import Board, Setting
from cxr_faith.summary.board_row import BoardRow
from cxr_faith.summary.summary import Summary

SLICE_TITLES = {
    "all": "all samples",
    "present": "finding present (reference)",
    "absent": "finding absent (reference)",
    "answered_yes": "answered yes (prediction)",
    "answered_no": "answered no (prediction)",
    "correct": "answered correctly",
    "wrong": "answered wrongly",
    "uses_image": "answers that use the picture",
    "verified": "planted copies of verified pairs",
    "with_oracle": "samples with a mask of the finding",
}


@dataclass(frozen=True)
class Column:
    """One number of a leaderboard row."""

    key: str
    """Its name in a board's row."""
    top: str
    """The first word of its header."""
    bottom: str
    """The second word of its header; may be empty."""
    arrow: str
    """Which direction is better, ↑ or ↓."""

    @property
    def signed(self) -> bool:
        """Whether its values are written with a plus sign too."""
        return self.key.startswith("gap")


COLUMNS = (
    Column("deletion_auc", "del", "auc", "↓"),
    Column("insertion_auc", "ins", "auc", "↑"),
    Column("srg", "srg", "", "↑"),
    Column("drop_50", "drop", "@50", "↑"),
    Column("gap_deletion_random", "Δdel", "random", "↑"),
    Column("gap_insertion_random", "Δins", "random", "↑"),
    Column("gap_deletion_center", "Δdel", "center", "↑"),
    Column("gap_insertion_center", "Δins", "center", "↑"),
    Column("gap_srg_center", "Δsrg", "center", "↑"),
    Column("srg_logit", "srg", "logit", "↑"),
)


def columns_of(board: Board) -> list[Column]:
    """The columns of a board; one that is ranked by srg logit shows it over all samples that could be scored."""
    if not board.by_scored:
        return list(COLUMNS)
    return [replace(column, key="srg_logit_scored") if column.key == "srg_logit" else column for column in COLUMNS]


def samples_in(board: Board, row: BoardRow) -> int:
    """The number of samples in the mean that ranks a method."""
    return row.n_scored if board.by_scored else row.n_common


def method_label(row: BoardRow) -> str:
    """A method's name, marked if it has its own substrate (*), failed the sanity check (†), or has a caveat (‡)."""
    marks = f"{'*' * row.own_substrate}{'†' * bool(row.sanity_failed)}{'‡' * (row.caveat is not None)}"
    return f"{printable(row.method)}{marks}"


def flat_share(row: BoardRow) -> str:
    """The share of a method's maps that are flat; an en dash where there is none."""
    return f"{row.flat_share:.0%}" if row.flat_share else "–"


def slice_title(name: str) -> str:
    """The name of a slice that readers see."""
    return SLICE_TITLES.get(name, printable(name.replace(":", " ", 1)))


def board_title(summary: Summary, board: Board) -> str:
    """A board's slice, substrate and counts; target and space only if the run has several of them."""
    if board.by_scored:
        counts = f"{board.n_samples} samples, {board.n_common} ok, {board.n_scored} scored, by srg logit"
    else:
        counts = f"{board.n_common} of {board.n_samples} samples ok, by srg"
    return f"{slice_title(board.slice)} · {setting_title(summary, board.setting)} · {counts}"


def setting_title(summary: Summary, setting: Setting) -> str:
    """A setting's substrate; target and space only if the run has several of them."""
    parts = [setting.substrate]
    if len({other.target for other in summary.settings}) > 1:
        parts.append(f"target {setting.target}")
    if len({other.space for other in summary.settings}) > 1:
        parts.append(f"space {setting.space}")
    return printable(", ".join(parts))
