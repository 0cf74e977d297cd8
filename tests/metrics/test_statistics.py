"""Clustered statistics: against loops, against scipy, and in simulations with a known truth."""

import tracemalloc

import numpy as np
import pytest
import scipy.stats

from cxr_faith.metrics import bootstrap, statistics
from cxr_faith.metrics.bootstrap import acceleration, bca_interval, bootstrap_t_interval, draw, jackknife_error
from cxr_faith.metrics.statistics import (
    RESAMPLES,
    RESOLVED,
    TESTS,
    cluster_sums,
    estimate,
    estimate_parts,
    holm,
    sign_flip_p,
)
from tests.reference import statistics as twin


def clustered(rng, n_clusters, columns, between, mean=0.0, most=6):
    """Rows of clusters of 1 to `most`, whose members share an effect: values [rows, columns], clusters [rows]."""
    clusters = np.repeat(np.arange(n_clusters), rng.integers(1, most + 1, n_clusters))
    shared = rng.gamma(4.0, between / 2, (n_clusters, columns)) - 2 * between  # skewed, mean 0, sd `between`
    return mean + shared[clusters] + rng.standard_normal((len(clusters), columns)), clusters


def test_everything_agrees_with_loops():
    rng = np.random.default_rng(0)
    values, clusters = clustered(rng, 11, 3, 1.0, mean=0.4)
    values[rng.random(values.shape) < 0.3] = np.nan
    result = estimate(values, clusters)
    for column in range(3):
        groups = twin.by_cluster(values[:, column], clusters)
        rows = [value for group in groups for value in group]
        assert (result.n[column], result.clusters[column]) == (len(rows), len(groups))
        assert result.mean[column] == pytest.approx(np.mean(rows), rel=1e-12)
        assert result.p_sign_flip[column] == pytest.approx(twin.sign_flip_p(groups), abs=1e-12)
        assert result.d_z[column] == pytest.approx(twin.d_z(groups), rel=1e-12)
    assert 0 < result.p.min() and result.p.max() < 1


def test_resampled_means_are_those_of_the_drawn_rows():
    rng = np.random.default_rng(1)
    values, clusters = clustered(rng, 7, 2, 1.0)
    sums, counts = cluster_sums(values, clusters)
    means = draw(sums, counts, 20, 20, np.random.default_rng(5)).means
    drawn = np.random.default_rng(5).integers(7, size=(20, 7))
    for column in range(2):
        groups = twin.by_cluster(values[:, column], clusters)
        expected = [twin.resample_mean(groups, row) for row in drawn]
        np.testing.assert_allclose(means[:, column], expected, rtol=1e-12)


def test_bca_is_scipys_on_the_same_resamples():
    rng = np.random.default_rng(2)
    values, clusters = clustered(rng, 25, 1, 2.0)
    sums, counts = cluster_sums(values, clusters)

    def ratio(s, c, axis=-1):
        return s.sum(axis) / c.sum(axis)

    data = (sums[:, 0], counts[:, 0])
    theirs = scipy.stats.bootstrap(data, ratio, paired=True, n_resamples=3000, method="BCa", rng=rng)
    drawn = theirs.bootstrap_distribution[:, None]
    jackknife = (sums.sum(0) - sums) / (counts.sum(0) - counts)
    np.testing.assert_allclose(jackknife[:, 0], twin.jackknife(twin.by_cluster(values[:, 0], clusters)), rtol=1e-12)
    low, high = bca_interval(drawn, sums.sum(0) / counts.sum(0), acceleration(jackknife))
    assert (low[0], high[0]) == pytest.approx(tuple(theirs.confidence_interval), abs=1e-12)
    plain = np.quantile(drawn[:, 0], [0.025, 0.975])
    assert abs(low[0] - plain[0]) > 1e-3  # the correction does something here
    ours = estimate(values, clusters)
    width = high[0] - low[0]
    assert ours.bca_low[0] == pytest.approx(low[0], abs=0.06 * width)
    assert ours.bca_high[0] == pytest.approx(high[0], abs=0.06 * width)


