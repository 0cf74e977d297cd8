"""SIGSTOP of a rank, as of a node that hangs and comes back: short, or longer than the others wait."""

import os
import signal
import socket
import time
from pathlib import Path

import pytest

from tests.forked import start_ranks, wait_for_ranks
from tests.held import Mark, Step
from tests.runs import assert_same, parts, run_here, wait_for

pytestmark = pytest.mark.cluster

PATIENCE = 30
"""Seconds that ranks wait for each other here; after a quarter of them a rank that does not move is named."""


@pytest.fixture
def impatient(tmp_path: Path) -> list[str]:
    """Options with a short timeout of the strategy."""
    file = tmp_path / "impatient.yaml"
    strategy = "lightning.pytorch.strategies.DDPStrategy"
    timeout = f'{{timeout: "0:00:{PATIENCE}"}}'
    file.write_text(f"trainer: {{strategy: {{class_path: {strategy}, init_args: {timeout}}}}}\n")
    return ["--config", str(file)]


def test_ranks_suspended_for_a_moment_lose_nothing(small: Path, reference: Path, tmp_path: Path) -> None:
    """One alone, then the whole job, as a scheduler suspends it."""
    run_dir, output = tmp_path / "run", tmp_path / "output"
    started = start_ranks(small, run_dir, 2, output)
    wait_for(lambda: bool(parts(run_dir)) or not started[0].is_alive())
    for suspended in ([started[1]], started):
        for process in suspended:
            assert process.pid is not None
            os.kill(process.pid, signal.SIGSTOP)
        time.sleep(1.0)
        for process in suspended:
            assert process.pid is not None
            os.kill(process.pid, signal.SIGCONT)
    wait_for_ranks(started, output)
    assert "has not moved" not in output.read_text()
    assert_same(run_dir, reference)


@pytest.mark.parametrize("stopped", [0, 1])
def test_a_rank_that_wakes_up_after_the_others_gave_up(
    stopped: int, small: Path, reference: Path, tmp_path: Path, impatient: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    run_dir, output = tmp_path / "run", tmp_path / "output"
    mark = Mark(Step("os.rename", r"/part-", nth=2, rank=stopped), tmp_path / "mark")
    with mark.in_environment():
        started = start_ranks(small, run_dir, 2, output, *impatient)
    sleeper, other = started[stopped], started[1 - stopped]
    assert sleeper.pid is not None
    assert mark.wait(lambda: not sleeper.is_alive()), output.read_text()
    os.kill(sleeper.pid, signal.SIGSTOP)
    mark.let_go()
    wait_for_ranks([other], output, [1])
    text = output.read_text()
    assert f"rank {stopped} has not moved for " in text and f": {socket.gethostname()}, process {sleeper.pid}, " in text
    (line,) = [line for line in text.splitlines() if line.startswith("cxr-faith: error: ")]
    assert "monitoredBarrier" in line and "to resume: cxr-faith evaluate --config " in line
    assert "Traceback" not in text

    restarted = run_here(small, run_dir)
    if stopped == 0:  # it holds the lock
        assert restarted == 2 and f"in use by process {sleeper.pid} on " in capfd.readouterr().err
    else:
        assert restarted == 0
        assert_same(run_dir, reference)
    os.kill(sleeper.pid, signal.SIGCONT)
    wait_for_ranks([sleeper], output, [1])
    assert run_here(small, run_dir) == 0
    assert_same(run_dir, reference)
