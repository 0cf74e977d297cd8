"""Records: one Parquet row per sample and method, written so that a kill costs one batch.

A run directory holds `records/part-<start>-r<rank>-<seq>.parquet`. A part appears whole or not at all (temporary name,
fsync, rename, fsync of the folder). A restart writes under the next start number, so no process ever touches another's
parts, and a reader merges whatever parts there are: duplicates are dropped by key, torn files are named and left out.
"""

import logging
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cxr_faith.data.sample import MANIFEST_SCHEMA, Sample
from cxr_faith.metrics.functional import CURVE_COLUMNS, ENDPOINT_COLUMNS, MC_ERROR_COLUMNS

logger = logging.getLogger(__name__)

KEY = ("sample_id", "method", "substrate", "target", "space", "condition")
"""What names a record; `space` is pixels or tokens, `condition` is "none" outside sanity and stability runs."""

GAPS = (
    *("gap_deletion_random", "gap_insertion_random", "gap_srg_random"),
    *("gap_deletion_center", "gap_insertion_center", "gap_srg_center"),
)

PARTS_PER_MERGE = 64
_NOT_RECORDED = ("height", "width", "source")
_PART = re.compile(r"part-(\d+)-r(\d+)-(\d+)\.parquet$")


def _schema() -> pa.Schema:
    """The manifest's columns, `answer` as `reference`, and all that was measured."""
    text, flag, real, whole = pa.string(), pa.bool_(), pa.float64(), pa.int64()
    reals, wholes = pa.list_(real), pa.list_(pa.int32())
    manifest = {
        ("reference" if field.name == "answer" else field.name): field.type
        for field in MANIFEST_SCHEMA
        if field.name not in ("sample_id", *_NOT_RECORDED)
    }
    columns: dict[str, pa.DataType] = {
        **dict.fromkeys(KEY, text),
        **manifest,
        **{"present": flag, "predicted": text, "generated": text, "answer_mismatch": flag},
        **{"yes_no_mass": real, "correct": flag, "own_substrate": flag, "status": text, "reason": text},
        **{"order": wholes, "k": wholes},
        **dict.fromkeys(("deletion_scores", "insertion_scores", "deletion_probs", "insertion_probs"), reals),
        **dict.fromkeys(("margin", "p_yes", *ENDPOINT_COLUMNS), real),
        **dict.fromkeys((*CURVE_COLUMNS, "tie_share"), real),
        **dict.fromkeys((f"{name}_std" for name in CURVE_COLUMNS), real),  # for `random`: over its orders
        **dict.fromkeys((f"{name}_mc_error" for name in MC_ERROR_COLUMNS), real),
        **dict.fromkeys(GAPS, real),
        **dict.fromkeys(("random_z", "random_p", "completeness_residual"), real),
        **{"verified": flag, "set_size": whole, "score_drop": real},  # for `cleann`: its set of cells
        **{"map": pa.list_(pa.float32()), "grid_h": pa.int32(), "grid_w": pa.int32()},
        **{"forwards": whole, "backwards": whole, "seconds": real, "peak_memory": whole},
    }
    return pa.schema([pa.field(name, kind, nullable=name not in KEY) for name, kind in columns.items()])


RECORD_SCHEMA = _schema()
"""Every column of a record. `seconds` in s, `peak_memory` in bytes, `k` in cells, scores in logits or nats."""


def sample_columns(sample: Sample) -> dict[str, Any]:
    """The columns of a record that come from the manifest."""
    row = {name: value for name, value in sample.to_row().items() if name not in _NOT_RECORDED}
    row["reference"] = row.pop("answer")
    return row


class RecordWriter:
    """Writes one rank's records of one start of a run.

    Args:
        run_dir: the run directory; `records/` is made in it.
        rank: this process's global rank.
        start: the number of this start, from `next_start`, the same on every rank.
    """

    def __init__(self, run_dir: str | Path, rank: int, start: int) -> None:
        """Make the folder and clear temporary files that a killed process of this rank left."""
        self.folder = Path(run_dir) / "records"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.rank, self.start = rank, start
        for stale in self.folder.glob(f".part-*-r{rank:05d}-*.tmp"):
            stale.unlink(missing_ok=True)
        self._loose: list[Path] = []  # parts of this writer that no merge has taken in yet
        self._merged: list[Path] = []
        taken = [_numbers(path) for path in _parts(self.folder)]
        self._seq = 1 + max((seq for begun, owner, seq in taken if (begun, owner) == (start, rank)), default=-1)

    def write(self, rows: Sequence[Mapping[str, Any]]) -> Path | None:
        """Write rows as one part, atomically; every 64 parts are merged into one.

        All rows of a sample belong in one call: a sample counts as done as soon as one of its rows is on disk.

        Args:
            rows: column name → value; columns left out are null; lists may be sequences or NumPy arrays.

        Returns:
            The part's path; None if there were no rows.

        Raises:
            ValueError: unknown column, or a key column that is missing.
            OSError: the file could not be saved.
        """
        if not rows:
            return None
        path = self._save([_table(rows)])
        self._loose.append(path)
        if len(self._loose) >= PARTS_PER_MERGE:
            self._gather()
        return path

    def compact(self) -> Path | None:
        """Merge this writer's parts into one file; a crash on the way leaves only duplicates, which readers drop."""
        self._gather()
        if len(self._merged) > 1:
            # One row group at a time, so the memory does not grow with the length of the run.
            groups = (pq.read_table(path, page_checksum_verification=True) for path in self._merged)
            self._merged = [self._replace(self._merged, groups)]
        return self._merged[0] if self._merged else None

    def _gather(self) -> None:
        """The loose parts, which are small, as one part with one row group."""
        if self._loose:
            table = pa.concat_tables([pq.read_table(path, page_checksum_verification=True) for path in self._loose])
            self._merged.append(self._replace(self._loose, [table]) if len(self._loose) > 1 else self._loose[0])
            self._loose = []

    def _replace(self, parts: Sequence[Path], tables: Iterable[pa.Table]) -> Path:
        """Save the tables and drop the parts they came from, once the new file is safe on disk."""
        merged = self._save(tables)
        for path in parts:
            path.unlink()
        return merged

    def _save(self, tables: Iterable[pa.Table]) -> Path:
        path = self.folder / f"part-{self.start:03d}-r{self.rank:05d}-{self._seq:06d}.parquet"
        self._seq += 1
        temporary = path.with_name(f".{path.name}.tmp")
        with temporary.open("wb") as file:
            with pq.ParquetWriter(file, RECORD_SCHEMA, compression="zstd", write_page_checksum=True) as writer:
                for table in tables:
                    writer.write_table(table)
            file.flush()
            _to_disk(file.fileno())
        _publish(temporary, path)
        return path


