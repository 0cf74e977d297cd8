"""The names of the parts of a run, and what is in them."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from cxr_faith.storage.atomic import check_regular

_PART = re.compile(r"part-(\d+)-r(\d+)-(\d+)\.parquet$")


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
        check_regular(path)
        with pq.ParquetFile(path, page_checksum_verification=True) as part:
            for number in range(part.num_row_groups):
                group = part.read_row_group(number, columns=schema.names)
                for field in schema:
                    if field.name not in group.column_names:
                        group = group.append_column(field.name, pa.nulls(len(group), field.type))
                yield group.select(schema.names).cast(schema)
