"""Summary and records are the same for any number of ranks, batch size, workers, and split into shards."""

import json
import platform
import subprocess
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from cxr_faith.data.module import Shard
from cxr_faith.run.lock import run_lock
from tests.forked import start_ranks, wait_for_ranks
from tests.runs import ROOT, SAMPLES, assert_same, command, environment, parts, records, run_here


@pytest.mark.slow
@pytest.mark.parametrize("count", [3, 4])
def test_three_and_four_ranks(count: int, small: Path, reference: Path, tmp_path: Path) -> None:
    """Two, started by the first of them, are in `test_run.py`."""
    run_dir, output = tmp_path / "run", tmp_path / "output"
    wait_for_ranks(start_ranks(small, run_dir, count, output), output)
    assert_same(run_dir, reference)
    assert {path.name.split("-")[2] for path in parts(run_dir)} == {f"r{rank:05d}" for rank in range(count)}


@pytest.mark.parametrize(
    "options",
    [
        ("--data.batch_size", "2", "--model.micro_batch", "3"),
        ("--data.batch_size", "100", "--data.num_workers", "2"),
        ("--data.batch_size", "3", "--data.num_workers", "1", "--model.micro_batch", "1"),
    ],
)
def test_any_batch_size_and_any_number_of_workers(options: tuple[str, ...], reference: Path, tmp_path: Path) -> None:
    """The config is the one that the other run has left: it says all that is needed."""
    assert run_here(reference / "config.yaml", tmp_path / "run", *options) == 0
    assert_same(tmp_path / "run", reference)


@pytest.mark.slow
def test_another_kind_of_processor_agrees_to_1e_5(small: Path, reference: Path, tmp_path: Path) -> None:
    """Kernels without AVX add in another order, as another device does: no bytes, but the same numbers."""
    plain = environment() | {"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE"}
    words = command(small, tmp_path / "run", "--limit", "2")
    done = subprocess.run(words, env=plain, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    found, whole = records(tmp_path / "run"), records(reference)
    whole = whole[whole["sample_id"].isin(found["sample_id"])].reset_index(drop=True)
    assert found["sample_id"].nunique() == 2
    for name in ("status", "predicted", "generated", "k"):
        assert found[name].astype(str).equals(whole[name].astype(str)), name
    differ = 0
    for rows in (found, whole):  # a z of 99 has a tiny deviation below it: compare that
        rows["random_z"] = rows["srg"] / rows["random_z"]
    for name in found.select_dtypes("float").columns:
        scale = max(1.0, whole[name].abs().max())
        np.testing.assert_allclose(found[name], whole[name], rtol=0, atol=1e-5 * scale, err_msg=name)
        differ += not found[name].equals(whole[name])
    for one, other in zip(found["map"].dropna(), whole["map"].dropna(), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5 * np.abs(other).max())
    assert differ > 10 or platform.machine() != "x86_64"  # it was another kind


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_shards_in_any_order_make_one_run(
    order: tuple[int, ...], small: Path, reference: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "run"
    for turn, index in enumerate(order):
        assert not (run_dir / "summary.json").exists()
        with run_lock(run_dir, Shard(order[turn - 1], 3)):  # another shard is at work at the same time
            assert run_here(small, run_dir, "--shard", f"{index}/3") == 0
        line = f"shard {index} of 3 is done"
        assert (line in capfd.readouterr().out) is (turn < 2)
    assert_same(run_dir, reference)
    # Each sample was computed once.
    assert sum(pq.read_metadata(path).num_rows for path in parts(run_dir)) == len(records(reference))


def test_a_shard_takes_the_same_samples_when_it_starts_again(small: Path, reference: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    assert run_here(small, run_dir, "--shard", "1/2") == 0
    first = set(records(run_dir)["sample_id"])
    assert 0 < len(first) < SAMPLES
    assert run_here(small, run_dir, "--shard", "1/2") == 0
    assert set(records(run_dir)["sample_id"]) == first
    assert run_here(small, run_dir) == 0  # without a shard: all the rest
    assert_same(run_dir, reference)


@pytest.mark.parametrize("text", ["3", "3/", "x/3", "3/3", "-1/3", "1/0"])
def test_a_wrong_shard_is_a_usage_error(
    text: str, small: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        raise SystemExit(run_here(small, tmp_path / "run", f"--shard={text}"))
    assert stop.value.code == 2 and "shard must be INDEX/COUNT" in capfd.readouterr().err


@pytest.mark.slow
def test_work_is_that_of_each_picture_and_memory_stays(small: Path, tmp_path: Path) -> None:
    """Linear in the samples, without a pass that a rank or a batch adds; a picture takes 216² · 12 bytes."""
    lines = {}
    for count, batch_size in ((1, 1), (1, 3), (2, 1)):
        folder = tmp_path / f"{count}-{batch_size}"
        folder.mkdir()
        callback = f"{{class_path: tests.run.work.Work, init_args: {{folder: {folder}}}}}"
        text = small.read_text().replace("devices: 1", f"devices: {count}, callbacks: [{callback}]")
        (folder / "config.yaml").write_text(text.replace("batch_size: 1", f"batch_size: {batch_size}"))
        output = folder / "output"
        wait_for_ranks(start_ranks(folder / "config.yaml", folder / "run", count, output), output)
        files = sorted(folder.glob("rank-*"))
        assert len(files) == count
        lines[count, batch_size] = [[json.loads(line) for line in file.read_text().splitlines()] for file in files]
    (alone,) = lines[1, 1]
    of_sample = {line["samples"][0]: line["spent"] for line in alone}
    assert len(of_sample) == SAMPLES and all(spent["encode"] > 5 for spent in of_sample.values())
    for ranks in lines.values():
        assert sorted(sample for rank in ranks for line in rank for sample in line["samples"]) == sorted(of_sample)
        for line in (line for rank in ranks for line in rank):
            assert Counter(line["spent"]) == sum((Counter(of_sample[s]) for s in line["samples"]), Counter())
    kept = [line["kept"] for line in alone]
    assert max(kept[1:]) - kept[1] < 216 * 216 * 12 < kept[1]
