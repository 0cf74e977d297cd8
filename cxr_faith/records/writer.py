"""Writes the records of a rank so that a kill costs one batch."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cxr_faith.records.files import numbers_of, parts_of, row_groups
from cxr_faith.records.schema import RECORD_SCHEMA, to_table
from cxr_faith.storage.atomic import own_folder, replacing

PARTS_PER_MERGE = 20
"""Parts of one level that are merged into one of the next. A rank has at most 19 on each of five levels, which hold 3.2
million batches: less than 100 files."""
_OWN_FOLDERS = ("records", "report", "tensorboard", "alerts")
GROUP_BYTES = 64_000_000
"""When parts are merged, their rows are joined into row groups of about this size before compression. Each row group
costs some 150 entries in the index of its file, which writers and readers hold in memory."""


class RecordWriter:
    """Writes one rank's records of one start of a run.

    Args:
        run_dir: the run directory; `records/` is made in it.
        rank: this process's global rank.
        start: the number of this start, from `next_start`, the same on every rank.
        first: least number of a part.
    """

    def __init__(self, run_dir: str | Path, rank: int, start: int, first: int = 0) -> None:
        self.folder = own_folder(Path(run_dir), "records")
        self.rank, self.start = rank, start
        # Parts of this writer by level: single writes, merges of 20 of them, merges of 20 merges, …
        self._levels: list[list[Path]] = [[]]
        taken = [numbers_of(path) for path in parts_of(self.folder)]
        own = (seq for begun, owner, seq in taken if (begun, owner) == (start, rank))
        self._seq = max(first, 1 + max(own, default=-1))

    def write(self, rows: Sequence[Mapping[str, Any]]) -> Path | None:
        """Write rows as one part, atomically; merge every 20 parts into one.

        Pass all rows of a sample in one call: a sample counts as done as soon as one of its rows is on disk.

        Args:
            rows: column name → value; columns left out are null; lists may be sequences or NumPy arrays.

        Returns:
            the part's path; None if there were no rows.

        Raises:
            ValueError: unknown column, or a key column that is missing.
            OSError: the file could not be saved.
        """
        if not rows:
            return None
        path = self._save([to_table(rows)])
        self._levels[0].append(path)
        level = 0
        while len(self._levels[level]) >= PARTS_PER_MERGE:
            self._merge(level)
            level += 1
        return path

    def compact(self) -> Path | None:
        """Merge all parts of this writer into one; a crash in between leaves duplicates, which readers drop."""
        if self._levels[0]:
            self._merge(0)
        parts = [path for level in self._levels for path in level]
        if len(parts) > 1:
            parts = [self.merge(parts)]
        self._levels = [[], parts]
        return parts[0] if parts else None

    def _merge(self, level: int) -> None:
        """Merge the parts of one level into one part of the next level."""
        parts = self._levels[level]
        merged = self.merge(parts) if parts[1:] else parts[0]
        self._levels[level] = []
        if len(self._levels) == level + 1:
            self._levels.append([])
        self._levels[level + 1].append(merged)

    def merge(self, parts: Sequence[Path]) -> Path:
        """Put one part in place of several sound ones."""
        return self.replace(parts, _coarser(row_groups(parts, RECORD_SCHEMA)))

    def replace(self, parts: Sequence[Path], tables: Iterable[pa.Table]) -> Path:
        """Save tables as one part, and delete the parts that they come from once it is safe on disk."""
        merged = self._save(tables)
        for path in parts:
            path.unlink()
        return merged

    def _save(self, tables: Iterable[pa.Table]) -> Path:
        path = self.folder / f"part-{self.start:03d}-r{self.rank:05d}-{self._seq:06d}.parquet"
        self._seq += 1
        with (
            replacing(path) as file,
            pq.ParquetWriter(file, RECORD_SCHEMA, compression="zstd", write_page_checksum=True) as writer,
        ):
            for table in tables:
                writer.write_table(table)
        return path


def _coarser(groups: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in fewer tables of about `GROUP_BYTES`."""
    waiting, size = list[pa.Table](), 0
    for group in groups:
        waiting.append(group)
        size += group.nbytes
        if size >= GROUP_BYTES:
            yield pa.concat_tables(waiting)
            waiting, size = [], 0
    if waiting:
        yield pa.concat_tables(waiting)


def next_start(run_dir: str | Path) -> int:
    """The number of the next start: 0 for a new run."""
    folder = Path(run_dir) / "records"
    claimed = [int(path.suffix[1:]) for path in folder.glob(".start.*") if path.suffix[1:].isdecimal()]
    return 1 + max([numbers_of(path)[0] for path in parts_of(folder)] + claimed, default=-1)


def claim_start(run_dir: str | Path) -> int:
    """Take a start number that no other start gets; one rank calls this and tells the other ranks.

    Raises:
        OSError: the folder cannot be written.
    """
    folder = own_folder(Path(run_dir), "records")
    number = next_start(run_dir)
    while True:
        try:
            (folder / f".start.{number:03d}").touch(exist_ok=False)
            return number
        except FileExistsError:  # another shard, starting at the same time, has taken it
            number += 1


def remove_leftovers(run_dir: str | Path) -> None:
    """Remove temporary files that killed processes left; call it only while no process writes into the directory."""
    run_dir = Path(run_dir)
    own = (run_dir / name for name in _OWN_FOLDERS if not (run_dir / name).is_symlink())
    for folder in (run_dir, *(Path(folder) for top in own for folder, _, _ in os.walk(top))):
        for stale in (*folder.glob(".*.tmp"), *folder.glob(".doing-*")):
            stale.unlink(missing_ok=True)
