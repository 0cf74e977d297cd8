"""Controls that do not come from the model."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from cxr_faith.attribution import AttributionBatch
from cxr_faith.attribution.baselines import Center, Edges, Oracle, OracleNear, RandomMap
from tests.analytic import MARGIN, LinearVLM, picture

GRID = (3, 5)


@pytest.fixture
def vlm():
    return LinearVLM({"q": np.ones(GRID), "other": np.ones(GRID)}, cell=(8, 6))


def attribute(vlm, method, names, pixels=None, seed=0, cells=None, question="q"):
    pixels = torch.stack([picture(vlm, i) for i in range(len(names))]) if pixels is None else pixels
    batch = AttributionBatch(pixels, [vlm.prompt(question)] * len(names), names, seed, cells)
    return method.attribute(vlm, batch, [MARGIN] * len(names)).maps


def test_random_map_is_one_for_each_image(vlm):
    maps = attribute(vlm, RandomMap(), ["a", "b", "a"])
    assert maps.shape == (3, *GRID) and maps.dtype == torch.float32
    assert torch.equal(maps[0], maps[2]) and not torch.equal(maps[0], maps[1])
    assert torch.equal(maps[1:2], attribute(vlm, RandomMap(), ["b"], question="other"))
    assert not torch.equal(maps[:1], attribute(vlm, RandomMap(), ["a"], seed=1))
    many = attribute(vlm, RandomMap(), [str(i) for i in range(200)])
    assert 0 <= many.min() and many.max() <= 1
    assert abs(float(many.mean()) - 0.5) < 0.02 and abs(float(many.var()) - 1 / 12) < 0.01


def test_center_is_minus_the_distance_in_cells(vlm):
    maps = attribute(vlm, Center(), ["a", "b"])
    for row in range(3):
        for column in range(5):
            assert float(maps[1, row, column]) == pytest.approx(-np.hypot(row - 1, column - 2), abs=1e-6)
    assert maps[0].argmax() == 1 * 5 + 2


def test_edges_are_sobel_energy(vlm):
    pixels = torch.stack([picture(vlm, i) for i in (3, 4)])
    maps = attribute(vlm, Edges(), ["a", "b"], pixels)
    for computed, image in zip(maps.numpy(), pixels.double().numpy(), strict=True):
        gray = image.mean(0)
        energy = (ndimage.sobel(gray, 0, mode="nearest") ** 2 + ndimage.sobel(gray, 1, mode="nearest") ** 2) / 64
        expected = energy.reshape(3, 8, 5, 6).mean((1, 3))
        assert np.abs(computed - expected).max() < 1e-4 * expected.max()


def test_edges_find_the_cell_with_the_edge(vlm):
    pixels = torch.zeros(1, 3, *vlm.image_size)
    pixels[:, :, 10:14, 20:22] = 1.0  # inside row 1, column 3
    maps = attribute(vlm, Edges(), ["a"], pixels)
    assert int(maps[0].argmax()) == 1 * 5 + 3
    assert (maps[0] > 1e-3).sum() == 1


def test_oracle_is_the_mask_and_oracle_near_goes_on_with_what_is_near(vlm):
    cells = torch.rand(2, *GRID)
    assert torch.equal(attribute(vlm, Oracle(), ["a", "b"], cells=cells), cells)
    spots = torch.zeros(1, *GRID)
    spots[0, 1, 2], spots[0, 0, 0] = 0.3, 0.9
    # One rule for all maps: cells without the finding tie, and are ordered at random.
    assert torch.equal(attribute(vlm, Oracle(), ["a"], cells=spots), spots)
    computed = attribute(vlm, OracleNear(), ["a"], cells=spots)[0]
    rows, columns = torch.meshgrid(torch.arange(GRID[0]), torch.arange(GRID[1]), indexing="ij")
    near = torch.minimum((rows - 1.0).hypot(columns - 2.0), rows.float().hypot(columns.float()))
    torch.testing.assert_close(computed, torch.where(spots[0] > 0, spots[0], -near))
    assert Oracle.needs_mask and OracleNear.needs_mask and not Edges.needs_mask
    for method in (Oracle(), OracleNear()):
        with pytest.raises(ValueError, match="oracle needs a finding mask"):
            attribute(vlm, method, ["a"])
