"""Looks at a folder's files before the `datasets` library reads them, which it does without limits."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from cxr_faith.data.csv_files import csv_rows
from cxr_faith.data.json_files import json_entries, json_lines
from cxr_faith.data.parquet_files import is_text, parquet_batches
from cxr_faith.data.tally import PrepareError
from cxr_faith.data.text_files import FREE_BYTES, LimitError, open_text

_BATCH_ROWS = 10_000
_BLOCK = 10_000


def check_folder(folder: Path) -> None:
    """Read the tables of a folder once, to see that none exhausts the memory.

    Of Parquet files only columns of texts are read: those of pictures are as large as their file. Small damaged files
    are left to the library, which may have no use for them.

    Raises:
        PrepareError: a file is beyond the limits of `text_files`, or large and damaged; the message names it.
    """
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.name.startswith("."):
            try:
                deque(_content(path), maxlen=0)
            except (PrepareError, pa.ArrowException, OSError) as error:
                large = path.suffix == ".gz" or path.stat().st_size > FREE_BYTES
                if isinstance(error, LimitError) or (large and isinstance(error, PrepareError)):
                    raise


def _content(path: Path) -> Iterator[object]:
    kind = path.suffixes[-2] if path.suffix == ".gz" and len(path.suffixes) > 1 else path.suffix
    if kind == ".csv":
        yield from csv_rows(path)
    elif kind in (".json", ".jsonl"):
        with open_text(path, "JSON file") as file:
            listed = file.read(_BLOCK).lstrip().startswith("[")
        yield from json_entries(path, list) if listed else json_lines(path)
    elif kind == ".parquet":
        yield from parquet_batches(path, _texts(pq.read_schema(path)), _BATCH_ROWS)


def _texts(schema: pa.Schema) -> list[str]:
    """Names of the columns of texts and lists of texts."""
    lists = (pa.types.is_list, pa.types.is_large_list)
    inner = {field.name: field.type.value_type if any(f(field.type) for f in lists) else field.type for field in schema}
    return [name for name, kind in inner.items() if is_text(kind) and not pa.types.is_binary(kind)]
