"""Curves from fewer points: start coarse, refine where a curve bends, stop at a stated error of its area."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cxr_faith.metrics.functional import effect_threshold
from cxr_faith.perturb.engine import Plan
from cxr_faith.perturb.schedule import BoolArray, IntArray, keep_masks
from cxr_faith.vlm.base import PictureScores

FloatArray = npt.NDArray[np.float64]
Run = Callable[[Plan], list[PictureScores]]
COARSE = 8
"""Intervals of the first pass."""
CAUTION = 5
"""Factor on the textbook error of the trapezoid rule, since curves of models have steps as well as bends.

The smallest of 3, 4, 5 and 6 with which the stated error covered 95 % of the areas of five phantoms; docs/numbers.md
has the coverage on others (`benchmarks/adaptive.py`).
"""
FIRST_RANDOM_ORDERS = 8
"""Random orders of the first pass; fewer than four pairs say little about their spread."""
_COLUMNS = tuple(field.name for field in fields(PictureScores))
MODES: Final[tuple[Literal["deletion", "insertion"], ...]] = ("deletion", "insertion")


def coarse_points(steps: int) -> IntArray:
    """Steps of the first pass, ends included: about equally spaced and mirrored, s and T - s.

    Args:
        steps: T of the finest schedule.
    """
    half = np.rint(np.arange(COARSE // 2 + 1) * steps / COARSE).astype(np.int64)
    return np.unique(np.concatenate([half, steps - half]))


def interval_errors(scores: npt.ArrayLike, known: BoolArray, k: IntArray) -> tuple[FloatArray, IntArray]:
    """Estimated error of the trapezoid rule on each interval between known points.

    The rule's error is h³·|f''| / 12. f'' is estimated by the larger change of slope to the two neighbors, and the
    error is multiplied by `CAUTION`, since real curves are rough as well as bent. An interval that the finest schedule
    cannot split has no error, since the area is that of the finest schedule.

    Args:
        scores: curves [C, T + 1]; read where known.
        known: bool [T + 1], ends included.
        k: the finest schedule [T + 1], in cells.

    Returns:
        the errors [C, intervals], and the intervals' ends [intervals + 1] as steps.
    """
    points = np.flatnonzero(known)
    # From whole cells, so that a mirrored curve has the same widths, bit for bit.
    width = np.diff(k[points]) / k[-1]
    slope = np.diff(np.asarray(scores, np.float64)[:, points], axis=1) / width
    bend = np.abs(np.diff(slope, axis=1)) / ((width[1:] + width[:-1]) / 2)
    nothing = np.zeros((len(slope), 1))
    curvature = np.maximum(np.hstack([nothing, bend]), np.hstack([bend, nothing]))
    return np.where(np.diff(points) > 1, CAUTION * curvature * width**3 / 12, 0.0), points


def area_error(scores: npt.ArrayLike, known: BoolArray, k: IntArray) -> float:
    """Estimated error of the areas, the largest over the curves, in units of the scores; see `interval_errors`.

    The errors of a curve's intervals have either sign, so they add up as the root of the sum of their squares. It is an
    estimate, not a bound: 95 % of areas lie within it, and a fall and rise between two known points is not noticed.
    """
    return max(math.sqrt(math.fsum(row**2)) for row in interval_errors(scores, known, k)[0])


def next_points(scores: npt.ArrayLike, known: BoolArray, k: IntArray, allowed: float) -> IntArray:
    """Steps to run next: the middles of the intervals whose squared error is above their share of the allowed one.

    The mirrored curve (the other mode of the reversed order) gets the mirrored steps, T - s.

    Args:
        scores: curves [C, T + 1].
        known: bool [T + 1].
        k: the finest schedule [T + 1], in cells.
        allowed: allowed error of the whole area, in units of the scores.

    Returns:
        steps; none if the estimated error is within the allowed one.
    """
    if area_error(scores, known, k) <= allowed:
        return np.empty(0, np.int64)
    errors, points = interval_errors(scores, known, k)
    split = errors.max(0) > allowed * np.sqrt(np.diff(k[points]) / k[-1])
    ends, steps = (points[:-1] + points[1:])[split], len(k) - 1
    # Of two middles, the one farther from the middle of the curve; both where the interval contains it.
    middles = np.concatenate([(ends // 2)[ends <= steps], (-(-ends // 2))[ends >= steps]])
    return np.unique(middles)


def fill_between(scores: npt.ArrayLike, known: BoolArray, k: IntArray) -> FloatArray:
    """Curves [..., T + 1] with straight lines between their known points, which leave the trapezoid area as it is."""
    values = np.asarray(scores, np.float64)
    rows = [np.interp(k, k[known], row[known]) for row in values.reshape(-1, values.shape[-1])]
    return np.stack(rows).reshape(values.shape)


@dataclass
class Curves:
    """Curves of several orders under one question.

    Attributes:
        scores: each [orders, 2, T + 1], deletion and insertion; straight lines between the points that were run.
        errors: estimated error of each order's areas as a share of `error_unit`, the larger of its two curves,
            [orders]; NaN where there is no unit.
        run: which points were run, bool [orders, T + 1].
    """

    scores: PictureScores
    errors: FloatArray
    run: BoolArray


def run_adaptive(
    run: Run,
    orders: Sequence[Sequence[IntArray]],
    k: IntArray,
    auc_error: float,
    ends: Sequence[FloatArray | None] | None = None,
) -> list[Curves]:
    """Both curves of each order, refined until the estimated error of every area is within `auc_error`.

    What is run for an order depends on its own scores alone, so neither other questions or orders nor resuming change a
    result.
    Pictures that several questions or orders need in the same pass are shared.

    Args:
        run: scores a plan of one image's pictures, for each question.
        orders: for each question, its orders [N].
        k: the finest schedule.
        auc_error: allowed error of an area, as a share of `error_unit`.
        ends: for each question, the scores [columns, 2] of the intact and the removed picture, or None; known ones are
            not run again.
    """
    steps, coarse = len(k) - 1, coarse_points(len(k) - 1)
    known = [np.zeros((len(own), steps + 1), bool) for own in orders]
    values = [np.full((len(_COLUMNS), len(own), 2, steps + 1), np.nan) for own in orders]
    to_run = {(q, i): coarse for q, own in enumerate(orders) for i in range(len(own))}
    for q, both in enumerate(ends or ()):
        if both is not None:
            values[q][..., 0, 0] = values[q][..., 1, -1] = both[:, :1]
            values[q][..., 0, -1] = values[q][..., 1, 0] = both[:, 1:]
            known[q][:, [0, -1]] = True
            to_run |= {(q, i): coarse[1:-1] for i in range(len(orders[q]))}
    while to_run:
        plan, places = Plan(int(k[-1])), {}
        for (q, i), points in to_run.items():
            places[q, i] = np.stack([plan.add(q, keep_masks(orders[q][i], k[points], mode)) for mode in MODES])
        scores = [torch.stack(s.columns).numpy() for s in run(plan)]
        for (q, i), points in to_run.items():
            values[q][:, i][..., points] = scores[q][:, places[q, i]]
            known[q][i, points] = True
        units = {(q, i): error_unit(values[q][0, [i]]) or math.inf for q, i in to_run}
        refined = {
            (q, i): next_points(values[q][0, i], known[q][i], k, auc_error * unit) for (q, i), unit in units.items()
        }
        to_run = {key: points for key, points in refined.items() if len(points)}
    return [_finish(values[q], known[q], k) for q in range(len(orders))]


def error_unit(s: npt.ArrayLike) -> float | None:
    """The unit of which errors of areas are shares, in the unit of the scores.

    It is the effect, by which areas are divided. Where the effect is too small or inverted, areas are reported in the
    scores' own unit; the unit is then the range of the scores, or the intact picture's score if that is larger.

    Args:
        s: curves [orders, 2, T + 1]; NaN where a point was not run.

    Returns:
        None where an end is not finite.
    """
    values = torch.as_tensor(s)
    if not len(values):
        return None
    original, removed = values[0, 0, 0], values[0, 0, -1]
    effect, smallest = float(original - removed), float(effect_threshold(original))
    if not math.isfinite(effect):
        return None
    if effect >= smallest:
        return effect
    finite = values[values.isfinite()]
    return max(float(finite.max() - finite.min()), abs(float(original)), smallest)


def _finish(values: FloatArray, known: BoolArray, k: IntArray) -> Curves:
    errors = [
        area_error(values[0, i], row, k) / (error_unit(values[0, [i]]) or math.nan) for i, row in enumerate(known)
    ]
    filled = [fill_between(values[:, i], row, k) for i, row in enumerate(known)]
    parts = np.stack(filled, axis=1) if filled else values
    scores = PictureScores(*(torch.from_numpy(part) for part in parts))
    return Curves(scores, np.array(errors), known)


def adaptive_curves(
    run: Run,
    orders: Sequence[Sequence[IntArray]],
    shuffled: IntArray,
    k: IntArray,
    auc_error: float,
    random_error: float,
    share: bool = True,
) -> list[Curves]:
    """Curves of each question's own orders, followed by those of as many random orders as the question needs.

    Two pairs of random orders are added at a time until the Monte-Carlo errors of the question's random areas are small
    enough.

    Args:
        run: scores a plan of one image's pictures, for each question.
        orders: for each question, the orders of its maps.
        shuffled: random orders in reversed pairs [R, N].
        k: the finest schedule.
        auc_error: see `run_adaptive`.
        random_error: allowed Monte-Carlo error of the mean random areas, a share of `error_unit`.
        share: later random orders take the end points of the first ones; off, they are run again, with the same bits.
    """
    to_run: list[list[IntArray]] = [[*own, *shuffled[:FIRST_RANDOM_ORDERS]] for own in orders]
    parts: list[list[Curves]] = [[] for _ in orders]
    while any(to_run):
        ends = [_ends(done[0]) if done and share else None for done in parts]
        for question, curves in enumerate(run_adaptive(run, to_run, k, auc_error, ends)):
            if not to_run[question]:
                continue
            parts[question].append(curves)
            s = torch.cat([part.scores.s for part in parts[question]])[len(orders[question]) :]
            more = len(s) < len(shuffled) and _random_error(s, k) > random_error  # NaN: no more
            to_run[question] = list(shuffled[len(s) : len(s) + 4]) if more else []
    return [_joined(done) for done in parts]


def _ends(curves: Curves) -> FloatArray:
    """Every score of the intact and of the removed picture, [columns, 2]."""
    return np.array([values[0, 0, [0, -1]].tolist() for values in curves.scores.columns])


def _random_error(s: Tensor, k: IntArray) -> float:
    """Monte-Carlo error of the mean area of random orders [R, 2, T + 1], the larger one of the modes; NaN: no unit."""
    areas = torch.trapezoid(s, torch.from_numpy(k / k[-1])) / (error_unit(s) or math.nan)
    pairs = areas.unflatten(0, (-1, 2)).mean(1)
    return float(pairs.std(0).max().item() / len(pairs) ** 0.5)


def _joined(parts: Sequence[Curves]) -> Curves:
    """The curves of several runs of one question, one after another."""
    scores = PictureScores(
        *(torch.cat(columns) for columns in zip(*(part.scores.columns for part in parts), strict=True))
    )
    return Curves(scores, np.concatenate([p.errors for p in parts]), np.concatenate([p.run for p in parts]))
