"""Caches that are torn, damaged, full, shared or made by a process that was killed; and what a look-up costs."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from cxr_faith.data.cache import ImageCache
from cxr_faith.data.manifest import ManifestError, bundled_manifest, open_manifest
from cxr_faith.data.path_index import PathIndex
from tests.runs import ROOT, environment

SIZE = (40, 50)
PATHS = [f"{number}.png" for number in range(70)]  # more than one batch

TEAR: dict[str, Callable[[bytes], bytes]] = {
    "cut off": lambda whole: whole[: len(whole) // 2],
    "last byte missing": lambda whole: whole[:-1],
    "empty": lambda whole: b"",
    "zeros of the same size": lambda whole: bytes(len(whole)),
    "no Arrow file": lambda whole: b"hello",
}


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    return Path(shutil.copy(bundled_manifest(), tmp_path / "manifest.parquet"))


def arrow_of(manifest: Path) -> Path:
    (arrow,) = (manifest.parent / ".manifest_cache").glob("*.arrow")
    return arrow


@pytest.mark.parametrize("tear", TEAR)
def test_a_torn_arrow_file_of_a_manifest_is_made_again(tear: str, manifest: Path) -> None:
    rows = open_manifest(manifest).to_list()
    arrow = arrow_of(manifest)
    whole = arrow.read_bytes()
    arrow.write_bytes(TEAR[tear](whole))
    assert open_manifest(manifest).to_list() == rows
    assert arrow.read_bytes() == whole
    assert sorted(path.name for path in arrow.parent.iterdir()) == [".gitignore", arrow.name]


def test_a_damaged_byte_in_an_arrow_file_is_noticed(manifest: Path) -> None:
    rows = open_manifest(manifest).to_list()
    arrow = arrow_of(manifest)
    content = bytearray(arrow.read_bytes())
    content[len(content) // 2] ^= 0xFF
    arrow.write_bytes(content)
    assert open_manifest(manifest).to_list() == rows


def test_the_arrow_file_of_another_manifest_or_version_is_made_again(manifest: Path) -> None:
    rows = open_manifest(manifest).to_list()
    arrow = arrow_of(manifest)
    whole = arrow.read_bytes()
    table = pa.ipc.open_stream(whole).read_all()
    for other in (table.slice(0, 3), table.drop_columns(["finding"])):
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, other.schema) as writer:
            writer.write_table(other)
        arrow.write_bytes(sink.getvalue().to_pybytes())
        assert open_manifest(manifest).to_list() == rows
        assert arrow.read_bytes() == whole


def test_a_manifest_whose_cache_has_no_room_uses_the_next_folder_or_says_what_to_do(
    small_disk: Callable[[str], Path], tmp_path: Path
) -> None:
    disk = small_disk("64k")
    manifest = Path(shutil.copy(bundled_manifest(), disk / "m.parquet"))
    (disk / "filled").write_bytes(bytes(os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize))
    with pytest.raises(ManifestError, match=r"cannot write its cache to .*No space left on device; free space there"):
        open_manifest(manifest)
    assert len(open_manifest(manifest, tmp_path / "run" / "cache")) == 72
    assert not list((disk / ".manifest_cache").glob("*")) or not list((disk / ".manifest_cache").glob(".*.tmp"))


def test_links_planted_in_the_folder_of_a_cache_are_named_or_replaced(manifest: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    open_manifest(manifest)
    arrow = arrow_of(manifest)
    arrow.unlink()
    arrow.symlink_to(victim)
    for name in (".gitignore", f"{arrow.name}.lock", f"{arrow.stem}.partial"):
        (arrow.parent / name).unlink(missing_ok=True)
        (arrow.parent / name).symlink_to(victim)
    lock = arrow.parent / f".{arrow.name}.lock"
    lock.symlink_to(victim)
    with pytest.raises(ManifestError, match=f"{lock}: is a link that somebody may have planted; delete it"):
        open_manifest(manifest)
    lock.unlink()
    assert len(open_manifest(manifest)) == 72
    assert victim.read_text() == "mine" and arrow.is_file() and not arrow.is_symlink()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Gray pictures, and one that cannot be read."""
    rng = np.random.default_rng(0)
    (tmp_path / "root").mkdir()
    for path in PATHS:
        Image.fromarray(rng.integers(0, 256, (60, 90), np.uint8)).save(tmp_path / "root" / path)
    (tmp_path / "root" / PATHS[3]).write_bytes(b"\x89PNG")
    return tmp_path / "root"


def pictures(cache: ImageCache) -> list[torch.Tensor | None]:
    entries = [cache.get(path) for path in PATHS]
    return [None if entry is None else entry[0] for entry in entries]


def same(one: list[torch.Tensor | None], other: list[torch.Tensor | None]) -> bool:
    pairs = zip(one, other, strict=True)
    return all((a is None and b is None) or (a is not None and b is not None and torch.equal(a, b)) for a, b in pairs)


