"""The spread of maps against loops, and what makes a cell stable."""

import numpy as np
import pytest

from cxr_faith.metrics.uncertainty import spread, stable_share


def slow_ranks(values):
    """Rank of each value, from 1; equal values have their mean rank."""
    return [sum(other < one for other in values) + (sum(other == one for other in values) + 1) / 2 for one in values]


def test_spread_and_stable_cells_agree_with_loops() -> None:
    maps = np.round(
        np.random.default_rng(0).normal(size=(1, 60)) + np.random.default_rng(1).normal(size=(5, 60)) / 9, 1
    )
    ranks = [slow_ranks(copy.tolist()) for copy in maps]
    stable = 0
    for cell in range(60):
        values, places = maps[:, cell], [copy[cell] for copy in ranks]
        mean = sum(values) / 5
        assert spread(maps)[cell] == pytest.approx((sum((value - mean) ** 2 for value in values) / 4) ** 0.5, rel=1e-12)
        middle = sum(places) / 5
        stable += (sum((place - middle) ** 2 for place in places) / 4) ** 0.5 <= 0.05 * 60
    assert 5 < stable < 55 and stable_share(maps) == stable / 60


def test_another_scale_moves_no_rank_and_another_order_moves_all() -> None:
    values = np.random.default_rng(2).random(40)
    assert stable_share([values, 3 * values + 1]) == 1
    assert stable_share([values, -values]) < 0.15
    assert (spread([values, values]) == 0).all()
