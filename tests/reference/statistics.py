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
