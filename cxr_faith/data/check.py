"""Opens the pictures and masks of a manifest to find the samples that an evaluation would lose."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cxr_faith.data.folder import CARD, DROPS, noted_root
from cxr_faith.data.items import ManifestDataset
from cxr_faith.data.manifest import open_manifest
from cxr_faith.data.sample import Sample
from cxr_faith.printable import of_csv_text, printable

CHECK_SIZE = (64, 64)
_DETAIL = re.compile(r"'[^']*'|\"[^\"]*\"|\([^()]*\)|\d+")


@dataclass(frozen=True)
class Fault:
    """A sample that cannot be evaluated, and why."""

    sample_id: str
    error: str


class Counted(NamedTuple):
    """How often something was met, and where first."""

    times: int
    example: str


@dataclass
class Checked:
    """Progress of a check.

    Attributes:
        total: number of rows in the manifest.
        chosen: number of rows that the check opens.
        done: number of rows opened so far.
        faults: number of opened samples with a fault.
        sizes: number of pictures by (height, width).
        reasons: number of opened samples with each fault, and the first such sample.
    """

    total: int
    chosen: int
    done: int = 0
    faults: int = 0
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    reasons: dict[str, Counted] = field(default_factory=dict)


def check_manifest(
    manifest: Path, root: Path | None = None, images: int | None = 200
) -> tuple[Checked, Iterator[Fault | None]]:
    """Decode pictures and masks as an evaluation would.

    Args:
        manifest: Parquet file or folder.
        root: data root; None: the one noted in the manifest's data card, else the manifest's folder.
        images: number of rows to open, evenly spread over the manifest; None: all.

    Returns:
        the progress, and an iterator that gives each row's fault or None. Each step of the iterator opens one row and
        updates the progress.
    """
    table = open_manifest(manifest)
    count = len(table) if images is None else min(images, len(table))
    rows = np.unique(np.linspace(0, len(table) - 1, count).round().astype(np.int64))
    base = root or noted_root(manifest) or manifest.absolute().parent
    dataset = ManifestDataset(
        table, rows, base, CHECK_SIZE, 0.0, own_root=manifest if manifest.is_dir() else manifest.parent, pairs=True
    )
    state = Checked(len(table), len(rows))
    return state, _faults(dataset, state)


def _faults(dataset: ManifestDataset, state: Checked) -> Iterator[Fault | None]:
    shown: dict[str, str] = {}
    for index in range(len(dataset)):
        item = dataset[index]
        state.done += 1
        error = item.error or (item.no_pair if item.sample.pair_path else None)
        if error is not None:
            state.faults += 1
            reason = _without_file(error, item.sample, dataset)
            # Reasons that differ in numbers and quoted values only are one, shown as it was first met.
            reason = shown.setdefault(_DETAIL.sub("…", reason), reason)
            count, first = state.reasons.get(reason, Counted(0, item.sample.sample_id))
            state.reasons[reason] = Counted(count + 1, first)
            yield Fault(item.sample.sample_id, error)
            continue
        if item.geometry is not None:
            state.sizes[item.geometry.original] += 1
        yield None


def _without_file(error: str, sample: Sample, dataset: ManifestDataset) -> str:
    """The reason without the name of the sample's file that it begins with."""
    paths = (sample.image_path, sample.pair_path, sample.finding_mask_path, *(path for _, path in sample.anatomy_masks))
    for path in filter(None, paths):
        names = [path, repr(path)]
        with suppress(OSError, RuntimeError, ValueError):  # no usable path
            names += [str((root / path).resolve()) for root in (dataset.root, dataset.own_root) if root is not None]
        for name in names:
            for written in (name, printable(name)):
                if error.startswith(f"{written}: "):
                    return error.removeprefix(f"{written}: ")
    return error


def drops_of(manifest: Path) -> dict[str, Counted]:
    """What `prepare` left out of a manifest, by what it is and why; empty where it says nothing."""
    try:
        counts = json.loads((manifest / CARD).read_text(encoding="utf-8"))["drops"]
        examples: dict[str, str] = {}
        with (manifest / DROPS).open(encoding="utf-8", newline="") as file:
            for what, name, reason, *_ in csv.reader(file):
                examples.setdefault(f"{what}: {reason}", of_csv_text(name))
                if counts.keys() <= examples.keys():
                    break
        return {reason: Counted(int(count), examples.get(reason, "")) for reason, count in counts.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, csv.Error):
        return {}
