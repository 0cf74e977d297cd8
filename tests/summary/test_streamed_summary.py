"""Runs of many records: the same numbers as from a table in memory, and a bounded page and bounded memory."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from benchmarks.summary_scale import METHODS, SUBSTRATES, write_run
from cxr_faith.metrics import statistics
from cxr_faith.records import RecordWriter, read_records, scan_records
from cxr_faith.records.view import RecordView
from cxr_faith.report import choice
from cxr_faith.report.choice import chosen_samples, listed_part
from cxr_faith.report.html import write_report
from cxr_faith.summary import rows, significance
from cxr_faith.summary.bands import with_bands, with_bands_of
from cxr_faith.summary.board import Setting
from cxr_faith.summary.load import read_summary, shown_in
from cxr_faith.summary.summarize import COLUMNS, summarize, write_summary
from tests.synthetic import METHODS as FEW
from tests.synthetic import make_rows

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 samples of 108 patients under 15 methods and two substrates, in four row groups.

    The summary reads four methods at a time, and tests and compares them in several parts, as those of many rows are.
    """
    folder = tmp_path_factory.mktemp("large")
    assert write_run(folder, 3_600, samples_a_block=30) == 3_600
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows, "ROWS_AT_ONCE", 500)
        patch.setattr(significance, "_TESTED_AT_ONCE", 120 * 40)
        patch.setattr(significance, "_PAIRED_AT_ONCE", 120 * 15)
        patch.setattr(statistics, "_VALUES_AT_ONCE", 100 * 12)
        write_summary(folder)
    return folder


def numbers(values: object, path: str = "") -> dict[str, object]:
    """Path in the summary → its value."""
    if isinstance(values, dict):
        return {key: one for name in values for key, one in numbers(values[name], f"{path}/{name}").items()}
    if isinstance(values, list):
        return {
            key: one for place, entry in enumerate(values) for key, one in numbers(entry, f"{path}/{place}").items()
        }
    return {path: values}


@pytest.mark.parametrize("kind", ["large", "synthetic"])
def test_the_streamed_summary_is_that_of_a_table_in_memory(kind: str, large: Path, tmp_path: Path) -> None:
    run_dir, methods = large, METHODS
    if kind == "synthetic":
        run_dir, methods = tmp_path, FEW
        turned = [
            row | {"condition": "shift:2", "map": row["map"][::-1]}
            for row in make_rows(4)
            if row.get("map") is not None
        ]
        RecordWriter(tmp_path, rank=0, start=0).write(make_rows())
        RecordWriter(tmp_path, rank=1, start=0).write(turned)
        RecordWriter(tmp_path, rank=0, start=1).write([row | {"srg": 9.0} for row in make_rows(8)])  # duplicates
        (tmp_path / "provenance.json").write_text(json.dumps({"methods": FEW}))
        write_summary(run_dir)
    streamed = numbers(json.loads((run_dir / "summary.json").read_text()))
    total = json.loads((run_dir / "provenance.json").read_text()).get("samples_total")
    expected = numbers(summarize(read_records(run_dir), methods, total).to_dict())
    assert streamed.keys() == expected.keys() and len(expected) > 3_000
    for path, value in expected.items():
        same = pytest.approx(value, rel=1e-12, abs=1e-12) if isinstance(value, float) else value
        assert streamed[path] == same, path


def test_the_view_has_the_rows_of_the_table(large: Path) -> None:
    view, table = RecordView(large, COLUMNS), read_records(large, COLUMNS)
    pd.testing.assert_frame_equal(view.frame(list(table.columns)), table)
    assert len(view) == len(table) == 3_600
    few = view.frame(["srg", "status"], "method = 'rise' AND substrate = 'mean'")
    chosen = table[table["method"].eq("rise") & table["substrate"].eq("mean")].reset_index(drop=True)
    pd.testing.assert_frame_equal(few, chosen[["srg", "status"]])


