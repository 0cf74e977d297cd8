"""Reads the records of a run: merges the parts of all ranks and starts, and leaves out torn ones."""

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cxr_faith.records.duplicates import Codes, Keys, first_of_each_key
from cxr_faith.records.files import numbers_of, parts_of, row_groups
from cxr_faith.records.schema import KEY, RECORD_SCHEMA
from cxr_faith.records.shown import Shown

logger = logging.getLogger(__name__)

_Kept = TypeVar("_Kept")


def read_records(run_dir: str | Path, columns: Sequence[str] | None = None, shown: Shown | None = None) -> pd.DataFrame:
    """All records of a run, merged over ranks and starts, one row per key, sorted by key.

    If two starts have both finished a sample, the row of the earlier start stays.

    Args:
        run_dir: the run directory.
        columns: the columns to read beside the key; default: all.
        shown: only these rows; None: all rows.

    Returns:
        a DataFrame; missing values are NaN or None, list columns hold NumPy arrays.

    Raises:
        ValueError: records have no such column.
    """
    schema = chosen_schema(columns)
    groups = [group for _, kept in sound_parts(run_dir, schema, lambda group: group) for group in kept]
    keys = Keys()
    codes = [keys.codes(group) for group in groups]
    rows = first_of_each_key(codes, keys)
    if shown is not None and len(rows):
        rows = rows[np.concatenate([shown.mask(keys, group) for group in codes])[rows]]
    table = pa.concat_tables([schema.empty_table(), *groups])
    del groups
    table = table.take(pa.array(rows))
    frame: pd.DataFrame = table.to_pandas(self_destruct=True)  # frees each column once it is converted
    return frame


def foreign_columns(run_dir: str | Path) -> tuple[list[str], list[str]]:
    """Columns of the records that this version does not know, and columns that the records lack; both sorted.

    Parts that cannot be read are left out here; reading the records names them.
    """
    known, unknown, lacking = set(RECORD_SCHEMA.names), set[str](), set[str]()
    for path in parts_of(Path(run_dir) / "records"):
        try:
            names = set(pq.read_schema(path).names)
        except (pa.ArrowException, OSError):
            continue
        unknown |= names - known
        lacking |= known - names
    return sorted(unknown), sorted(lacking)


def scan_records(
    run_dir: str | Path,
    columns: Sequence[str],
    samples: Collection[str] | None = None,
    shown: Shown | None = None,
    without: int | None = None,
) -> Iterator[pd.DataFrame]:
    """The rows of `read_records`, in pieces of some thousand rows, in any order.

    Args:
        run_dir: the run directory.
        columns: the columns to read beside the key.
        samples: only the rows of these samples; None: all.
        shown: only these rows; None: all rows.
        without: the number of a start whose rows are left out, with the copies that other starts have of them.

    Raises:
        ValueError: records have no such column.
    """
    schema, keys, given = chosen_schema(columns), Keys(), list[Codes]()
    wanted = None if samples is None else pa.array(sorted(samples), pa.string())
    while True:
        # Rows of the start that is left out come first, so that another start's copy of them is left out too.
        first, others, paths = [*given], list[Codes](), list[Path]()
        for path, groups in sound_parts(run_dir, schema, keys.codes):
            if numbers_of(path)[0] == without:
                first += groups
            else:
                paths.append(path)
                others += groups
        codes, begin = [*first, *others], sum(group.shape[1] for group in first)
        kept = np.zeros(sum(group.shape[1] for group in codes), bool)
        kept[first_of_each_key(codes, keys)] = True
        if shown is not None and len(kept):
            kept &= np.concatenate([shown.mask(keys, group) for group in codes])
        try:
            for group in row_groups(paths, schema):
                piece = group.filter(pa.array(kept[begin : begin + len(group)]))
                begin += len(group)
                if wanted is not None:
                    piece = piece.filter(pc.is_in(piece["sample_id"], value_set=wanted))
                if len(piece):
                    yield piece.to_pandas()
            return
        except FileNotFoundError:  # a running process has merged the part meanwhile: the rest is in another one
            given = [np.concatenate(codes, axis=1)[:, :begin][:, kept[:begin]]] if codes else []


def chosen_schema(columns: Sequence[str] | None) -> pa.Schema:
    """The schema of the key and these columns."""
    names = RECORD_SCHEMA.names if columns is None else [*KEY, *(name for name in columns if name not in KEY)]
    unknown = [name for name in names if name not in RECORD_SCHEMA.names]
    if unknown:
        raise ValueError(f"records have no column {unknown[0]!r}")
    return pa.schema([RECORD_SCHEMA.field(name) for name in names])


def sound_parts(
    run_dir: str | Path, schema: pa.Schema, keep: Callable[[pa.Table], _Kept]
) -> Iterator[tuple[Path, list[_Kept]]]:
    """The parts whose columns can all be read, in the order of their names; logs a warning for each other part.

    Args:
        run_dir: the run directory.
        schema: the columns to read.
        keep: takes from a row group what must be kept until the whole part has been read.

    Yields:
        a part's path, and what was kept of each of its row groups.
    """
    folder, seen = Path(run_dir) / "records", set[Path]()
    waiting = parts_of(folder)
    while waiting:
        moved = False
        for path in waiting:
            seen.add(path)
            try:
                groups = [keep(group) for group in row_groups([path], schema)]
            except FileNotFoundError:
                moved = True  # a running process has merged it into another part meanwhile
            except (pa.ArrowException, OSError, ValueError) as error:
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                logger.warning("%s: unreadable, left out; its samples will be run again (%s)", path, reason)
            else:
                yield path, groups
        waiting = [path for path in parts_of(folder) if path not in seen] if moved else []
