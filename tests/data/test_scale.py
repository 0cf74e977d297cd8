"""Long manifests open at once and need no more memory than short ones.

The first opening converts Parquet to Arrow and is not timed: a separate process does it. The loader's memory is
measured, because that is the part of a run that could grow with the manifest.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cxr_faith.data.manifest import open_manifest
from cxr_faith.data.sample import MANIFEST_SCHEMA, Box, Sample

LONG, SHORT = 400_000, 4_000

PROBE = """
import json, sys, time
from cxr_faith.data.manifest import open_manifest
from cxr_faith.data.module import CXRVQADataModule

start = time.perf_counter()
table = open_manifest(sys.argv[1])
seconds = time.perf_counter() - start
data = CXRVQADataModule(sys.argv[1], sys.argv[2], batch_size=8)
data.image_size, data.limit = (64, 64), None
count = 0
for batch in data.loader(rank=0, world_size=max(1, len(table) // 800)):
    count += sum(item.error is None for item in batch)
lines = dict(line.split(":", 1) for line in open("/proc/self/status"))
memory = {name: int(lines[name].split()[0]) / 1024 for name in ("VmRSS", "RssAnon")}
print(json.dumps({"seconds": seconds, "count": count} | memory))
"""


def write_rows(total: int, folder: Path) -> None:
    """The same rows repeated, with unique ids."""
    first = pa.Table.from_pylist([sample.to_row() for sample in rows(SHORT)], schema=MANIFEST_SCHEMA)
    folder.mkdir()
    with pq.ParquetWriter(folder / "part-00000.parquet", MANIFEST_SCHEMA) as writer:
        for start in range(0, total, SHORT):
            block = first
            for name in ("sample_id", "patient_id", "study_id", "image_id"):
                named = pc.binary_join_element_wise(first.column(name), str(start), "-")
                block = block.set_column(block.schema.get_field_index(name), MANIFEST_SCHEMA.field(name), named)
            writer.write_table(block)


def rows(total: int):
    for i in range(total):
        image = i // 5
        yield Sample(
            sample_id=f"mimic-cxr-vqa/test/{i}",
            patient_id=str(10_000_000 + image // 3),
            study_id=str(50_000_000 + image // 2),
            image_id=f"{image:08x}-{image:08x}-{image:08x}",
            image_path=f"{image % 50}.png",
            question=f"Is there evidence of finding number {i % 97} in the left lung?",
            kind="yes_no",
            answer=("yes",) if i % 2 else ("no",),
            finding="finding",
            boxes=(Box("finding", 1, 2, 30, 40),) if i % 7 == 0 else (),
            height=64,
            width=64,
            source="mimic-cxr-vqa",
        )


@pytest.mark.slow
def test_memory_and_time_do_not_grow_with_the_manifest(tmp_path: Path) -> None:
    if not Path("/proc/self/status").is_file():
        pytest.skip("reads memory from /proc")
    for i in range(50):
        Image.fromarray(np.eye(64, dtype=np.uint8) + np.uint8(i)).save(tmp_path / f"{i}.png")
    measured = {}
    for total in (SHORT, LONG):
        write_rows(total, tmp_path / str(total))
        open_manifest(tmp_path / str(total))  # this process converts the manifest; the next is what every later run is
        done = subprocess.run(
            [sys.executable, "-c", PROBE, str(tmp_path / str(total)), str(tmp_path)],
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=True,
        )
        measured[total] = json.loads(done.stdout.splitlines()[-1])
    print(measured)
    long, short = measured[LONG], measured[SHORT]
    assert long["seconds"] < 2
    assert 700 < long["count"] < 900 and 700 < short["count"] < 900
    assert long["VmRSS"] < 1.05 * short["VmRSS"]  # resident, with the pages of the mapped file
    assert long["RssAnon"] < 1.05 * short["RssAnon"]
