"""Records: one Parquet row per sample and method, written so that a kill costs one batch.

A run directory holds `records/part-<start>-r<rank>-<seq>.parquet`. A part appears whole or not at all (temporary name,
fsync, rename, fsync of the folder). A restart writes under the next start number, so no process ever touches another's
parts, and a reader merges whatever parts there are: duplicates are dropped by key, torn files are named and left out.
Readers go through parts by row groups of some thousand rows; maps and curves of a whole run need not fit into memory.
"""

import logging
import math
import os
import re
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cxr_faith.data.sample import MANIFEST_SCHEMA, Sample
from cxr_faith.metrics.functional import CURVE_COLUMNS, ENDPOINT_COLUMNS, MC_ERROR_COLUMNS
from cxr_faith.metrics.localization import LOCALIZATION_COLUMNS

logger = logging.getLogger(__name__)

KEY = ("sample_id", "method", "substrate", "target", "space", "condition")
"""What names a record; `space` is pixels or tokens, `condition` is "none" outside sanity and stability runs."""

GAPS = (
    *("gap_deletion_random", "gap_insertion_random", "gap_srg_random"),
    *("gap_deletion_center", "gap_insertion_center", "gap_srg_center"),
)

PARTS_PER_MERGE = 64
GROUP_BYTES = 64_000_000
"""Size, before compression, from which rows of several parts are one row group of the part that they are merged into.
Every row group costs some 150 entries in the index of its file, which writers and readers hold in memory."""
_ORGAN = pa.struct([("label", pa.string()), ("share", pa.float64()), ("enrichment", pa.float64())])
_NOT_RECORDED = ("height", "width", "source")
_Codes = npt.NDArray[np.int32]
_Kept = TypeVar("_Kept")
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
        **dict.fromkeys((*CURVE_COLUMNS, "tie_share", "auc_error"), real),
        **dict.fromkeys((f"{name}_std" for name in CURVE_COLUMNS), real),  # for `random`: over its orders
        **dict.fromkeys((f"{name}_mc_error" for name in MC_ERROR_COLUMNS), real),
        **dict.fromkeys(GAPS, real),
        **dict.fromkeys(("random_z", "random_p", "completeness_residual", *LOCALIZATION_COLUMNS), real),
        **{"verified": flag, "set_size": whole, "score_drop": real},  # for `cleann`: its set of cells
        **{"anatomy": pa.list_(_ORGAN), "map": pa.list_(pa.float32()), "grid_h": pa.int32(), "grid_w": pa.int32()},
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
        """Make the folder."""
        self.folder = Path(run_dir) / "records"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.rank, self.start = rank, start
        # Parts of this writer: single writes, merges of 64 of those, merges of 64 merges, …
        self._levels: list[list[Path]] = [[]]
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
        self._levels[0].append(path)
        level = 0
        while len(self._levels[level]) >= PARTS_PER_MERGE:
            self._merge(level)
            level += 1
        return path

    def compact(self) -> Path | None:
        """Merge this writer's parts into one file; a crash on the way leaves only duplicates, which readers drop."""
        if self._levels[0]:
            self._merge(0)
        parts = [path for level in self._levels for path in level]
        if len(parts) > 1:
            parts = [self._replace(parts, _coarser(_groups(parts, RECORD_SCHEMA)))]
        self._levels = [[], parts]
        return parts[0] if parts else None

    def _merge(self, level: int) -> None:
        """The parts of one level as one part of the next."""
        parts = self._levels[level]
        merged = self._replace(parts, _coarser(_groups(parts, RECORD_SCHEMA))) if parts[1:] else parts[0]
        self._levels[level] = []
        if len(self._levels) == level + 1:
            self._levels.append([])
        self._levels[level + 1].append(merged)

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
        try:
            with temporary.open("wb") as file:
                with pq.ParquetWriter(file, RECORD_SCHEMA, compression="zstd", write_page_checksum=True) as writer:
                    for table in tables:
                        writer.write_table(table)
                file.flush()
                _to_disk(file.fileno())
            _publish(temporary, path)
        except OSError as error:
            temporary.unlink(missing_ok=True)  # a full disk needs the room
            raise OSError(error.errno, error.strerror or str(error), str(path)) from error
        return path


