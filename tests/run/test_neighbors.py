"""What live processes do to each other: two runs in one directory, a report meanwhile, caches that two jobs build."""

import errno
import fcntl
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from cxr_faith.__main__ import main
from cxr_faith.data.manifest import bundled_manifest
from cxr_faith.records import done_samples
from tests.forked import start_process, start_ranks, wait_for_ranks
from tests.held import Mark, Step, launched
from tests.runs import ROOT, SAMPLES, assert_same, command, environment, parts, ranks, run_here

pytestmark = pytest.mark.cluster

A_WHILE = 2.0
"""Seconds in which a process that need not wait would go on."""


def temporary(folder: Path) -> list[Path]:
    """Temporary files."""
    return [path for path in folder.rglob("*") if path.name.endswith((".tmp", ".partial"))]


def start_held(config: Path, run_dir: Path, step: Step, folder: Path, *options: str) -> tuple[BaseProcess, Mark]:
    """`evaluate` in a process of its own, held at a step."""
    mark = Mark(step, folder / f"mark-{run_dir.name}")
    with mark.in_environment():
        (process,) = start_ranks(config, run_dir, 1, folder / f"output-{run_dir.name}", *options)
    return process, mark


def test_at_each_step_a_second_run_is_refused_and_a_report_is_right(
    small: Path, reference: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The report of a run that is going on has its numbers so far, and the run takes no notice of it."""
    run_dir, steps = tmp_path / "run", 0
    renames = Step("os.rename", r"/(part-.*[036]|metrics|summary|index)\.(parquet|json|md|html)$", times=100)
    process, mark = start_held(small, run_dir, renames, tmp_path)
    while mark.wait(lambda: not process.is_alive()):
        assert run_here(small, run_dir) == 2
        (line,) = capfd.readouterr().err.strip().splitlines()
        assert line.startswith(f"cxr-faith: error: {run_dir} is in use by process {process.pid} on ")
        assert main(["report", str(run_dir)]) == 0
        output = "".join(capfd.readouterr())
        assert "Traceback" not in output and "unreadable" not in output
        summary, done = json.loads((run_dir / "summary.json").read_text()), done_samples(run_dir)
        assert summary["n_samples"] == len(done) and summary["partial"] is (len(done) < SAMPLES)
        mark.let_go()
        steps += 1
    wait_for_ranks([process], tmp_path / "output-run")
    assert steps >= 7
    assert_same(run_dir, reference)
    assert temporary(run_dir) == []


def evaluate_without_locks(arguments: list[str], number: int) -> None:
    """As on a file system that has no locks."""

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    fcntl.flock = refuse
    sys.exit(main(arguments))


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP], ids=errno.errorcode.get)
def test_two_runs_at_once_without_locks_are_warned_and_never_mix(
    number: int, small: Path, reference: Path, tmp_path: Path
) -> None:
    run_dir, outputs = tmp_path / "run", [tmp_path / "first", tmp_path / "second"]
    mark = Mark(Step("os.rename", r"/part-", nth=3), tmp_path / "mark")
    arguments = command(small, run_dir)[3:]
    with mark.in_environment():
        first = start_process(outputs[0], evaluate_without_locks, arguments, number)
    assert mark.wait(lambda: not first.is_alive()), outputs[0].read_text()
    second = start_process(outputs[1], evaluate_without_locks, arguments, number)
    wait_for_ranks([second], outputs[1])
    mark.let_go()
    wait_for_ranks([first], outputs[0])
    assert all("no file locks on this file system" in output.read_text() for output in outputs)
    assert_same(run_dir, reference)
    assert temporary(run_dir) == []


@pytest.mark.parametrize("fate", ["goes on", "killed"])
@pytest.mark.parametrize(
    ("cache", "step"),
    [
        ("manifest", Step("os.rename", r"/\.manifest_cache/.*\.arrow$")),
        ("pictures", Step("open", r"\.jpg$")),
        ("pictures", Step("os.rename", r"/images-.*\.arrow$")),
    ],
    ids=["manifest", "pictures", "pictures, complete"],
)
def test_two_jobs_make_one_cache_and_one_is_killed_at_it(
    cache: str, step: Step, fate: str, small: Path, reference: Path, tmp_path: Path
) -> None:
    """The other one waits, and makes it anew if need be."""
    data = tmp_path / "data" / small.parent.name  # the summary names the manifest with its folder
    manifest, folder = data / "manifest.parquet", data / ".manifest_cache"
    data.mkdir(parents=True)
    shutil.copyfile(small.parent / "manifest.parquet", manifest)
    options = ["--data.manifest", str(manifest), "--data.data_root", str(bundled_manifest().parent)]
    if cache == "pictures":
        folder = tmp_path / "pictures"
        options += ["--data.cache", str(folder)]
    first, mark = start_held(small, tmp_path / "first", step, tmp_path, *options)
    assert mark.wait(lambda: not first.is_alive()), (tmp_path / "output-first").read_text()
    (second,) = start_ranks(small, tmp_path / "second", 1, tmp_path / "output-second", *options)
    time.sleep(A_WHILE)
    assert second.is_alive() and not parts(tmp_path / "second")
    if fate == "killed":
        first.kill()
    mark.let_go()
    wait_for_ranks([first, second], tmp_path / "output-second", [-signal.SIGKILL if fate == "killed" else 0, 0])
    assert_same(tmp_path / "second", reference)
    assert len(list(folder.glob("*.arrow"))) == 1
    assert temporary(folder) == []
    assert run_here(small, tmp_path / "first", *options) == 0
    assert_same(tmp_path / "first", reference)


def evaluate_with_umask(arguments: list[str], umask: int) -> None:
    """`evaluate` under a umask."""
    os.umask(umask)
    sys.exit(main(arguments))


@pytest.mark.parametrize("umask", [0o077, 0o027], ids=oct)
def test_modes_of_all_files_are_what_the_umask_leaves(umask: int, small: Path, tmp_path: Path) -> None:
    """Also of merged files, of a resumed run, of pictures and of both caches."""
    data = tmp_path / "data"
    data.mkdir(mode=0o777 & ~umask)
    shutil.copyfile(small.parent / "manifest.parquet", data / "manifest.parquet")
    options = ["--data.manifest", str(data / "manifest.parquet"), "--data.data_root", str(bundled_manifest().parent)]
    options += ["--data.cache", str(data / "cache"), "--show_images", "true"]
    for more in (["--limit", "3"], []):
        arguments = command(small, data / "run", *options, *more)[3:]
        process = start_process(tmp_path / "output", evaluate_with_umask, arguments, umask)
        wait_for_ranks([process], tmp_path / "output")
    made = [path for path in data.rglob("*") if path.name != "manifest.parquet"]
    assert len(made) > 25
    modes = {str(path.relative_to(data)): stat.S_IMODE(path.stat().st_mode) for path in made}
    expected = {name: (0o777 if (data / name).is_dir() else 0o666) & ~umask for name in modes}
    odd = {name: oct(mode) for name, mode in modes.items() if mode != expected[name]}
    assert odd == {}


def test_workers_with_a_dev_shm_that_is_too_small(small: Path, reference: Path, tmp_path: Path) -> None:
    """64 KiB, where Docker gives 64 MB: pictures need none of it. 8 KiB: workers cannot start, and a line says so."""
    if os.geteuid() != 0 or subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
        pytest.skip("a private /dev/shm needs root and mount namespaces")
    for size, status in (("8k", 1), ("64k", 0)):
        mount = f'mount -t tmpfs -o size={size} tmpfs /dev/shm && exec "$@"'
        words = command(small, tmp_path / "run", "--data.num_workers", "1")
        run = subprocess.run(
            ["unshare", "--mount", "sh", "-c", mount, "sh", *words],
            env=environment(),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert run.returncode == status, run.stdout + run.stderr
        if status:
            (line,) = [line for line in run.stderr.splitlines() if line.startswith("cxr-faith: error: ")]
            assert "/dev/shm" in line and "set data.num_workers to 0" in line and "disk" not in line
    assert_same(tmp_path / "run", reference)


def test_a_disk_that_is_full_for_one_of_two_ranks(
    small: Path, reference: Path, tmp_path: Path, small_disk: Callable[[str], Path]
) -> None:
    """Lightning's ranks: the one that cannot write says why, both end, and nothing is half there."""
    disk = small_disk("4m")
    run_dir, filler = disk / "run", disk / "filler"
    with launched(small, run_dir, Step("os.rename", r"/part-", rank=1), tmp_path / "output", *ranks(2)) as run:
        run.wait_until_held()
        with filler.open("wb", buffering=0) as file, suppress(OSError):  # the other rank writes meanwhile
            while file.write(bytes(4096)):
                pass
        run.mark.let_go()
        assert run.wait_for_end() in (1, -signal.SIGKILL)
        lines = [line for line in run.output.splitlines() if line.startswith("cxr-faith: error: ")]
        assert any(str(run_dir) in line and "No space left on device" in line for line in lines), run.output
        assert "Traceback" not in run.output, run.output
    assert temporary(run_dir) == []
    filler.unlink()
    assert run_here(small, run_dir) == 0
    assert_same(run_dir, reference)
