"""Which samples of a large run a page lists: a page of all of them would not load."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from cxr_faith.metrics.functional import MEASURED
from cxr_faith.perturb.condition import NONE
from cxr_faith.records import read_records, scan_records
from cxr_faith.records.controls import is_control
from cxr_faith.records.view import RecordView, text
from cxr_faith.report import samples
from cxr_faith.report.packing import DETAIL_COLUMNS
from cxr_faith.summary.board import Setting
from cxr_faith.summary.load import shown_in
from cxr_faith.summary.rows import ViewRows
from cxr_faith.summary.summary import Summary

MOST_LISTED = 2_000
"""Samples that a page lists at most."""
MOST_ROWS = 200_000
"""Records of these samples at most. Runs with more records have no bands either."""
COLUMNS = ("status", "srg", "effect", "p_yes", "correct")
"""The columns of the records that the choice needs beside the key."""

_SEED = 7


@dataclass(frozen=True)
class Listed:
    """The part of a run's samples that a page lists."""

    n_samples: int
    """Samples of the run."""
    n_records: int
    """Its records."""
    records: pd.DataFrame
    """Rows of the samples that are listed."""
    answers: pd.DataFrame
    """`p_yes`, `correct`, `patient_id` and `image_id` of every sample of the run."""


def listed_part(run_dir: Path, summary: Summary) -> Listed | None:
    """The samples that a page lists; None if it has room for all samples of the run."""
    shown = shown_in(summary)
    view = RecordView(run_dir, COLUMNS, shown, unchecked=("patient_id", "image_id"))
    if len(view) <= MOST_ROWS and summary.n_samples <= MOST_LISTED:
        return None
    count = min(MOST_LISTED, MOST_ROWS * summary.n_samples // len(view))
    chosen = chosen_samples(view, summary.settings[0], summary.methods, count)
    columns = tuple(dict.fromkeys((*samples.COLUMNS, *DETAIL_COLUMNS)))
    records = pd.concat(list(scan_records(run_dir, columns, chosen, shown)), ignore_index=True)
    answers = view.query(
        "SELECT sample_id, min(p_yes) AS p_yes, min(correct) AS correct, min(patient_id) AS patient_id, "
        f"min(image_id) AS image_id FROM records WHERE condition = {text(NONE)} GROUP BY sample_id ORDER BY sample_id"
    )
    return Listed(summary.n_samples, len(view), records, answers)


def telling_records(run_dir: Path, columns: Sequence[str]) -> pd.DataFrame:
    """The key and some columns of the run's records; of a run with more than `MOST_ROWS`, those of chosen samples."""
    view = RecordView(run_dir, COLUMNS)
    if len(view) <= MOST_ROWS:
        return read_records(run_dir, columns)
    rows = ViewRows(view)
    chosen = chosen_samples(view, rows.settings()[0], sorted(rows.methods()), MOST_LISTED)
    return pd.concat(list(scan_records(run_dir, columns, chosen)), ignore_index=True)


def chosen_samples(view: RecordView, setting: Setting, methods: Sequence[str], count: int) -> set[str]:
    """A fifth each: the worst and the best explained, the methods disagree, hardly any effect, at random.

    Worst and best go by the mean `srg` over the methods that are no controls, disagreement by its standard deviation
    over them. What one kind lacks, samples at random fill.

    Args:
        view: the run's records, with `COLUMNS`.
        setting: the one whose scores count.
        methods: the methods of the run.
        count: samples to choose.
    """
    real = [name for name in methods if not is_control(name)] or list(methods)
    place = " AND ".join(f"{name} = {text(value)}" for name, value in setting._asdict().items())
    measured = f"status IN ({', '.join(map(text, MEASURED))})"
    table = view.query(
        f"SELECT sample_id, round(avg(srg) FILTER ({measured}), 9) AS srg, "
        f"round(stddev_pop(srg) FILTER ({measured}), 9) AS spread, "
        "min(abs(effect)) FILTER (status IN ('degenerate', 'inverted')) AS weak FROM records "
        f"WHERE condition = {text(NONE)} AND {place} AND method IN ({', '.join(map(text, real))}) "
        "GROUP BY sample_id ORDER BY sample_id"
    ).set_index("sample_id")
    fifth = count // 5
    by_srg = table["srg"].dropna().sort_values(kind="stable").index
    chosen = [*by_srg[:fifth], *by_srg[::-1][:fifth]]
    chosen += table["spread"].dropna().sort_values(kind="stable", ascending=False).index[:fifth].tolist()
    chosen += table["weak"].dropna().sort_values(kind="stable").index[:fifth].tolist()
    rest = table.index.difference(pd.Index(chosen))
    drawn = np.random.default_rng(_SEED).permutation(len(rest))[: count - len(set(chosen))]
    return {*chosen, *rest[drawn]}
