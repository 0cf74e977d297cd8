"""Mean curves of records that come in pieces: exact, whatever the order of the pieces."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cxr_faith.summary import summarize as summary
from cxr_faith.summary.mean_curves import ExactSums
from cxr_faith.summary.summarize import summarize, write_summary


def test_sums_are_exact_and_do_not_depend_on_the_order() -> None:
    generator = np.random.default_rng(0)
    values = generator.normal(size=(5000, 7)) * 10.0 ** generator.integers(-6, 3, (5000, 7))
    expected = [np.mean([float(value) for value in column]) for column in values.T]
    results = set()
    for seed in range(4):
        sums, order = ExactSums((7,)), np.random.default_rng(seed).permutation(len(values))
        for piece in np.array_split(values[order], 3 + 11 * seed):
            sums.add(piece)
        results.add(tuple(sums.mean(len(values))))
    assert len(results) == 1
    np.testing.assert_allclose(results.pop(), expected, rtol=0, atol=2.0**-48)


@pytest.mark.parametrize("seed", range(3))
def test_a_summary_from_pieces_is_that_of_the_whole(rows: list[dict[str, Any]], seed: int) -> None:
    frame = pd.DataFrame(rows)
    whole = summarize(frame)
    assert any(row.curves is not None for board in whole.boards for row in board.rows)
    shuffled = list(range(len(frame)))
    random.Random(seed).shuffle(shuffled)
    pieces = [frame.iloc[part] for part in np.array_split(shuffled, 9)]
    lean = frame.drop(columns=["k", "deletion_scores", "insertion_scores", "map"])
    assert summarize(lean, pieces=pieces) == whole


def test_a_summary_reads_again_when_a_run_merges_its_parts_meanwhile(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, real, calls = write_summary(run_dir), summary.scan_records, []

    def moved_away_once(*arguments: Any, **options: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 1:
            raise FileNotFoundError("part-000-r00000-000000.parquet")
        return real(*arguments, **options)

    monkeypatch.setattr(summary, "scan_records", moved_away_once)
    assert write_summary(run_dir) == expected
    assert len(calls) == 2
