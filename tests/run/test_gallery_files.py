"""The pictures that a run writes for TensorBoard, from synthetic records of bundled films."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from cxr_faith.data.manifest import bundled_manifest
from cxr_faith.data.module import CXRVQADataModule
from cxr_faith.records import RecordWriter
from cxr_faith.run.pictures import write_pictures
from tests.synthetic import make_rows


def test_maps_of_answers_without_effect_have_no_colors(tmp_path: Path) -> None:
    manifest = bundled_manifest()
    films = pq.read_table(manifest, columns=["sample_id", "image_path"]).slice(0, 4).to_pylist()
    grids = {"grids": [{"h": 12, "w": 12}]}
    rows = [row | films[int(row["sample_id"][1:])] | grids for row in make_rows(4)]
    RecordWriter(tmp_path, rank=0, start=0).write(rows)
    write_pictures(tmp_path, CXRVQADataModule(str(manifest), data_root=str(manifest.parent)))
    folder = tmp_path / "report" / "pictures"
    listed = json.loads((folder / "pictures.json").read_text())
    ok = {row["sample_id"]: row["status"] == "ok" for row in rows}
    colored = {}
    for sample in (sample for sample in listed if listed[sample]["methods"]):
        drawn = np.asarray(Image.open(folder / listed[sample]["methods"]).convert("RGB"), np.int16)
        colored[sample] = bool((np.ptp(drawn, axis=-1) > 20).any())
    assert colored == {sample: ok[sample] for sample in colored} and set(colored.values()) == {True, False}
