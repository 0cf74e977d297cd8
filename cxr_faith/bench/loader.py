"""How fast pictures come from files and from a cache: `cxr-faith prepare bench`."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich import box
from rich.table import Table

from cxr_faith.data.cache import ImageCache
from cxr_faith.data.items import ManifestDataset
from cxr_faith.data.loader import PackedBatch, SampleLoader
from cxr_faith.data.module import CXRVQADataModule
from cxr_faith.data.tally import PrepareError

_KINDS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".dcm": "DICOM", ".dicom": "DICOM"}


@dataclass(frozen=True)
class LoaderRate:
    """How fast one kind of picture was loaded.

    Attributes:
        kind: file type, or `cache of` one.
        pictures: pictures that were loaded.
        faults: pictures that could not be loaded.
        seconds: time for all of them.
        workers: processes that decoded; 0: the main process.
    """

    kind: str
    pictures: int
    faults: int
    seconds: float
    workers: int

    @property
    def per_second(self) -> float:
        """Pictures per second."""
        return self.pictures / self.seconds

    @property
    def per_worker(self) -> float:
        """Pictures per second and process."""
        return self.per_second / max(1, self.workers)


def loader_bench(
    manifest: str,
    root: str | None = None,
    size: int = 896,
    workers: int = 0,
    images: int = 200,
    cache: str | None = None,
) -> list[LoaderRate]:
    """Time the loader on the first pictures of each file type, then on a cache of them.

    The cache is made for the measurement and deleted after it; its rate leaves out the time to make it. Files that were
    read lately come from the system's memory.

    Args:
        manifest: Parquet file, or folder made by `prepare`.
        root: data root; default: the one noted by `prepare`.
        size: side of the model's input, pixels.
        workers: processes that decode; 0: the main process.
        images: pictures of each file type.
        cache: folder for the cache that is measured, deleted after it; default: a temporary one.

    Raises:
        ManifestError: the manifest cannot be used.
        PrepareError: a number is too small.
    """
    for name, value, least in (("size", size, 1), ("workers", workers, 0), ("images", images, 1)):
        if value < least:
            raise PrepareError(f"--{name} must be at least {least}, got {value}")
    data = CXRVQADataModule(manifest, root)
    kinds = _first_rows(data, images)
    rates = []
    if cache is not None:
        Path(cache).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix="loader-bench-") as folder:
        for kind, rows in kinds.items():
            rates.append(_measure(kind, data, rows, size, workers, None))
        for kind, rows in kinds.items():
            paths = [data.table[int(row)]["image_path"] for row in rows]
            made = ImageCache.open(Path(folder), paths, data.data_root, (size, size), 0.0)
            rates.append(_measure(f"cache of {kind}", data, rows, size, workers, made))
    return rates


def _first_rows(data: CXRVQADataModule, images: int) -> dict[str, list[int]]:
    """By file type, the first row of each of its first pictures."""
    kinds: dict[str, list[int]] = {}
    seen = set()
    for row, path in enumerate(data.table.data.column("image_path").to_pylist()):
        if path is None or path in seen:
            continue
        seen.add(path)
        suffix = Path(path).suffix.lower()
        chosen = kinds.setdefault(_KINDS.get(suffix, suffix or "no suffix"), [])
        if len(chosen) < images:
            chosen.append(row)
    return kinds


def _measure(
    kind: str, data: CXRVQADataModule, rows: list[int], size: int, workers: int, cache: ImageCache | None
) -> LoaderRate:
    own_root = data.manifest if data.manifest.is_dir() else data.manifest.absolute().parent
    dataset = ManifestDataset(data.table, np.array(rows), data.data_root, (size, size), 0.0, own_root, cache=cache)
    start = time.perf_counter()
    items = SampleLoader(dataset, batch_size=8, num_workers=workers, collate_fn=PackedBatch)
    faults = sum(item.error is not None for batch in items for item in batch)
    seconds = time.perf_counter() - start
    return LoaderRate(kind, len(rows) - faults, faults, seconds, workers)


def render_rates(rates: list[LoaderRate], size: int, workers: int) -> Table:
    """The rates as a table for a terminal."""
    title = f"loader · {size} px · {workers or 'no'} workers"
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left")
    table.add_column("from")
    for column in ("pictures", "faults", "seconds", "pictures/s", "per worker"):
        table.add_column(column, justify="right")
    for rate in rates:
        numbers = (f"{value:.1f}" for value in (rate.seconds, rate.per_second, rate.per_worker))
        table.add_row(rate.kind, str(rate.pictures), str(rate.faults), *numbers)
    return table
