"""What a reader should know before the numbers: read from a summary, one sentence each, most serious first."""

import re
from collections import Counter
from collections.abc import Iterator

from cxr_faith.metrics.statistics import FEW_CLUSTERS, FEWEST_CLUSTERS, LEVEL
from cxr_faith.records.controls import BLURRED, ORACLE, RANDOM, RANDOM_MAP, is_control
from cxr_faith.summary.board import Board
from cxr_faith.summary.summary import Summary

LOW_COVERAGE = 0.5
"""Share of common samples below which a board has low coverage."""
USUAL_RANDOM_AUC = (0.4, 0.6)
"""Deletion AUC of random orders that needs no word."""
SIGNIFICANT = 1 - LEVEL
"""A p below this is significant."""
_FILE = re.compile(r"'?(?:/[^:]*|[^:]*\.\w{1,8})'?: ")
"""The picture or mask that a reason begins with."""


def cautions(summary: Summary) -> list[str]:
    """The warnings of a summary, in a fixed order."""
    whole = [board for board in summary.boards if board.slice == "all"]
    compared = "with_oracle" if any(board.slice == "with_oracle" for board in summary.boards) else "present"
    return [
        *_unfinished(summary),
        *_nothing(summary),
        *_patients(summary),
        *(entry.sentence for entry in summary.caveats or () if entry.sentence is not None),
        *(line for board in whole for line in _coverage(board)),
        *(line for board in whole for line in (*_random_auc(board), *_controls(board))),
        *(line for board in summary.boards if board.slice == compared for line in _oracle(board)),
    ]


def urgent(summary: Summary) -> list[str]:
    """Those of `cautions` that belong before the numbers: samples that are missing, and boards of low coverage."""
    whole = [board for board in summary.boards if board.slice == "all"]
    return [*_unfinished(summary), *(line for board in whole for line in _coverage(board))]


def _unfinished(summary: Summary) -> Iterator[str]:
    """Samples without records, and samples that could not be scored."""
    n, missing = summary.n_samples, summary.missing
    total = n if summary.samples_total is None else summary.samples_total
    if summary.partial and n + missing > total:
        yield f"Partial: {total - missing} of {total} samples have all rows, {missing} lack some."
    elif summary.partial:
        yield f"Partial: {n} of {total} samples have records, {missing} are missing."
    if summary.failures.n:
        reasons = Counter(_kind(sample.reason) for sample in summary.failures.first if sample.reason)
        why = f" Most often: {reasons.most_common(1)[0][0]}." if reasons else ""
        yield f"{summary.failures.n} of {n} samples could not be scored (invalid or off_format).{why}"


def _kind(reason: str) -> str:
    """A reason without the file that it begins with: each sample has files of its own."""
    return reason[named.end() :] if (named := _FILE.match(reason)) else reason


def _nothing(summary: Summary) -> Iterator[str]:
    """Reasons for an empty table, which would otherwise look like a fault."""
    rows = [row for board in summary.boards for row in board.rows]
    if not any(row.n_scored for row in rows):
        yield "No sample could be scored: there is nothing to compare."
    elif not any(row.n_ok for row in rows):
        yield "No sample is ok under any substrate: normalized scores do not exist, srg logit ranks the methods."
    real = [name for name in summary.methods if not is_control(name)]
    if len(real) == 1:
        yield f"Only one method besides the baselines ({real[0]}): compare it with random and center."
    elif not real and summary.methods:
        yield "Only baselines and controls were scored."


def _patients(summary: Summary) -> Iterator[str]:
    patients, unnamed = summary.n_patients, summary.n_without_patient
    if 0 < patients < FEWEST_CLUSTERS:
        yield f"Only {patients} patient{'s' * (patients > 1)}: no interval under {FEWEST_CLUSTERS}."
    elif 0 < patients < FEW_CLUSTERS:
        yield f"Only {patients} patients: under {FEW_CLUSTERS}, intervals are somewhat too short."
    if unnamed:
        yield f"{unnamed} samples have no patient_id: each of their images is taken as a patient of its own."


def _coverage(board: Board) -> Iterator[str]:
    share = board.n_common / board.n_samples
    if share < LOW_COVERAGE and any(row.n_ok for row in board.rows):
        yield (
            f"Low coverage under {board.substrate}: normalized scores compare {board.n_common} of "
            f"{board.n_samples} samples ({share:.0%}); the others are not ok for every method."
        )


def _random_auc(board: Board) -> Iterator[str]:
    """Random orders need not have an AUC of one half, so no AUC should be read against one half."""
    low, high = USUAL_RANDOM_AUC
    row = board.row(RANDOM)
    auc = None if row is None else row.deletion_auc
    if auc is not None and not low <= auc <= high:
        yield (
            f"Random orders have a deletion AUC of {auc:.2f} under {board.substrate}, not .5 (the answer "
            f"{'outlasts most of the picture' if auc > high else 'breaks early'}): read the gaps to random rather "
            "than the AUCs."
        )


def _controls(board: Board) -> Iterator[str]:
    """A map of noise that beats or loses to noise, and maps that a blur alone improves."""
    row = board.row(RANDOM_MAP)
    test = None if row is None else row.intervals[board.headline]
    if test is not None and test.p_holm is not None and test.p_holm < SIGNIFICANT:
        yield (
            f"{RANDOM_MAP} differs from random orders under {board.substrate} by {test.mean:+.3f} "
            f"(p {test.p_holm:.3f}): suspect the scoring."
        )
    smoother = [
        pair.a
        for pair in board.differences
        if pair.b == f"{pair.a}{BLURRED}" and pair.mean < 0 and pair.p_holm < SIGNIFICANT
    ]
    if smoother:
        yield (
            f"Under {board.substrate} a blurred copy of the map scores better than the map itself: "
            f"{', '.join(smoother)}. Smoothness alone is rewarded there."
        )


def _oracle(board: Board) -> Iterator[str]:
    """A method that beats the true mask of the finding, on the samples that both have."""
    better = {}
    for pair in board.differences:
        if ORACLE in (pair.a, pair.b) and pair.p_holm < SIGNIFICANT:
            above = pair.mean if pair.b == ORACLE else -pair.mean
            if above > 0:
                better[pair.a if pair.b == ORACLE else pair.b] = (above, pair)
    if better:
        best = max(better, key=lambda name: better[name][0])
        above, pair = better[best]
        score = "srg logit" if board.by_scored else "srg"
        yield (
            f"Oracle is not the best under {board.substrate}: on the {pair.n} samples that both have, the {score} of "
            f"{best} is {above:.3f} higher (p {pair.p_holm:.3f}). The model looks at more than the finding, or the "
            "substrate leaves traces."
        )
        own, its = (None if row is None else row.value(board.headline) for row in map(board.row, (ORACLE, best)))
        if own is not None and its is not None and own < its / 2:
            yield (
                f"Localization and faithfulness disagree under {board.substrate}: the mask of the finding has an "
                f"{score} of {own:.3f}, {best} has {its:.3f}. The answers depend on something else than the finding, "
                "so a map that lies on it is not faithful for that."
            )
