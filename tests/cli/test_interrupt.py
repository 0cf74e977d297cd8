"""Ctrl-C at any moment: one line, status 130, and no process left."""

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cxr_faith.data.manifest import bundled_manifest
from tests.runs import ROOT, alive, children, environment, parts, ranks, small, wait_for, write_config

__all__ = ["small"]

PICTURE = sorted((bundled_manifest().parent / "images").iterdir())[0]


def begin(*words: str) -> "subprocess.Popen[str]":
    """A command in a process group of its own, as a shell starts it."""
    return subprocess.Popen(
        [sys.executable, "-m", "cxr_faith", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment(),
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) and None,
    )


def has_library(process: "subprocess.Popen[str]", name: str) -> bool:
    """Whether a process has begun to load a library with C code."""
    return name in Path(f"/proc/{process.pid}/maps").read_text()


def one_line(process: "subprocess.Popen[str]") -> str:
    """The line of an interrupted command."""
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130 and stderr.count("\n") == 1, (process.returncode, stderr)
    assert stderr.startswith("cxr-faith: interrupted; to "), stderr
    return stderr


COMMANDS = {
    "evaluate": ["evaluate", "--config", "demo", "--run_dir", "RUN"],
    "report": ["report", "RUN"],
    "doctor": ["doctor", "--config", "demo", "--run_dir", "RUN"],
    "sanity": ["sanity", "--config", "demo", "--run_dir", "RUN"],
    "explain": ["explain", str(PICTURE), "--question", "Is there a nodule?", "--out", "RUN/out"],
    "prepare": ["prepare", "phantom", "--root", "RUN/root", "--out", "RUN/made", "--patients", "4000"],
    "bench": ["bench", "--out", "RUN/bench.json"],
    "fit-sae": ["fit-sae", "--config", "sae_bundled", "--out", "RUN/sae", "--log_dir", "RUN/log"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_ctrl_c_while_libraries_load(name: str, tmp_path: Path) -> None:
    process = begin(*(word.replace("RUN", str(tmp_path)) for word in COMMANDS[name]))
    wait_for(lambda: has_library(process, "numpy" if name in ("report", "prepare") else "libtorch"), process)
    process.send_signal(signal.SIGINT)
    verb = "resume" if name == "evaluate" else "start again"
    assert f"to {verb}: cxr-faith {name} " in one_line(process)


@pytest.mark.parametrize("way", ["module", "script"])
def test_ctrl_c_as_soon_as_a_command_begins(way: str, tmp_path: Path) -> None:
    """Ctrl-C at each import that a command makes before it loads a library, the first one included."""
    start = "from cxr_faith.__main__ import main\nsys.exit(main())"
    if way == "module":
        start = "import runpy\nrunpy.run_module('cxr_faith', run_name='__main__', alter_sys=True)"
    script = tmp_path / "cxr-faith"
    script.write_text(
        f"""
import os, signal, sys
class Press:
    at = int(os.environ["AT"])
    seen = 0
    def find_spec(self, name, path=None, target=None):
        self.seen += name.partition(".")[0] not in ("runpy", "cxr_faith") or name == "cxr_faith.cli.interrupt"
        if self.seen > self.at:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Press())
{start}
"""
    )
    for at in (0, 1, 3, 10):
        words = ["report", "a run", "--format", "x'y"]
        process = subprocess.run(
            [sys.executable, str(script), *words], env=environment() | {"AT": str(at)}, capture_output=True, text=True
        )
        told = f"cxr-faith: interrupted; to start again: {shlex.join(['cxr-faith', *words])}\n"
        assert (process.returncode, process.stderr) == (130, told), at


def test_what_the_first_handler_follows_stays_as_it_was() -> None:
    """A program that imports the command line keeps its own Ctrl-C."""
    code = "import signal; from cxr_faith.__main__ import main; main(['--version']); print(signal.getsignal(2))"
    printed = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True).stdout
    assert "default_int_handler" in printed


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.5, 4.0])
@pytest.mark.parametrize("name", ["doctor", "sanity", "explain", "prepare", "bench", "fit-sae"])
def test_ctrl_c_while_a_command_works(name: str, seconds: float, tmp_path: Path) -> None:
    process = begin(*(word.replace("RUN", str(tmp_path)) for word in COMMANDS[name]))
    wait_for(lambda: has_library(process, "libtorch") or has_library(process, "numpy"), process)
    time.sleep(seconds)
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        one_line(process)
    else:
        assert process.returncode == 0 and name == "explain", process.communicate()
    # Of what the command had begun, nothing is left: no temporary folder and no hidden file.
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith((".", "doctor-"))] == []


