"""The sentences below tables that say how to read them."""

from cxr_faith.summary.board import Board

LEGEND = (
    "↓ lower is better, ↑ higher is better; Δ = gap to a baseline, positive = better than it.",
    "The gap in srg to random is srg itself: by construction random has an srg of 0.",
    "Means are weighted by the effect. n = samples in them, those ok for every method that has them; cov = share of a "
    "method's rows that count; flat = share of its maps that say nothing: all cells equal, scored as random.",
)
OTHER_SAMPLES = "Rows with another n have other samples: means of two such rows say nothing about their difference."
SCORED = (
    "Hardly any sample here has an effect, so srg logit ranks the methods. It and n count every sample that could be "
    "scored; the other columns need samples that are ok."
)
NOTHING = "Nothing to rank here: no sample could be scored."
INTERVALS = (
    "[…] = 95 % interval over patients: bootstrap-t, none under 10 patients. p = test that the score that ranks the "
    "board is 0, by the same bootstrap (under 10 patients by sign flips), Holm-adjusted over the methods."
)
EFFECT_SIZE = "d = effect size of that score: mean of the patients' means divided by their standard deviation."
BY_FINDING = (
    "In parentheses: sample count, where it differs from the column's. Intervals as above: none under 10 patients, "
    "somewhat too short under 30."
)
SANITY = "† failed the sanity check: its maps hardly change when the model is made random."
CAVEAT = "‡ its maps say something against themselves: see the notes."
OWN_SUBSTRATE = "* the method perturbs with this substrate itself: compare it under another one."
MARKS = (OWN_SUBSTRATE, SANITY, CAVEAT)


def legend(board: Board) -> list[str]:
    """How to read a board, line by line; marks and other samples are explained only if the board has them."""
    lines = list(LEGEND)
    if len({row.n_scored if board.by_scored else row.n_common for row in board.rows} - {0}) > 1:
        lines.append(OTHER_SAMPLES)
    if board.by_scored:
        lines.append(SCORED)
    if any(row.own_substrate for row in board.rows):
        lines.append(OWN_SUBSTRATE)
    if any(row.sanity_failed for row in board.rows):
        lines.append(SANITY)
    if any(row.caveat is not None for row in board.rows):
        lines.append(CAVEAT)
    return lines