def test_the_view_leaves_a_torn_part_out_and_fills_columns_of_older_versions(large: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "r[1] 'x*?"  # what patterns and quotes are made of
    shutil.copytree(large / "records", run_dir / "records")
    (part,) = (run_dir / "records").glob("part-*.parquet")
    older = pq.read_table(part).drop_columns(["caution", "flat"])
    pq.write_table(older, part)
    torn = part.with_name("part-001-r00000-000000.parquet")
    torn.write_bytes(part.read_bytes()[:-2_000])
    view = RecordView(run_dir, COLUMNS)
    assert len(view) == 3_600 and view.frame(["caution"])["caution"].isna().all()
    part.unlink()
    with pytest.raises(FileNotFoundError, match="merged into another part meanwhile"):
        view.frame(["srg"])


def test_a_page_of_many_samples_lists_the_telling_ones_and_says_so(
    large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(large, tmp_path / "run")
    summary = read_summary(tmp_path / "run")
    monkeypatch.setattr(choice, "MOST_LISTED", 20)
    records = read_records(large)
    first = records[records["substrate"].eq(SUBSTRATES[0])]
    methods = (
        "attention",
        "rollout",
        "chefer",
        "gradient",
        "grad_x_input",
        "integrated_gradients",
        "tam",
        "occlusion",
        "rise",
    )
    real = first[first["method"].isin(methods)]
    ok = real[real["status"].eq("ok")].groupby("sample_id")["srg"]
    chosen = chosen_samples(
        RecordView(large, choice.COLUMNS), Setting(SUBSTRATES[0], "answer", "pixels"), summary.methods, 20
    )
    assert len(chosen) == 20
    mean, spread = ok.mean().round(9).sort_values(kind="stable"), ok.std(ddof=0).round(9).sort_values(kind="stable")
    assert {*mean.index[:4], *mean.index[-4:], *spread.index[-4:]} <= chosen
    weak = real[real["status"].isin(["degenerate", "inverted"])].groupby("sample_id")["effect"].first().abs()
    assert set(weak.sort_values(kind="stable").index[:4]) <= chosen
    text = write_report(tmp_path / "run").read_text()
    assert "20 of 120 samples are listed: the worst and the best explained" in text
    content = json.loads(re.search(r'<script[^>]*type="application/json"[^>]*>(.*?)</script>', text, re.S)[1])
    assert {one["id"] for one in content["samples"]} == chosen
    assert any("deletion_low" in (row["curves"] or {}) for row in content["boards"][0]["rows"])  # bands of all samples
    monkeypatch.setattr(choice, "MOST_LISTED", 120)
    assert listed_part(tmp_path / "run", read_summary(tmp_path / "run")) is None


def test_streamed_bands_are_those_of_a_table(large: Path) -> None:
    summary, records = read_summary(large), read_records(large)
    expected = with_bands(summary, records)
    streamed = with_bands_of(large, summary, shown_in(summary))
    banded = 0
    for board, twin in zip(streamed.boards, expected.boards, strict=True):
        for row, other in zip(board.rows, twin.rows, strict=True):
            bands, others = (one.curves and one.curves.bands for one in (row, other))
            assert (bands is None) == (others is None), (board.slice, row.method)
            if bands is not None and others is not None:
                banded += 1
                for name, values in vars(bands).items():
                    np.testing.assert_allclose(values, getattr(others, name), rtol=0, atol=1e-12)
    assert banded > 100


def test_rows_of_some_samples_are_scanned(large: Path) -> None:
    wanted = {"s00000003", "s00000100"}
    scanned = pd.concat(list(scan_records(large, ["map"], wanted)))
    assert set(scanned["sample_id"]) == wanted and len(scanned) == 2 * len(METHODS) * len(SUBSTRATES)


def test_memory_does_not_grow_with_the_maps(tmp_path: Path) -> None:
    """24,000 records whose lists take 90 MB: opening, choosing and reading done keys hold a small part of them."""
    write_run(tmp_path, 24_000, samples_a_block=100)
    script = """
import sys
from cxr_faith.records import done_samples
from cxr_faith.records.view import RecordView
from cxr_faith.summary.summarize import COLUMNS
def peak():
    return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) / 1000
before = peak()
assert len(done_samples(sys.argv[1])) == 800
assert len(RecordView(sys.argv[1], COLUMNS).frame(["srg"], "method = 'rise'")) == 1600
print(peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 150
