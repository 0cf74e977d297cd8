"""The torchmetrics of a run, by rows and read back from records, against plain means of the records."""

import numpy as np
import pytest
import torch

from cxr_faith.metrics.board import COLUMNS, SCALARS, MetricBoard
from cxr_faith.records import RecordWriter, read_records
from cxr_faith.summary.metric_rows import COMPARED, TOLERANCE, disagreements, metric_rows, recorded_rows
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
                known, weighs = mine[mine[name].notna()], name in COMPARED
                weights = known["s_original"] - known["s_substrate"] if weighs else np.ones(len(known))
                values = known[name].astype(float)
                expected = (weights * values).sum() / weights.sum() if len(known) else np.nan
                assert row.means[name] == (None if np.isnan(expected) else pytest.approx(expected, abs=1e-12))
            flat = row.to_dict()
            assert flat["srg"] == row.means["srg"] and "means" not in flat


def spoiled(rows, index, change):
    """The same rows with a change of the srg of one, scaled so that the mean of its method changes by that."""
    method = rows[index]["method"]
    total = sum(row["effect"] for row in rows if row["method"] == method and row["status"] == "ok")
    step = change * total / rows[index]["effect"]
    return [row | {"srg": row["srg"] + step} if i == index else row for i, row in enumerate(rows)]


def first_ok(rows, method):
    return next(i for i, row in enumerate(rows) if row["method"] == method and row["status"] == "ok")


def test_a_difference_from_the_records_is_named(tmp_path):
    rows = make_rows()
    # One method fails on one sample, so the summary's common samples are fewer than those of the other methods.
    failed = first_ok(rows, "chefer")
    for folder, recorded in ((tmp_path / "whole", rows), (tmp_path / "one_failed", [*rows])):
        if folder.name == "one_failed":
            recorded[failed] = recorded[failed] | {"status": "invalid"} | dict.fromkeys(COMPARED)
        RecordWriter(folder, 0, 0).write(recorded)
        frame = read_records(folder)
        known, summary = recorded_rows([frame[:90], frame[90:]]), summarize(frame)

        def differences(*parts, known=known, summary=summary):
            return disagreements(metric_rows(board(*parts).compute(CPU)), known, summary)

        assert differences(recorded) == []
        assert "oracle under blur:0.1: 40 samples in the torchmetrics, 20 in the records" in differences(
            recorded, recorded
        )
        index = first_ok(recorded, "attention")
        assert differences(spoiled(recorded, index, TOLERANCE / 10)) == []
        lines = differences(spoiled(recorded, index, 3 * TOLERANCE))
        assert lines and all("srg of attention under blur:0.1" in line for line in lines)


def test_a_wrong_summary_is_named(tmp_path):
    rows = make_rows()
    RecordWriter(tmp_path, 0, 0).write(rows)
    frame = read_records(tmp_path)
    known = recorded_rows([frame])
    wrong = frame.assign(srg=frame["srg"] + 0.5 * frame["method"].eq("attention"))
    lines = disagreements(metric_rows(board(rows).compute(CPU)), known, summarize(wrong))
    assert lines and all("srg of attention under blur:0.1" in line for line in lines)
