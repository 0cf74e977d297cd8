"""The monitor on streams of records with one fault each."""

import json
import logging
from types import SimpleNamespace

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cxr_faith.report.alerts import Alert, alert_notes, read_alerts
from cxr_faith.run.monitor import Monitor, Thresholds, Watch

LIMITS = Thresholds(window=20)


def sample(index, rng, **changes):
    """Rows of two methods that agree, and of random, for one good sample; `changes` go to the methods' rows."""
    base = rng.gamma(0.3, size=36)
    rows = []
    for method in ("chefer", "attention"):
        saliency = base + 0.1 * rng.random(36) * base.max() * 0.1
        row = {"sample_id": f"s{index}", "method": method, "status": "ok", "map": saliency}
        rows.append(row | {"deletion_auc": rng.uniform(0.1, 0.4)} | changes)
    status = changes.get("status", "ok")
    random = {"sample_id": f"s{index}", "method": "random", "status": status, "deletion_auc": 0.9, "map": None}
    return [*rows, random]


def with_unrelated_maps(index, rng):
    """A good sample in which the maps of the two methods have nothing in common."""
    return [row | ({"map": rng.gamma(0.3, size=36)} if row["map"] is not None else {}) for row in sample(index, rng)]


def alerts(make, count=60, seconds=lambda index: 1.0):
    rng, watch = np.random.default_rng(0), Watch(LIMITS)
    return [alert for i in range(count) for alert in watch.add(make(i, rng), seconds(i))]


def test_a_good_run_is_silent():
    assert alerts(sample) == []


@pytest.mark.parametrize(
    ("kind", "method", "make"),
    [
        ("deletion_auc", "chefer", lambda i, rng: sample(i, rng, deletion_auc=rng.uniform(0.82, 0.95))),
        ("auc_spread", "chefer", lambda i, rng: sample(i, rng, deletion_auc=0.3)),
        ("dense_share", "attention", lambda i, rng: sample(i, rng, map=1 + rng.permutation(36))),
        ("agreement", None, with_unrelated_maps),
        ("invalid_share", None, lambda i, rng: sample(i, rng, status="invalid" if i % 5 == 0 else "ok")),
        ("coverage_drop", None, lambda i, rng: sample(i, rng, status="degenerate" if i > 30 else "ok")),
    ],
)
def test_each_fault_is_named_once(kind, method, make):
    found = [alert for alert in alerts(make) if alert.kind == kind]
    assert sum(alert.method == method for alert in found) == 1
    assert found[0].samples >= 20 and f"({kind}, last 20 samples)" in found[0].message


def test_falling_throughput():
    found = alerts(sample, seconds=lambda index: 1.0 if index < 30 else 3.0)
    assert [alert.kind for alert in found] == ["throughput_share"]


def test_an_alert_that_had_gone_comes_again():
    def make(i, rng):
        return sample(i, rng, deletion_auc=rng.uniform(0.85, 0.95)) if i < 25 or i >= 60 else sample(i, rng)

    found = [alert for alert in alerts(make, 100) if alert.kind == "deletion_auc" and alert.method == "chefer"]
    assert len(found) == 2


def test_alerts_go_to_the_log_the_run_directory_and_tensorboard(tmp_path, caplog):
    class Trainer:
        global_rank = 3

    monitor, rng = Monitor(tmp_path, Thresholds(window=5)), np.random.default_rng(1)
    with caplog.at_level(logging.WARNING):
        monitor.on_predict_start(Trainer(), None)
        for i in range(8):
            monitor.on_predict_batch_end(Trainer(), None, sample(i, rng, deletion_auc=0.9 + 0.01 * i), None, i)
    [line] = [json.loads(x) for x in (tmp_path / "alerts" / "rank-3.jsonl").read_text().splitlines()][:1]
    assert line["kind"] == "deletion_auc" and Alert(**line) in read_alerts(tmp_path)
    assert "mean deletion AUC" in caplog.text
    shown = EventAccumulator(str(tmp_path / "tensorboard" / "live" / "alerts-rank-3")).Reload()
    text, *_ = shown.Tensors(f"alerts/{line['kind']}/text_summary")
    assert (text.step, text.tensor_proto.string_val[0].decode()) == (line["samples"], line["message"])
    with (tmp_path / "alerts" / "rank-3.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n" + '{"kind": "cut o')
    first, *others = alert_notes(tmp_path)
    assert first == f"Monitor, after 5 samples of a rank, and 1 more time: {line['message']}."
    assert len(others) == len(read_alerts(tmp_path)) - 2


def test_waiting_for_data_is_throughput_too(tmp_path, monkeypatch):
    """Every batch computes for a second; the disk is slow from the 40th on."""
    clock = [0.0]
    monkeypatch.setattr("cxr_faith.run.monitor.time", SimpleNamespace(monotonic=lambda: clock[0]))
    monitor, rng = Monitor(tmp_path, LIMITS), np.random.default_rng(0)
    monitor.on_predict_start(None, None)
    for i in range(80):
        clock[0] += 1.0 if i < 40 else 10.0
        monitor.on_predict_batch_end(SimpleNamespace(global_rank=0), None, sample(i, rng), None, i)
    assert "throughput_share" in [alert.kind for alert in read_alerts(tmp_path)]


def test_a_window_of_one_is_refused():
    with pytest.raises(ValueError, match="at least 2 samples"):
        Thresholds(window=1)
