"""Which maps to believe: a class for each method by fixed rules, and three sentences for a reader in a hurry.

The verdict is read from a board and never stored, so a summary of an older version has one too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import floor

from cxr_faith.metrics.statistics import FEWEST_CLUSTERS, LEVEL
from cxr_faith.records.controls import RANDOM, RANDOM_MAP, is_control
from cxr_faith.summary.board import Board
from cxr_faith.summary.board_row import BoardRow
from cxr_faith.summary.interval import Interval
from cxr_faith.summary.result import Result

BELIEVE = "believe"
WEAK = "weak"
NOISE = "no better than noise"
WORSE = "worse"
FAILED = "failed sanity"
FEW = "too few patients to say"
UNKNOWN = "not assessable"

VERDICTS: Mapping[str, str] = {
    BELIEVE: "Clearly better than random orders, than a map of noise and than the center prior, and not failed by the "
    "sanity check where that was run.",
    WEAK: "Clearly better than random orders and noise, but not than the center prior.",
    NOISE: "Not clearly better than random orders, or not than a map of noise.",
    WORSE: "Clearly worse than random orders.",
    FAILED: "Its maps hardly change when the model is made random (`cxr-faith sanity`).",
    FEW: f"Fewer than {FEWEST_CLUSTERS} patients, so there is no interval.",
    UNKNOWN: "No sample has a score, hardly any question has an effect to explain, or the method perturbs with this "
    "substrate itself.",
}
"""Class → its rule, best first. "Clearly": the interval of a paired gap excludes 0, and its p after Holm is under .05.

