"""`evaluate` held at a chosen step of a chosen process, whoever starts it: Lightning, or the tests' fork server."""

import json
import os
import runpy
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

from tests.runs import ROOT, command, environment, wait_for

FOLDER = ROOT / "tests" / "run" / "hold"
PATHS = f"{FOLDER}{os.pathsep}{ROOT}"


@dataclass(frozen=True)
class Step:
    """A step of a process: its n-th event of a kind, as `sys.audit` names it.

    Attributes:
        event: `import`, `open`, `os.rename` (to that name) or `os.remove`; the process is held before it happens.
        name: a pattern of the module or of the file.
        nth: which of them.
        rank: the rank that is held, or a process that decodes pictures for it.
        times: how often it is held: again at each of the next such events.
    """

    event: str
    name: str
    nth: int = 1
    rank: int = 0
    times: int = 1


class Mark:
    """The file that says that a process is held, and by whose removal it goes on."""

    def __init__(self, step: Step, path: Path) -> None:
        self._path, self._times = path, step.times
        self.variables = {"HOLD": json.dumps(vars(step) | {"mark": str(path)}), "PYTHONPATH": PATHS}

    def wait(self, ended: Callable[[], bool], seconds: float = 300) -> bool:
        """Wait until the process is held or has ended; returns whether it is held."""
        wait_for(lambda: self._path.exists() or ended(), seconds=seconds)
        return self._path.exists()

    def let_go(self) -> None:
        """Let the held process go on; unless it is held several times, no other one is held any more."""
        if self._times == 1:
            self._path.with_name(f"{self._path.name}.over").touch()
        self._path.unlink(missing_ok=True)

    @contextmanager
    def in_environment(self) -> Iterator[None]:
        """Processes that are started inside the block obey the mark."""
        with patch.dict(os.environ, self.variables):
            yield


def obey_mark() -> None:
    """In a process that was forked, which has read no `sitecustomize`: do what that does."""
    if "HOLD" in os.environ:
        os.environ["PYTHONPATH"] = PATHS  # for the processes that it starts
        runpy.run_path(str(FOLDER / "sitecustomize.py"))


class Launched:
    """A command held at a step, and the processes that it has started.

    Attributes:
        process: the command.
        mark: of its step.
    """

    def __init__(self, words: list[str], step: Step | None, folder: Path) -> None:
        """Start the command; `folder` is for its output and for the mark of its step."""
        folder.mkdir(parents=True, exist_ok=True)
        number = len(list(folder.glob("output-*")))
        self._output, self._id = folder / f"output-{number}", f"HELD_RUN={folder}/{number}"
        environ = environment() | dict([self._id.split("=")])
        if step is not None:
            self.mark = Mark(step, folder / f"mark-{number}")
            environ |= self.mark.variables
        with self._output.open("w") as file:
            self.process = subprocess.Popen(words, env=environ, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT)

    @property
    def output(self) -> str:
        """What all its processes have printed so far."""
        return self._output.read_text()

    def wait_until_held(self) -> None:
        """Wait for the step."""
        held = self.mark.wait(lambda: self.process.poll() is not None)
        assert held, f"ended with {self.process.returncode} before the step\n{self.output}"

    def family(self) -> dict[int, str]:
        """Living processes of the command: id → `rank 0`, `worker 0`, `decoder 0`, `rank 1`, …"""
        members = dict[int, tuple[int, str, bool]]()
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                variables = (folder / "environ").read_text().split("\0")
                parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
                decodes = "decoder_process" in (folder / "cmdline").read_text()
            except (OSError, UnicodeDecodeError):
                continue
            if self._id in variables:
                ranks = [word.removeprefix("LOCAL_RANK=") for word in variables if word.startswith("LOCAL_RANK=")]
                members[int(folder.name)] = (parent, ranks[0] if ranks else "0", decodes)
        kinds = {}
        for pid, (parent, rank, decodes) in members.items():
            forked = parent in members and members[parent][1] == rank
            kinds[pid] = f"{'decoder' if decodes else 'worker' if forked else 'rank'} {rank}"
        return kinds

    def kill(self, victim: str) -> list[int]:
        """SIGKILL to a member of the family, or to `all` of it; returns whom it hit."""
        hit = [pid for pid, name in self.family().items() if victim in (name, "all")]
        for pid in hit:
            os.kill(pid, signal.SIGKILL)
        return hit

    def wait_for_end(self, seconds: float = 300) -> int:
        """Wait until no process of the command is left; returns the command's status."""
        status = self.process.wait(seconds)
        wait_for(lambda: not self.family(), seconds=seconds)
        return status


@contextmanager
def launched(config: Path, run_dir: Path, step: Step | None, folder: Path, *options: str) -> Iterator[Launched]:
    """`evaluate` held at a step; whatever the test does, no process outlives the block."""
    run = Launched(command(config, run_dir, *options), step, folder)
    try:
        yield run
    finally:
        run.kill("all")
        run.process.wait()
