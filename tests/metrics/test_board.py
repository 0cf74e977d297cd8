"""The torchmetrics of a run, by rows and read back from records, against plain means of the records."""

import numpy as np
import pytest
import torch

from cxr_faith.metrics.board import COLUMNS, SCALARS, MetricBoard
from cxr_faith.records import RecordWriter, read_records
from cxr_faith.summary.metric_rows import TOLERANCE, disagreements, metric_rows
from cxr_faith.summary.summarize import summarize
from tests.synthetic import METHODS, STEPS, make_rows

KEYS = [("blur:0.1", name) for name in (*METHODS, "random", "never_there")]
CPU = torch.device("cpu")


def board(*parts):
    metrics = MetricBoard(KEYS, STEPS)
    for rows in parts:
        metrics.update(rows)
    return metrics


def test_rows_in_batches_and_rows_read_back_give_the_means_of_the_records(tmp_path):
    rows = make_rows()
    RecordWriter(tmp_path, 0, 0).write(rows)
    frame = read_records(tmp_path, COLUMNS)
    read = MetricBoard(KEYS, STEPS)
    read.update_frame(frame)
    for values in (board(rows[:50], rows[50:]).compute(CPU), read.compute(CPU)):
        named = {row.method: row for row in metric_rows(values)}
        assert set(named) == {*METHODS, "random"}  # a method without a row has no line
        for method, mine in frame.groupby("method"):
            row = named[method]
            assert row.samples == len(mine) and row.n_ok == mine["status"].eq("ok").sum()
            for name in SCALARS:
                expected = mine[name].astype(float).mean()
                assert row.means[name] == (None if np.isnan(expected) else pytest.approx(expected, abs=1e-12))
            flat = row.to_dict()
            assert flat["srg"] == row.means["srg"] and "means" not in flat


def test_a_difference_from_the_records_is_named(tmp_path):
    rows = make_rows()
    RecordWriter(tmp_path, 0, 0).write(rows)
    summary = summarize(read_records(tmp_path))
    assert disagreements(metric_rows(board(rows).compute(CPU)), summary) == []

    doubled = metric_rows(board(rows, rows).compute(CPU))
    assert "chefer under blur:0.1: 80 samples in the torchmetrics, 40 in the records" in disagreements(doubled, summary)

    first = next(i for i, row in enumerate(rows) if row["method"] == "attention" and row["status"] == "ok")
    for change, expected in ((3 * TOLERANCE, 1), (TOLERANCE / 10, 0)):
        count = sum(row["method"] == "attention" and row["status"] == "ok" for row in rows)
        wrong = [row | {"srg": row["srg"] + change * count} if i == first else row for i, row in enumerate(rows)]
        lines = disagreements(metric_rows(board(wrong).compute(CPU)), summary)
        assert len(lines) == expected and all("srg of attention under blur:0.1" in line for line in lines)
