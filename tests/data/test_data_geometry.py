"""After crop and resize, a shape drawn into a picture lies where its mapped box says."""

import numpy as np
import pytest
import torch

from cxr_faith.data.geometry import Geometry, fit, fit_mask

HEIGHT, WIDTH = 240, 360


def drawn(x1: int, y1: int, x2: int, y2: int) -> np.ndarray:
    image = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    image[y1:y2, x1:x2] = 255
    return image


# Neither the pictures nor the model sizes are square; boxes sit off center, so that every swap and flip shows.
@pytest.mark.parametrize("size", [(120, 90), (48, 72), (480, 720), (240, 360)])
@pytest.mark.parametrize("border_crop", [0.0, 0.05])
@pytest.mark.parametrize("box", [(24, 168, 120, 204), (240, 24, 336, 36), (36, 36, 72, 96)])
def test_box_covers_exactly_the_drawn_pixels(
    size: tuple[int, int], border_crop: float, box: tuple[int, int, int, int]
) -> None:
    image, geometry = fit(drawn(*box), size, border_crop)
    assert image.shape == (3, *size) and image.dtype == torch.uint8
    x1, y1, x2, y2 = geometry.boxes_to_model([box])[0]
    bright = (image[0] > 127).nonzero()
    rows, columns = bright[:, 0], bright[:, 1]
    edges = (int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1)
    assert np.abs(np.array(edges) - [x1, y1, x2, y2]).max() <= 0.5
    differing = geometry.boxes_to_mask([box]) != (image[0] > 127)
    assert differing.sum() <= 4  # interpolation rounds off the four corners, at most


def test_box_on_pixel_borders_is_exact() -> None:
    image, geometry = fit(drawn(36, 60, 72, 120), (120, 90))  # 2 × 4 original pixels to each model pixel
    assert geometry.boxes_to_model([[36, 60, 72, 120]]).tolist() == [[9, 30, 18, 60]]
    expected = torch.zeros(120, 90, dtype=torch.bool)
    expected[30:60, 9:18] = True
    assert torch.equal(geometry.boxes_to_mask([[36, 60, 72, 120]]), expected)
    # The antialiasing filter mixes in the next pixel at an edge, never two away, and leaves the middle alone.
    assert (image[0, 31:59, 10:17] == 255).all()
    assert (image[0][torch.nn.functional.max_pool2d(expected[None].float(), 3, 1, 1)[0] == 0] == 0).all()


def test_border_crop_geometry() -> None:
    _, geometry = fit(drawn(0, 0, 1, 1), (100, 100), 0.05)
    assert geometry == Geometry((240, 360), (12, 18, 216, 324), (100, 100))
    assert geometry.boxes_to_model([[18, 12, 342, 228]]).tolist() == [[0, 0, 100, 100]]
    assert geometry.boxes_to_model([[0, 0, 360, 240]]).tolist() == [[0, 0, 100, 100]]  # clipped
    x1, y1, x2, y2 = geometry.boxes_to_model([[0, 0, 10, 10]])[0]  # wholly cut off
    assert (x2 - x1) * (y2 - y1) == 0
    assert not geometry.boxes_to_mask([[0, 0, 10, 10]]).any()


def test_boxes_there_and_back() -> None:
    rng = np.random.default_rng(2)
    geometry = Geometry((240, 360), (12, 18, 216, 324), (64, 96))
    corners = np.sort(rng.uniform(20, 220, (50, 2, 2)), axis=1)
    boxes = np.concatenate([corners[:, 0], corners[:, 1]], axis=1)
    np.testing.assert_allclose(geometry.boxes_to_original(geometry.boxes_to_model(boxes)), boxes, atol=1e-9)
    assert geometry.boxes_to_model(np.empty((0, 4))).shape == (0, 4)


def test_union_of_boxes_and_tiny_boxes() -> None:
    geometry = Geometry((100, 100), (0, 0, 100, 100), (10, 10))
    union = geometry.boxes_to_mask([[0, 0, 40, 20], [20, 0, 60, 20]])
    assert union.sum() == 12
    tiny = geometry.boxes_to_mask([[71, 32, 73, 33]])  # a fifth of a pixel, away from its center
    assert tiny.nonzero().tolist() == [[3, 7]]
    assert geometry.boxes_to_mask([[98.5, 98.5, 100, 100]]).nonzero().tolist() == [[9, 9]]


def test_cells_of_a_box() -> None:
    geometry = Geometry((HEIGHT, WIDTH), (0, 0, HEIGHT, WIDTH), (120, 90))
    mask = geometry.boxes_to_mask([[60, 60, 150, 100]])  # model: x 15 … 37.5, y 30 … 50
    cells = geometry.to_cells(mask, (6, 3))  # cells of 20 × 30 pixels
    expected = torch.zeros(6, 3)
    expected[1, 0], expected[1, 1] = 10 * 15 / 600, 10 * 7 / 600  # center rule: columns 15 … 36
    expected[2, 0], expected[2, 1] = 10 * 15 / 600, 10 * 7 / 600
    torch.testing.assert_close(cells, expected)


@pytest.mark.parametrize("grid", [(4, 6), (5, 7), (16, 16)])
def test_cells_agree_with_counting_and_keep_the_area(grid: tuple[int, int]) -> None:
    mask = torch.from_numpy(np.random.default_rng(3).random((32, 48)) < 0.3)
    cells = Geometry((32, 48), (0, 0, 32, 48), (32, 48)).to_cells(mask, grid)
    # Twin: repeat pixels until cells divide them, then count.
    fine = mask.repeat_interleave(grid[0], 0).repeat_interleave(grid[1], 1).double()
    counted = fine.reshape(grid[0], 32, grid[1], 48).mean(dim=(1, 3))
    torch.testing.assert_close(cells, counted.float())
    assert cells.double().mean().item() == pytest.approx(mask.double().mean().item())


def test_mask_goes_the_way_of_the_picture() -> None:
    box = (36, 60, 72, 120)
    image, geometry = fit(drawn(*box), (60, 90), 0.05)
    mask = fit_mask(drawn(*box)[..., 0] > 0, geometry)
    assert mask.dtype == torch.bool
    assert torch.equal(mask, image[0] > 127)
    with pytest.raises(ValueError, match="360"):
        fit_mask(np.zeros((WIDTH, HEIGHT), dtype=bool), geometry)
    with pytest.raises(ValueError, match="model size"):
        geometry.to_cells(mask.T, (6, 9))


@pytest.mark.parametrize("border_crop", [-0.1, 0.5])
def test_border_crop_out_of_range(border_crop: float) -> None:
    with pytest.raises(ValueError, match="border_crop"):
        fit(drawn(0, 0, 1, 1), (10, 10), border_crop)
