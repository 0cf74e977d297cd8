"""slurm/eval.sh: what it asks Slurm for, what it runs, and when it goes back into the queue."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SLURM_SCRIPT = ROOT / "slurm" / "eval.sh"


def run_slurm_script(
    folder: Path, *arguments: str, script: Path = SLURM_SCRIPT, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run slurm/eval.sh in the repository's root with an `srun` that prints what it was asked to do."""
    srun = folder / "srun"
    srun.write_text('#!/usr/bin/env bash\nprintf "%s\\n" "offline=$HF_HUB_OFFLINE" "$@"\nexit ${STATUS:-0}\n')
    srun.chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    kept |= {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"} | environment
    command = [shutil.which("bash") or "bash", str(script), *arguments]
    return subprocess.run(command, cwd=ROOT, env=kept, capture_output=True, text=True)


JOB = {"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "2", "SLURM_NTASKS_PER_NODE": "4", "SLURM_CPUS_PER_TASK": "8"}


def test_slurm_script_asks_for_what_a_resumable_job_needs() -> None:
    options = re.findall(r"^#SBATCH (.+)$", SLURM_SCRIPT.read_text(encoding="utf-8"), re.MULTILINE)
    assert {"--requeue", "--open-mode=append", "--signal=USR2@120", "--ntasks-per-node=1"} <= set(options)


def test_slurm_script_passes_the_job_on(tmp_path: Path) -> None:
    result = run_slurm_script(tmp_path, "configs/demo.yaml", "--limit", "3", **JOB)
    assert result.returncode == 0, result.stderr
    expected = """
        offline=1 --kill-on-bad-exit=1 cxr-faith evaluate
        --config configs/demo.yaml --config configs/trainer/slurm.yaml
        --trainer.num_nodes=2 --trainer.devices=4 --limit 3"""
    assert result.stdout.split() == expected.split()


ARRAY = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3"}
ARRAY |= {"SLURM_ARRAY_TASK_MIN": "0", "SLURM_ARRAY_TASK_MAX": "7"}


def test_slurm_script_gives_each_task_of_an_array_its_shard(tmp_path: Path) -> None:
    result = run_slurm_script(tmp_path, "configs/demo.yaml", **JOB, **ARRAY, SLURM_ARRAY_TASK_COUNT="8")
    assert "--trainer.devices=4 --shard 3/8" in " ".join(result.stdout.split())
    refused = run_slurm_script(tmp_path, "configs/demo.yaml", **JOB, **ARRAY, SLURM_ARRAY_TASK_COUNT="2")
    assert refused.returncode == 2 and "must be 0-N" in refused.stderr and refused.stdout == ""


def test_slurm_script_goes_back_into_the_queue_only_when_stopped_on_request(tmp_path: Path) -> None:
    (tmp_path / "scontrol").write_text('#!/usr/bin/env bash\necho "scontrol $*"\n')
    (tmp_path / "scontrol").chmod(0o755)
    for status, requeued in ((0, False), (1, False), (2, False), (75, True), (137, False), (140, True)):
        result = run_slurm_script(tmp_path, "configs/demo.yaml", **JOB, STATUS=str(status))
        assert result.returncode == status
        assert ("scontrol requeue 7" in result.stdout) is requeued
    task = run_slurm_script(tmp_path, "configs/demo.yaml", **JOB, **ARRAY, SLURM_ARRAY_TASK_COUNT="8", STATUS="75")
    assert "scontrol requeue 7_3" in task.stdout.splitlines()  # 7 alone would be all tasks of the array
    again = JOB | {"SLURM_RESTART_COUNT": "2", "MAX_RESTARTS": "2", "STATUS": "75"}
    result = run_slurm_script(tmp_path, "configs/demo.yaml", **again)
    assert result.returncode == 75 and "scontrol" not in result.stdout and "submit the same line again" in result.stderr


def test_slurm_script_runs_in_a_container(tmp_path: Path) -> None:
    result = run_slurm_script(tmp_path, "configs/demo.yaml", CONTAINER="faith.sif", **JOB)
    assert "apptainer exec --nv faith.sif cxr-faith evaluate" in " ".join(result.stdout.split())


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        ([], JOB, "usage: sbatch"),
        (["--limit", "3"], JOB, "usage: sbatch"),
        (["configs/absent.yaml"], JOB, "no config configs/absent.yaml"),
        (["configs/demo.yaml"], {}, "submit it with sbatch"),
    ],
)
def test_slurm_script_refuses(tmp_path: Path, arguments: list[str], environment: dict[str, str], message: str) -> None:
    result = run_slurm_script(tmp_path, *arguments, **environment)
    assert result.returncode == 2
    assert message in result.stderr and len(result.stderr.splitlines()) == 1
    assert result.stdout == ""


PANEL_SCRIPT = ROOT / "slurm" / "panel.sh"


def test_panel_script_runs_the_panel_and_a_task_of_an_array_one_checkpoint(tmp_path: Path) -> None:
    options = re.findall(r"^#SBATCH (.+)$", PANEL_SCRIPT.read_text(encoding="utf-8"), re.MULTILINE)
    assert {"--requeue", "--open-mode=append", "--signal=USR2@120", "--ntasks-per-node=1"} <= set(options)
    result = run_slurm_script(tmp_path, "--trainer.precision", "32", script=PANEL_SCRIPT, **JOB)
    words = result.stdout.split()
    assert result.returncode == 0 and "offline=1" in words and "--number" not in words
    assert " ".join(words).endswith("--trainer.strategy auto --trainer.precision 32")
    task = run_slurm_script(tmp_path, script=PANEL_SCRIPT, **JOB, **ARRAY)
    assert "benchmarks/panel.py --number 3 --trainer.accelerator gpu" in " ".join(task.stdout.split())


def test_panel_script_goes_back_into_the_queue_only_when_stopped_on_request(tmp_path: Path) -> None:
    (tmp_path / "scontrol").write_text('#!/usr/bin/env bash\necho "scontrol $*"\n')
    (tmp_path / "scontrol").chmod(0o755)
    for status, requeued in ((0, False), (1, False), (2, False), (75, True), (140, True)):
        result = run_slurm_script(tmp_path, script=PANEL_SCRIPT, **JOB, STATUS=str(status))
        assert result.returncode == status
        assert ("scontrol requeue 7" in result.stdout) is requeued
    outside = run_slurm_script(tmp_path, script=PANEL_SCRIPT)
    assert outside.returncode == 2 and "submit it with sbatch" in outside.stderr
