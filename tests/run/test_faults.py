"""Faults that really happen: nothing that was written is lost, and the same command resumes to the same numbers."""

import errno
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

from cxr_faith.data import items as data_items
from cxr_faith.data.manifest import bundled_manifest
from cxr_faith.data.module import CXRVQADataModule
from cxr_faith.records import done_samples
from cxr_faith.run.pictures import write_pictures
from cxr_faith.vlm import Gemma3VLM, PictureScores
from tests.forked import start_ranks, wait_for_ranks
from tests.runs import (
    SAMPLES,
    WITHOUT_USE,
    alive,
    assert_same,
    children,
    parts,
    ranks,
    records,
    run_here,
    start,
    wait_for,
)

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("KILLS", "2"))
"""How many random moments to kill at; set it higher to look for rare ones."""

needs_mount = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a file system needs root")


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Any]:
    """`mounted(words…)` mounts onto a folder, whose path comes last; all is unmounted in the end."""
    done: list[str] = []

    def mount(*words: str) -> None:
        result = subprocess.run(["mount", *words], capture_output=True, text=True)
        if result.returncode:
            pytest.skip(f"cannot mount here: {result.stderr.strip()}")
        done.append(words[-1])

    yield mount
    for folder in reversed(done):
        subprocess.run(["umount", folder], check=False)


@pytest.mark.cluster
@pytest.mark.parametrize("seed", range(KILLS))
def test_kill_of_any_rank_at_any_moment(seed: int, small: Path, reference: Path, tmp_path: Path) -> None:
    run_dir, chance = tmp_path / "run", random.Random(f"{seed} {time.time() if KILLS > 2 else ''}")
    process = start(small, run_dir, *ranks(2))
    wait_for(lambda: bool(parts(run_dir)), process)
    time.sleep(chance.uniform(0, 1.0))
    family = [process.pid, *children(process.pid)]
    os.kill(chance.choice(family), signal.SIGKILL)
    process.communicate(timeout=120)
    wait_for(lambda: not any(alive(member) for member in family[1:]), seconds=60)
    assert process.returncode in (0, 1, -signal.SIGKILL)  # 0: it was about to end anyway
    assert run_here(small, run_dir) == 0
    assert_same(run_dir, reference)


@pytest.mark.cluster
def test_five_kills_on_the_way_lose_nothing(small: Path, reference: Path, tmp_path: Path) -> None:
    run_dir, output, chance = tmp_path / "run", tmp_path / "output", random.Random("five kills")
    done: set[str] = set()
    hit = 0
    for count in (3, 2, 1, 2, 1):  # resumed at another number of ranks each time
        begun, before = time.monotonic(), len(parts(run_dir))
        started = start_ranks(small, run_dir, count, output)
        if chance.random() < 0.5:
            time.sleep(chance.uniform(0, 2.0))  # while the model is loading
        else:
            wait_for(lambda before=before, started=started: len(parts(run_dir)) > before or not started[0].is_alive())
            time.sleep(chance.uniform(0, 0.3))
        killed = chance.choice(started)
        killed.kill()
        for process in started:
            process.join(3)  # the others see the broken connection, once there is one; else they are ended as by srun
            process.kill()
            process.join(60)
        assert killed.exitcode in (-signal.SIGKILL, 0), f"{time.monotonic() - begun:.1f} s\n{output.read_text()}"
        hit += killed.exitcode == -signal.SIGKILL
        kept = done_samples(run_dir)
        assert done <= kept
        done = kept
    assert len(done) > 0 and hit >= 2  # the others found the run done before they were hit
    assert run_here(small, run_dir) == 0
    assert_same(run_dir, reference)


