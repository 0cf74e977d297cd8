"""Whether to believe the map of one answer, in words."""

from dataclasses import dataclass

from cxr_faith.explainer.measured import Measured
from cxr_faith.metrics.statistics import LEVEL
from cxr_faith.summary.verdict import BELIEVE, NOISE, UNKNOWN, WEAK, WORSE

ALPHA = round(1 - LEVEL, 10)
"""Below this p, a map is better than random orders."""

NO_EVIDENCE = {
    "degenerate": "removing the whole picture hardly changes this answer",
    "inverted": "without the picture the model is surer of this answer",
    "off_format": "the model says neither yes nor no",
    "flat": "all cells of the map are equal",
    "invalid": "the answer could not be scored",
}
"""Status → why no map is evidence for this answer."""


@dataclass(frozen=True)
class AnswerVerdict:
    """The class of one map of one answer."""

    verdict: str
    """`believe`, `weak`, `no better than noise`, `worse` or `not assessable`; those of a board are means over many."""
    sentence: str
    """It in words, with the numbers that it rests on."""


def answer_verdict(measured: Measured) -> AnswerVerdict | None:
    """Judge the map of one answer; None where too few random orders were scored.

    "Better than random orders" is a p below .05, which takes 20 orders or more; "better than the center" is a positive
    gap in srg. An answer without an effect is judged however few the orders are.
    """
    scores = measured.scores
    if measured.quick and scores.status not in NO_EVIDENCE:
        return None
    return judged(scores.status, scores.srg, scores.random_p, scores.gap_srg_center)


def judged(status: str | None, srg: float | None, p: float | None, center: float | None) -> AnswerVerdict | None:
    """Judge a map by its numbers, from 20 random orders or more; None where one is missing.

    Args:
        status: of the answer under the substrate.
        srg: of the map.
        p: against random orders.
        center: gap in srg to the center.
    """
    if status in NO_EVIDENCE:
        return AnswerVerdict(UNKNOWN, f"No evidence to show: {NO_EVIDENCE[status]}.")
    if srg is None or p is None or center is None:
        return None
    numbers = f"srg {srg:+.2f}, p = {p:.3f}, {center:+.2f} to the center"
    if p < ALPHA:
        if center > 0:
            return AnswerVerdict(BELIEVE, f"Believe: better than random orders and than the center ({numbers}).")
        return AnswerVerdict(WEAK, f"Weak: better than random orders, but not than the center ({numbers}).")
    if p > 1 - ALPHA:
        return AnswerVerdict(WORSE, f"Do not believe: worse than random orders ({numbers}).")
    return AnswerVerdict(NOISE, f"Do not believe: no better than random orders ({numbers}).")
