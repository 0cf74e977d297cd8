"""Writes a run of many records, to measure what a summary and a page cost."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cxr_faith.records import RECORD_SCHEMA, RecordWriter
from tests.synthetic import make_rows

METHODS, STEPS, CELLS, BLOCK = 10, 50, 256, 5_000


def write(folder: str | Path, n_rows: int) -> None:
    """Rows of ten methods, four questions a patient, with curves of 51 points and maps of 16 x 16 cells.

    One block of rows is written as a run writes it; the parts are copies of it with their own ids, scores and maps.
    """
    row = next(row for row in make_rows(2) if row["method"] == "chefer" and row["status"] == "ok")
    row |= {"k": np.round(np.arange(STEPS + 1) * CELLS / STEPS).astype(np.int32), "grid_h": 16, "grid_w": 16}
    row |= {side: np.linspace(5, -4, STEPS + 1) for side in ("deletion_scores", "insertion_scores")}
    blank = np.zeros(CELLS, np.float32)
    names = [f"m{number}" if number else "random" for number in range(METHODS)]
    rows = [row | {"method": name, "map": None if name == "random" else blank} for name in names]
    path = RecordWriter(folder, 0, 0).write(rows * (BLOCK // METHODS))
    assert path is not None
    first = pq.read_table(path)
    for number in range(n_rows // BLOCK):
        pq.write_table(_renewed(first, number), path.with_name(f"part-000-r00000-{number:06d}.parquet"))


def _renewed(block: pa.Table, number: int) -> pa.Table:
    """A copy of a block, as rows of other samples."""
    rng = np.random.default_rng(number)
    sample = np.repeat(np.arange(BLOCK // METHODS) + number * (BLOCK // METHODS), METHODS)
    method, noise = np.tile(np.arange(METHODS), BLOCK // METHODS), rng.standard_normal((4, BLOCK))
    offsets = np.concatenate([[0], np.cumsum(np.where(method > 0, CELLS, 0))]).astype(np.int32)
    maps = pa.ListArray.from_arrays(offsets, rng.random(offsets[-1], np.float32), mask=pa.array(method == 0))
    columns = {
        "sample_id": [f"s{value:06d}" for value in sample],
        "image_id": [f"i{value // 2}" for value in sample],
        "patient_id": [f"p{value // 4}" for value in sample],
        "srg": 0.1 * method + noise[0],
        "gap_srg_random": 0.1 * method + noise[0],
        "srg_logit": noise[1],
        "pointing_game": noise[2],
        "map": maps,
    }
    for name, values in columns.items():
        at = RECORD_SCHEMA.get_field_index(name)
        field = RECORD_SCHEMA.field(at)
        block = block.set_column(at, field, values if name == "map" else pa.array(values, field.type))
    return block
