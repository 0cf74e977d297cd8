"""Patients that a difference needs, patient by patient."""

import math
import statistics
from collections.abc import Sequence
from statistics import NormalDist


def patients_needed(
    values: Sequence[float], patients: Sequence[str], weights: Sequence[float], difference: float
) -> int:
    """(z.975 + z.8)² · variance of the patients' parts of the weighted mean / difference²."""
    names = sorted(set(patients))
    rows = list(zip(values, patients, weights, strict=True))
    sums = [sum(w * v for v, p, w in rows if p == name) for name in names]
    totals = [sum(w for _, p, w in rows if p == name) for name in names]
    mean, weight = sum(sums) / sum(totals), sum(totals) / len(names)
    parts = [(s - mean * t) / weight for s, t in zip(sums, totals, strict=True)]
    z = NormalDist().inv_cdf(0.975) + NormalDist().inv_cdf(0.8)
    return max(2, math.ceil(z**2 * statistics.variance(parts) / difference**2))
