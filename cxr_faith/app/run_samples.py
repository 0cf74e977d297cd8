"""The samples of a run for the list and for one page each; only what is asked for is read from the records."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pandas as pd

from cxr_faith.app.choice import Choice
from cxr_faith.perturb.condition import NONE
from cxr_faith.records import KEY, Shown
from cxr_faith.records.controls import is_control
from cxr_faith.records.view import RecordView, text
from cxr_faith.report import samples
from cxr_faith.report.packing import DETAIL_COLUMNS
from cxr_faith.summary.board import Setting
from cxr_faith.summary.load import read_provenance
from cxr_faith.summary.rows import ViewRows
from cxr_faith.summary.summarize import method_order

PAGE = 50
"""Samples on a page of the list."""

_LISTED = (
    *("image_id", "study_id", "patient_id", "question", "predicted", "reference", "finding", "correct"),
    "image_use",
    *("status", "srg"),
)
_DETAILS = tuple(dict.fromkeys((*KEY, *samples.COLUMNS, *DETAIL_COLUMNS, "image_path")))

T = TypeVar("T")


@dataclass(frozen=True)
class Page:
    """One page of the list.

    Attributes:
        rows: `sample_id`, `srg`, `status`, `question`, `predicted`, `reference`, `finding`, `correct` and
            `place`.
        total: samples that match.
    """

    rows: pd.DataFrame
    total: int


@dataclass(frozen=True)
class Place:
    """Where a sample stands among those that match.

    Attributes:
        before: the id of the one before it.
        after: the id of the next one.
        number: its number, from 0; None: it does not match.
        total: samples that match.
    """

    before: str | None
    after: str | None
    number: int | None
    total: int


class RunSamples:
    """The records of a run, as they were when they were first asked for.

    Threads may share it: one query runs at a time.

    Args:
        run_dir: the run directory.

    Attributes:
        n_records: records under all conditions.
        settings: those of the run, in the order of the report.
        methods: names, in the order of the report.
        findings: names, sorted.
        knows_use: whether the run measured if answers use their picture.

    Raises:
        ValueError: `provenance.json` is damaged.
    """

    def __init__(self, run_dir: Path) -> None:
        self._run_dir, self._lock = run_dir, threading.Lock()
        provenance = read_provenance(run_dir)
        self._shown = Shown.from_dict(provenance)
        self._view = self._open()
        rows = ViewRows(self._view)
        self.n_records = len(self._view)
        self.settings: list[Setting] = rows.settings() if self.n_records else []
        self.methods = method_order(rows.methods(), provenance.get("methods", ()))
        self.findings, self.knows_use = self._distinct("finding"), bool(self._distinct("image_use"))

    def _distinct(self, column: str) -> list[str]:
        """The values of a text column, sorted."""
        if not self.n_records:
            return []
        return sorted(map(str, self._view.query(f"SELECT DISTINCT {column} FROM records")[column].dropna()))

    def page(self, choice: Choice) -> Page:
        """The samples of one page of the list."""
        if not self.n_records:
            return Page(pd.DataFrame(), 0)
        first = choice.page * PAGE
        table = self._query(
            f"SELECT *, count(*) OVER () AS total FROM ({self._matching(choice)}) "
            f"QUALIFY place >= {first} AND place < {first + PAGE} OR place = 0 ORDER BY place"
        )
        total = int(table["total"].iloc[0]) if len(table) else 0
        return Page(table[table["place"].between(first, first + PAGE - 1)], total)

    def place(self, sample_id: str, choice: Choice) -> Place:
        """The neighbors of a sample in the order of the list."""
        around = (
            f"SELECT sample_id, place, lag(sample_id) OVER w AS before, lead(sample_id) OVER w AS after, "
            f"count(*) OVER () AS total FROM ({self._matching(choice)}) WINDOW w AS (ORDER BY place)"
        )
        table = self._query(f"SELECT * FROM ({around}) WHERE sample_id = {text(sample_id)}")
        if table.empty:
            return Place(None, None, None, 0)
        row = table.iloc[0]
        before, after = (None if pd.isna(row[name]) else str(row[name]) for name in ("before", "after"))
        return Place(before, after, int(row["place"]), int(row["total"]))

    def sample(self, sample_id: str) -> pd.DataFrame:
        """The rows of one sample, with maps and curves; empty if there is no such sample."""
        if not self.n_records:
            return pd.DataFrame()
        where = f"sample_id = {text(sample_id)} AND condition = {text(NONE)}"
        return self._again(lambda: self._view.frame(_DETAILS, where))

    def counted(self, choice: Choice) -> list[str]:
        """The methods whose rows count for the list."""
        if choice.method:
            return [choice.method]
        return [name for name in self.methods if not is_control(name)] or self.methods

    def _matching(self, choice: Choice) -> str:
        return choice.matching(self.settings[choice.setting], self.counted(choice))

    def _query(self, sql: str) -> pd.DataFrame:
        return self._again(lambda: self._view.query(sql))

    def _again(self, ask: Callable[[], T]) -> T:
        """Ask; once more if a running process has merged parts meanwhile."""
        with self._lock:
            try:
                return ask()
            except FileNotFoundError:
                self._view = self._open()
                return ask()

    def _open(self) -> RecordView:
        return RecordView(self._run_dir, _LISTED, self._shown, unchecked=_DETAILS)