def write_atomic(path: Path, text: str) -> None:
    """Write a text file so that a reader sees the old one or the new one, whole.

    Raises:
        OSError: the file could not be saved.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        _to_disk(file.fileno())
    _publish(temporary, path)


def next_start(run_dir: str | Path) -> int:
    """The number after those of all starts so far: 0 for a new run."""
    folder = Path(run_dir) / "records"
    claimed = [int(path.suffix[1:]) for path in folder.glob(".start.*") if path.suffix[1:].isdecimal()]
    return 1 + max([_numbers(path)[0] for path in _parts(folder)] + claimed, default=-1)


def claim_start(run_dir: str | Path) -> int:
    """The number of this start, which nobody else gets; one rank asks and tells the others.

    Raises:
        OSError: the folder cannot be written.
    """
    folder = Path(run_dir) / "records"
    folder.mkdir(parents=True, exist_ok=True)
    number = next_start(run_dir)
    while True:
        try:
            (folder / f".start.{number:03d}").touch(exist_ok=False)
            return number
        except FileExistsError:  # a shard that starts at the same time was faster
            number += 1


def remove_leftovers(run_dir: str | Path) -> None:
    """Remove temporary files that killed processes left; only while no process writes into the run directory."""
    run_dir = Path(run_dir)
    for pattern in ("records/.part-*.tmp", "records/.doing-*", ".*.tmp", "report/.*.tmp"):
        for stale in run_dir.glob(pattern):
            stale.unlink(missing_ok=True)


def done_samples(run_dir: str | Path) -> set[str]:
    """`sample_id` of every sample whose records are on disk in a part that is sound throughout."""
    done: set[str] = set()
    for _, groups in _sound_parts(run_dir, RECORD_SCHEMA, lambda group: group["sample_id"].unique().to_pylist()):
        done.update(*groups)
    return done


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
    schema = _chosen(columns)
    groups = [group for _, found in _sound_parts(run_dir, schema, lambda group: group) for group in found]
    keys = _Keys()
    rows = _first_of_each_key([keys.codes(group) for group in groups], keys)
    table = pa.concat_tables([schema.empty_table(), *groups])
    del groups
    table = table.take(pa.array(rows))
    frame: pd.DataFrame = table.to_pandas(self_destruct=True)  # frees each column once it is turned
    return frame


def foreign_columns(run_dir: str | Path) -> tuple[list[str], list[str]]:
    """Columns that a run's records have and this version does not know, and those that it lacks; both sorted.

    Parts that cannot be read are left out; reading the records names them.
    """
    known, unknown, lacking = set(RECORD_SCHEMA.names), set[str](), set[str]()
    for path in _parts(Path(run_dir) / "records"):
        try:
            names = set(pq.read_schema(path).names)
        except (pa.ArrowException, OSError):
            continue
        unknown |= names - known
        lacking |= known - names
    return sorted(unknown), sorted(lacking)


def scan_records(run_dir: str | Path, columns: Sequence[str]) -> Iterator[pd.DataFrame]:
    """The rows of `read_records`, in pieces of some thousand rows and in no certain order.

    Args:
        run_dir: the run directory.
        columns: these columns and the key.

    Raises:
        ValueError: a column that no record has.
    """
    schema = _chosen(columns)
    keys, codes, paths = _Keys(), list[_Codes](), []
    for path, groups in _sound_parts(run_dir, schema, keys.codes):
        paths.append(path)
        codes += groups
    kept = np.zeros(sum(group.shape[1] for group in codes), bool)
    kept[_first_of_each_key(codes, keys)] = True
    del keys, codes
    begin = 0
    for group in _groups(paths, schema):
        piece = group.filter(pa.array(kept[begin : begin + len(group)]))
        begin += len(group)
        if len(piece):
            yield piece.to_pandas()


def _chosen(columns: Sequence[str] | None) -> pa.Schema:
    """The schema of the key and these columns."""
    names = RECORD_SCHEMA.names if columns is None else [*KEY, *(name for name in columns if name not in KEY)]
    unknown = [name for name in names if name not in RECORD_SCHEMA.names]
    if unknown:
        raise ValueError(f"records have no column {unknown[0]!r}")
    return pa.schema([RECORD_SCHEMA.field(name) for name in names])


class _Keys:
    """Gives every sample a number, and every combination of the other key columns: a row's key is then 8 bytes."""

    def __init__(self) -> None:
        self._samples: dict[str, int] = {}
        self._others: dict[tuple[str, ...], int] = {}

    def codes(self, group: pa.Table) -> _Codes:
        """Numbers of the samples and of the other key columns' combinations, int32 ``[2, rows]``."""
        columns = [group.column(name).combine_chunks().dictionary_encode() for name in KEY]
        known = [self._samples.setdefault(text, len(self._samples)) for text in columns[0].dictionary.to_pylist()]
        samples = np.array(known, np.int32)[columns[0].indices.to_numpy()]
        mixed = np.zeros(len(group), np.int64)
        for column in columns[1:]:  # numbered anew after each column, so that no product of counts overflows
            mixed = np.unique(mixed * len(column.dictionary) + column.indices.to_numpy(), return_inverse=True)[1]
        texts = group.select(KEY[1:]).take(pa.array(np.unique(mixed, return_index=True)[1])).to_pylist()
        found = [self._others.setdefault(tuple(row.values()), len(self._others)) for row in texts]
        return np.stack([samples, np.array(found, np.int32)[mixed]])

    def order(self, groups: Sequence[_Codes]) -> npt.NDArray[np.int64]:
        """One number a row, through all groups, that sorts as the key does."""
        samples, others = (_places(list(numbers)) for numbers in (self._samples, self._others))
        order = np.empty(sum(group.shape[1] for group in groups), np.int64)
        begin = 0
        for sample, other in groups:
            order[begin : begin + len(sample)] = samples[sample] * len(others) + others[other]
            begin += len(sample)
        return order


