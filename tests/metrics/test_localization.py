"""Localization against pixels, scikit-learn and scikit-image; regions and border by hand."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from cxr_faith.metrics.box_protocol import BOX_COLUMNS, bounding_boxes, box_scores
from cxr_faith.metrics.localization import LOCALIZATION_COLUMNS, localization_scores, pointing_ceiling
from cxr_faith.metrics.regions import REGIONS, border_weights, enrichment, mass_shares, region_weights
from tests.reference import localization as twin

GRID, SHAPE = (5, 7), (20, 35)


def box_mask(top, left, bottom, right):
    mask = np.zeros(SHAPE, bool)
    mask[top:bottom, left:right] = True
    return mask


@pytest.mark.parametrize("seed", range(6))
def test_scores_are_those_of_the_pixels(seed):
    rng = np.random.default_rng(seed)
    saliency = rng.standard_normal(GRID)
    if seed % 2:
        saliency = np.round(saliency * 2)  # ties, zeros and a shared maximum
    mask = box_mask(3, 6, 14, 21) | box_mask(17, 30, 20, 35)
    order = np.lexsort((rng.permutation(35), -saliency.ravel()))
    scores = localization_scores(saliency, mask, order)
    pixels = twin.upsampled(saliency.clip(min=0), SHAPE)
    top = np.zeros(35)
    top[order[:4]] = 1  # a tenth of 35 cells, 3.5, rounded half to even
    assert scores["pointing_game"] == pytest.approx(mask[pixels == pixels.max()].mean())
    assert scores["energy_inside"] == pytest.approx(pixels[mask].sum() / pixels.sum())
    assert scores["iou_otsu"] == pytest.approx(twin.iou(pixels > twin.otsu_threshold(pixels), mask))
    assert scores["iou_top_10"] == pytest.approx(twin.iou(twin.upsampled(top.reshape(GRID), SHAPE) > 0, mask))
    assert scores["auprc"] == pytest.approx(average_precision_score(mask.ravel(), pixels.ravel()), abs=1e-12)
    assert set(scores) == set(LOCALIZATION_COLUMNS) and 0 < scores["auprc"] < 1


def test_the_mask_itself_is_a_perfect_map_and_its_transpose_is_not():
    mask = box_mask(4, 0, 12, 15)
    truth = np.zeros(GRID)
    truth[1:3, :3] = 1
    scores = localization_scores(truth, mask, np.lexsort((np.arange(35), -truth.ravel())))
    assert {scores[name] for name in ("pointing_game", "energy_inside", "iou_otsu", "auprc")} == {1.0}
    square_mask = np.zeros((20, 20), bool)
    square_mask[0:4, 12:16] = True
    spot = np.zeros((5, 5))
    spot[0, 3] = 1
    assert localization_scores(spot, square_mask)["pointing_game"] == 1
    assert localization_scores(spot.T, square_mask)["pointing_game"] == 0


def test_a_map_that_points_nowhere_is_a_miss_and_no_box_is_null():
    mask = box_mask(0, 0, 4, 5)
    for nothing in (np.zeros(GRID), -np.ones(GRID)):
        assert set(localization_scores(nothing, mask).values()) == {0.0}
    none = localization_scores(np.ones(GRID), np.zeros(SHAPE, bool))
    assert all(np.isnan(value) for value in none.values())
    flat = localization_scores(np.ones(GRID), mask)  # every cell is a maximum
    assert flat["pointing_game"] == flat["energy_inside"] == flat["auprc"] == pytest.approx(20 / 700)
    assert flat["iou_otsu"] == 0


def test_what_cannot_be_scored_is_refused():
    with pytest.raises(ValueError, match="5x7 cells does not divide a mask of 21x35 px"):
        localization_scores(np.ones(GRID), np.ones((21, 35), bool))
    with pytest.raises(ValueError, match="not finite"):
        localization_scores(np.full(GRID, np.nan), np.ones(SHAPE, bool))


@pytest.mark.parametrize("grid", [(12, 12), (5, 7), (16, 15)])
def test_regions_share_out_the_grid(grid):
    weights = region_weights(grid)
    np.testing.assert_array_equal(weights.sum(0), 1)
    for row in range(grid[0]):
        for column in range(grid[1]):
            right, level = twin.region(row, column, grid)
            for number, name in enumerate(REGIONS):
                side, height = name.split("_")
                share = (right if side == "right" else 1 - right) * (("upper", "middle", "lower")[level] == height)
                assert weights[number, row, column] == share


def test_the_left_of_the_image_is_the_right_of_the_patient():
    saliency = np.zeros((6, 6))
    saliency[5, 0] = 2.0
    shares = dict(zip(REGIONS, mass_shares(saliency, region_weights((6, 6))), strict=True))
    assert shares["right_lower"] == 1 and sum(shares.values()) == 1


def test_border_is_five_percent_of_each_side_by_area():
    weights = border_weights((10, 40))
    assert weights.mean() == pytest.approx(1 - 0.9 * 0.9)
    assert weights[5, 0] == pytest.approx(1) and weights[5, 1] == pytest.approx(1)
    assert weights[5, 2] == pytest.approx(0) and weights[0, 20] == pytest.approx(0.5)


def test_enrichment_of_an_even_map_is_one():
    weights = np.concatenate([region_weights((9, 9)), border_weights((9, 9))[None], np.zeros((1, 9, 9))])
    maps = np.stack([np.ones((9, 9)), -np.ones((9, 9))])
    ratios = enrichment(mass_shares(maps, weights), weights)
    np.testing.assert_allclose(ratios[0, :7], 1)
    assert np.isnan(ratios[0, 7]) and np.isnan(ratios[1]).all()


def test_the_pointing_ceiling_is_the_best_cell():
    """A box that covers no cell whole: no map can point at it for sure."""
    mask = np.zeros((8, 8), bool)
    mask[1:3, 1:4] = True  # of cells of 4 x 4 px it covers 6 pixels of one
    assert pointing_ceiling(mask, (2, 2)) == 6 / 16
    best = max(localization_scores(np.eye(4)[cell].reshape(2, 2), mask)["pointing_game"] for cell in range(4))
    assert best == 6 / 16
    assert pointing_ceiling(np.ones((8, 8), bool), (2, 2)) == 1.0
    assert np.isnan(pointing_ceiling(np.zeros((8, 8), bool), (2, 2)))


@pytest.mark.parametrize("seed", range(12))
def test_the_box_protocol_is_that_of_the_pixels(seed):
    rng = np.random.default_rng(seed)
    saliency = rng.standard_normal((9, 11))
    if seed % 2:
        saliency = np.round(saliency * 2)  # ties, and components of one size
    mask = np.zeros((36, 55), bool)
    for _ in range(1 + seed % 3):
        top, left = rng.integers(30), rng.integers(45)
        mask[top : top + 9, left : left + 13] = True
    scores = box_scores(saliency, mask, 1 + seed % 3)
    assert tuple(scores) == BOX_COLUMNS
    np.testing.assert_allclose(list(scores.values()), twin.box_protocol(saliency, mask, 1 + seed % 3), atol=1e-12)


def test_the_largest_components_are_kept_as_many_as_there_are_boxes():
    saliency = np.zeros((10, 10))
    saliency[0, 0] = saliency[1, 1] = saliency[2, 2] = 5.0  # touch by corners: one component, its box is 3 x 3
    saliency[8, 8:10] = saliency[5, 8:10] = 5.0  # two of the same size: the upper one goes first
    truth = np.zeros((10, 10), bool)
    truth[:3, :3] = True
    assert set(box_scores(saliency, truth, 1).values()) == {1.0}
    two = box_scores(saliency, truth, 2)
    assert two["box_iou_q90"] == two["box_precision_q90"] == 9 / 11 and two["box_recall_q90"] == 1.0
    truth[5, 8:10] = True
    assert set(box_scores(saliency, truth, 2).values()) == {1.0}
    # One cell more than a tenth, all of the same value: every one of them is chosen.
    tied = np.zeros((10, 10))
    tied[0] = tied[1, 0] = 1.0
    assert box_scores(tied, np.ones((10, 10), bool), 1)["box_recall_q90"] == 0.2
    few = np.zeros((10, 10))
    few[4, 4] = 1.0  # the .9 quantile is 0, and cells without a value are not chosen
    assert box_scores(few, np.ones((10, 10), bool), 1)["box_recall_q90"] == 0.01


def test_maps_without_a_box_miss_and_no_finding_is_null():
    assert set(box_scores(-np.ones(GRID), box_mask(0, 0, 4, 5), 1).values()) == {0.0}
    assert all(np.isnan(value) for value in box_scores(np.ones(GRID), np.zeros(SHAPE, bool), 1).values())


def test_components_do_not_reach_from_one_picture_into_the_next():
    sheet = np.zeros((8, 4), bool)
    sheet[3, 0] = sheet[4, 0] = True  # the last row of the first picture, the first row of the second
    assert bounding_boxes(sheet)[1] == 1
    assert bounding_boxes(sheet, pictures=2)[1] == 2
    mask = np.zeros((8, 4), bool)
    mask[0, 1] = mask[1, 0] = mask[6, 3] = True
    boxes, n = bounding_boxes(mask, pictures=2)
    assert n == 2 and boxes[:2, :2].all() and boxes.sum() == 5, "a mask gets the boxes of its components"
