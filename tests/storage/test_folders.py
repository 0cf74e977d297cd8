"""A folder is replaced so that the old one or the new one is always there, complete."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cxr_faith.storage import folders
from cxr_faith.storage.folders import replacing_folder
from cxr_faith.storage.locks import HeldError
from tests.runs import ROOT, environment

# Kills itself at the n-th call that changes names or files, before it or after it.
REPLACES = """
import os, shutil, signal, sys
from pathlib import Path
from cxr_faith.storage import folders
path, moment, when, exchanges = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4] == "exchanges"
calls = 0
def counted(real):
    def call(*words, **more):
        global calls
        calls += 1
        if calls == moment and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*words, **more)
        if calls == moment:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    return call
for name in ("rename", "replace", "unlink", "rmdir", "mkdir", "fsync"):
    setattr(os, name, counted(getattr(os, name)))
folders._exchange = counted(folders._exchange if exchanges else lambda first, second: False)
with folders.replacing_folder(path, lambda: None) as new:
    for name in ("a", "b"):
        (new / name).write_text("new")
print(calls)
"""


def content(path: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in path.iterdir()}


@pytest.mark.parametrize("way", ["exchanges", "two renames"])
def test_a_kill_at_any_call_loses_nothing(way: str, tmp_path: Path) -> None:
    path = tmp_path / "manifest"
    old, new = {"a": "old", "b": "old"}, {"a": "new", "b": "new"}

    def replace(moment: int, when: str) -> "subprocess.CompletedProcess[str]":
        words = [sys.executable, "-S", "-c", REPLACES, str(path), str(moment), when, way]
        return subprocess.run(words, env=environment(), cwd=ROOT, capture_output=True, text=True)

    path.mkdir()
    whole = replace(0, "")
    assert whole.returncode == 0, whole.stderr
    outcomes = set()
    for moment in range(1, int(whole.stdout) + 1):
        for when in ("before", "after"):
            for name in old:
                (path / name).write_text("old")
            done = replace(moment, when)
            assert done.returncode in (-signal.SIGKILL, 0), done.stderr  # 0: that call failed, as it may
            if way == "exchanges":  # the name is never gone
                outcomes.add(content(path)["a"])
                assert content(path) in (old, new)
            try:
                with replacing_folder(path, lambda: None):  # the next start clears up first
                    outcomes.add(content(path)["a"])
                    assert content(path) in (old, new)
                    raise KeyboardInterrupt
            except KeyboardInterrupt:
                pass
            assert [left.name for left in tmp_path.iterdir()] == ["manifest"]
    assert outcomes == {"old", "new"}


def test_an_error_between_two_renames_brings_the_old_folder_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, real = tmp_path / "out", os.rename
    path.mkdir()
    (path / "a").write_text("old")

    def rename(source: Path, target: Path) -> None:
        if target == path and source.suffix == ".tmp":
            raise OSError(errno.EIO, "Input/output error", str(target))
        real(source, target)

    monkeypatch.setattr(folders, "_exchange", lambda first, second: False)
    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(OSError, match="Input/output"), replacing_folder(path, lambda: None) as new:
        (new / "a").write_text("new")
    assert content(path) == {"a": "old"} and os.listdir(tmp_path) == ["out"]


def test_this_file_system_exchanges_folders_in_one_step(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    if not folders._exchange(tmp_path / "a", tmp_path / "b"):
        pytest.skip("no renameat2 with RENAME_EXCHANGE here")
    assert (tmp_path / "a" / "b").exists() and (tmp_path / "b" / "a").exists()


def test_an_error_of_the_exchange_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as error:
        folders._exchange(tmp_path / "a", tmp_path / "b")
    assert error.value.filename == str(tmp_path / "b")


def test_one_process_at_a_time_replaces_a_folder(tmp_path: Path) -> None:
    with (
        replacing_folder(tmp_path / "out", lambda: None) as new,
        pytest.raises(HeldError),
        replacing_folder(tmp_path / "out", lambda: None),
    ):
        pass
    assert not new.exists() and os.listdir(tmp_path) == ["out"]