@pytest.mark.parametrize("tear", TEAR)
def test_a_torn_image_cache_is_made_again(tear: str, root: Path, tmp_path: Path) -> None:
    cache = ImageCache.open(tmp_path / "cache", PATHS, root, SIZE, 0.0)
    whole, before = cache.file.read_bytes(), pictures(cache)
    assert [path for path, picture in zip(PATHS, before, strict=True) if picture is None] == [PATHS[3]]
    cache.file.unlink()  # the mapping of the open cache stays as it is
    cache.file.write_bytes(TEAR[tear](whole))
    again = ImageCache.open(tmp_path / "cache", PATHS, root, SIZE, 0.0)
    assert again.file.read_bytes() == whole and same(before, pictures(again))
    assert os.listdir(tmp_path / "cache") == [cache.file.name]


def test_a_damaged_picture_in_a_cache_counts_as_not_cached(
    root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = ImageCache.open(tmp_path / "cache", PATHS, root, SIZE, 0.0)
    before = pictures(cache)
    content = bytearray(cache.file.read_bytes())
    pixels = before[7][0].numpy().tobytes()
    content[content.index(pixels) + 100] ^= 0xFF
    cache.file.unlink()
    cache.file.write_bytes(content)
    again = ImageCache.open(tmp_path / "cache", PATHS, root, SIZE, 0.0)
    after = pictures(again)
    assert after[7] is None and same(before[:7] + before[8:], after[:7] + after[8:])
    (line,) = caplog.messages
    assert line == f"{cache.file}: damaged (a picture's checksum is wrong); delete it to have it made again"


def test_an_image_cache_that_is_there_needs_no_writable_folder(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = pictures(ImageCache.open(tmp_path / "cache", PATHS, root, SIZE, 0.0))
    monkeypatch.setattr(os, "open", lambda *words, **more: pytest.fail(f"opened {words[0]} to write"))
    assert same(before, pictures(ImageCache.open(tmp_path / "cache", PATHS, root, SIZE, 0.0)))


def test_a_full_disk_names_the_cache_its_size_and_the_option(root: Path, small_disk: Callable[[str], Path]) -> None:
    disk = small_disk("32k")
    with pytest.raises(OSError, match=r"No space left.*the cache takes 0.0 GB or more: set data.cache") as full:
        ImageCache.open(disk, PATHS, root, SIZE, 0.0)
    assert str(full.value.filename).startswith(f"{disk}/images-") and os.listdir(disk) == []


BUILDS = """
import os, signal, sys
from pathlib import Path
from cxr_faith.data import cache
folder, root, killed_at = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
real, calls = cache.load_image, 0
def load(*words, **more):
    global calls
    calls += 1
    if calls == 5:
        print("begun", flush=True)
    if calls == killed_at:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*words, **more)
cache.load_image = load
paths = [f"{number}.png" for number in range(70)]
made = cache.ImageCache.open(folder, paths, root, (40, 50), 0.0)
print(calls, sum(made.get(path) is not None for path in paths), flush=True)
"""


def test_two_jobs_make_one_image_cache_and_one_of_them_is_killed(root: Path, tmp_path: Path) -> None:
    def start(killed_at: int) -> "subprocess.Popen[str]":
        words = [sys.executable, "-c", BUILDS, str(tmp_path / "cache"), str(root), str(killed_at)]
        return subprocess.Popen(words, env=environment(), cwd=ROOT, stdout=subprocess.PIPE, text=True)

    first = start(68)
    assert first.stdout is not None and first.stdout.readline() == "begun\n"
    others = [start(0), start(0)]
    outputs = [other.communicate(timeout=100)[0].split("\n") for other in others]
    assert first.wait() == -signal.SIGKILL and [other.returncode for other in others] == [0, 0]
    counts = sorted(lines[-2] for lines in outputs)
    assert counts == ["0 69", "70 69"], "one made all of it, the other one waited and read it"
    assert len(os.listdir(tmp_path / "cache")) == 1


@pytest.mark.parametrize("count", [0, 1, 1_000, 100_000, 377_000])
def test_a_look_up_compares_about_one_path_however_many_there_are(count: int) -> None:
    paths = [f"p{number % 19}/s{number}/{number:x}.jpg" for number in range(count)]
    index = PathIndex(pa.chunked_array([pa.array(paths, pa.string())]))
    asked = range(0, count, max(1, count // 500))
    candidates = {number: list(index.candidates(paths[number])) for number in asked}
    assert all(number in rows for number, rows in candidates.items())
    assert max((len(rows) for rows in candidates.values()), default=0) <= 10
    assert np.mean([len(rows) for rows in candidates.values()] or [1]) < 2
    assert len(list(index.candidates("none.jpg"))) <= 10


def test_a_look_up_reads_one_batch_however_many_there_are(tmp_path: Path, root: Path) -> None:
    """`get` neither slices nor searches the whole table, whose columns have a chunk for every 64 pictures."""
    cache = ImageCache.open(tmp_path / "cache", PATHS, root, SIZE, 0.0)
    assert cache.get(PATHS[0]) is not None and cache._mapped is not None
    read: list[int] = []
    batches = cache._mapped._batches

    class Counted:
        def get_batch(self, number: int) -> pa.RecordBatch:
            read.append(number)
            return batches.get_batch(number)

    cache._mapped._batches = Counted()
    for path in PATHS:
        cache.get(path)
    assert len(read) <= 2 * len(PATHS) and set(read) == {0, 1}
