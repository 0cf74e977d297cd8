"""Runs side by side, one sample at a time, from lists of rows."""

from tests.reference.panel import kendall_tau_b, ok_everywhere


def joined(runs):
    """(shared ids, ids with another question, ids with another picture) of runs, each a list of rows."""
    facts = [{row["sample_id"]: (row["question"], row.get("picture_hash")) for row in rows} for rows in runs]
    shared, questions, pictures = [], [], []
    for sample in sorted(facts[0]):
        if not all(sample in one for one in facts):
            continue
        if len({one[sample][0] for one in facts}) > 1:
            questions.append(sample)
        elif len({one[sample][1] for one in facts} - {None}) > 1:
            pictures.append(sample)
        else:
            shared.append(sample)
    return shared, questions, pictures


def mean_srg(rows, method, samples):
    """Σ effect · srg / Σ effect of a method over some samples."""
    chosen = [row for row in rows if row["method"] == method and row["sample_id"] in samples]
    return sum(row["effect"] * row["srg"] for row in chosen) / sum(row["effect"] for row in chosen)


def srg_difference(left, right, method, shared):
    """(mean srg of a method in one run minus that in another, samples): over what counts in both runs."""
    both = set(shared)
    for rows in (left, right):
        mine = [row for row in rows if row["sample_id"] in shared]
        both &= ok_everywhere(mine) & {row["sample_id"] for row in mine if row["method"] == method}
    return mean_srg(left, method, both) - mean_srg(right, method, both), len(both)


def accuracy_difference(left, right, shared):
    """(accuracy of one run minus that of another, samples), over shared samples whose answers can be judged in both."""
    known = [{row["sample_id"]: row["correct"] for row in rows if row["correct"] is not None} for rows in (left, right)]
    both = [sample for sample in shared if all(sample in one for one in known)]
    return sum(known[0][one] - known[1][one] for one in both) / len(both), len(both)


def tau(left, right, methods, shared):
    """Kendall's τ-b of the methods' mean srg in two runs, each over what counts in it."""
    means = []
    for rows in (left, right):
        mine = [row for row in rows if row["sample_id"] in shared]
        means.append({name: mean_srg(mine, name, ok_everywhere(mine)) for name in methods})
    return kendall_tau_b(*means)
