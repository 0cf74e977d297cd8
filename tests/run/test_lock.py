"""One run per run directory."""

import os
import signal
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from cxr_faith.data.module import Shard
from cxr_faith.run.lock import RunDirectoryInUseError, run_lock
from tests.runs import ROOT, environment, run_here

HOLD = """
import sys, time
from pathlib import Path
from cxr_faith.data.module import Shard
from cxr_faith.run.lock import run_lock
with run_lock(Path(sys.argv[1]), Shard()):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_second_run_is_refused_and_told_who_is_there(
    small: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    with run_lock(tmp_path, Shard()):
        monkeypatch.delenv("SLURM_JOB_ID")
        assert run_here(small, tmp_path) == 2
    error = capfd.readouterr().err.strip()
    assert len(error.splitlines()) == 1 and f"is in use by process {os.getpid()} on " in error and "job 77" in error
    assert not (tmp_path / "records").exists()
    with run_lock(tmp_path, Shard()):  # released
        pass


def test_the_lock_of_a_killed_process_blocks_nobody(tmp_path: Path) -> None:
    (tmp_path / "records").mkdir()
    left = [tmp_path / "records" / ".part-000-r00000-000000.parquet.tmp", tmp_path / ".summary.json.99.tmp"]
    words = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(words, env=environment(), cwd=ROOT, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        for file in left:
            file.touch()
        with pytest.raises(RunDirectoryInUseError, match=f"process {holder.pid} on"), run_lock(tmp_path, Shard()):
            pass
        assert all(file.exists() for file in left)
        holder.send_signal(signal.SIGKILL)
    with run_lock(tmp_path, Shard()):
        assert not any(file.exists() for file in left)


def test_a_requeued_job_waits_for_its_former_self(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    before = ExitStack()
    before.enter_context(run_lock(tmp_path, Shard()))
    ended = threading.Event()
    before.callback(ended.set)  # called first: the lock is let go after it
    threading.Timer(1.0, before.close).start()
    with run_lock(tmp_path, Shard()):
        assert ended.is_set()


def test_shards_of_one_split_share_a_directory(tmp_path: Path) -> None:
    with run_lock(tmp_path, Shard(0, 3)), run_lock(tmp_path, Shard(2, 3)):
        with pytest.raises(RunDirectoryInUseError), run_lock(tmp_path, Shard(2, 3)):
            pass  # the same part twice
        with pytest.raises(RunDirectoryInUseError), run_lock(tmp_path, Shard(1, 4)):
            pass  # a part of another split
        with pytest.raises(RunDirectoryInUseError), run_lock(tmp_path, Shard()):
            pass
        with run_lock(tmp_path, Shard(1, 3)):
            pass
    with run_lock(tmp_path, Shard()), pytest.raises(RunDirectoryInUseError), run_lock(tmp_path, Shard(0, 3)):
        pass


def test_shards_that_open_a_directory_at_once_wait_for_each_other(tmp_path: Path) -> None:
    """While the first of them clears up, as whoever finds nobody there does."""
    clearing, done = threading.Event(), threading.Event()

    def slow(run_dir: Path) -> None:
        clearing.set()
        done.wait(2.0)

    def second() -> None:
        clearing.wait()
        with run_lock(tmp_path, Shard(1, 3)):
            pass
        done.set()

    other = threading.Thread(target=second)
    other.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cxr_faith.run.lock.remove_leftovers", slow)
        with run_lock(tmp_path, Shard(0, 3)):
            other.join(10)
            assert done.is_set() and not other.is_alive()
