"""Enrichment of maps on organs: masks read once, mapped as the picture is, and a broken one costs only itself."""

import logging

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from cxr_faith.data.geometry import Geometry
from cxr_faith.data.module import SampleItem
from cxr_faith.data.sample import Sample
from cxr_faith.records import RecordWriter, read_records
from cxr_faith.run.anatomy import Organs, anatomy_column
from cxr_faith.summary.mean_regions import region_panel
from tests.synthetic import make_rows


def item(masks, name="a"):
    geometry = Geometry((40, 60), (0, 0, 40, 60), (16, 24))
    return SampleItem(Sample(name, anatomy_masks=masks), torch.zeros(3, 16, 24), geometry)


@pytest.fixture
def root(tmp_path):
    """The left half of the image is one lung; another file is no picture."""
    mask = np.zeros((40, 60), np.uint8)
    mask[:, :30] = 255
    Image.fromarray(mask).save(tmp_path / "lung.png")
    (tmp_path / "heart.png").write_bytes(b"no picture")
    return tmp_path


def test_masks_become_cells(root, caplog):
    organs = Organs(root, (4, 6))
    with caplog.at_level(logging.WARNING):
        found = organs.cells(item((("lung", "lung.png"), ("heart", "heart.png"))))
    assert set(found) == {"lung"} and "organ mask heart is left out" in caplog.text
    expected = np.zeros((4, 6))
    expected[:, :3] = 1
    np.testing.assert_array_equal(found["lung"], expected)
    (root / "lung.png").unlink()
    assert set(organs.cells(item((("lung", "lung.png"), ("heart", "heart.png")), "b"))) == {"lung"}  # read once
    assert organs.cells(item(())) == {}


def test_enrichment_is_mass_share_over_area_share(root):
    cells = Organs(root, (4, 6)).cells(item((("lung", "lung.png"),)))
    saliency = np.zeros((4, 6))
    saliency[1, 1], saliency[2, 5], saliency[3, 3] = 3.0, 1.0, -5.0
    assert anatomy_column(saliency, cells) == [{"label": "lung", "share": 0.75, "enrichment": pytest.approx(1.5)}]
    assert anatomy_column(np.zeros((4, 6)), cells) == [] and anatomy_column(np.full((4, 6), np.nan), cells) == []
    assert anatomy_column(saliency, {}) == []


def test_the_panel_averages_over_samples_that_have_the_mask(tmp_path):
    rows = [dict(row) for row in make_rows(8)]
    for index, row in enumerate(row for row in rows if row["method"] == "chefer" and "map" in row):
        if index < 2:
            row["anatomy"] = [{"label": "lung", "share": 0.5 - index / 4, "enrichment": 1.0 + index}]
    RecordWriter(tmp_path, 0, 0).write(rows)
    frame: pd.DataFrame = read_records(tmp_path)
    panel = {entry["method"]: entry["organs"] for entry in region_panel(frame, ["chefer", "attention"])}
    assert panel == {"chefer": {"lung": {"n": 2, "share": 0.375, "enrichment": 1.5}}, "attention": {}}