def test_the_studentized_bootstrap_is_that_of_loops():
    """A resample's mean and error, the interval and p, from the rows of the clusters that were drawn."""
    rng = np.random.default_rng(11)
    values, clusters = clustered(rng, 14, 2, 1.0, mean=0.3)
    weights = rng.gamma(3.0, 2.0, len(values))
    sums, totals = cluster_sums(values, clusters, np.repeat(weights[:, None], 2, axis=1))
    drawn = draw(sums, totals, 400, 400, np.random.default_rng(5))
    picked = np.random.default_rng(5).integers(14, size=(400, 14))
    for column in range(2):
        groups = twin.weighted_by_cluster(values[:, column], weights, clusters)
        t = [twin.studentized(groups, row) for row in picked.tolist()]
        np.testing.assert_allclose(drawn.t[:, column], t, rtol=1e-9)
        assert drawn.p[column] == pytest.approx(twin.bootstrap_t_p(groups, t), abs=1e-12)
        means = [twin.weighted_mean([groups[index] for index in row]) for row in picked.tolist()]
        np.testing.assert_allclose(drawn.means[:, column], means, rtol=1e-12)
        error = jackknife_error(sums, totals)[column]
        assert error == pytest.approx(twin.jackknife_error(groups), rel=1e-10)
        low, high = bootstrap_t_interval(drawn.t, sums.sum(0) / totals.sum(0), jackknife_error(sums, totals))
        mean, (lower, upper) = twin.weighted_mean(groups), np.quantile(t, [0.025, 0.975])
        assert (low[column], high[column]) == pytest.approx((mean - upper * error, mean - lower * error), rel=1e-9)


def skewed_patients(n_clusters, columns, seed):
    """Rows of 1 to 6 questions a patient whose true mean is 0; patients are skewed by -2.5, effects differ."""
    rng, shape = np.random.default_rng(seed), 0.64
    clusters = np.repeat(np.arange(n_clusters), rng.integers(1, 7, n_clusters))
    patients = -0.2 * (rng.gamma(shape, 1.0, (n_clusters, columns)) - shape) / shape**0.5
    values = patients[clusters] + 0.05 * rng.standard_normal((len(clusters), columns))
    return values, clusters, rng.gamma(4.0, 2.5, (len(clusters), 1))


@pytest.mark.parametrize("n_clusters", [15, 30, 60])
def test_bootstrap_t_covers_the_truth_of_left_skewed_patients(n_clusters):
    """5,000 data sets of weighted means: 92.5 to 97.5 % of the headline intervals hold the truth; the others do not."""
    covered = {"t": [], "bca": [], "percentile": []}
    rejected = {"t": [], "flips": []}
    for seed in range(5):
        values, clusters, weights = skewed_patients(n_clusters, 1000, 100 * n_clusters + seed)
        result = estimate(values, clusters, weights, tests=RESAMPLES)
        ends = {"t": (result.t_low, result.t_high), "bca": (result.bca_low, result.bca_high)}
        for name, (low, high) in (ends | {"percentile": (result.low, result.high)}).items():
            covered[name].append(((low <= 0) & (high >= 0)).mean())
        rejected["t"].append((result.p <= 0.05).mean())
        rejected["flips"].append((result.p_sign_flip <= 0.05).mean())
    share = {name: np.mean(values) for name, values in covered.items()}
    assert 0.925 <= share["t"] <= 0.975 and share["percentile"] < share["bca"] < share["t"], share
    assert 0.04 <= np.mean(rejected["t"]) <= 0.075 < np.mean(rejected["flips"]), rejected


@pytest.mark.parametrize("between", [0.0, 1.0], ids=["independent", "clustered"])
def test_intervals_cover_the_truth(between):
    """1,500 data sets of 120 patients: 95 % intervals hold the true mean in 93 to 97 % of them, all three kinds."""
    values, clusters = clustered(np.random.default_rng(3), 120, 1500, between, mean=0.25)
    by_cluster = estimate(values, clusters)
    for kind in ("", "bca_", "t_"):
        low, high = getattr(by_cluster, f"{kind}low"), getattr(by_cluster, f"{kind}high")
        assert 0.93 <= ((low <= 0.25) & (high >= 0.25)).mean() <= 0.97
    naive = estimate(values, np.arange(len(clusters)))  # rows taken as independent
    covered = ((naive.low <= 0.25) & (naive.high >= 0.25)).mean()
    assert covered < 0.85 if between else 0.93 <= covered <= 0.97


