"""Opening the pictures and masks of a manifest to see which samples an evaluation would lose."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cxr_faith.data.folder import noted_root
from cxr_faith.data.items import ManifestDataset
from cxr_faith.data.manifest import open_manifest

CHECK_SIZE = (64, 64)


@dataclass(frozen=True)
class Fault:
    """A sample that cannot be evaluated, and why."""

    sample_id: str
    error: str


@dataclass
class Checked:
    """What a check has looked at so far.

    Attributes:
        total: Rows of the manifest.
        chosen: Rows that the check looks at.
        done: Rows looked at.
        faults: Samples with a fault among them.
        sizes: Pictures by height and width.
    """

    total: int
    chosen: int
    done: int = 0
    faults: int = 0
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)


def check_manifest(
    manifest: Path, root: Path | None = None, images: int | None = 200
) -> tuple[Checked, Iterator[Fault | None]]:
    """Decode pictures and masks as an evaluation would.

    Args:
        manifest: Parquet file or folder.
        root: Data root; None: the one that the manifest notes, else its folder.
        images: How many rows to open, evenly spread over the manifest; None: all.

    Returns:
        The progress, and for each row in turn its fault or None; drawing from it moves the progress.
    """
    table = open_manifest(manifest)
    count = len(table) if images is None else min(images, len(table))
    rows = np.unique(np.linspace(0, len(table) - 1, count).round().astype(np.int64))
    base = root or noted_root(manifest) or manifest.absolute().parent
    dataset = ManifestDataset(
        table, rows, base, CHECK_SIZE, 0.0, own_root=manifest if manifest.is_dir() else manifest.parent
    )
    state = Checked(len(table), len(rows))
    return state, _faults(dataset, state)


def _faults(dataset: ManifestDataset, state: Checked) -> Iterator[Fault | None]:
    for index in range(len(dataset)):
        item = dataset[index]
        state.done += 1
        if item.error is not None:
            state.faults += 1
            yield Fault(item.sample.sample_id, item.error)
            continue
        if item.geometry is not None:
            state.sizes[item.geometry.original] += 1
        yield None