def write_atomic(path: Path, text: str) -> None:
    """Write a text file so that a reader sees the old one or the new one, whole.

    Raises:
        OSError: the file could not be saved.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        _to_disk(file.fileno())
    _publish(temporary, path)


def next_start(run_dir: str | Path) -> int:
    """The number for the next start of a run: 0 for a new one. Ask before any rank writes, and share the answer."""
    return 1 + max((_numbers(path)[0] for path in _parts(Path(run_dir) / "records")), default=-1)


def done_samples(run_dir: str | Path) -> set[str]:
    """`sample_id` of every sample whose records are on disk in a part that is sound throughout."""
    tables = _tables(run_dir, RECORD_SCHEMA)
    return {sample for table in tables for sample in table.column("sample_id").to_pylist()}


def read_records(run_dir: str | Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """All records of a run, merged over ranks and starts, one row per key, sorted by key.

    Of duplicates (a sample that two starts have both finished) the earliest start's row stays.

    Args:
        run_dir: the run directory.
        columns: only these columns and the key; default all.

    Returns:
        A DataFrame; missing values are NaN or None, list columns hold NumPy arrays.

    Raises:
        ValueError: a column that no record has.
    """
    names = RECORD_SCHEMA.names if columns is None else [*KEY, *(name for name in columns if name not in KEY)]
    unknown = [name for name in names if name not in RECORD_SCHEMA.names]
    if unknown:
        raise ValueError(f"records have no column {unknown[0]!r}")
    schema = pa.schema([RECORD_SCHEMA.field(name) for name in names])
    frame: pd.DataFrame = pa.concat_tables([schema.empty_table(), *_tables(run_dir, schema)]).to_pandas()
    # Stable, so parts in the order of their names decide which duplicate is the first one.
    frame = frame.sort_values(list(KEY), kind="stable").drop_duplicates(list(KEY), keep="first")
    return frame.reset_index(drop=True)


def _tables(run_dir: str | Path, schema: pa.Schema) -> Iterator[pa.Table]:
    """These columns of the readable parts of a run, in the order of the parts' names; other parts are reported."""
    for path in _parts(Path(run_dir) / "records"):
        try:
            with pq.ParquetFile(path, page_checksum_verification=True) as part:
                table = part.read(schema.names).cast(schema)
        except (pa.ArrowException, OSError, ValueError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            logger.warning("%s: unreadable, left out; its samples will be run again (%s)", path, reason)
        else:
            yield table


def _parts(folder: Path) -> list[Path]:
    return sorted((path for path in folder.glob("part-*.parquet") if _PART.match(path.name)), key=_numbers)


def _numbers(path: Path) -> tuple[int, int, int]:
    """(start, rank, seq) of a part."""
    found = _PART.match(path.name)
    assert found is not None, path  # _parts lets no other name through
    start, rank, seq = map(int, found.groups())
    return start, rank, seq


def _table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    known = frozenset(RECORD_SCHEMA.names)
    for row in rows:
        unknown = sorted(row.keys() - known)
        if unknown:
            raise ValueError(f"sample {row.get('sample_id')!r}: records have no column {unknown[0]!r}")
        missing = [name for name in KEY if row.get(name) is None]
        if missing:
            raise ValueError(f"sample {row.get('sample_id')!r}: a record needs its {missing[0]!r}")
    columns = [pa.array([_finite(row.get(field.name)) for row in rows], type=field.type) for field in RECORD_SCHEMA]
    return pa.Table.from_arrays(columns, schema=RECORD_SCHEMA)


def _finite(value: Any) -> Any:
    """NaN and infinity become null, alone or in a list: readers of Parquet then need to know one missing value only."""
    if isinstance(value, float | np.floating):
        return value if math.isfinite(value) else None
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        flat = value.reshape(-1)
        return flat if flat.dtype.kind != "f" or np.isfinite(flat).all() else [_finite(item) for item in flat.tolist()]
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def _to_disk(descriptor: int) -> None:
    os.fsync(descriptor)


def _publish(temporary: Path, path: Path) -> None:
    """Rename, then make the rename itself survive a power cut."""
    os.replace(temporary, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        _to_disk(folder)
    finally:
        os.close(folder)
