"""Schedule, orders and masks with plain Python lists and exact fractions."""

from fractions import Fraction


def schedule(n_cells, steps):
    return [round(Fraction(s * n_cells, steps)) for s in range(steps + 1)]  # Fraction rounds half to even


def saliency_order(values, tie_break):
    cells = list(range(len(values)))
    return sorted(cells, key=lambda cell: (-values[cell], tie_break[cell]))


def keep_masks(order, k, mode):
    rows = []
    for count in k:
        first = set(list(order)[:count])
        rows.append([(cell in first) == (mode == "insertion") for cell in range(len(order))])
    return rows
