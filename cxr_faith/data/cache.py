"""A cache of pictures at model size: decoded and resized once, then read memory-mapped from one Arrow file.

It is worth its disk space where pictures are read often, are slow to decode (DICOM), or are many small files on a slow
shared file system. A gray picture takes one byte per pixel.
"""

from __future__ import annotations

import hashlib
import logging
import os
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from cxr_faith.data.decoder import DECODE_SECONDS
from cxr_faith.data.geometry import Geometry, fit
from cxr_faith.data.images import ImageError, load_image, picture_hash
from cxr_faith.data.mapped import MappedFile
from cxr_faith.data.path_index import PathIndex
from cxr_faith.storage.locks import made_once

logger = logging.getLogger(__name__)

_SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("pixels", pa.large_binary()),
        ("checksum", pa.uint32()),
        ("original", pa.list_(pa.int32(), 2)),
        ("crop", pa.list_(pa.int32(), 4)),
        ("picture_hash", pa.string()),
    ]
)
_CHUNK = 64
"""Pictures in a record batch; all batches but the last one have as many."""
_VERSION = 3


class ImageCache:
    """Pictures at model size, by their path in the manifest; unreadable pictures are not in it.

    Made by `open`.

    Args:
        file: the Arrow file.
        size: (height, width) of its pictures.
    """

    def __init__(self, file: Path, size: tuple[int, int]) -> None:
        self.file = file
        self.size = size
        self._mapped: _MappedPictures | None = None
        self._warned = False

    @classmethod
    def open(
        cls,
        folder: Path,
        paths: Sequence[str],
        root: Path,
        size: tuple[int, int],
        border_crop: float,
        decode_seconds: float = DECODE_SECONDS,
    ) -> ImageCache:
        """Open the cache of these pictures; the first process that asks makes it while the others wait.

        The file's name is a hash of the paths, the root, the size and the crop. A picture that changes under its path
        is not noticed: delete the folder then. A file that is cut off or is not this cache is made again.

        Args:
            folder: folder of the cache.
            paths: paths of the pictures, relative to `root`.
            root: data root.
            size: (height, width) of the model's input.
            border_crop: share of the height (width) that is cut off at each side before resizing.
            decode_seconds: CPU time that decoding one picture may take.

        Raises:
            OSError: the cache cannot be written; the message says how large it is and which option to change.
        """
        digest = hashlib.blake2b(f"{_VERSION}\n{root.resolve()}\n{size}\n{border_crop!r}".encode(), digest_size=12)
        for path in paths:
            digest.update(f"\n{path}".encode())
        file = folder / f"images-{digest.hexdigest()}.arrow"
        try:
            made_once(
                file,
                lambda: _is_whole(file, paths),
                lambda sink: _write(sink, paths, root, size, border_crop, decode_seconds),
            )
        except OSError as error:
            needed = len(paths) * size[0] * size[1] / 1e9
            way_out = f"the cache takes {needed:.1f} GB or more: set data.cache to another folder, or leave it out"
            raise OSError(error.errno, f"{error.strerror} ({way_out})", error.filename) from error
        return cls(file, size)

    def get(self, path: str) -> tuple[Tensor, Geometry] | None:
        """A picture, uint8 [3, H, W], and its geometry, bit for bit those of `fit`; None if it is not cached.

        The work does not grow with the number of pictures. A damaged entry counts as not cached.
        """
        if self._mapped is None:
            self._mapped = _MappedPictures(self.file)
        try:
            entry = self._mapped.find(path)
            if entry is None or not entry.column("pixels").is_valid()[0].as_py():
                return None
            return self._decoded(entry)
        except (pa.ArrowException, ValueError, IndexError) as error:
            if not self._warned:
                logger.warning("%s: damaged (%s); delete it to have it made again", self.file, error)
                self._warned = True
            return None
        finally:
            self._mapped.pages.release()

    def hash_of(self, path: str) -> str | None:
        """`picture_hash` of a cached picture before it was resized; None if it is not cached."""
        if self._mapped is None:
            self._mapped = _MappedPictures(self.file)
        entry = self._mapped.find(path)
        digest: str | None = None if entry is None else entry.column("picture_hash")[0].as_py()
        self._mapped.pages.release()
        return digest

    def _decoded(self, entry: pa.RecordBatch) -> tuple[Tensor, Geometry]:
        """Picture and geometry of a batch with one row."""
        for column in entry.columns:
            column.validate()  # offsets out of a damaged file could point anywhere
        pixels = entry.column("pixels")[0].as_buffer()
        if zlib.crc32(pixels) != entry.column("checksum")[0].as_py():
            raise ValueError("a picture's checksum is wrong")
        planes = np.frombuffer(pixels, dtype=np.uint8).reshape(-1, *self.size)
        # In the memory order of a picture that was just decoded: sums over pixels round differently in another one.
        image = torch.from_numpy(np.array(np.broadcast_to(planes, (3, *self.size)), order="C"))
        original, crop = entry.column("original")[0].as_py(), entry.column("crop")[0].as_py()
        return image, Geometry(tuple(original), tuple(crop), self.size)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the mapping out: the process that unpickles this maps the file itself."""
        return self.__dict__ | {"_mapped": None}


class _MappedPictures:
    """The memory-mapped file of a cache, with the places of its paths."""

    def __init__(self, file: Path) -> None:
        self.pages = MappedFile(file)
        self._batches = pa.ipc.open_file(self.pages.buffer)
        self._index = PathIndex(_paths_in(self.pages.buffer))

    def find(self, path: str) -> pa.RecordBatch | None:
        """The row of a path, as a batch."""
        for row in self._index.candidates(path):
            entry = self._batches.get_batch(row // _CHUNK).slice(row % _CHUNK, 1)
            if entry.column("path")[0].as_py() == path:
                return entry
        return None


def _paths_in(buffer: pa.Buffer) -> pa.ChunkedArray:
    """The paths of a cache, in the order of its rows; reads nothing else.

    Raises:
        pa.ArrowInvalid: the file is cut off, damaged or no Arrow file.
    """
    reader = pa.ipc.open_file(buffer, options=pa.ipc.IpcReadOptions(included_fields=[0]))
    paths = reader.read_all().column("path")
    paths.validate(full=True)
    return paths


def _is_whole(file: Path, paths: Sequence[str]) -> bool:
    """Whether a file is a cache of these paths and has all of its rows."""
    if not file.is_file():
        return False
    try:
        pages = MappedFile(file)
        same: bool = _paths_in(pages.buffer).equals(pa.chunked_array([pa.array(paths, pa.string())]))
        return same and pa.ipc.open_file(pages.buffer).schema == _SCHEMA
    except (pa.ArrowException, ValueError, KeyError):  # an empty file is a ValueError
        return False


def _write(
    sink: IO[bytes],
    paths: Sequence[str],
    root: Path,
    size: tuple[int, int],
    border_crop: float,
    decode_seconds: float,
) -> None:
    """Decode, resize and store the pictures; an unreadable one becomes a row without pixels."""

    def row(path: str) -> dict[str, Any]:
        try:
            decoded = load_image(path, root, seconds=decode_seconds)
            image, geometry = fit(decoded, size, border_crop)
        except ImageError:
            return {"path": path}
        gray = bool((image[0] == image[1]).all() and (image[0] == image[2]).all())
        pixels = (image[:1] if gray else image).numpy().tobytes()
        places = {"original": list(geometry.original), "crop": list(geometry.crop)}
        hashes = {"checksum": zlib.crc32(pixels), "picture_hash": picture_hash(decoded)}
        return {"path": path, "pixels": pixels, **hashes, **places}

    with ThreadPoolExecutor(_processors()) as pool, pa.ipc.new_file(sink, _SCHEMA) as writer:
        for chunk in _chunks(paths):
            writer.write_batch(pa.RecordBatch.from_pylist(list(pool.map(row, chunk)), schema=_SCHEMA))


def _processors() -> int:
    """Processors that this process may use; macOS does not say, so there it is all of them."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _chunks(paths: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(paths), _CHUNK):
        yield paths[start : start + _CHUNK]
