"""The numbers of the panel, one value at a time."""

from itertools import combinations


def weighted_srg(rows, method, substrate, samples):
    """Σ effect · srg / Σ effect of one method under one substrate over these samples."""
    chosen = [row for row in rows if (row["method"], row["substrate"]) == (method, substrate)]
    chosen = [row for row in chosen if row["sample_id"] in samples]
    return sum(row["srg"] * row["effect"] for row in chosen) / sum(row["effect"] for row in chosen)


def ok_everywhere(rows):
    """Samples all of whose rows are ok or flat; the rows of random orders do not count."""
    bad = {row["sample_id"] for row in rows if row["method"] != "random" and row["status"] not in ("ok", "flat")}
    return {row["sample_id"] for row in rows} - bad


def kendall_tau_b(one, other):
    """Pairs in the same order minus pairs in the other one, over the root of the pairs that do not tie in each."""
    agree = untied_one = untied_other = 0
    for a, b in combinations(sorted(one.keys() & other.keys()), 2):
        left, right = (one[a] > one[b]) - (one[a] < one[b]), (other[a] > other[b]) - (other[a] < other[b])
        agree, untied_one, untied_other = agree + left * right, untied_one + abs(left), untied_other + abs(right)
    return agree / (untied_one * untied_other) ** 0.5
