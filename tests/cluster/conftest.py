"""A private Slurm of two nodes on this machine, and the small run to compare with."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.runs import ROOT, environment, uninterrupted, write_config

__all__ = ["reference", "slurm", "small"]

SCRIPT = Path(__file__).with_name("local_cluster.sh")
DAEMONS = ("slurmctld", "slurmd", "munged", "sbatch")


@dataclass
class Slurm:
    """The commands of a private cluster.

    Attributes:
        folder: its state directory.
        outputs: where its jobs' outputs go.
    """

    folder: Path
    outputs: Path

    def __call__(self, *words: str, check: bool = True) -> str:
        """What one of Slurm's commands prints."""
        variables = environment() | {"SLURM_CONF": str(self.folder / "slurm.conf"), "VENV": str(venv())}
        done = subprocess.run(words, env=variables, cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0 or not check, done.stdout + done.stderr
        return done.stdout

    def submit(self, config: Path, run_dir: Path, *options: str) -> str:
        """Submit slurm/eval.sh as a user does; returns the job's number."""
        output = ["--parsable", f"--output={self.outputs}/%j.out", "--gpus-per-node=0", "--cpus-per-task=1"]
        script = ["slurm/eval.sh", str(config), "--run_dir", str(run_dir)]
        return self("sbatch", *output, *options, *script).strip()

    def states(self, job: str) -> list[str]:
        """State of a job, or of each task of an array."""
        return re.findall(r"\bJobState=(\w+)", self("scontrol", "-o", "show", "job", job))

    def fields(self, job: str) -> dict[str, str]:
        """What `scontrol show job` says of a job."""
        return dict(word.split("=", 1) for word in self("scontrol", "-o", "show", "job", job).split() if "=" in word)

    def log(self, job: str) -> str:
        """Output of a job, or of all tasks of an array."""
        return "\n".join(path.read_text() for path in sorted(self.outputs.glob("*.out")))

    def tasks(self, job: str) -> list[int]:
        """Processes of a job's ranks."""
        marks, pids = {f"SLURM_JOB_ID={job}", f"SLURM_CONF={self.folder}/slurm.conf"}, []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                variables, words = ((folder / name).read_text().split("\0") for name in ("environ", "cmdline"))
            except (OSError, UnicodeDecodeError):  # gone, or not ours to read
                continue
            if marks <= set(variables) and any(word.endswith("/cxr-faith") for word in words):
                pids.append(int(folder.name))
        return pids

    def wait(self, job: str, state: str = "COMPLETED", seconds: float = 600) -> None:
        """Wait until a job, or every task of an array, is in that state; another end is a failure."""
        deadline = time.monotonic() + seconds
        while set(states := self.states(job)) != {state}:
            ended = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "BOOT_FAIL", "OUT_OF_MEMORY"}
            assert not set(states) & ended - {state}, f"{states}\n{self.log(job)}"
            assert time.monotonic() < deadline, f"{states}\n{self.log(job)}"
            time.sleep(0.3)


def venv() -> Path:
    """A folder whose bin/ has this Python and the `cxr-faith` command."""
    return Path(sys.prefix)


def free_ports(count: int) -> int:
    """First of `count` consecutive free ports."""
    for first in range(21000, 29000, 50):
        try:
            for port in range(first, first + count):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
            return first
        except OSError:
            continue
    pytest.skip("no free ports for a private Slurm")


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """State directory of a private cluster that is up."""
    missing = [name for name in DAEMONS if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") is None]
    if missing:
        packages = "slurmctld slurmd slurm-client munge"
        pytest.skip(f"no {', '.join(missing)} here: apt-get install --no-install-recommends {packages}")
    if os.geteuid() != 0 or subprocess.run(["unshare", "--mount", "--uts", "true"]).returncode:
        pytest.skip("a private Slurm needs root and mount namespaces")
    folder = tmp_path_factory.mktemp("cluster")
    variables = environment() | {"PORT": str(free_ports(3)), "REQUEUE_WAIT": "5"}
    try:
        subprocess.run([str(SCRIPT), "up", str(folder)], env=variables, check=True, timeout=180)
        yield folder
    finally:
        subprocess.run([str(SCRIPT), "down", str(folder)], env=variables, check=True, timeout=180)


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The config of a small run whose batches last longer than Slurm takes to send a signal."""
    return write_config(tmp_path_factory.mktemp("small"), steps=8)


@pytest.fixture(scope="session")
def reference(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run directory of an uninterrupted run of it."""
    return uninterrupted(small, tmp_path_factory.mktemp("reference") / "run")


@pytest.fixture
def slurm(cluster: Path, tmp_path: Path) -> Slurm:
    """The cluster, with a folder of its own for this test's outputs."""
    return Slurm(cluster, tmp_path)
