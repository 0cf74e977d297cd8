"""Procedural phantoms as a source: writes the data set, then yields its samples."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq

from cxr_faith.data.sample import Sample
from cxr_faith.data.sources.phantom import write
from cxr_faith.data.sources.phantom_change_files import write_comparisons
from cxr_faith.data.tally import PrepareError, Tally


def phantoms(
    root: Path,
    tally: Tally,
    patients: int = 50,
    seed: int = 1,
    split: str = "test",
    pairs: bool = False,
    changes: bool = False,
) -> Iterator[Sample]:
    """Questions about chest phantoms whose lesions are known to the pixel; pictures and masks are written into ROOT.

    Args:
        root: folder that the pictures are written to.
        tally: takes the counts.
        patients: number of patients; of four, one has three studies, one has two, and two have one.
        seed: the same seed gives the same pictures.
        split: name of the split.
        pairs: also write each picture without the finding that a question asks about, for the substrate `pair`.
        changes: each patient has a prior and a current picture that differ in one lesion, and the questions are about
            what changed; for models that are shown two pictures.
    """
    if patients < 1:
        raise PrepareError(f"--patients must be at least 1, got {patients}")
    if changes:
        yield from write_comparisons(root, patients, seed, split=split, pairs=pairs)
        return
    rows = pq.read_table(write(root, patients, seed, split=split, pairs=pairs)).to_pylist()
    tally.expected = len(rows)
    yield from (Sample.from_row(row) for row in rows)
