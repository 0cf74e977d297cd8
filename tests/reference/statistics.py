"""Clustered statistics with plain loops over clusters and resamples."""

import itertools
import math
import statistics


def by_cluster(values, clusters):
    groups = {}
    for value, cluster in zip(values, clusters, strict=True):
        if not math.isnan(value):
            groups.setdefault(cluster, []).append(value)
    return list(groups.values())


def resample_mean(groups, drawn):
    """Mean over all rows of the clusters that were drawn, with repetition."""
    rows = [value for index in drawn for value in groups[index]]
    return sum(rows) / len(rows)


def jackknife(groups):
    return [resample_mean(groups, [j for j in range(len(groups)) if j != i]) for i in range(len(groups))]


def weighted_by_cluster(values, weights, clusters):
    """(Σ weight · value, Σ weight) of each cluster."""
    groups = {}
    for value, weight, cluster in zip(values, weights, clusters, strict=True):
        total, heavy = groups.get(cluster, (0.0, 0.0))
        groups[cluster] = (total + weight * value, heavy + weight)
    return list(groups.values())


def weighted_mean(groups):
    return sum(total for total, _ in groups) / sum(weight for _, weight in groups)


def jackknife_error(groups):
    n = len(groups)
    left_out = [weighted_mean(groups[:i] + groups[i + 1 :]) for i in range(n)]
    middle = sum(left_out) / n
    return math.sqrt((n - 1) / n * sum((mean - middle) ** 2 for mean in left_out))


def studentized(groups, drawn):
    """(mean of a resample - mean of the data) over the resample's own error, that of a ratio of sums."""
    n, resample = len(drawn), [groups[index] for index in drawn]
    mean = weighted_mean(resample)
    squares = sum((total - mean * weight) ** 2 for total, weight in resample)
    error = math.sqrt(n / (n - 1) * squares) / sum(weight for _, weight in resample)
    return (mean - weighted_mean(groups)) / error


def bootstrap_t_p(groups, t):
    """Twice the smaller tail of the resamples' t beyond the observed mean over its error."""
    observed = weighted_mean(groups) / jackknife_error(groups)
    above, below = sum(value >= observed for value in t), sum(value <= observed for value in t)
    return min(1.0, 2 * (1 + min(above, below)) / (1 + len(t)))


def sign_flip_p(groups):
    """All sign patterns of whole clusters."""
    n = sum(map(len, groups))
    observed = abs(sum(map(sum, groups))) / n
    hits = total = 0
    for signs in itertools.product((-1, 1), repeat=len(groups)):
        mean = sum(sign * sum(group) for sign, group in zip(signs, groups, strict=True)) / n
        hits += abs(mean) >= observed - 1e-12
        total += 1
    return hits / total


def d_z(groups):
    means = [statistics.mean(group) for group in groups]
    return statistics.mean(means) / statistics.stdev(means)


def holm(p):
    """Reject in turn: the smallest p times the number of tests, the next times one less, never falling."""
    order = sorted(range(len(p)), key=lambda i: p[i])
    adjusted, highest = [None] * len(p), 0.0
    for step, index in enumerate(order):
        highest = max(highest, min(1.0, p[index] * (len(p) - step)))
        adjusted[index] = highest
    return adjusted


def contrast(rows):
    """Cluster → its value in the difference of two weighted means; rows are (cluster, value, weight, is_first)."""
    parts, means = [], []
    for is_first in (True, False):
        mine = [(cluster, value, weight) for cluster, value, weight, first in rows if first == is_first]
        total = sum(weight for _, _, weight in mine)
        mean = sum(value * weight for _, value, weight in mine) / total
        m = len({cluster for cluster, _, _ in mine})
        part = {}
        for cluster, value, weight in mine:
            part[cluster] = part.get(cluster, 0.0) + math.sqrt(m / (m - 1)) * weight * (value - mean) / total
        parts.append(part)
        means.append(mean)
    clusters = {cluster for cluster, *_ in rows}
    difference = means[0] - means[1]
    return {c: difference + len(clusters) * (parts[0].get(c, 0.0) - parts[1].get(c, 0.0)) for c in clusters}
