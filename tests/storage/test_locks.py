"""Locks between processes, and file systems that have none."""

import errno
import fcntl
import logging
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pytest

from cxr_faith.data.cache import ImageCache
from cxr_faith.data.manifest import bundled_manifest, open_manifest
from cxr_faith.data.module import Shard
from cxr_faith.run.lock import merge_lock, run_lock
from cxr_faith.storage.locks import NO_LOCKS, exclusive, made_once
from tests.runs import ROOT, environment


@pytest.mark.parametrize("number", sorted(NO_LOCKS), ids=errno.errorcode.get)
def test_a_file_system_without_locks_is_warned_about_once_and_the_work_goes_on(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_locks(file: object, how: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with run_lock(tmp_path, Shard(0, 2)), run_lock(tmp_path, Shard(0, 2)), merge_lock(tmp_path):
        assert len(caplog.messages) == 1 and "no file locks on this file system" in caplog.messages[0]
    shutil.copy(bundled_manifest(), tmp_path / "manifest.parquet")
    caplog.clear()
    table = open_manifest(tmp_path / "manifest.parquet")
    assert len(table) == 72
    path = table[0]["image_path"]
    for size in ((8, 8), (8, 9)):
        cache = ImageCache.open(tmp_path / "cache", [path], bundled_manifest().parent, size, 0.0)
        assert cache.get(path) is not None
    folders = [message.split(":")[0] for message in caplog.messages]
    assert folders == [str(tmp_path / ".manifest_cache"), str(tmp_path / "cache")]


def test_another_error_of_a_lock_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in (errno.EBADF, errno.EPERM, errno.ESTALE):

        def fails(file: object, how: int, number: int = number) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(fcntl, "flock", fails)
        monkeypatch.setattr("cxr_faith.storage.locks._SECONDS_BETWEEN_TRIES", 0.01)
        for lock in (lambda: exclusive(tmp_path / ".lock"), lambda: run_lock(tmp_path, Shard())):
            with pytest.raises(OSError, match=os.strerror(number)) as refused, lock():
                pass
            assert refused.value.filename == str(tmp_path / ".lock")


def test_a_lock_that_another_computer_deleted_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS says ESTALE to who waits for a lock file when its holder, on another computer, deletes it."""
    real, calls = fcntl.flock, []

    def stale_once(file: IO[str], how: int) -> None:
        calls.append(how)
        if len(calls) == 1:
            (tmp_path / ".a.lock").unlink()
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        real(file, how)

    monkeypatch.setattr(fcntl, "flock", stale_once)
    with exclusive(tmp_path / ".a.lock") as alone:
        assert alone and len(calls) == 2 and (tmp_path / ".a.lock").exists()


def test_a_lock_that_is_deleted_as_it_is_opened_is_not_taken_for_a_planted_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, real, deleted = tmp_path / ".a.lock", os.open, []

    def open_and_lose(file: Any, *arguments: Any, **more: Any) -> int:
        descriptor = real(file, *arguments, **more)
        if str(file) == str(path) and not deleted:
            deleted.append(file)
            path.unlink()
        return descriptor

    monkeypatch.setattr(os, "open", open_and_lose)
    with exclusive(path) as alone:
        assert alone and deleted and path.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs two users")
@pytest.mark.parametrize("mode", [0o777, 0o1777])
def test_a_lock_of_another_users_killed_process_blocks_nobody(mode: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(mode)  # 1777: as /tmp, where nobody may delete the files of others
        lock = folder / ".cache.arrow.lock"
        lock.touch(0o644)
        os.chown(lock, 2001, 2001)
        child = os.fork()
        if child == 0:
            try:
                os.setgid(2002)
                os.setuid(2002)
                file = folder / "cache.arrow"
                made_once(file, file.is_file, lambda sink: sink.write(b"whole") and None)
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert (folder / "cache.arrow").read_bytes() == b"whole" and lock.exists() == (mode == 0o1777)


@pytest.mark.parametrize("name", [".lock", ".lock-1", ".lock-merge"])
def test_a_link_in_place_of_a_lock_is_named_and_not_followed(name: str, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / name).symlink_to(victim)
    with (
        pytest.raises(OSError, match=r"is a link.*delete it") as refused,
        run_lock(tmp_path, Shard(1, 2)),
        merge_lock(tmp_path),
    ):
        pass
    assert refused.value.filename == str(tmp_path / name) and victim.read_text() == "mine"


def _count(folder: Path, rounds: int) -> None:
    for _ in range(rounds):
        with exclusive(folder / ".lock"):
            value = int((folder / "number").read_text())
            time.sleep(0.001)
            (folder / "number").write_text(str(value + 1))


def test_one_process_at_a_time_holds_a_lock_that_is_deleted_at_the_end(tmp_path: Path) -> None:
    (tmp_path / "number").write_text("0")
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_count, args=(tmp_path, 10)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert (tmp_path / "number").read_text() == "40"
    assert [path.name for path in tmp_path.iterdir()] == ["number"]


def test_who_waits_says_so_and_gives_up_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("cxr_faith.storage.locks._SECONDS_UNTIL_WAITING_IS_SAID", 0.1)
    with (
        exclusive(tmp_path / ".a.lock"),
        caplog.at_level(logging.WARNING),
        pytest.raises(TimeoutError, match="locked by another process"),
        exclusive(tmp_path / ".a.lock", patience=0.5),
    ):
        pass
    assert caplog.messages == [f"waiting for another process, which holds {tmp_path / '.a.lock'}"]


MAKES = """
import sys, time
from pathlib import Path
from cxr_faith.storage.locks import made_once
file = Path(sys.argv[1])
def make(sink):
    sink.write(b"half")
    sink.flush()
    print("begun", flush=True)
    time.sleep(600)
made_once(file, file.exists, make)
"""


def test_what_a_killed_process_began_is_made_again_by_the_next_one(tmp_path: Path) -> None:
    file = tmp_path / "cache.arrow"
    words = [sys.executable, "-c", MAKES, str(file)]
    with subprocess.Popen(words, env=environment(), cwd=ROOT, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None and first.stdout.readline() == "begun\n"
        made: list[str] = []

        def make(sink: IO[bytes]) -> None:
            made.append("whole")
            sink.write(b"whole")

        arguments: tuple[Path, Callable[[], bool], Callable[[IO[bytes]], Any]] = (file, file.exists, make)
        waiting = threading.Thread(target=made_once, args=arguments)
        waiting.start()
        time.sleep(0.5)
        assert made == [] and len(list(tmp_path.glob(".cache.arrow.*.tmp"))) == 1
        first.send_signal(signal.SIGKILL)
        waiting.join(30)
    assert made == ["whole"] and file.read_bytes() == b"whole"
    assert [path.name for path in tmp_path.iterdir()] == ["cache.arrow"]
