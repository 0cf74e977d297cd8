"""A rank that does not move is named by the rank before it; a run in which one is stopped is in `test_stop.py`."""

import multiprocessing
import os
import signal
import socket
import time
from datetime import timedelta
from pathlib import Path

import pytest

from cxr_faith.records import remove_leftovers
from cxr_faith.run.stall import LEAST_SECONDS, LifeSign, Lookout

HOUR = timedelta(hours=1)


def keep_moving(folder: Path) -> None:
    sign, batch = LifeSign(folder, 0, 1), 0
    while True:
        batch += 1
        sign.write(f"in batch {batch}", 1.0)
        time.sleep(0.002)


def test_a_stopped_process_is_named_once_and_so_is_its_going_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    process = multiprocessing.get_context("fork").Process(target=keep_moving, args=(tmp_path,))
    process.start()
    lookout = Lookout(tmp_path, 0, 0, 2, HOUR)
    try:
        for _ in range(5):
            lookout.look(LEAST_SECONDS / 2)
            time.sleep(0.05)
        assert caplog.messages == []
        assert process.pid is not None
        os.kill(process.pid, signal.SIGSTOP)
        time.sleep(0.05)
        for _ in range(6):
            lookout.look(LEAST_SECONDS / 2)
        (line,) = caplog.messages
        assert line.startswith(
            f"rank 1 has not moved for 120 s: {socket.gethostname()}, process {process.pid}, in batch"
        )
        os.kill(process.pid, signal.SIGCONT)
        time.sleep(0.1)
        for _ in range(3):
            lookout.look(LEAST_SECONDS / 2)
            time.sleep(0.05)
        assert caplog.messages[1:] == ["rank 1 goes on after 360 s"]
    finally:
        process.kill()
        process.join()


def test_ranks_behind_a_stalled_one_are_looked_at_and_those_that_ended_are_left_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    signs = {rank: LifeSign(tmp_path, 3, rank) for rank in range(5)}
    for rank, sign in signs.items():
        sign.write(f"in batch {rank}", 1.0)
    lookout = Lookout(tmp_path, 3, 3, 5, HOUR)
    for turn in range(10):
        signs[1].write(f"in batch {turn}", 1.0)
        lookout.look(60)
    assert [message.split(" has not moved")[0] for message in caplog.messages] == ["rank 4", "rank 0"]  # 1 moves
    caplog.clear()
    signs[4].remove()
    for _ in range(10):
        lookout.look(60)
    assert caplog.messages == ["rank 4 goes on after 600 s"]
    assert LifeSign(tmp_path, 4, 2).read() is None  # another start's


@pytest.mark.parametrize(
    ("longest", "own", "seconds"), [(0.0, 0.0, 900), (1.0, 0.0, 120), (30.0, 1.0, 300), (1.0, 50.0, 500)]
)
def test_long_batches_get_patience_up_to_a_quarter_of_the_timeout(
    longest: float, own: float, seconds: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    LifeSign(tmp_path, 0, 1).write("in batch 1", longest)
    for timeout, expected in ((HOUR, seconds), (timedelta(seconds=80), 20)):
        lookout, silent = Lookout(tmp_path, 0, 0, 2, timeout), 0
        lookout.look(10, own)
        caplog.clear()
        while not caplog.messages:
            assert silent <= expected
            silent += 10
            lookout.look(10, own)
        assert silent == expected and f"for {expected} s" in caplog.text


def test_signs_of_killed_processes_are_removed(tmp_path: Path) -> None:
    (tmp_path / "records").mkdir()
    LifeSign(tmp_path / "records", 0, 1).write("in batch 1", 0.0)
    assert len(list((tmp_path / "records").iterdir())) == 1
    remove_leftovers(tmp_path)
    assert list((tmp_path / "records").iterdir()) == []
