"""Scalars of one pair of curves, with plain Python floats and loops; None is a missing value."""

import math
import statistics


def threshold(s_original):
    return max(0.5, 0.05 * abs(s_original))


def classify(s_original, s_substrate, off_format, valid):
    if not valid or not math.isfinite(s_original) or not math.isfinite(s_substrate):
        return "invalid"
    if off_format:
        return "off_format"
    effect = s_original - s_substrate
    if abs(effect) < threshold(s_original):
        return "degenerate"
    if effect <= -threshold(s_original):
        return "inverted"
    return "ok"


def trapezoid(curve, x):
    area = 0.0
    for i in range(len(x) - 1):
        area += (x[i + 1] - x[i]) * (curve[i] + curve[i + 1]) / 2
    return area


def at(curve, x, q):
    for i in range(len(x) - 1):
        if x[i] <= q <= x[i + 1]:
            return curve[i] + (curve[i + 1] - curve[i]) * (q - x[i]) / (x[i + 1] - x[i])
    raise AssertionError("q outside the abscissa")


def _areas(result, suffix, deletion, insertion, x):
    result["deletion_auc" + suffix] = trapezoid(deletion, x)
    result["insertion_auc" + suffix] = trapezoid(insertion, x)
    result["srg" + suffix] = result["insertion_auc" + suffix] - result["deletion_auc" + suffix]


def _clip(curve):
    return [min(1.0, max(0.0, value)) for value in curve]


def _normalized(result, x, deletion, insertion):
    original, substrate = deletion[0], deletion[-1]
    effect = original - substrate
    n_del = [(s - substrate) / effect for s in deletion]
    n_ins = [(s - substrate) / effect for s in insertion]
    _areas(result, "", n_del, n_ins, x)
    _areas(result, "_clipped", _clip(n_del), _clip(n_ins), x)
    for percent in (10, 20, 50):
        result[f"drop_{percent}"] = 1 - at(n_del, x, percent / 100)
    result["retained_50"] = at(n_del, x, 0.5)
    outside = sum(1 for n in n_del + n_ins if n < 0 or n > 1)
    result["clipped_share"] = outside / len(n_del + n_ins)
    wrong = 0
    for i in range(len(x) - 1):
        wrong += deletion[i + 1] - deletion[i] > 0.01 * abs(effect)
        wrong += insertion[i] - insertion[i + 1] > 0.01 * abs(effect)
    result["monotonicity_violations"] = wrong / (2 * (len(x) - 1))


def _flips(result, x, deletion_flip, insertion_flip):
    result["flip_deletion"] = result["flip_insertion"] = None
    if not deletion_flip[-1] < 0:
        return
    for i in reversed(range(len(x))):
        if deletion_flip[i] < 0:
            result["flip_deletion"] = x[i]
        if insertion_flip[i] >= 0:
            result["flip_insertion"] = x[i]


def curve_scalars(
    x,
    deletion,
    insertion,
    deletion_prob,
    insertion_prob,
    deletion_flip,
    insertion_flip,
    status,
    falling_log_p=None,
    rising_log_p=None,
):
    """Columns that are missing in the result are null in the record."""
    result = {}
    if status == "invalid" or not all(math.isfinite(s) for s in [*deletion, *insertion]):
        return result
    result["s_original"], result["s_substrate"] = deletion[0], deletion[-1]
    result["effect"] = deletion[0] - deletion[-1]
    if falling_log_p:
        result["log_p_original"], result["log_p_substrate"] = falling_log_p[0], falling_log_p[-1]
    if status == "off_format":
        return result
    _areas(result, "_logit", deletion, insertion, x)
    _areas(result, "_prob", deletion_prob, insertion_prob, x)
    if falling_log_p:
        _areas(result, "_log_p", falling_log_p, rising_log_p, x)
    _flips(result, x, deletion_flip, insertion_flip)
    if status == "ok":
        _normalized(result, x, deletion, insertion)
    return result


def monte_carlo_error(values):
    pairs = [(values[i] + values[i + 1]) / 2 for i in range(0, len(values), 2)]
    return statistics.stdev(pairs) / math.sqrt(len(pairs))


def random_test(srg, srg_random):
    if len(set(srg_random)) == 1:
        return None, None
    at_least = 0
    for value in srg_random:
        at_least += value >= srg
    return srg / statistics.stdev(srg_random), (1 + at_least) / (len(srg_random) + 1)


def mean_and_error(values, weights=None):
    """Weighted mean and its standard error over the values that are not NaN; without weights all weigh the same."""
    pairs = zip(values, weights or [1.0] * len(values), strict=True)
    present = [(value, weight) for value, weight in pairs if not math.isnan(value) and not math.isnan(weight)]
    total = sum(weight for _, weight in present)
    mean = sum(weight * value for value, weight in present) / total
    squares = sum((weight * (value - mean)) ** 2 for value, weight in present)
    return mean, math.sqrt(squares * len(present) / (len(present) - 1)) / total
