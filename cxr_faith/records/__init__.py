"""Records: one Parquet row per sample and method, written so that a kill costs one batch.

A run directory holds `records/part-<start>-r<rank>-<seq>.parquet`. A part appears whole or not at all (temporary name,
fsync, rename, fsync of the folder). Each restart writes under a new start number, so no process touches the parts of
another one that is alive; the parts of earlier starts are merged into one for each start. A reader merges all parts: it
drops duplicates by key, and names torn files and leaves them out. It reads row groups of some thousand rows, so the
maps and curves of a whole run need not fit into memory.
"""

from cxr_faith.metrics.functional import GAPS
from cxr_faith.records.done import Progress, done_samples, read_progress, rows_of, unfinished_samples
from cxr_faith.records.forgetting import forget
from cxr_faith.records.merging import merge_starts
from cxr_faith.records.reader import foreign_columns, read_records, scan_records
from cxr_faith.records.schema import KEY, RECORD_SCHEMA, sample_columns
from cxr_faith.records.shown import Shown
from cxr_faith.records.writer import RecordWriter, claim_start, next_start, remove_leftovers
from cxr_faith.storage.atomic import write_atomic

__all__ = [
    "GAPS",
    "KEY",
    "RECORD_SCHEMA",
    "Progress",
    "RecordWriter",
    "Shown",
    "claim_start",
    "done_samples",
    "foreign_columns",
    "forget",
    "merge_starts",
    "next_start",
    "read_progress",
    "read_records",
    "remove_leftovers",
    "rows_of",
    "sample_columns",
    "scan_records",
    "unfinished_samples",
    "write_atomic",
]