def _places(texts: list[Any]) -> npt.NDArray[np.int64]:
    """Place of each text, or tuple of texts, in the alphabet."""
    places = np.empty(len(texts), np.int64)
    places[sorted(range(len(texts)), key=texts.__getitem__)] = np.arange(len(texts))
    return places


def _first_of_each_key(groups: Sequence[_Codes], keys: _Keys) -> npt.NDArray[np.intp]:
    """Numbers of the rows that stay, sorted by key; rows are numbered through the groups."""
    order = keys.order(groups)
    # Stable, so parts in the order of their names decide which duplicate is the first one.
    rows = np.argsort(order, kind="stable")
    order, first = order[rows], np.ones(len(rows), bool)
    first[1:] = order[1:] != order[:-1]
    return rows[first]


def _sound_parts(
    run_dir: str | Path, schema: pa.Schema, keep: Callable[[pa.Table], _Kept]
) -> Iterator[tuple[Path, list[_Kept]]]:
    """The parts whose columns can all be read, in the order of their names; others are reported.

    Args:
        run_dir: the run directory.
        schema: the columns that must be sound.
        keep: takes from a row group what is to be held until the whole part is known to be sound.

    Yields:
        A part's path, and what was kept of each of its row groups.
    """
    folder, seen = Path(run_dir) / "records", set[Path]()
    waiting = _parts(folder)
    while waiting:
        moved = False
        for path in waiting:
            seen.add(path)
            try:
                groups = [keep(group) for group in _groups([path], schema)]
            except FileNotFoundError:
                moved = True  # a run that is going on has merged it into another part meanwhile
            except (pa.ArrowException, OSError, ValueError) as error:
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                logger.warning("%s: unreadable, left out; its samples will be run again (%s)", path, reason)
            else:
                yield path, groups
        waiting = [path for path in _parts(folder) if path not in seen] if moved else []


def _groups(paths: Iterable[Path], schema: pa.Schema) -> Iterator[pa.Table]:
    """These columns of parts, one row group at a time; a column that another version did not write is null."""
    for path in paths:
        with pq.ParquetFile(path, page_checksum_verification=True) as part:
            for number in range(part.num_row_groups):
                group = part.read_row_group(number, columns=schema.names)
                for field in schema:
                    if field.name not in group.column_names:
                        group = group.append_column(field.name, pa.nulls(len(group), field.type))
                yield group.select(schema.names).cast(schema)


def _coarser(groups: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in fewer tables, of `GROUP_BYTES` or little more."""
    waiting: list[pa.Table] = []
    for group in groups:
        waiting.append(group)
        if sum(table.nbytes for table in waiting) >= GROUP_BYTES:
            yield pa.concat_tables(waiting)
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting)


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
