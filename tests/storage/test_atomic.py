"""A file is written whole or not at all, and never through a link that somebody planted."""

import errno
import os
import re
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cxr_faith.storage import atomic
from cxr_faith.storage.atomic import append, open_shared, own_folder, read_file, replacing, write_atomic
from tests.runs import ROOT, environment

PACKAGE = ROOT / "cxr_faith"


BY_ITSELF = re.compile(
    r"\.write_text\(|\.write_bytes\(|open\([^)]*[\"'][wa]b?\+?[\"']|shutil\.(copy|move)\w*\(.*\)"
    r"|os\.(replace|rename)\(|FileLock|to_parquet\(|savefig\(f?[\"']|save_file\("
)


def test_no_other_module_writes_files_by_itself() -> None:
    lines = {
        f"{file.relative_to(PACKAGE)}: {line.strip()}"
        for file in PACKAGE.rglob("*.py")
        if file.parent.name != "storage"
        for line in file.read_text(encoding="utf-8").splitlines()
        if BY_ITSELF.search(line) and not line.lstrip().startswith("#")
    }
    # An example, a sentence, a copy into an open file, and a switch of the kernel.
    allowed = ("explanation.plot().savefig", "not save_file", "shutil.copyfileobj(original, copy)", "clear.write_text")
    assert {line for line in lines if not any(text in line for text in allowed)} == set()


def test_a_planted_link_is_replaced_and_what_it_points_to_stays(tmp_path: Path) -> None:
    victim, file = tmp_path / "victim", tmp_path / "summary.json"
    victim.write_text("mine")
    # The names of temporary files that versions before took: host and process are no secret.
    planted = [file, tmp_path / f".summary.json.{socket.gethostname()}.{os.getpid()}.tmp", tmp_path / "summary.partial"]
    for link in planted:
        link.symlink_to(victim)
    write_atomic(file, "results")
    assert victim.read_text() == "mine" and file.read_text() == "results" and not file.is_symlink()


def test_two_temporary_names_differ_and_cannot_be_guessed(tmp_path: Path) -> None:
    names = {atomic.temporary_name(tmp_path / "a").name for _ in range(100)}
    assert len(names) == 100 and all(re.fullmatch(r"\.a\.[0-9a-f]{16}\.tmp", name) for name in names)


def test_a_temporary_name_that_is_taken_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    monkeypatch.setattr(atomic, "temporary_name", lambda path: tmp_path / "guessed")
    (tmp_path / "guessed").symlink_to(victim)
    with pytest.raises(FileExistsError):
        write_atomic(tmp_path / "a", "results")
    assert victim.read_text() == "mine" and not (tmp_path / "a").exists()


@pytest.mark.parametrize("kind", ["symbolic link", "dangling link", "hard link", "FIFO", "socket", "folder"])
def test_a_shared_file_is_opened_only_if_it_is_a_plain_one(kind: str, tmp_path: Path) -> None:
    victim, file = tmp_path / "victim", tmp_path / "rank-0.jsonl"
    victim.write_text("mine")
    with socket.socket(socket.AF_UNIX) as server:
        match kind:
            case "symbolic link":
                file.symlink_to(victim)
            case "dangling link":
                file.symlink_to(tmp_path / "nothing")
            case "hard link":
                file.hardlink_to(victim)
            case "FIFO":
                os.mkfifo(file)
            case "socket":
                server.bind(str(file))
            case "folder":
                file.mkdir()
        for flags in (os.O_RDWR, os.O_WRONLY | os.O_APPEND):
            with pytest.raises(OSError) as refused:
                open_shared(file, flags)
            assert refused.value.filename == str(file)
            assert kind == "folder" or "delete it" in str(refused.value)
    assert victim.read_text() == "mine" and not (tmp_path / "nothing").exists()


def test_text_is_appended(tmp_path: Path) -> None:
    for word in ("ä\n", "b\n"):
        append(tmp_path / "lines", word)
    assert (tmp_path / "lines").read_text(encoding="utf-8") == "ä\nb\n"


def test_a_run_directory_may_be_a_link_and_its_folders_may_not(tmp_path: Path) -> None:
    (tmp_path / "large disk").mkdir()
    (tmp_path / "elsewhere").mkdir()
    run_dir = tmp_path / "run"
    run_dir.symlink_to(tmp_path / "large disk")
    assert own_folder(run_dir, "report", "pictures").is_dir()
    for target in ("elsewhere", "nothing"):
        (run_dir / "records").unlink(missing_ok=True)
        (run_dir / "records").symlink_to(tmp_path / target)
        with pytest.raises(OSError, match="is a link") as refused:
            own_folder(run_dir, "records", "deeper")
        assert refused.value.filename == str(run_dir / "records")
    assert not any((tmp_path / "elsewhere").iterdir()) and not (tmp_path / "nothing").exists()


def test_a_fifo_in_place_of_a_file_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "doctor.json")
    with pytest.raises(OSError, match="not a regular file"):
        read_file(tmp_path / "doctor.json")
    write_atomic(tmp_path / "doctor.json", "{}")
    assert read_file(tmp_path / "doctor.json") == b"{}"


def test_a_full_disk_keeps_the_old_file_and_leaves_no_other(small_disk: Callable[[str], Path]) -> None:
    disk = small_disk("64k")
    write_atomic(disk / "summary.json", "old")
    with pytest.raises(OSError) as full:
        write_atomic(disk / "summary.json", "x" * 200_000)
    assert (full.value.errno, full.value.filename) == (errno.ENOSPC, str(disk / "summary.json"))
    assert {file.name: file.read_text() for file in disk.iterdir()} == {"summary.json": "old"}


def test_an_error_in_the_block_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), replacing(tmp_path / "a" / "b") as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert list((tmp_path / "a").iterdir()) == []


KILLED = """
import os, signal, sys
from pathlib import Path
from cxr_faith.storage import atomic
name, file = sys.argv[1], Path(sys.argv[2])
real = getattr(os, name)
def killed(*words, **more):
    if name == "replace" and sys.argv[3] == "after":
        real(*words, **more)
    os.kill(os.getpid(), signal.SIGKILL)
setattr(os, name, killed)
atomic.write_atomic(file, "new" * 1000)
"""


@pytest.mark.parametrize(
    ("call", "when", "content"),
    [("fsync", "before", "old"), ("replace", "before", "old"), ("replace", "after", "new" * 1000)],
)
def test_a_kill_leaves_the_old_or_the_new_file(call: str, when: str, content: str, tmp_path: Path) -> None:
    file = tmp_path / "summary.json"
    file.write_text("old")
    words = [sys.executable, "-c", KILLED, call, str(file), when]
    assert subprocess.run(words, env=environment(), cwd=ROOT).returncode == -9
    assert file.read_text() == content
    atomic.remove_leftovers(file)
    assert [path.name for path in tmp_path.iterdir()] == ["summary.json"]


def test_files_have_the_modes_that_the_umask_leaves_also_when_they_replace_others(tmp_path: Path) -> None:
    (tmp_path / "a").touch(0o600)
    before = os.umask(0o027)
    try:
        write_atomic(tmp_path / "a", "text")
        append(tmp_path / "b", "text")
        own_folder(tmp_path, "c")
    finally:
        os.umask(before)
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("a", "b", "c")]
    assert modes == [0o640, 0o640, 0o750]