@needs_mount
def test_disk_full(
    small: Path, reference: Path, tmp_path: Path, mounted: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted("-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk))
    run_dir = disk / "run"
    assert run_here(small, run_dir) == 1
    line = capfd.readouterr().err.strip().splitlines()[-1]
    assert line.startswith(f"cxr-faith: error: {run_dir}") and "No space left on device" in line
    assert "run the same command again" in line
    assert not list(run_dir.rglob(".part*.tmp"))  # the incomplete file was deleted
    kept = set(records(run_dir)["sample_id"])
    assert 0 < len(kept) < SAMPLES
    subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
    assert run_here(small, run_dir) == 0
    assert_same(run_dir, reference)


@needs_mount
def test_run_directory_made_read_only(
    small: Path, reference: Path, tmp_path: Path, mounted: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "run"
    assert run_here(small, run_dir, "--limit", "2") == 0
    before = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
    mounted("--bind", str(run_dir), str(run_dir))
    subprocess.run(["mount", "-o", "remount,bind,ro", str(run_dir)], check=True)
    capfd.readouterr()
    assert run_here(small, run_dir) == 1
    (line,) = capfd.readouterr().err.strip().splitlines()
    assert line.startswith(f"cxr-faith: error: {run_dir}") and "Read-only file system" in line
    assert {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()} == before
    subprocess.run(["mount", "-o", "remount,bind,rw", str(run_dir)], check=True)
    assert run_here(small, run_dir) == 0
    assert_same(run_dir, reference)


def test_out_of_memory_in_the_engine(
    small: Path, reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, sizes = Gemma3VLM.prefill, []

    def fails_above_three(self: Gemma3VLM, tokens: torch.Tensor) -> Any:
        sizes.append(len(tokens))
        if len(tokens) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return original(self, tokens)

    monkeypatch.setattr(Gemma3VLM, "prefill", fails_above_three)
    assert run_here(small, tmp_path / "run") == 0
    assert_same(tmp_path / "run", reference)
    # Halved until it fits, once for the whole run.
    assert sum(size > 3 for size in sizes) <= 5
    noted = json.loads((tmp_path / "run" / "micro_batch.json").read_text())
    assert noted == {"pictures": 2}  # a restart begins with it: `test_a_smaller_size_is_taken_over`


def test_logits_that_are_not_a_number_cost_their_sample(
    small: Path, reference_without_use: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    score, tokenize = Gemma3VLM.score, Gemma3VLM.prompt
    poisoned: Any = None

    def nan_for_one(self: Gemma3VLM, prefix: Any, prompt: Any, target: Any) -> PictureScores:
        scores = score(self, prefix, prompt, target)
        return (
            PictureScores(scores.s * torch.nan, scores.probability, scores.standing) if prompt == poisoned else scores
        )

    frame = records(reference_without_use)
    questions = frame.drop_duplicates("sample_id").set_index("sample_id")["question"]
    chosen = questions[~questions.duplicated(keep=False)].index[0]

    def remember(self: Gemma3VLM, question: str, *rest: Any) -> Any:
        nonlocal poisoned
        prompt = tokenize(self, question, *rest)
        poisoned = prompt if question == questions[chosen] else poisoned
        return prompt

    monkeypatch.setattr(Gemma3VLM, "score", nan_for_one)
    monkeypatch.setattr(Gemma3VLM, "prompt", remember)
    assert run_here(small, tmp_path / "run", *WITHOUT_USE) == 0
    found = records(tmp_path / "run")
    hit = found["sample_id"].eq(chosen)
    assert found.loc[hit, "status"].eq("invalid").all() and found.loc[hit, "srg"].isna().all()
    rest = frame[frame["sample_id"].ne(chosen)].reset_index(drop=True)
    pd.testing.assert_frame_equal(found[~hit].reset_index(drop=True), rest, check_exact=True)


def test_a_worker_that_dies_while_decoding(
    small: Path, reference_without_use: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load, run_dir = data_items.load_image, tmp_path / "run"
    fatal = pq.read_table(small.parent / "manifest.parquet").column("image_path").to_pylist()[4]

    def killed(path: Any, root: Any, **limit: Any) -> Any:
        if str(path) == fatal:
            os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does when memory runs out
        return load(path, root, **limit)

    with monkeypatch.context() as patch:
        patch.setattr(data_items, "load_image", killed)
        with pytest.raises(RuntimeError, match="DataLoader worker"):
            run_here(small, run_dir, "--data.num_workers", "1", *WITHOUT_USE)
    assert 0 < records(run_dir)["sample_id"].nunique() <= 4
    assert run_here(small, run_dir, "--data.num_workers", "1", *WITHOUT_USE) == 0
    assert_same(run_dir, reference_without_use)


def test_a_corrupted_image_costs_its_samples(small: Path, reference_without_use: Path, tmp_path: Path) -> None:
    paths = pq.read_table(small.parent / "manifest.parquet").column("image_path").to_pylist()
    for path in paths:
        target = tmp_path / "root" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(bundled_manifest().parent / path, target)
    shutil.copytree(bundled_manifest().parent / "masks", tmp_path / "root" / "masks")
    broken = tmp_path / "root" / paths[2]
    broken.write_bytes(broken.read_bytes()[:700])
    assert run_here(small, tmp_path / "run", "--data.data_root", str(tmp_path / "root"), *WITHOUT_USE) == 0
    found, whole = records(tmp_path / "run"), records(reference_without_use)
    hit = found["image_path"].eq(paths[2])
    assert found.loc[hit, "status"].eq("invalid").all() and found.loc[hit, "reason"].str.contains(paths[2]).all()
    rest = whole[whole["image_path"].ne(paths[2])].reset_index(drop=True)
    # A column with missing values has another dtype.
    pd.testing.assert_frame_equal(found[~hit].reset_index(drop=True), rest, check_exact=True, check_dtype=False)


def test_a_picture_that_is_gone_costs_the_report_its_drawing(
    small: Path, reference: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manifest = small.parent / "manifest.parquet"
    paths = pq.read_table(manifest).column("image_path").to_pylist()
    shutil.copytree(bundled_manifest().parent / "images", tmp_path / "root" / "images")
    (tmp_path / "root" / paths[2]).unlink()
    run_dir = tmp_path / "run"
    shutil.copytree(reference, run_dir)
    write_pictures(run_dir, CXRVQADataModule(str(manifest), data_root=str(tmp_path / "root")))
    listed = json.loads((run_dir / "report" / "pictures" / "pictures.json").read_text())
    shown = {
        path for path, name in zip(paths, records(reference)["sample_id"].unique(), strict=False) if name in listed
    }
    assert listed and paths[2] not in shown and "no picture in the report" in caplog.text
    assert all(entry["mask"] is None for entry in listed.values()) and "no outline in the report" in caplog.text


def test_a_torn_file_is_dropped_and_its_samples_run_again(
    small: Path, reference: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_dir = tmp_path / "run"
    assert run_here(small, run_dir, "--limit", "3") == 0
    (torn,) = parts(run_dir)
    torn.write_bytes(torn.read_bytes()[:-200])
    assert run_here(small, run_dir) == 0
    assert f"{torn}: unreadable, left out; its samples will be run again" in caplog.text
    assert_same(run_dir, reference)


def test_a_clock_that_was_set_back_changes_nothing(
    small: Path, reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two starts: files of the first are from what is then the future, and in the second the clock runs backwards."""
    run_dir, calls = tmp_path / "run", itertools.count()
    assert run_here(small, run_dir, "--limit", "3") == 0
    later = time.time() + 30 * 86400
    for path in [run_dir, *run_dir.rglob("*")]:
        os.utime(path, (later, later))
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - 3600 * next(calls))
    assert run_here(small, run_dir) == 0
    assert_same(run_dir, reference)
    assert next(calls) > 3  # the run read the clock, and each reading was an hour earlier


def test_more_ranks_than_samples_and_nothing_left(small: Path, reference: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    assert run_here(small, run_dir, "--limit", str(SAMPLES - 1)) == 0
    for _ in ("one sample for two ranks", "none"):
        wait_for_ranks(start_ranks(small, run_dir, 2, tmp_path / "output"), tmp_path / "output")
        assert_same(run_dir, reference)


def test_a_failed_save_of_the_report_is_an_error(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    assert run_here(small, tmp_path / "run", "--limit", "1") == 0
    monkeypatch.setattr(os, "fsync", full)
    assert run_here(small, tmp_path / "run", "--limit", "1") == 1
    assert "No space left on device" in capfd.readouterr().err
