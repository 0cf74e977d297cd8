"""Adaptive curves the slow way: one point at a time from a function, plain loops over a list of known steps."""


def coarse(steps):
    """Steps of the first pass: eighths of the schedule, rounded, and their mirror images."""
    first = [round(i * steps / 8) for i in range(5)]
    return sorted({*first, *(steps - s for s in first)})


def interval_error(known, values, k, i):
    """5 h^3 |f''| / 12 of the interval from known[i] to known[i + 1], f'' from the slopes next to it."""
    if known[i + 1] - known[i] == 1:
        return 0.0
    x = [k[s] / k[-1] for s in known]

    def slope(j):
        return (values[known[j + 1]] - values[known[j]]) / (x[j + 1] - x[j])

    bends = [0.0]
    for j in (i - 1, i + 1):
        if 0 <= j < len(known) - 1:
            middles = abs((x[i] + x[i + 1]) / 2 - (x[j] + x[j + 1]) / 2)
            bends.append(abs(slope(i) - slope(j)) / middles)
    return 5 * max(bends) * (x[i + 1] - x[i]) ** 3 / 12


def refine(curves, k, allowed):
    """(known steps, estimated error) of a pair of curves, functions of the step, that are refined together."""
    steps = len(k) - 1
    known = coarse(steps)
    while True:
        values = [{s: curve(s) for s in known} for curve in curves]
        errors = [[interval_error(known, v, k, i) for i in range(len(known) - 1)] for v in values]
        whole = max(sum(error**2 for error in row) ** 0.5 for row in errors)
        if whole <= allowed:
            return known, whole
        new = set()
        for i, both in enumerate(zip(*errors, strict=True)):
            if max(both) > allowed * ((k[known[i + 1]] - k[known[i]]) / k[-1]) ** 0.5:
                total = known[i] + known[i + 1]
                # Of two middles the outer one; both where the interval lies astride the middle of the curve.
                if total <= steps:
                    new.add(total // 2)
                if total >= steps:
                    new.add(-(-total // 2))
        known = sorted({*known, *new})


def area(curve, known, k):
    """Trapezoids between the known steps alone."""
    total = 0.0
    for a, b in zip(known, known[1:], strict=False):
        total += (curve(a) + curve(b)) / 2 * (k[b] - k[a]) / k[-1]
    return total
