"""Takes the records of some samples out of a run, so that the next start runs these samples again."""

from collections.abc import Collection
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from cxr_faith.records.files import numbers_of, parts_of, row_groups
from cxr_faith.records.merging import FIRST_MERGED, is_sound
from cxr_faith.records.schema import RECORD_SCHEMA
from cxr_faith.records.writer import RecordWriter


def forget(run_dir: Path, samples: Collection[str]) -> None:
    """Write the parts that have records of these samples again, without them.

    Call it only while no process writes into the directory. A kill on the way forgets some of them.

    Raises:
        OSError: a part could not be saved; the old one is still there.
    """
    names = pa.array(sorted(samples), pa.string())
    for path in parts_of(run_dir / "records"):
        if not is_sound(path):
            continue
        groups = list(row_groups([path], RECORD_SCHEMA))
        kept = [group.filter(pc.invert(pc.is_in(group["sample_id"], value_set=names))) for group in groups]
        if sum(map(len, kept)) == sum(map(len, groups)):
            continue
        start, rank, _ = numbers_of(path)
        if any(map(len, kept)):
            RecordWriter(run_dir, rank, start, FIRST_MERGED).replace([path], kept)
        else:
            path.unlink()
