"""Reads Parquet files a few rows at a time, so that no file can exhaust the memory.

Parquet stores a text that repeats once: a file of 1 MB can hold 10 GB. Texts are therefore read as numbers into a
dictionary, and whatever is beyond a table's size is refused before it is expanded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cxr_faith.data.tally import PrepareError
from cxr_faith.data.text_files import MAX_ROWS, LimitError, one_line
from cxr_faith.storage.atomic import check_regular

MAX_CHUNK = 2**30
"""Most bytes that one column of one row group may claim to hold."""
MAX_VALUES = 20_000_000
"""Most values that one column of one row group may claim to hold."""
MAX_CELL = 1_000_000
"""Longest text of a cell, in bytes."""
MAX_PIECE = 2**26
"""Most bytes of a batch, and a quarter of the most bytes of a row, when its texts are expanded."""
MAX_ITEMS = 10_000
"""Longest list in a cell."""


def parquet_head(path: Path) -> tuple[list[str], int]:
    """Names of the columns of a Parquet file, and its number of rows.

    Raises:
        PrepareError: the file is missing or is not Parquet.
    """
    try:
        check_regular(path)
        with pq.ParquetFile(path) as file:
            return list(file.schema_arrow.names), file.metadata.num_rows
    except FileNotFoundError as error:
        raise PrepareError(f"{path}: file not found") from error
    except (pa.ArrowException, OSError, ValueError) as error:
        raise PrepareError(f"{path}: not a readable Parquet file: {one_line(error)}") from error


def parquet_batches(path: Path, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
    """Read some columns of a Parquet file.

    Args:
        path: the file.
        columns: names of the columns.
        rows: most rows of a batch.

    Yields:
        batches, whose texts are dictionary arrays and take no more than `MAX_PIECE` bytes when they are expanded.

    Raises:
        PrepareError: the file is missing or damaged, or has more rows, longer texts or longer lists than a table has.
    """
    try:
        check_regular(path)
        with pq.ParquetFile(path) as file:
            schema = file.schema
            leaves = [schema.column(position) for position in range(len(schema))]
            texts = [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY"]
            _check_claims(file.metadata, set(columns), path)
        with pq.ParquetFile(path, read_dictionary=texts) as file, pq.ParquetFile(path) as plain:
            for group in range(file.num_row_groups):
                for batch in _group_batches(file, plain, group, columns, rows):
                    for name, column in zip(batch.schema.names, batch.columns, strict=True):
                        _check(column, f"{path}: column {name}")
                    yield from _pieces(batch, path)
    except FileNotFoundError as error:
        raise PrepareError(f"{path}: file not found") from error
    except (pa.ArrowException, OSError) as error:
        raise PrepareError(f"{path}: not a readable Parquet file: {one_line(error)}") from error


def _group_batches(
    file: pq.ParquetFile, plain: pq.ParquetFile, group: int, columns: Sequence[str], rows: int
) -> Iterator[pa.RecordBatch]:
    """The batches of one row group; without dictionaries where texts in lists need two, which Arrow cannot join."""
    done = 0
    try:
        for batch in file.iter_batches(batch_size=rows, row_groups=[group], columns=list(columns)):
            done += batch.num_rows
            yield batch
    except pa.ArrowNotImplementedError:
        start = 0
        for batch in plain.iter_batches(batch_size=rows, row_groups=[group], columns=list(columns)):
            start += batch.num_rows
            if start > done:
                yield batch.slice(max(done - start + batch.num_rows, 0))


def parquet_rows(batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    """The rows of a batch; a value with text that is not UTF-8 becomes bytes, which no reader takes for text."""
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:
        for row in range(batch.num_rows):
            yield {name: _value(column[row]) for name, column in zip(batch.schema.names, batch.columns, strict=True)}


def _value(scalar: pa.Scalar) -> Any:
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        return b"\xff"


def _check_claims(metadata: pq.FileMetaData, columns: set[str], path: Path) -> None:
    """Refuse sizes that no table has, as the file itself states them."""
    if metadata.num_rows > MAX_ROWS:
        raise LimitError(f"{path}: has more than {MAX_ROWS:,} rows; split it")
    for group in range(metadata.num_row_groups):
        for place in range(metadata.num_columns):
            chunk = metadata.row_group(group).column(place)
            name = chunk.path_in_schema.split(".")[0]
            if name not in columns:
                continue
            for size, most, unit in (
                (chunk.total_uncompressed_size, MAX_CHUNK, "bytes"),
                (chunk.num_values, MAX_VALUES, "values"),
            ):
                if size > most:
                    raise LimitError(
                        f"{path}: column {name}: more than {most:,} {unit} in a row group; write smaller row groups"
                    )


def _pieces(batch: pa.RecordBatch, path: Path) -> Iterator[pa.RecordBatch]:
    """Parts of a batch that are small when their texts are expanded."""
    size = sum(map(_expanded, batch.columns))
    if size <= MAX_PIECE or (batch.num_rows == 1 and size <= 4 * MAX_PIECE):
        yield batch
    elif batch.num_rows == 1:
        raise LimitError(f"{path}: a row of more than {4 * MAX_PIECE:,} bytes")
    else:
        half = batch.num_rows // 2
        yield from _pieces(batch.slice(0, half), path)
        yield from _pieces(batch.slice(half), path)


def _expanded(array: pa.Array) -> int:
    """Most bytes that an array's values can take without its dictionaries."""
    kind = array.type
    if isinstance(array, pa.ExtensionArray):
        return _expanded(array.storage)
    if pa.types.is_dictionary(kind) and not is_text(kind.value_type):
        return 8 * len(array)
    if pa.types.is_dictionary(kind):
        longest = pc.max(pc.binary_length(array.dictionary)).as_py() if len(array.dictionary) else 0
        return len(array) * (longest or 0)
    if pa.types.is_struct(kind):
        return sum(_expanded(array.field(position)) for position in range(kind.num_fields))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _expanded(array.flatten())
    return int(array.nbytes)


def _check(array: pa.Array, where: str) -> None:
    """Refuse texts and lists that no table has."""
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    kind = array.type
    if pa.types.is_dictionary(kind):
        places = pc.min_max(array.indices).as_py()
        if places["max"] is not None and not 0 <= places["min"] <= places["max"] < len(array.dictionary):
            raise PrepareError(f"{where}: is damaged")
        _check(array.dictionary, where)
    elif pa.types.is_struct(kind):
        for position in range(kind.num_fields):
            _check(array.field(position), where)
    elif pa.types.is_fixed_size_list(kind) and kind.list_size > MAX_ITEMS:
        raise LimitError(f"{where}: a list of more than {MAX_ITEMS:,} entries")
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_map(kind):
        most = pc.max(pc.list_value_length(array)).as_py() if not pa.types.is_map(kind) else len(array.keys)
        if (most or 0) > MAX_ITEMS:
            raise LimitError(f"{where}: a list of more than {MAX_ITEMS:,} entries")
        _check(array.keys if pa.types.is_map(kind) else array.values, where)
    elif is_text(kind):
        if (pc.max(pc.binary_length(array)).as_py() or 0) > MAX_CELL:
            raise LimitError(f"{where}: a text of more than {MAX_CELL:,} bytes")


def is_text(kind: pa.DataType) -> bool:
    """Whether a type holds texts or bytes."""
    checks = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_string, pa.types.is_large_string)
    return any(check(kind) for check in checks)
