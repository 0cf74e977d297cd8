"""slurm/eval.sh on a real Slurm: the numbers are those of a local run, whatever the cluster does."""

import os
import re
import signal
from pathlib import Path

import pytest
import yaml

from tests.cluster.conftest import Slurm
from tests.runs import SAMPLES, alive, assert_same, parts, records, run_here, wait_for

pytestmark = pytest.mark.cluster


def test_two_nodes_pre_empted_and_requeued(slurm: Slurm, small: Path, reference: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    job = slurm.submit(small, run_dir, "--nodes=2", "--exclusive")
    wait_for(lambda: bool(parts(run_dir)))
    # The run may be over before Slurm has scheduled the urgent job: its ranks wait. Slurm wakes what it stops.
    for task in slurm.tasks(job):
        os.kill(task, signal.SIGSTOP)
    words = ["--partition=urgent", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=true"]
    urgent = slurm("sbatch", "--parsable", *words).strip()
    wait_for(lambda: slurm.fields(job)["Restarts"] == "1", seconds=120)
    assert 0 < records(run_dir)["sample_id"].nunique() < SAMPLES and not (run_dir / "summary.json").exists()
    slurm.wait(job)
    assert slurm.states(urgent) == ["COMPLETED"]
    assert slurm.fields(job)["NumNodes"] == "2" and "DUE TO PREEMPTION" in slurm.log(job)
    assert "Warning" not in slurm.log(job)
    assert_same(run_dir, reference)
    # What a job has resolved is a config for the next one.
    assert yaml.safe_load((run_dir / "config.yaml").read_text())["trainer"]["plugins"] is None
    assert {path.name.split("-")[2] for path in parts(run_dir)} == {"r00000", "r00001"}


def test_stopped_by_usr2_and_requeued(slurm: Slurm, small: Path, reference: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    job = slurm.submit(small, run_dir, "--ntasks-per-node=2")
    wait_for(lambda: bool(parts(run_dir)))
    slurm("scancel", "--signal=USR2", job)
    wait_for(lambda: slurm.fields(job)["Restarts"] == "1", seconds=120)
    kept = records(run_dir)["sample_id"].nunique()
    assert 0 < kept < 7 and not (run_dir / "summary.json").exists()
    slurm.wait(job)
    log = slurm.log(job)
    assert "stopped on SIGUSR2" in log and "back into the queue (restart 1)" in log
    assert "Traceback" not in log and not re.search(r"exit(ed)? .*code (1|134|137)\b", log), log
    assert_same(run_dir, reference)
    assert {path.name.split("-")[1] for path in parts(run_dir)} == {"000", "001"}


def test_time_limit(slurm: Slurm, small: Path, reference: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    job = slurm.submit(small, run_dir, "--time=60", "--signal=USR2@90")
    wait_for(lambda: bool(parts(run_dir)))
    # Slurm looks at time limits twice a minute: the batch at hand has to take that long.
    (task,) = slurm.tasks(job)
    os.kill(task, signal.SIGSTOP)
    try:
        hours, minutes, _ = map(int, slurm.fields(job)["RunTime"].split(":"))
        slurm("scontrol", "update", f"jobid={job}", f"timelimit={60 * hours + minutes + 2}")
        # Slurm may wake a process that it has a signal for.
        wait_for(lambda: not alive(task) or is_pending(task, signal.SIGUSR2), seconds=119)
    finally:
        if alive(task):
            os.kill(task, signal.SIGCONT)
    wait_for(lambda: slurm.fields(job)["Restarts"] == "1", seconds=120)
    slurm("scontrol", "update", f"jobid={job}", "timelimit=60")  # for the second start
    assert 0 < records(run_dir)["sample_id"].nunique() < 7 and not (run_dir / "summary.json").exists()
    slurm.wait(job)
    assert "stopped on SIGUSR2" in slurm.log(job) and "back into the queue (restart 1)" in slurm.log(job)
    assert_same(run_dir, reference)


def is_pending(pid: int, signum: signal.Signals) -> bool:
    """Whether a signal has been sent to a process that has not taken it yet."""
    try:
        lines = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    except (FileNotFoundError, ProcessLookupError):
        return False
    return bool(int(lines["ShdPnd"], 16) >> (signum - 1) & 1)


def test_array_of_two_shards(slurm: Slurm, small: Path, reference: Path, tmp_path: Path) -> None:
    job = slurm.submit(small, tmp_path / "run", "--array=0-1")
    slurm.wait(job)
    assert len(slurm.states(job)) == 2
    assert_same(tmp_path / "run", reference)
    log = slurm.log(job)
    assert log.count("other shards have") <= 1 and "report " in log


def test_node_down(slurm: Slurm, small: Path, reference: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    job = slurm.submit(small, run_dir)
    wait_for(lambda: bool(parts(run_dir)))
    node = slurm.fields(job)["BatchHost"]
    slurm("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
    try:
        # Its daemon lives and reports back at once: without this the job could return to it before its old step ended.
        slurm("scontrol", "update", f"nodename={node}", "state=drain", "reason=test")
        wait_for(lambda: slurm.fields(job)["Restarts"] == "1", seconds=60)
        slurm.wait(job)
        assert slurm.fields(job)["BatchHost"] != node
        # Which process lives long enough to tell the job's own output is a matter of luck; the controller always does.
        lost = rf"requeue job JobId={job}\b.* due to failure of node {node}\b"
        assert re.search(lost, (slurm.folder / "slurmctld.log").read_text())
    finally:
        slurm("scontrol", "update", f"nodename={node}", "state=resume")
    assert_same(run_dir, reference)


def test_restarts_are_bounded_and_a_canceled_job_stays_away(
    slurm: Slurm, small: Path, reference: Path, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    job = slurm.submit(small, run_dir, "--export=ALL,MAX_RESTARTS=0")
    wait_for(lambda: bool(parts(run_dir)))
    slurm("scancel", "--signal=USR2", job)
    slurm.wait(job, "FAILED")
    assert slurm.fields(job)["ExitCode"] == "75:0" and "submit the same line again" in slurm.log(job)
    job = slurm.submit(small, run_dir)
    already = len(parts(run_dir))
    wait_for(lambda: len(parts(run_dir)) > already)
    slurm("scancel", job)
    slurm.wait(job, "CANCELLED")
    assert slurm.fields(job)["Restarts"] == "0"
    assert run_here(small, run_dir) == 0
    assert_same(run_dir, reference)
