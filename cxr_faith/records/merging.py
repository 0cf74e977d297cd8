"""Merges the parts that killed starts of a run left: the number of files stays small, however often a run is killed."""

import logging
from collections import defaultdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from cxr_faith.records.files import numbers_of, parts_of, row_groups
from cxr_faith.records.schema import RECORD_SCHEMA
from cxr_faith.records.writer import RecordWriter

logger = logging.getLogger(__name__)

FIRST_MERGED = 10_000_000
"""First number of merged parts. A rank that was suspended, and wakes up after its run was started again, goes on with
its own numbers, which are lower: it must not write over a merged part."""


def merge_starts(run_dir: Path) -> None:
    """Merge the parts of each start into one, whatever rank wrote them.

    Every row is written again once, by the start after its own. Torn parts, and those with columns that this version
    does not know, stay as they are. So do all parts if the disk is full. Call it only while no process writes into the
    directory.
    """
    by_start = defaultdict[int, list[Path]](list)
    for path in parts_of(run_dir / "records"):
        by_start[numbers_of(path)[0]].append(path)
    for start, paths in by_start.items():
        sound = [path for path in paths if is_sound(path)] if len(paths) > 1 else []
        if len(sound) > 1:
            try:
                RecordWriter(run_dir, numbers_of(sound[0])[1], start, FIRST_MERGED).merge(sound)
            except OSError as error:
                logger.warning("the parts of an earlier start stay as they are: %s", error)


def is_sound(path: Path) -> bool:
    """Whether all of a part can be read, and has no column that this version does not know."""
    try:
        for _ in row_groups([path], RECORD_SCHEMA):
            pass
        return set(pq.read_schema(path).names) <= set(RECORD_SCHEMA.names)
    except (pa.ArrowException, OSError, ValueError):
        return False  # reading the records names it