@pytest.mark.parametrize("n_clusters", [11, 40])
def test_sign_flips_keep_their_level_on_clustered_data(n_clusters):
    """Type I error at 5 % for whole clusters; single rows flipped reject far too often."""
    rng = np.random.default_rng(4)
    clusters = np.repeat(np.arange(n_clusters), 5)
    values = (rng.standard_normal((n_clusters, 800)))[clusters] + 0.5 * rng.standard_normal((5 * n_clusters, 800))
    sums = cluster_sums(values, clusters)[0]
    assert 0.03 <= (sign_flip_p(sums, rng) <= 0.05).mean() <= 0.07
    assert (sign_flip_p(values, rng, flips=1000) <= 0.05).mean() > 0.15


def test_random_flips_approach_the_exact_p():
    rng = np.random.default_rng(5)
    sums = rng.standard_normal((13, 20)) + 0.4  # one cluster more than is gone through
    exact = [twin.sign_flip_p([[value] for value in column]) for column in sums.T]
    approximate = sign_flip_p(sums, rng)
    np.testing.assert_allclose(approximate, exact, atol=0.02)
    few = sums[:9]
    theirs = [
        scipy.stats.permutation_test((column,), np.sum, permutation_type="samples", n_resamples=np.inf).pvalue
        for column in few.T
    ]
    np.testing.assert_allclose(sign_flip_p(few, rng), theirs, atol=1e-12)


def test_holm_agrees_with_its_definition():
    p = np.random.default_rng(6).random(9) ** 3
    np.testing.assert_allclose(holm(p), twin.holm(p.tolist()), rtol=1e-12)
    with_gap = np.insert(p, 4, np.nan)
    np.testing.assert_array_equal(holm(with_gap), np.insert(holm(p), 4, np.nan))
    assert (holm(p) >= p).all() and holm([0.9, 0.8]).tolist() == [1.0, 1.0]


def test_few_clusters_have_no_interval():
    rng = np.random.default_rng(7)
    for n_clusters, there in ((9, False), (10, True)):
        result = estimate(rng.standard_normal((2 * n_clusters, 1)), np.repeat(np.arange(n_clusters), 2))
        assert np.isfinite(result.low[0]) == np.isfinite(result.bca_high[0]) == there
        assert np.isfinite(result.p[0]) and np.isfinite(result.d_z[0])


def test_degenerate_columns():
    """Constant, missing throughout, and a single cluster."""
    values = np.stack([np.ones(12), np.full(12, np.nan), np.zeros(12)], axis=1)
    result = estimate(values, np.arange(12))
    assert result.mean[0] == result.low[0] == result.high[0] == 1 and np.isnan(result.d_z[0])
    assert (result.n[1], result.clusters[1]) == (0, 0) and np.isnan(result.p[1]) and np.isnan(result.mean[1])
    assert result.p_sign_flip[0] == 2 / 2**12 and result.p_sign_flip[2] == 1
    assert result.p[0] == 2 / (TESTS + 1) and result.p[2] == 1
    assert result.t_low[0] == result.t_high[0] == 1
    alone = estimate(values[:, :1], np.zeros(12))
    assert (alone.clusters[0], alone.p[0]) == (1, 1) and np.isnan(alone.d_z[0])


def test_a_column_does_not_depend_on_its_neighbors():
    values, clusters = clustered(np.random.default_rng(8), 30, 4, 1.0)
    values[clusters < 10, 2] = np.nan  # a method that has fewer patients
    together, alone = estimate(values, clusters), estimate(values[:, [2]], clusters)
    assert together.low[2] == pytest.approx(alone.low[0], rel=1e-12) and together.clusters[2] == 20
    assert together.p[2] == alone.p[0]


def test_thirty_methods_cost_little_more_than_one():
    """10,000 samples of 4,000 patients; all columns share the draws. Processor time, in one run."""
    import time

    rng = np.random.default_rng(9)
    clusters, costs = rng.integers(4000, size=10_000), {1: float("inf"), 30: float("inf")}
    for _ in range(2):
        for columns in costs:
            for kept in (bootstrap._kept_counts, statistics._kept_signs):
                kept.cache_clear()  # an earlier call's draws would be free
            values, begin = rng.standard_normal((10_000, columns)), time.process_time()
            estimate(values, clusters)
            costs[columns] = min(costs[columns], time.process_time() - begin)
    assert costs[30] < 3 * costs[1], costs


