"""A large file is hashed once on a computer, and again when it has changed."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cxr_faith.storage import hashes
from cxr_faith.storage.hashes import file_hash


@pytest.fixture
def reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were read to the end, with a cache of the test's own; every file counts as large."""
    counted: list[Path] = []
    read = hashes._read

    def counting(path: Path) -> str:
        counted.append(path)
        return read(path)

    monkeypatch.setattr(hashes, "_read", counting)
    monkeypatch.setattr(hashes, "LARGE", 1)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return counted


def old_file(path: Path, content: bytes) -> Path:
    """A file whose change counts as long ago."""
    path.write_bytes(content)
    return path


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A ctime cannot be set back, so the wait for it is cut."""
    monkeypatch.setattr(hashes, "_SETTLED_SECONDS", -3600.0)


def test_a_large_file_is_read_once(tmp_path: Path, reads: list[Path]) -> None:
    file = old_file(tmp_path / "weights", b"a" * 100)
    expected = hashlib.blake2b(b"a" * 100).hexdigest()
    assert [file_hash(file) for _ in range(3)] == [expected] * 3
    assert reads == [file]
    assert not list((tmp_path / "cache").rglob("*.lock"))


def test_other_content_of_the_same_size_and_mtime_is_read_again(tmp_path: Path, reads: list[Path]) -> None:
    file = old_file(tmp_path / "weights", b"a" * 100)
    first, state = file_hash(file), file.stat()
    file.write_bytes(b"b" * 100)
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert file.stat().st_mtime_ns == state.st_mtime_ns
    assert file_hash(file) == hashlib.blake2b(b"b" * 100).hexdigest() != first
    assert len(reads) == 2


def test_a_file_that_has_just_changed_is_not_kept(tmp_path: Path, reads: list[Path], monkeypatch) -> None:
    monkeypatch.setattr(hashes, "_SETTLED_SECONDS", 3600.0)
    file = old_file(tmp_path / "weights", b"a" * 100)
    assert file_hash(file) == file_hash(file)
    assert len(reads) == 2


@pytest.mark.parametrize("damage", ["", "0" * 127, "g" * 128, "\udc80"])
def test_a_damaged_entry_is_replaced(tmp_path: Path, reads: list[Path], damage: str) -> None:
    file = old_file(tmp_path / "weights", b"a" * 100)
    expected = file_hash(file)
    [entry] = (tmp_path / "cache" / "cxr-faith" / "hashes").iterdir()
    entry.write_bytes(damage.encode(errors="surrogateescape"))
    assert [file_hash(file), file_hash(file)] == [expected] * 2
    assert len(reads) == 2


@pytest.mark.parametrize("place", ["a file", "a link"])
def test_without_a_cache_folder_files_are_read_each_time(tmp_path: Path, reads: list[Path], place: str) -> None:
    cache = tmp_path / "cache" / "cxr-faith"
    cache.mkdir(parents=True)
    if place == "a file":
        (cache / "hashes").write_text("")
    else:
        (tmp_path / "elsewhere").mkdir()
        (cache / "hashes").symlink_to(tmp_path / "elsewhere")
    file = old_file(tmp_path / "weights", b"a" * 100)
    assert file_hash(file) == file_hash(file) == hashlib.blake2b(b"a" * 100).hexdigest()
    assert len(reads) == 2 and not list(tmp_path.glob("elsewhere/*"))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="gone"):
        file_hash(tmp_path / "gone")


def test_ranks_of_a_node_wait_for_the_first(tmp_path: Path) -> None:
    """Four processes at once; each says on stdout when it reads the file."""
    file = old_file(tmp_path / "weights", b"a" * 100)
    program = """if True:
        import sys, time
        from pathlib import Path
        from cxr_faith.storage import hashes
        read, hashes.LARGE, hashes._SETTLED_SECONDS = hashes._read, 1, -3600.0
        def slow(path):
            print("read", flush=True)
            time.sleep(1)
            return read(path)
        hashes._read = slow
        print(hashes.file_hash(Path(sys.argv[1])))
    """
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    command = [sys.executable, "-c", program, str(file)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) for _ in range(4)]
    words = [word for process in started for word in process.communicate()[0].split()]
    expected = hashlib.blake2b(b"a" * 100).hexdigest()
    assert words.count("read") == 1 and words.count(expected) == 4