def test_ctrl_c_during_a_run_says_how_to_go_on(tmp_path: Path) -> None:
    config, run_dir = write_config(tmp_path, steps=40), tmp_path / "a run"
    process = begin("evaluate", "--config", str(config), "--run_dir", str(run_dir))
    wait_for(lambda: parts(run_dir), process)
    process.send_signal(signal.SIGINT)
    assert one_line(process) == (
        f"cxr-faith: interrupted; to resume: cxr-faith evaluate --config {config} --run_dir '{run_dir}'\n"
    )
    assert not list(run_dir.rglob("*.tmp"))


@pytest.mark.slow
@pytest.mark.parametrize("to_all", [True, False])
def test_ctrl_c_ends_all_ranks(to_all: bool, tmp_path: Path) -> None:
    config, run_dir = write_config(tmp_path, steps=40), tmp_path / "run"
    words = ["evaluate", "--config", str(config), "--run_dir", str(run_dir), *ranks(2), "--data.num_workers", "1"]
    process = begin(*words)
    wait_for(lambda: parts(run_dir), process)
    everyone = children(process.pid)
    if to_all:  # as a terminal does
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.send_signal(signal.SIGINT)
    assert one_line(process).strip().endswith(" ".join(words))
    wait_for(lambda: not any(map(alive, everyone)), seconds=15)
    assert len(everyone) >= 2


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.0, 1.0, 3.0])
def test_ctrl_c_while_ranks_start(seconds: float, small: Path, tmp_path: Path) -> None:
    process = begin("evaluate", "--config", str(small), "--run_dir", str(tmp_path / "run"), *ranks(2))
    wait_for(lambda: children(process.pid), process)
    time.sleep(seconds)
    everyone = children(process.pid)
    process.send_signal(signal.SIGINT)
    assert "; to resume: cxr-faith evaluate" in one_line(process)
    wait_for(lambda: not any(map(alive, everyone)), seconds=15)


def test_a_second_ctrl_c_ends_a_process_that_hangs() -> None:
    """The main thread catches everything and never ends: the second Ctrl-C ends the process at once."""
    code = """
import time
from cxr_faith.cli import interrupt
with interrupt.handled("interrupted; to start again: x", for_good=True):
    word = "up"
    while True:
        try:
            print(word, flush=True)
            time.sleep(60)
        except BaseException:
            word = "told"
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) and None,
    )
    assert process.stdout is not None
    for expected in ("up", "told"):
        assert process.stdout.readline() == f"{expected}\n"
        process.send_signal(signal.SIGINT)
    begun = time.monotonic()
    one_line(process)
    assert time.monotonic() - begun < 5


@pytest.mark.slow
def test_a_request_to_stop_is_answered_at_once(tmp_path: Path) -> None:
    """SIGTERM during the first batch: one line says so, long before the batch is done."""
    config = write_config(tmp_path)
    process = begin("evaluate", "--config", str(config), "--run_dir", str(tmp_path / "run"))
    wait_for(lambda: has_library(process, "libtorch"), process)
    process.terminate()
    assert process.stderr is not None
    begun = time.monotonic()
    assert process.stderr.readline() == "cxr-faith: SIGTERM: the run stops after the batch that it computes\n"
    assert time.monotonic() - begun < 2
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 75 and "to resume: " in stderr
