"""The leaderboard's columns, and what boards, slices and methods are called."""

from collections.abc import Mapping
from typing import Any, NamedTuple

SLICE_TITLES = {
    "all": "all samples",
    "present": "finding present (reference)",
    "absent": "finding absent (reference)",
    "answered_yes": "answered yes (prediction)",
    "answered_no": "answered no (prediction)",
    "correct": "answered correctly",
    "wrong": "answered wrongly",
    "with_oracle": "samples with a mask of the finding",
}


class Column(NamedTuple):
    """One number of a leaderboard row.

    Attributes:
        key: its name in a board's row.
        top: the first word of its header.
        bottom: the second word of its header; may be empty.
        arrow: which direction is better, ↑ or ↓.
    """

    key: str
    top: str
    bottom: str
    arrow: str

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


def columns_of(board: Mapping[str, Any]) -> list[Column]:
    """The columns of a board; one that is ranked by srg logit shows it over all samples that could be scored."""
    if not by_scored(board):
        return list(COLUMNS)
    return [column._replace(key="srg_logit_scored") if column.key == "srg_logit" else column for column in COLUMNS]


def by_scored(board: Mapping[str, Any]) -> bool:
    """Whether a board is ranked by srg logit over all samples that could be scored, rather than by srg."""
    return bool(board["headline"] == "srg_logit_scored")


def samples_in(board: Mapping[str, Any], row: Mapping[str, Any]) -> int:
    """The number of samples in the mean that ranks a method."""
    return int(row["n_scored" if by_scored(board) else "n_common"])


def method_label(row: Mapping[str, Any]) -> str:
    """A method's name, marked if it is scored under its own substrate (*) or failed the sanity check (†)."""
    return f"{row['method']}{'*' * row['own_substrate']}{'†' * row.get('sanity_failed', False)}"


def slice_title(name: str) -> str:
    """The name of a slice that readers see."""
    return SLICE_TITLES.get(name, name.replace(":", " ", 1))


def board_title(summary: Mapping[str, Any], board: Mapping[str, Any]) -> str:
    """A board's slice, substrate and counts; target and space only if the run has several of them."""
    several = [key for key in ("target", "space") if len({other[key] for other in summary["boards"]}) > 1]
    setting = ", ".join([board["substrate"], *(f"{key} {board[key]}" for key in several)])
    if by_scored(board):
        counts = f"{board['n_samples']} samples, {board['n_common']} ok, {board['n_scored']} scored, by srg logit"
    else:
        counts = f"{board['n_common']} of {board['n_samples']} samples ok, by srg"
    return f"{slice_title(board['slice'])} · {setting} · {counts}"
