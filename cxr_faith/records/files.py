"""Files that appear whole or not at all, and the names of the parts of a run."""

import os
import re
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

_PART = re.compile(r"part-(\d+)-r(\d+)-(\d+)\.parquet$")


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a file, text as UTF-8, so that a reader sees either the whole old file or the whole new one.

    Raises:
        OSError: the file could not be saved.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        to_disk(file.fileno())
    publish(temporary, path)


def to_disk(descriptor: int) -> None:
    """Wait until the written bytes are on the disk."""
    os.fsync(descriptor)


def publish(temporary: Path, path: Path) -> None:
    """Rename the file, and make the rename survive a power cut."""
    os.replace(temporary, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        to_disk(folder)
    finally:
        os.close(folder)


def parts_of(folder: Path) -> list[Path]:
    """The parts in a folder of records, by start, rank and number."""
    return sorted((path for path in folder.glob("part-*.parquet") if _PART.match(path.name)), key=numbers_of)


def numbers_of(path: Path) -> tuple[int, int, int]:
    """(start, rank, seq) of a part."""
    match = _PART.match(path.name)
    assert match is not None, path  # parts_of gives no other names
    start, rank, seq = map(int, match.groups())
    return start, rank, seq


def row_groups(paths: Iterable[Path], schema: pa.Schema) -> Iterator[pa.Table]:
    """The columns of a schema, one row group at a time; a column that a part does not have is null."""
    for path in paths:
        with pq.ParquetFile(path, page_checksum_verification=True) as part:
            for number in range(part.num_row_groups):
                group = part.read_row_group(number, columns=schema.names)
                for field in schema:
                    if field.name not in group.column_names:
                        group = group.append_column(field.name, pa.nulls(len(group), field.type))
                yield group.select(schema.names).cast(schema)
