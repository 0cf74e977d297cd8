"""A cache of pictures at model size: decoded and resized once, then read memory-mapped from one Arrow file.

It is worth its disk space where pictures are read often, are slow to decode (DICOM), or are many small files on a slow
shared file system. A gray picture takes one byte per pixel.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from filelock import FileLock
from torch import Tensor

from cxr_faith.data.geometry import Geometry, fit
from cxr_faith.data.images import ImageError, load_image
from cxr_faith.data.mapped import MappedArrow

_SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("channels", pa.int8()),
        ("pixels", pa.large_binary()),
        ("original", pa.list_(pa.int32(), 2)),
        ("crop", pa.list_(pa.int32(), 4)),
    ]
)
_CHUNK = 64


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
        self._mapped: MappedArrow | None = None

    @classmethod
    def open(
        cls, folder: Path, paths: Sequence[str], root: Path, size: tuple[int, int], border_crop: float
    ) -> ImageCache:
        """Open the cache of these pictures; the first process that asks makes it while the others wait.

        The file's name is a hash of the paths, the root, the size and the crop. A picture that changes under its path
        is not noticed: delete the folder then.

        Args:
            folder: folder of the cache.
            paths: paths of the pictures, relative to `root`.
            root: data root.
            size: (height, width) of the model's input.
            border_crop: share of the height (width) that is cut off at each side before resizing.
        """
        digest = hashlib.blake2b(f"{root.resolve()}\n{size}\n{border_crop!r}".encode(), digest_size=12)
        for path in paths:
            digest.update(f"\n{path}".encode())
        file = folder / f"images-{digest.hexdigest()}.arrow"
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{file}.lock"):
            if not file.is_file():
                _write(file, paths, root, size, border_crop)
        return cls(file, size)

    def get(self, path: str) -> tuple[Tensor, Geometry] | None:
        """A picture, uint8 [3, H, W], and its geometry, bit for bit those of `fit`; None if it is not cached."""
        if self._mapped is None:
            self._mapped = MappedArrow(self.file)
        row = pc.index(self._mapped.rows.column("path"), path).as_py()
        if row < 0:
            return None
        entry = self._mapped.rows.slice(row, 1)
        flat = np.frombuffer(entry.column("pixels").chunk(0)[0].as_buffer(), dtype=np.uint8)
        planes = flat.reshape(-1, *self.size)
        image = torch.from_numpy(np.array(np.broadcast_to(planes, (3, *self.size))))
        original, crop = entry.column("original")[0].as_py(), entry.column("crop")[0].as_py()
        self._mapped.release()
        return image, Geometry(tuple(original), tuple(crop), self.size)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the mapping out: the process that unpickles this maps the file itself."""
        return self.__dict__ | {"_mapped": None}


def _write(file: Path, paths: Sequence[str], root: Path, size: tuple[int, int], border_crop: float) -> None:
    """Decode, resize and store the pictures; the file is renamed into place once it is complete."""

    def row(path: str) -> dict[str, Any] | None:
        try:
            image, geometry = fit(load_image(path, root), size, border_crop)
        except ImageError:
            return None
        gray = bool((image[0] == image[1]).all() and (image[0] == image[2]).all())
        kept = image[:1] if gray else image
        return {
            "path": path,
            "channels": len(kept),
            "pixels": kept.numpy().tobytes(),
            "original": list(geometry.original),
            "crop": list(geometry.crop),
        }

    partial = file.with_suffix(".partial")
    with (
        ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool,
        pa.OSFile(str(partial), "wb") as sink,
        pa.ipc.new_stream(sink, _SCHEMA) as writer,
    ):
        for chunk in _chunks(paths):
            rows = [entry for entry in pool.map(row, chunk) if entry is not None]
            writer.write_batch(pa.RecordBatch.from_pylist(rows, schema=_SCHEMA))
    with partial.open("rb+") as written:
        os.fsync(written.fileno())
    partial.replace(file)


def _chunks(paths: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(paths), _CHUNK):
        yield paths[start : start + _CHUNK]
