"""How fast pictures come from files and from a cache: `cxr-faith prepare bench`."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.table import Table
from torch.utils.data import DataLoader

from cxr_faith.data.cache import ImageCache
from cxr_faith.data.items import ManifestDataset
from cxr_faith.data.module import CXRVQADataModule
from cxr_faith.data.tally import PrepareError
from cxr_faith.report.terminal import show, wide_console

_KINDS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".dcm": "DICOM", ".dicom": "DICOM"}


def loader_bench(
    manifest: str,
    root: str | None = None,
    size: int = 896,
    workers: int = 0,
    images: int = 200,
    cache: str | None = None,
) -> list[dict[str, Any]]:
    """Time the loader on the first pictures of each file type, then on a cache of them, and print a table.

    The cache is made for the measurement and deleted after it; its rate does not hold the making. Files that were read
    lately come from the system's memory.

    Args:
        manifest: Parquet file, or folder made by `prepare`.
        root: Data root; None: the one that `prepare` noted.
        size: Side of the model's input, pixels.
        workers: Processes that decode; 0: this one.
        images: Pictures of each file type.
        cache: Folder, on the file system to be measured, for the cache; None: the system's temporary folder.

    Returns:
        One row per way: ``kind``, ``pictures``, ``faults``, ``seconds``, ``per_second``, ``per_worker``.

    Raises:
        ManifestError: The manifest cannot be used.
        PrepareError: A number is too small.
    """
    for name, value, least in (("size", size, 1), ("workers", workers, 0), ("images", images, 1)):
        if value < least:
            raise PrepareError(f"--{name} must be at least {least}, got {value}")
    data = CXRVQADataModule(manifest, root)
    kinds = _first_rows(data, images)
    found = []
    if cache is not None:
        Path(cache).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix="loader-bench-") as folder:
        for kind, rows in kinds.items():
            found.append(_measure(kind, data, rows, size, workers, None))
        for kind, rows in kinds.items():
            paths = [data.table[int(row)]["image_path"] for row in rows]
            made = ImageCache.open(Path(folder), paths, data.data_root, (size, size), 0.0)
            found.append(_measure(f"cache of {kind}", data, rows, size, workers, made))
    _print(found, size, workers)
    return found


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
) -> dict[str, Any]:
    own_root = data.manifest if data.manifest.is_dir() else data.manifest.absolute().parent
    dataset = ManifestDataset(data.table, np.array(rows), data.data_root, (size, size), 0.0, own_root, cache=cache)
    start = time.perf_counter()
    items = DataLoader(dataset, batch_size=8, num_workers=workers, collate_fn=list)
    faults = sum(item.error is not None for batch in items for item in batch)
    seconds = time.perf_counter() - start
    rate = (len(rows) - faults) / seconds
    return {
        "kind": kind,
        "pictures": len(rows) - faults,
        "faults": faults,
        "seconds": seconds,
        "per_second": rate,
        "per_worker": rate / max(1, workers),
    }


def _print(found: list[dict[str, Any]], size: int, workers: int) -> None:
    title = f"loader · {size} px · {workers or 'no'} workers"
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left")
    table.add_column("from")
    for column in ("pictures", "faults", "seconds", "pictures/s", "per worker"):
        table.add_column(column, justify="right")
    for row in found:
        rates = (f"{row[name]:.1f}" for name in ("seconds", "per_second", "per_worker"))
        table.add_row(row["kind"], str(row["pictures"]), str(row["faults"]), *rates)
    show(wide_console(), table)
