"""Samples that failed for a fault of the machine that has passed are run again by the next start."""

import errno
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from cxr_faith.data.manifest import bundled_manifest
from cxr_faith.records import RecordWriter, done_samples, forget, read_records
from cxr_faith.run.retry import PASSING
from tests.runs import WITHOUT_USE, assert_same, parts, records, run_here
from tests.synthetic import make_rows


@pytest.mark.slow
def test_pictures_of_a_disk_that_was_not_mounted_are_read_on_resume(
    small: Path, reference_without_use: Path, tmp_path: Path
) -> None:
    root, run_dir = tmp_path / "root", tmp_path / "run"
    shutil.copytree(bundled_manifest().parent, root)
    paths = pq.read_table(small.parent / "manifest.parquet").column("image_path").to_pylist()
    away = [root / path for path in paths[1:4]]
    for file in away:
        file.rename(file.with_suffix(".away"))
    options = ("--data.data_root", str(root), *WITHOUT_USE)
    assert run_here(small, run_dir, *options) == 0
    frame = records(run_dir)
    failed = frame["image_path"].isin(paths[1:4])
    assert frame[failed]["status"].eq("invalid").all() and not frame[~failed]["status"].eq("invalid").any()
    for file in away[:2]:
        file.with_suffix(".away").rename(file)
    before = read_records(run_dir)
    assert run_here(small, run_dir, *options, "--limit", "2") == 0  # one of the two is beyond the limit
    assert len(records(run_dir)) == len(before), "a sample beyond the limit keeps its record"
    assert records(run_dir)["image_path"][records(run_dir)["status"].eq("invalid")].nunique() == 2
    away[2].with_suffix(".away").rename(away[2])
    assert run_here(small, run_dir, *options) == 0
    assert_same(run_dir, reference_without_use)
    after, whole = read_records(run_dir), before["image_path"].isin([paths[0], *paths[4:]])
    kept = after["image_path"].isin([paths[0], *paths[4:]])
    measured = [frame["seconds"].to_numpy(float) for frame in (after[kept], before[whole])]
    np.testing.assert_array_equal(*measured, "something else was computed again")


def test_what_may_pass_is_told_from_what_stays() -> None:
    reasons = [OSError(number, os.strerror(number), "a.png") for number in (errno.EIO, errno.ESTALE, errno.ENOTCONN)]
    assert all(any(text in str(reason) for text in PASSING) for reason in reasons)
    for killed in ("the decoder ends without an answer (status -9)", "decoding gives no answer within 600 s"):
        assert any(text in f"/data/a.png: {killed}" for text in PASSING)
    assert not any(text in "/data/a.png: the decoder ends without an answer (status -11)" for text in PASSING)
    assert not any(text in "/data/a.png: PNG file is truncated or damaged" for text in PASSING)


def test_records_are_forgotten_whole_samples_at_a_time(tmp_path: Path) -> None:
    writer, rows = RecordWriter(tmp_path, 0, 0), make_rows()
    samples = sorted({row["sample_id"] for row in rows})
    for sample in samples:
        writer.write([row for row in rows if row["sample_id"] == sample])
    writer.compact()
    RecordWriter(tmp_path, 0, 1).write([row | {"sample_id": "alone"} for row in rows[:2]])
    before = read_records(tmp_path)
    torn = tmp_path / "records" / "part-002-r00000-000000.parquet"
    torn.write_bytes(b"PAR1")
    forget(tmp_path, {samples[0], "alone", "unknown"})
    assert done_samples(tmp_path) == set(samples[1:]) and len(parts(tmp_path)) == 2 and torn.exists()
    kept = before[before["sample_id"].isin(samples[1:])].reset_index(drop=True)
    assert read_records(tmp_path).equals(kept)
