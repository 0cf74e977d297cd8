"""Token boxes and cells: area weights, conserved mass, several pictures."""

import numpy as np
import pytest
import torch

from cxr_faith.vlm.layout import Layout, grid_boxes
from tests.reference.families import on_cells


def tiled():
    """Two tiles side by side of 3x3 tokens, a separator, and a view of the whole of 2x2."""
    tiles = [grid_boxes((3, 3), half) for half in ((0, 0, 0.5, 1), (0.5, 0, 1, 1))]
    return Layout.of((2, 4), torch.cat([*tiles, torch.zeros(1, 4), grid_boxes((2, 2))]).double())


def test_tokens_that_are_the_cells_are_left_as_they_are():
    layout, values = Layout.of_grid((3, 5)), torch.rand(2, 15)
    assert layout.is_grid and torch.equal(layout.shares, torch.eye(15, dtype=torch.float64))
    assert layout.to_cells(values) is values
    assert layout.least_on_cells(values, 9) is values


def test_values_go_to_cells_by_area_and_none_are_lost():
    layout = tiled()
    values = torch.rand(3, layout.n_tokens, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    cells = layout.to_cells(values)
    covered = layout.boxes[:, 2] > layout.boxes[:, 0]
    for row, own in zip(cells, values, strict=True):
        expected = on_cells(layout.boxes[covered].tolist(), own[covered].tolist(), (2, 4))
        assert np.abs(row.view(2, 4).numpy() - expected).max() < 1e-12
    torch.testing.assert_close(cells.sum(1), values[:, covered].sum(1))
    assert not layout.is_grid


def test_a_token_stays_with_half_of_its_box():
    layout = tiled()
    left = torch.tensor([True, True, False, False] * 2)
    top = torch.tensor([True] * 4 + [False] * 4)
    assert layout.kept_tokens(left).tolist() == [True] * 9 + [False] * 9 + [False] + [True, False] * 2
    middle = layout.kept_tokens(top)[:9].view(3, 3)
    assert middle[0].all() and middle[1].all() and not middle[2].any()  # the middle row lies half above
    assert not layout.kept_tokens(torch.zeros(8, dtype=torch.bool)).any()


def test_least_value_of_the_tokens_that_touch_a_cell():
    layout = Layout.of((1, 2), torch.tensor([[0, 0, 0.5, 1], [0, 0, 1, 1], [0, 0, 0, 0]]).double())
    assert layout.least_on_cells(torch.tensor([3, 5, 1]), 9).tolist() == [3, 5]
    alone = Layout.of((1, 2), torch.tensor([[0, 0, 0.5, 1.0]]).double())
    assert alone.least_on_cells(torch.tensor([3]), 9).tolist() == [3, 9]


def test_pictures_follow_each_other():
    first, second = Layout.of_grid((2, 2)), tiled()
    layout = Layout.joined([first, second])
    values = torch.rand(layout.n_tokens, dtype=torch.float64)
    assert layout.grids == ((2, 2), (2, 4)) and layout.pictures.tolist() == [0] * 4 + [1] * second.n_tokens
    expected = torch.cat([first.to_cells(values[:4]), second.to_cells(values[4:])])
    torch.testing.assert_close(layout.to_cells(values), expected)
    assert Layout.joined([first, first]).is_grid and not layout.is_grid


@pytest.mark.parametrize("grid", [(1, 1), (16, 16), (27, 13)])
def test_the_boxes_of_a_grid_tile_it(grid):
    boxes = grid_boxes(grid, (0.25, 0.5, 0.75, 1.0))
    assert float((boxes[:, 2:] - boxes[:, :2]).prod(1).sum()) == pytest.approx(0.25)
    assert boxes[0, :2].tolist() == [0.25, 0.5] and boxes[-1, 2:].tolist() == [0.75, 1.0]
