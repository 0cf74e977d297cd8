"""Shares and enrichment of maps on organs, from the masks that come with an item."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from cxr_faith.data.geometry import Geometry, fit_mask
from cxr_faith.data.images import load_mask
from cxr_faith.data.items import ManifestDataset, SampleItem
from cxr_faith.data.manifest import bundled_manifest, open_manifest
from cxr_faith.data.sample import MANIFEST_SCHEMA, Sample
from cxr_faith.records import RecordWriter, read_records
from cxr_faith.records.rows import organ_shares
from cxr_faith.summary.regions import region_panel
from tests.runs import run_here
from tests.synthetic import make_rows


def item(**masks):
    geometry = Geometry((40, 60), (0, 0, 40, 60), (16, 24))
    return SampleItem(Sample("a"), torch.zeros(3, 16, 24), geometry, anatomy=masks)


def left_half():
    mask = torch.zeros(16, 24, dtype=torch.bool)
    mask[:, :12] = True
    return mask


def test_masks_become_cells():
    expected = np.zeros((4, 6))
    expected[:, :3] = 1
    cells = item(lung=left_half()).organ_cells((4, 6))
    assert set(cells) == {"lung"}
    np.testing.assert_array_equal(cells["lung"], expected)
    assert item().organ_cells((4, 6)) == {}


def test_enrichment_is_mass_share_over_area_share():
    cells = item(lung=left_half()).organ_cells((4, 6))
    saliency = np.zeros((4, 6))
    saliency[1, 1], saliency[2, 5], saliency[3, 3] = 3.0, 1.0, -5.0
    assert organ_shares(saliency, cells) == [{"label": "lung", "share": 0.75, "enrichment": pytest.approx(1.5)}]
    assert organ_shares(np.zeros((4, 6)), cells) == [] and organ_shares(np.full((4, 6), np.nan), cells) == []
    assert organ_shares(saliency, {}) == []


def test_masks_beside_the_manifest_reach_the_records(tmp_path: Path) -> None:
    """Pictures lie below the data root, masks that were made for the manifest in its folder: one rule finds both."""
    table = pq.read_table(bundled_manifest()).slice(0, 1)
    [sample] = table.to_pylist()
    assert sample["anatomy_masks"]
    source, root, own = bundled_manifest().parent, tmp_path / "root", tmp_path / "manifest"
    for path, folder in [(sample["image_path"], root), *((mask["path"], own) for mask in sample["anatomy_masks"])]:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source / path, folder / path)
    if sample["finding_mask_path"]:
        shutil.copy(source / sample["finding_mask_path"], own / sample["finding_mask_path"])
    pq.write_table(table, own / "part-0.parquet")
    config = tmp_path / "config.yaml"
    config.write_text(
        "trainer: {accelerator: cpu, devices: 1}\n"
        "model: {methods: {random_map: {}}, protocol: {steps: 2, random_orders: 2, controls: none}}\n"
        f"data: {{manifest: {own}, data_root: {root}}}\n"
    )
    assert run_here(config, tmp_path / "run") == 0
    frame: pd.DataFrame = read_records(tmp_path / "run", ["anatomy", "status"])
    [organs] = frame.loc[frame["method"].eq("random_map"), "anatomy"]
    assert {organ["label"] for organ in organs} == {mask["label"] for mask in sample["anatomy_masks"]}


def test_the_panel_averages_over_samples_that_have_the_mask(tmp_path):
    rows = [dict(row) for row in make_rows(8)]
    for index, row in enumerate(row for row in rows if row["method"] == "chefer" and "map" in row):
        if index < 2:
            row["anatomy"] = [{"label": "lung", "share": 0.5 - index / 4, "enrichment": 1.0 + index}]
    RecordWriter(tmp_path, 0, 0).write(rows)
    frame: pd.DataFrame = read_records(tmp_path)
    panel = {
        entry.method: {label: vars(organ) for label, organ in entry.organs.items()}
        for entry in region_panel(frame, ["chefer", "attention"])
    }
    assert panel == {"chefer": {"lung": {"n": 2, "share": 0.375, "enrichment": 1.5}}, "attention": {}}


def test_masks_are_read_once_for_an_image_and_two_of_one_label_are_one_organ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = pq.read_table(bundled_manifest()).to_pylist()
    rows = [row for row in rows if row["image_id"] == rows[0]["image_id"]]
    assert len(rows) > 1
    for row in rows:  # both lungs under one label
        row["anatomy_masks"] = [{"label": "lungs", "path": mask["path"]} for mask in rows[0]["anatomy_masks"][:2]]
    pq.write_table(pa.Table.from_pylist(rows, schema=MANIFEST_SCHEMA), tmp_path / "part-0.parquet")
    read, root = list[str](), bundled_manifest().parent

    def counted(path: str, folder: Path, **limit: float) -> np.ndarray:
        read.append(path)
        return load_mask(path, folder, **limit)

    monkeypatch.setattr("cxr_faith.data.items.load_mask", counted)
    table = open_manifest(tmp_path, tmp_path / "cache")
    dataset = ManifestDataset(table, np.arange(len(rows)), root, (96, 96), 0.0)
    paths = [mask["path"] for mask in rows[0]["anatomy_masks"]]
    masks = [fit_mask(load_mask(path, root), dataset[0].geometry) for path in paths]
    for index in range(len(rows)):
        torch.testing.assert_close(dataset[index].anatomy, {"lungs": masks[0] | masks[1]})
    assert [read.count(path) for path in paths] == [1, 1]
