"""A board: the methods compared over one slice of the samples, in one setting."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from cxr_faith.summary.board_row import BoardRow
from cxr_faith.summary.interval import Difference
from cxr_faith.summary.result import Result

if TYPE_CHECKING:
    import pandas as pd


class Setting(NamedTuple):
    """Within one setting methods are compared; the fields are columns of the records."""

    substrate: str
    """What replaces the cells, e.g. "blur:0.1"."""
    target: str
    """What is explained: "answer", "first", the index of an answer token, or "keyword:WORD"."""
    space: str
    """Where cells are replaced: "pixels" or "tokens"."""


@dataclass(frozen=True)
class Board(Result):
    """One slice of the samples under one setting: a row for each method, and which methods can be told apart."""

    substrate: str
    """What replaces the cells, e.g. "blur:0.1"."""
    target: str
    """What is explained: "answer", "first", the index of an answer token, or "keyword:WORD"."""
    space: str
    """Where cells are replaced: "pixels" or "tokens"."""
    slice: str
    """Which samples: "all", "present", "absent", "answered_yes", "finding:NAME", "sex:F" and so on."""
    n_samples: int
    """Samples of the slice."""
    n_common: int
    """Samples that are ok for every method that has a row for them."""
    n_scored: int
    """Samples that every method that has a row for them could score, whatever their effect."""
    headline: str
    """Column that ranks the methods: "srg", or "srg_logit_scored" where too few samples are ok."""
    rows: tuple[BoardRow, ...]
    """A row for each method that has records in the slice, in the order of `Summary.methods`."""
    differences: tuple[Difference, ...]
    """Each pair of methods except `random`, in the headline, and each ablation with its method; empty for slices by
    finding and by subgroup."""

    @property
    def setting(self) -> Setting:
        """Substrate, target and space."""
        return Setting(self.substrate, self.target, self.space)

    @property
    def by_scored(self) -> bool:
        """Whether every sample that could be scored ranks the methods, not only those that are ok."""
        return self.headline == "srg_logit_scored"

    def ranked(self) -> list[BoardRow]:
        """The rows, best first by the headline; methods without a value come last, in their own order."""
        return sorted(self.rows, key=lambda row: _rank(row.value(self.headline)))

    def row(self, method: str) -> BoardRow | None:
        """The row of a method; None if it has no records in the slice."""
        return next((row for row in self.rows if row.method == method), None)

    def to_frame(self) -> "pd.DataFrame":
        """One row per method: setting, slice, and the columns of `BoardRow.flat`."""
        import pandas as pd

        place = {**self.setting._asdict(), "slice": self.slice}
        return pd.DataFrame([place | row.flat() for row in self.rows])


def _rank(value: float | None) -> tuple[bool, float]:
    return value is None, -(value or 0.0)
