"""Sentences about one board: which methods it cannot separate, and whether it has enough patients."""

from cxr_faith.metrics.statistics import FEW_CLUSTERS, FEWEST_CLUSTERS
from cxr_faith.report.formats import patients
from cxr_faith.summary.board import Board
from cxr_faith.summary.significance import not_told_apart, upside_down

FEWEST_TO_TEST = 6
"""With fewer patients no difference is significant: five have 32 flips of their signs, so p is at least 2/32."""


def few_patients(board: Board) -> list[str]:
    """One sentence if a board's samples come from too few patients for intervals, or for good ones; else none.

    A slice may have few patients although the run has many.
    """
    count = max((row.n_clusters for row in board.rows), default=0)
    if not 0 < count < FEW_CLUSTERS:
        return []
    if count < FEWEST_CLUSTERS:
        return [f"Only {patients(count)} here: no interval under {FEWEST_CLUSTERS}."]
    return [f"Only {patients(count)} here: under {FEW_CLUSTERS}, intervals are somewhat too short."]


def comparisons(board: Board) -> list[str]:
    """Which differences between methods are not significant: one sentence for each method that has any below it."""
    if not board.differences:
        return []
    count = max(pair.clusters for pair in board.differences)
    if count < FEWEST_TO_TEST:
        return [f"No difference between two methods can be significant with {patients(count)}."]
    ranking = [row.method for row in board.ranked()]
    tied, score = not_told_apart(board, ranking), "srg logit" if board.by_scored else "srg"
    lines = [f"{name} is not significantly better in {score} than {', '.join(below)}." for name, below in tied.items()]
    if not tied:
        lines = [f"All differences in {score} between two methods are significant (5 %, Holm over all pairs)."]
    for pair in upside_down(board, ranking):
        better, worse = (pair.a, pair.b) if pair.mean > 0 else (pair.b, pair.a)
        lines.append(f"On the {pair.n} samples that both have, {better} is significantly better than {worse}.")
    return lines
