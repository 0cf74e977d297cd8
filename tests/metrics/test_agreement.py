"""Agreement of maps against scipy, loops and sets; calibration against scikit-learn and loops."""

import numpy as np
import pytest
import scipy.stats
from sklearn.calibration import calibration_curve
from sklearn.metrics import roc_auc_score

from cxr_faith.metrics.agreement import spearman, ssim, top_overlap
from cxr_faith.metrics.calibration import (
    area_under_roc,
    expected_calibration_error,
    reliability,
    selective_accuracy,
)
from tests.reference import localization as twin


@pytest.fixture
def pairs():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 6, 8, 9))
    return np.where(np.arange(6)[:, None, None] % 2, np.round(a), a), 0.5 * a + b


def test_spearman_is_scipys(pairs):
    expected = [scipy.stats.spearmanr(x.ravel(), y.ravel()).statistic for x, y in zip(*pairs, strict=True)]
    np.testing.assert_allclose(spearman(*pairs), expected, atol=1e-12)
    assert np.isnan(spearman(np.ones((1, 3, 3)), pairs[1][:1, :3, :3]))[0]


def test_ssim_is_that_of_the_windows(pairs):
    expected = [twin.ssim(x, y) for x, y in zip(*pairs, strict=True)]
    np.testing.assert_allclose(ssim(*pairs), expected, atol=1e-9)
    np.testing.assert_allclose(ssim(pairs[0], 3 * pairs[0] - 1), 1, atol=1e-12)


def test_top_overlap_is_that_of_sets(pairs):
    k = 7  # a tenth of 72 cells
    for found, x, y in zip(top_overlap(*pairs), *pairs, strict=True):
        sets = [set(np.argsort(-m.ravel())[:k]) for m in (x, y)]
        if len(np.unique(x)) == x.size:
            assert found == pytest.approx(len(sets[0] & sets[1]) / len(sets[0] | sets[1]))
    np.testing.assert_allclose(top_overlap(pairs[0], pairs[0]), 1)
    flat = np.ones((1, 8, 9))
    assert 0 < top_overlap(flat, pairs[1][:1])[0] < 0.1  # a flat map shares a little with everything


def test_calibration_error_and_reliability():
    rng = np.random.default_rng(1)
    p = rng.random(400)
    truth = rng.random(400) < p**2
    share, mean = calibration_curve(truth, p, n_bins=15)
    bins = reliability(p, truth)
    np.testing.assert_allclose([b.yes for b in bins], share)
    np.testing.assert_allclose([b.p_yes for b in bins], mean)
    expected = sum(b.n / 400 * abs(b.yes - b.p_yes) for b in bins)
    assert expected_calibration_error(p, truth) == pytest.approx(expected, abs=1e-6) and expected > 0.1
    sure, right = [1.0] * 10 + [0.95] * 10, [True] * 5 + [False] * 5 + [True] * 10  # one bin, its last
    assert expected_calibration_error(sure, right) == pytest.approx(0.225)
    assert np.isnan(expected_calibration_error([], [])) and reliability([1.0, 0.0], [True, False])[1].n == 1


def test_area_under_roc():
    """Ties count half; one kind of answer alone cannot be told apart from another."""
    rng = np.random.default_rng(2)
    p = rng.random(400).round(1)
    truth = rng.random(400) < p
    assert area_under_roc(p, truth) == pytest.approx(roc_auc_score(truth, p), abs=1e-6)
    assert area_under_roc(1 - p, truth) == pytest.approx(1 - roc_auc_score(truth, p), abs=1e-6)
    assert np.isnan(area_under_roc([0.2, 0.7], [True, True])) and np.isnan(area_under_roc([], []))


def test_selective_accuracy_takes_the_surest():
    found = selective_accuracy([0.9, 0.8, 0.7, 0.6], [1, 1, 0, 0])
    assert found == {"0.5": 1.0, "0.8": pytest.approx(2 / 3.2), "1": 0.5}
    assert selective_accuracy([0.5] * 4, [1, 0, 0, 1])["0.5"] == 0.5  # ties do not depend on the order
    assert selective_accuracy([], []) == {}