Of several classes that fit, "failed sanity" goes first, then "not assessable", then "too few patients to say".
"""

NO_EFFECT = ("degenerate", "inverted")
"""Statuses of questions whose answer hardly needs the picture: there is no effect to explain."""

_JUDGED = {
    WEAK: "better than random orders, but not clearly than the center prior",
    NOISE: "no better than noise",
    WORSE: "worse than random orders",
    FAILED: "failed the sanity check",
}
"""Classes of maps that are not to be believed, in words."""

_NONE_SHORT = "No method falls short."


@dataclass(frozen=True)
class MethodVerdict(Result):
    """The class of one method on one board."""

    method: str
    """Name of the method."""
    verdict: str
    """A key of `VERDICTS`."""
    gap_center: float | None
    """Mean gap to the center prior in srg; None where it does not exist."""


@dataclass(frozen=True)
class Verdict(Result):
    """Which maps to believe on one board."""

    slice: str
    """Which samples, as in `Board.slice`."""
    methods: tuple[MethodVerdict, ...]
    """Each method that is no control, best first by the headline."""
    no_effect: float | None
    """Share of the questions without an effect to explain; None without a sample."""
    sentences: tuple[str, ...]
    """Three: what to believe, what not, and how many questions have no effect to explain."""

    def of(self, method: str) -> str | None:
        """The class of a method; None for a control, or for a method without a row."""
        return next((one.verdict for one in self.methods if one.method == method), None)


def verdict_of(board: Board) -> Verdict:
    """The class of each method of a board, and the three sentences.

    Baselines, controls, blurred copies and ablations are never recommended: they have no class.

    Args:
        board: one slice under one setting, with the marks of the sanity check where that was run.
    """
    methods = tuple(
        MethodVerdict(row.method, _class(board, row), row.gap_srg_center)
        for row in board.ranked()
        if not is_control(row.method)
    )
    share = _no_effect(board)
    return Verdict(board.slice, methods, share, _sentences(board, methods, share))


def verdict_lines(boards: Sequence[Board]) -> tuple[str, ...]:
    """The verdict of the first board in words, completed by other substrates where they can judge what it cannot.

    A method that perturbs with the first board's substrate itself is not judged there. A board of the same samples
    under another substrate judges it, in a sentence of its own before the last one.

    Args:
        boards: of one run, in order; without one there is no line.
    """
    if not boards:
        return ()
    first, verdict = boards[0], verdict_of(boards[0])
    waiting = {row.method for row in first.rows if row.own_substrate and verdict.of(row.method) == UNKNOWN}
    told: list[str] = []
    for board in boards[1:]:
        if (board.slice, board.target, board.space) != (first.slice, first.target, first.space):
            continue
        judged = [
            one for one in verdict_of(board).methods if one.method in waiting and one.verdict in (BELIEVE, *_JUDGED)
        ]
        if judged:
            told.append(f"Under {board.substrate}: {'; '.join(filter(None, (_best(judged), *_short(judged))))}.")
            waiting -= {one.method for one in judged}
    if not told:
        return verdict.sentences
    own = {row.method for row in first.rows if row.own_substrate} - waiting
    left = [one for one in verdict.methods if one.verdict != UNKNOWN or one.method not in own]
    said, rest, effects = _sentences(first, left, verdict.no_effect) if left else verdict.sentences
    return (said, *([] if rest == _NONE_SHORT else [rest]), *told, effects)


def _class(board: Board, row: BoardRow) -> str:
    over_random = row.intervals.get("srg")  # random orders have an srg of 0
    if row.sanity_failed:
        return FAILED
    if row.own_substrate or board.by_scored or over_random is None or over_random.mean is None:
        return UNKNOWN
    if over_random.ends is None:
        return FEW
    if _clear_sign(over_random) < 0:
        return WORSE
    if _clear_sign(over_random) == 0 or not _beats_noise(board, row.method):
        return NOISE
    over_center = row.intervals.get("gap_srg_center")
    return BELIEVE if over_center is not None and _clear_sign(over_center) > 0 else WEAK


def _clear_sign(test: Interval) -> int:
    """1 or -1 for a difference that is clearly above or below 0, else 0."""
    if test.ends is None or test.p_holm is None or test.p_holm >= 1 - LEVEL:
        return 0
    low, high = test.ends
    return (low > 0) - (high < 0)


def _beats_noise(board: Board, method: str) -> bool:
    """Whether a method is clearly better than a map of noise; true where the board does not compare them."""
    for pair in board.differences:
        if {pair.a, pair.b} == {method, RANDOM_MAP} and pair.ends is not None:
            return _clear_sign(pair) == (1 if pair.a == method else -1)
    return True


def _no_effect(board: Board) -> float | None:
    """Share of the questions without an effect; every question has a row of random orders."""
    row = board.row(RANDOM) or max(board.rows, key=lambda row: row.n, default=None)
    return None if row is None or not row.n else sum(row.status.get(name, 0) for name in NO_EFFECT) / row.n


def _sentences(board: Board, methods: Sequence[MethodVerdict], no_effect: float | None) -> tuple[str, str, str]:
    """What to believe, what not, and how many questions have no effect to explain."""
    return *(_judged(methods) or _not_judged(board, methods)), _effects(no_effect)


def _judged(methods: Sequence[MethodVerdict]) -> tuple[str, str] | None:
    """The first two sentences; None where no method could be judged."""
    best = _best(methods, " here: clearly better than the center prior")
    short = _short(methods)
    if not best and not short:
        return None
    rest = _listed([one.method for one in methods if one.verdict in (FEW, UNKNOWN)])
    said = best or "believe no map here: none is clearly better than the center prior"
    second = "; ".join([*short, *([f"not judged: {rest}"] if rest else [])])
    return _sentence(said), _sentence(second) if second else _NONE_SHORT


def _best(methods: Sequence[MethodVerdict], why: str = "") -> str:
    """Which methods to believe, with the least of their gaps to the center prior; empty where there is none."""
    best = [one for one in methods if one.verdict == BELIEVE]
    if not best:
        return ""
    least = min(one.gap_center for one in best if one.gap_center is not None)
    gap = f"Δsrg {'≥ ' * (len(best) > 1)}{floor(100 * least) / 100:+.2f}"
    return f"believe {_listed([one.method for one in best])}{why} ({gap})"


def _short(methods: Sequence[MethodVerdict]) -> list[str]:
    """Which methods not to rely on, as one phrase; none where all are believed or not judged."""
    groups = {name: [one.method for one in methods if one.verdict == name] for name in _JUDGED}
    named = [f"{_listed(names)} ({_JUDGED[name]})" for name, names in groups.items() if names]
    return [f"do not rely on {'; '.join(named)}"] if named else []


def _sentence(phrase: str) -> str:
    return f"{phrase[0].upper()}{phrase[1:]}."


def _not_judged(board: Board, methods: Sequence[MethodVerdict]) -> tuple[str, str]:
    said = "No map can be judged here."
    rows = [row for row in board.rows if not is_control(row.method)]
    if not methods:
        return said, "Only baselines and controls were scored."
    if any(one.verdict == FEW for one in methods):
        patients = max(row.n_clusters for row in rows)
        return said, f"An interval needs {FEWEST_CLUSTERS} patients; this board has {patients}."
    if not any(row.n_scored for row in rows):
        return said, "No sample could be scored."
    if board.by_scored:
        return said, "Hardly any question has an effect that a map could explain."
    return said, "The methods perturb with this substrate themselves: read the board of another one."


def _effects(share: float | None) -> str:
    if share is None:
        return "No question was asked."
    if share == 0:
        return "No question is without an effect to explain."
    return f"{share:.0%} of the questions have no effect to explain."


def _listed(names: Sequence[str]) -> str:
    """Names in words, with an "and" before the last one."""
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))
