"""Requests to stop by signal: nothing is lost, ranks agree, the status says that work is left."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.fabric.plugins.environments import LightningEnvironment
from lightning.fabric.strategies.launchers.subprocess_script import _ChildProcessObserver
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher

from cxr_faith.__main__ import main
from cxr_faith.records import Progress, Shown
from cxr_faith.run import resume
from cxr_faith.run.module import FaithfulnessModule
from cxr_faith.run.ranks import end_children
from cxr_faith.run.stop import StopRequest
from tests.forked import start_process, start_ranks, wait_for_ranks
from tests.runs import (
    ROOT,
    SAMPLES,
    alive,
    assert_same,
    children,
    command,
    environment,
    parts,
    ranks,
    records,
    run_here,
    start,
    wait_for,
)

pytestmark = pytest.mark.slow


def python(code: str, **options: object) -> "subprocess.Popen[str]":
    words = [sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.Popen(words, env=environment(), cwd=ROOT, stdout=subprocess.PIPE, text=True, **options)  # type: ignore[call-overload]


@pytest.mark.parametrize("name", ["SIGUSR2", "SIGTERM"])
def test_a_signal_is_a_request_reaches_further_ranks_and_leaves_workers_alone(name: str) -> None:
    process = python("""
        import multiprocessing, os, signal, subprocess, sys, time
        from cxr_faith.run.stop import SIGNALS, listening

        with listening() as request:
            mine = "from cxr_faith.run.stop import listening\\nimport time\\nwith listening() as r:\\n" \\
                " print('up', flush=True)\\n while not r: time.sleep(.01)\\n print('told', r.signal.name, flush=True)"
            further = subprocess.Popen([sys.executable, "-c", mine], stdout=subprocess.PIPE, text=True)
            request.share_with([further])
            assert further.stdout.readline() == "up\\n"
            worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(3,))
            worker.start()
            print("ready", flush=True)
            while not request:
                time.sleep(0.01)
            os.kill(worker.pid, request.signal)  # schedulers signal every process of a job
            worker.join(30)
            print(request.signal.name, further.stdout.readline().strip(), worker.exitcode, flush=True)
        print(bool(SIGNALS & signal.pthread_sigmask(signal.SIG_BLOCK, [])))
    """)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(getattr(signal, name))
    output = process.communicate(timeout=60)[0]
    assert output.split() == [name, "told", name, "0", "False"], output
    assert process.returncode == 0


def test_a_process_that_was_suspended_still_listens() -> None:
    process = python("""
        import time
        from cxr_faith.run.stop import listening

        with listening() as request:
            print("ready", flush=True)
            while not request:
                time.sleep(0.01)
            print(request.signal.name)
    """)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    for _ in range(2):
        process.send_signal(signal.SIGSTOP)
        time.sleep(0.7)  # longer than one look
        process.send_signal(signal.SIGCONT)
        time.sleep(0.1)
    process.send_signal(signal.SIGUSR2)
    assert process.communicate(timeout=30)[0].strip() == "SIGUSR2"


def test_a_request_that_came_before_the_ranks_were_started_is_passed_on() -> None:
    process = python("""
        import os, signal, subprocess, sys, time
        from cxr_faith.run.stop import listening

        with listening() as request:
            os.kill(os.getpid(), signal.SIGUSR2)
            while not request:
                time.sleep(0.01)
            waiting = "import signal; print(signal.sigwait([signal.SIGUSR2]).name)"
            late = subprocess.Popen([sys.executable, "-c", waiting])
            request.share_with([late])
            sys.exit(late.wait(30))
    """)
    assert process.communicate(timeout=60)[0].strip() == "SIGUSR2" and process.returncode == 0


def test_one_rank_stops_within_a_batch_and_the_same_command_goes_on(
    small: Path, reference: Path, tmp_path: Path
) -> None:
    run_dir, output = tmp_path / "run", tmp_path / "output"
    (process,) = start_ranks(small, run_dir, 1, output)
    wait_for(lambda: bool(parts(run_dir)) or not process.is_alive())
    written, asked = len(parts(run_dir)), time.monotonic()
    os.kill(process.pid, signal.SIGUSR2)
    wait_for_ranks([process], output, [75])
    assert f"stopped on SIGUSR2; {run_dir} keeps what is done; to resume: " in output.read_text()
    assert f"cxr-faith evaluate --config {small} --run_dir {run_dir}" in output.read_text()
    assert written <= records(run_dir)["sample_id"].nunique() <= written + 2, f"{time.monotonic() - asked:.1f} s"
    assert not (run_dir / "summary.json").exists()
    assert run_here(small, run_dir) == 0
    assert_same(run_dir, reference)


@pytest.mark.parametrize(("batch", "status"), [(3, 75), (SAMPLES, 0)])
def test_a_stop_does_not_read_the_run_again_and_one_in_the_last_batch_is_the_end(
    batch: int, status: int, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request, looks, steps = StopRequest(), list[Path](), list[int]()
    step, look = FaithfulnessModule.predict_step, resume.read_progress

    def asked(self: FaithfulnessModule, items: list[Any], index: int) -> Any:
        steps.append(index)
        if len(steps) == batch:
            request.set(signal.SIGUSR2)
        return step(self, items, index)

    def counted(run_dir: Path, shown: Shown) -> Progress:
        looks.append(run_dir)
        return look(run_dir, shown)

    monkeypatch.setattr("cxr_faith.run.stop.listening", lambda: nullcontext(request))
    monkeypatch.setattr(FaithfulnessModule, "predict_step", asked)
    monkeypatch.setattr(resume, "read_progress", counted)
    assert main(command(small, tmp_path / "run")[3:]) == status
    assert len(steps) == batch and records(tmp_path / "run")["sample_id"].nunique() == batch
    assert len(looks) == 1  # at the start; reading a large run takes longer than a scheduler waits
    assert (tmp_path / "run" / "summary.json").exists() is (status == 0)


def test_sigterm_to_all_ranks_at_once(small: Path, reference: Path, tmp_path: Path) -> None:
    """As a scheduler sends it: each stops after its batch, and none takes the others' end for a fault.

    Stopped or done, each rank has taken its process group down (or its exit status here would be another).
    """
    run_dir, output = tmp_path / "run", tmp_path / "output"
    started = start_ranks(small, run_dir, 3, output)
    wait_for(lambda: bool(parts(run_dir)) or not started[0].is_alive())
    for process in started:
        process.terminate()
    wait_for_ranks(started, output, [75, 0, 0])
    assert output.read_text().count("to resume:") == 1
    assert 0 < records(run_dir)["sample_id"].nunique() < SAMPLES
    wait_for_ranks(start_ranks(small, run_dir, 2, output), output)
    assert_same(run_dir, reference)


@pytest.mark.cluster
def test_sigterm_to_the_first_of_three_ranks_stops_all(small: Path, reference: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    process = start(small, run_dir, *ranks(3))
    wait_for(lambda: bool(parts(run_dir)), process)
    others = children(process.pid)
    assert len(others) >= 2
    process.terminate()
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 75, output
    assert output.count("to resume:") == 1
    wait_for(lambda: not any(alive(other) for other in others), seconds=60)
    assert 0 < records(run_dir)["sample_id"].nunique() < 7
    assert run_here(small, run_dir) == 0
    assert_same(run_dir, reference)


def test_a_request_while_the_model_is_loading_costs_one_batch_at_most(
    small: Path, reference: Path, tmp_path: Path
) -> None:
    run_dir, output = tmp_path / "run", tmp_path / "output"
    (process,) = start_ranks(small, run_dir, 1, output)
    # The lock is taken before the model is loaded.
    wait_for(lambda: (run_dir / ".lock").exists() or not process.is_alive())
    process.terminate()
    wait_for_ranks([process], output, [75])
    assert len(parts(run_dir)) == 1


@pytest.mark.cluster
def test_a_rank_that_stalls_is_named(small: Path, tmp_path: Path) -> None:
    run_dir, patience = tmp_path / "run", tmp_path / "patience.yaml"
    patience.write_text(
        "trainer: {devices: 2, strategy: {class_path: lightning.pytorch.strategies.DDPStrategy, "
        'init_args: {timeout: "0:01:30"}}}\n'  # a rank must start within it too
    )
    process = start(small, run_dir, "--config", str(patience))
    wait_for(lambda: bool(parts(run_dir)), process)
    rank_one = min(  # its decoder, which is younger, has the same variables
        child
        for child in children(process.pid)
        if "LOCAL_RANK=1" in Path(f"/proc/{child}/environ").read_text().split("\0")
    )
    os.kill(rank_one, signal.SIGSTOP)
    assert main(["report", str(run_dir)]) == 0  # on a run that is still going
    assert json.loads((run_dir / "summary.json").read_text())["partial"] and process.poll() is None
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 1, output
    gave_up = max(output.find("Rank 1 failed to pass monitoredBarrier"), output.find("[Rank 0]: Ranks 1"))
    named = output.find(f": {socket.gethostname()}, process {rank_one}, ")
    assert 0 <= named < gave_up, output[-3000:]  # long before the others give up
    # A first line may be about a slow start.
    line = [line for line in output.splitlines() if f"process {rank_one}, " in line][-1]
    assert re.match(r"rank 1 has not moved for \d+ s: ", line) and "batch" in line
    assert not alive(rank_one)


def end_the_other_rank() -> None:
    """What rank 0 does after an error: it ends rank 1, which Lightning's observer must not take for a fault."""
    launcher = _SubprocessScriptLauncher(LightningEnvironment(), num_processes=2, num_nodes=1)
    launcher.procs = [child] = [subprocess.Popen(["sleep", "600"])]
    observer = _ChildProcessObserver(os.getpid(), launcher.procs, sleep_period=1)
    observer.start()
    end_children(SimpleNamespace(strategy=SimpleNamespace(launcher=launcher)))  # type: ignore[arg-type]
    observer.join()  # it looks once more, and would end this process
    sys.exit(f"rank 1 ended with {child.returncode}")


def test_a_rank_that_ends_the_others_lives_to_say_why(tmp_path: Path) -> None:
    process = start_process(tmp_path / "output", end_the_other_rank)
    wait_for_ranks([process], tmp_path / "output", [1])
    assert (tmp_path / "output").read_text().endswith("rank 1 ended with -9\n")


@pytest.mark.cluster
def test_ranks_whose_parent_was_killed_end_too(small: Path, reference: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    process = start(small, run_dir, *ranks(2))
    wait_for(lambda: bool(parts(run_dir)), process)
    others = children(process.pid)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    wait_for(lambda: not any(alive(other) for other in others), seconds=60)
    assert run_here(small, run_dir) == 0
    assert_same(run_dir, reference)