def test_many_clusters_are_resampled_themselves(monkeypatch):
    """Intervals have the bits of those of few clusters; only p below .01 comes from blocks of clusters."""
    rng = np.random.default_rng(6)
    values, clusters = clustered(rng, 900, 4, 1.0, mean=0.02)
    values = np.hstack([values, values + 0.5])  # the last columns have a small p
    weights = rng.gamma(3.0, 2.0, (len(values), 1))
    alone = estimate(values, clusters, weights)
    monkeypatch.setattr("cxr_faith.metrics.statistics.BLOCKS", 300)
    blocked = estimate(values, clusters, weights)
    for name in ("mean", "n", "clusters", "d_z", "t_low", "t_high", "low", "high", "bca_low", "bca_high"):
        np.testing.assert_array_equal(getattr(blocked, name), getattr(alone, name))
    np.testing.assert_allclose(blocked.p, alone.p, atol=0.02)
    np.testing.assert_allclose(blocked.p_sign_flip, alone.p_sign_flip, atol=0.02)
    assert blocked.p[0] == estimate(values[:, :1], clusters, weights, tests=RESAMPLES).p[0] > RESOLVED
    assert (blocked.p[-1], alone.p[-1]) == (2 / (1 + TESTS),) * 2  # finer than 2,000 resamples tell


def test_single_precision_moves_no_interval_of_many_clusters(monkeypatch):
    """Ends move by less than 1e-5 of a standard error, p by less than one resample in 2,000."""
    rng = np.random.default_rng(12)
    values, clusters = clustered(rng, 2_500, 3, 1.0, mean=0.04)
    weights = rng.gamma(3.0, 2.0, (len(values), 1))
    single = estimate(values, clusters, weights)
    monkeypatch.setattr("cxr_faith.metrics.bootstrap._DOUBLE", 10_000)
    double = estimate(values, clusters, weights)
    error = (double.high - double.low) / 4
    for name in ("t_low", "t_high", "low", "high"):
        assert (np.abs(getattr(single, name) - getattr(double, name)) < 1e-5 * error).all()
        assert (getattr(single, name) != getattr(double, name)).any()  # so they were computed differently
    np.testing.assert_allclose(single.p, double.p, atol=1 / RESAMPLES)


def test_a_run_of_very_many_patients_draws_no_matrix_of_patients():
    """33,000 clusters: draws exist a block at a time and are not kept; the signs kept are those of 2,000 blocks."""
    from cxr_faith.metrics.bootstrap import _kept_counts
    from cxr_faith.metrics.statistics import _SEED, BLOCKS, _kept_signs

    n_clusters, values = 33_000, np.random.default_rng(7).standard_normal((33_000, 1))
    for kept in (_kept_counts, _kept_signs):
        kept.cache_clear()
    tracemalloc.start()
    result = estimate(values, np.arange(n_clusters))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert result.clusters[0] == n_clusters and result.p[0] >= RESOLVED
    assert result.t_high[0] - result.t_low[0] == pytest.approx(2 * 1.96 / np.sqrt(n_clusters), rel=0.1)
    assert _kept_counts.cache_info().misses == 0
    assert _kept_signs.cache_info().misses == 1 and _kept_signs(BLOCKS, RESAMPLES, _SEED + 1).nbytes == 4_000_000
    assert _kept_signs.cache_info().misses == 1
    assert peak < 100e6  # as numbers, all counts would take 528 MB


def test_columns_that_come_in_parts_are_never_all_in_memory(monkeypatch):
    """120 columns of 60,000 rows, 58 MB of values: 15 at a time are in memory, beside sums over 3,000 clusters."""
    rng, clusters = np.random.default_rng(13), np.arange(60_000) % 3_000
    weights = rng.gamma(3.0, 2.0, (60_000, 1)).repeat(15, axis=1)
    parts = ((np.random.default_rng(number).standard_normal((60_000, 15)), weights) for number in range(8))
    monkeypatch.setattr(statistics, "_VALUES_AT_ONCE", 3_000 * 40)
    tracemalloc.start()
    result = estimate_parts(parts, clusters)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 70e6  # the table alone, its weights and its sums would take 121 MB
    alone = estimate(np.random.default_rng(5).standard_normal((60_000, 15)), clusters, weights)
    for name in ("mean", "n", "clusters", "t_low", "t_high", "low", "high", "bca_low", "bca_high", "p", "d_z"):
        np.testing.assert_allclose(getattr(result, name)[75:90], getattr(alone, name), rtol=1e-6, err_msg=name)
