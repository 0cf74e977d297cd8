"""Scalars of deletion and insertion curves: pure functions on float64 tensors, batched over leading dimensions.

A missing value is NaN in every tensor here and null in a record. `x` is always the abscissa `k / N` of
`perturb.schedule.schedule`, `[T + 1]`. Every standard deviation is the sample one (ddof = 1): the orders and rows are a
sample, not the population.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

STATUSES = ("ok", "degenerate", "inverted", "off_format", "invalid", "flat")
OK, DEGENERATE, INVERTED, OFF_FORMAT, INVALID, FLAT = range(len(STATUSES))

MEASURED = ("ok", "flat")
"""Statuses of the rows that have normalized scores; those of a `flat` map are the random baseline's."""

NORMALIZED_COLUMNS = (
    *(f"{name}{variant}" for name in ("deletion_auc", "insertion_auc", "srg") for variant in ("", "_clipped")),
    "drop_10",
    "drop_20",
    "drop_50",
    "retained_50",
    "clipped_share",
    "monotonicity_violations",
)
"""Scalars that divide by the effect or are measured in it: NaN unless the status is `ok` (or `flat`)."""

UNNORMALIZED_COLUMNS = (
    *(
        f"{name}{variant}"
        for name in ("deletion_auc", "insertion_auc", "srg")
        for variant in ("_logit", "_prob", "_log_p")
    ),
    "flip_deletion",
    "flip_insertion",
)
"""Scalars that need no effect: kept for `degenerate` and `inverted`, NaN for `off_format` and `invalid`."""

ENDPOINT_COLUMNS = ("s_original", "s_substrate", "effect", "log_p_original", "log_p_substrate")
"""Scores of the two pictures that every order shares: NaN for `invalid` only."""

CURVE_COLUMNS = NORMALIZED_COLUMNS + UNNORMALIZED_COLUMNS
"""Every scalar that depends on the order of the cells."""

BASELINES = ("random", "center")
"""Names of the two baselines: R random orders, and the order by the distance to the middle of the picture."""

GAPS = tuple(f"gap_{name}_{to}" for to in BASELINES for name in ("deletion", "insertion", "srg"))
"""Paired gaps to the two baselines; positive = better than the baseline."""

LARGE_RESIDUAL = 0.1
"""Completeness residual above which a map of integrated gradients does not add up to the effect."""

MC_ERROR_COLUMNS = ("deletion_auc", "insertion_auc", "srg")
"""Scalars of the random baseline whose Monte-Carlo error is recorded."""


def effect_threshold(s_original: Tensor) -> Tensor:
    """Smallest effect that counts as more than noise, `max(0.5, 0.05 * |s_original|)`, in logits."""
    return (0.05 * s_original.double().abs()).clamp_min(0.5)


def classify(s_original: Tensor, s_substrate: Tensor, off_format: Tensor, valid: Tensor) -> Tensor:
    """Status of every row, as indices into `STATUSES`.

    `invalid` goes before `off_format`, which goes before `degenerate` (`|e| < threshold`) and `inverted`
    (`e <= -threshold`), where `e = s_original - s_substrate`.

    Args:
        s_original: score of the intact picture `[...]`.
        s_substrate: score with the substrate everywhere `[...]`.
        off_format: bool `[...]`, a yes/no question whose answer is mostly neither.
        valid: bool `[...]`, False where loading failed or a map, logit or score is not finite.

    Returns:
        int64 `[...]`; rows with a score that is not finite are `invalid` whatever `valid` says.

    Examples:
        >>> score, no, yes = torch.tensor([3.0, 3.0, 3.0]), torch.zeros(3).bool(), torch.ones(3).bool()
        >>> status_names(classify(score, torch.tensor([-4.0, 2.8, 5.0]), no, yes))
        ['ok', 'degenerate', 'inverted']
    """
    effect = s_original.double() - s_substrate.double()
    threshold = effect_threshold(s_original)
    status = torch.full_like(effect, OK, dtype=torch.int64)
    status = status.masked_fill(effect.abs() < threshold, DEGENERATE)
    status = status.masked_fill(effect <= -threshold, INVERTED)
    status = status.masked_fill(off_format, OFF_FORMAT)
    return status.masked_fill(~valid | ~torch.isfinite(effect), INVALID)


def status_names(status: Tensor) -> list[str]:
    """Names of a one-dimensional tensor of status codes, in one transfer from the device."""
    return [STATUSES[code] for code in status.tolist()]


def normalize_curve(scores: Tensor, s_original: Tensor, s_substrate: Tensor) -> Tensor:
    """Curve in units of the effect, `(s_k - s_substrate) / (s_original - s_substrate)`.

    Args:
        scores: score at every step `[..., T + 1]`.
        s_original: score of the intact picture `[...]`.
        s_substrate: score with the substrate everywhere `[...]`.

    Returns:
        float64 `[..., T + 1]`, 1 at the original and 0 at the substrate; NaN where the effect does not reach
        `effect_threshold` (degenerate or inverted), since dividing there would only magnify noise.
    """
    original, substrate = s_original.double(), s_substrate.double()
    effect = original - substrate
    effect = torch.where(effect >= effect_threshold(original), effect, torch.nan)
    return (scores.double() - substrate[..., None]) / effect[..., None]


def auc(curve: Tensor, x: Tensor) -> Tensor:
    """Area under a curve by the trapezoid rule.

    Widths and areas are paired with their mirror images before they are added, so that the area of a mirrored curve is
    the same to the last bit: srg of a reversed order is then exactly -srg, and antithetic pairs cancel exactly.

    Args:
        curve: `[..., T + 1]`.
        x: abscissa `[T + 1]` of a symmetric schedule, `x[T - s] = 1 - x[s]`.

    Returns:
        float64 `[...]`.

    Raises:
        ValueError: if `x` is not symmetric.
    """
    abscissa = x.double()
    if not torch.allclose(abscissa + abscissa.flip(0), torch.ones_like(abscissa), rtol=0.0, atol=1e-9):
        raise ValueError("the abscissa must be symmetric, x[T - s] = 1 - x[s], as perturb.schedule.schedule makes it")
    widths = abscissa.diff()
    values = curve.double()
    areas = (widths + widths.flip(0)) * (values[..., 1:] + values[..., :-1])
    return (areas + areas.flip(-1)).sum(-1) / 8  # /2 each: mean of the two widths, trapezoid, areas counted twice


def interpolate_at(curve: Tensor, x: Tensor, q: float) -> Tensor:
    """Value of a curve at `x = q`, linear between the grid points.

    Args:
        curve: `[..., T + 1]`.
        x: increasing abscissa `[T + 1]`.
        q: a number from `x[0]` to `x[T]`.

    Returns:
        float64 `[...]`.
    """
    abscissa, values = x.double(), curve.double()
    target = torch.tensor(q, dtype=torch.float64, device=abscissa.device)
    right = torch.searchsorted(abscissa, target).clamp(1, abscissa.numel() - 1)
    weight = (target - abscissa[right - 1]) / (abscissa[right] - abscissa[right - 1])
    return torch.lerp(values[..., right - 1], values[..., right], weight)


def curve_scalars(
    x: Tensor,
    deletion: Tensor,
    insertion: Tensor,
    deletion_prob: Tensor,
    insertion_prob: Tensor,
    deletion_flip: Tensor,
    insertion_flip: Tensor,
    status: Tensor,
    deletion_log_p: Tensor | None = None,
    insertion_log_p: Tensor | None = None,
) -> dict[str, Tensor]:
    """Every scalar of a record that comes from a pair of curves (`CURVE_COLUMNS` and `ENDPOINT_COLUMNS`).

    Args:
        x: abscissa `[T + 1]`.
        deletion: score s at every step of deletion `[..., T + 1]`; its ends are s(original) and s(substrate).
        insertion: score s at every step of insertion `[..., T + 1]`.
        deletion_prob: answer probability at every step of deletion `[..., T + 1]`.
        insertion_prob: the same for insertion.
        deletion_flip: signed margin that is negative where the answer no longer stands `[..., T + 1]`: s for yes/no,
            the smallest token margin for other questions.
        insertion_flip: the same for insertion.
        status: codes from `classify`, broadcast to `[...]` (`status[:, None]` for curves `[B, R, T + 1]`).
        deletion_log_p: mean log-probability of the answer at every step of deletion `[..., T + 1]`; NaN for yes/no,
            and None where there is none.
        insertion_log_p: the same for insertion.

    Returns:
        float64 `[...]` per column, NaN as the column groups say. A row with a score that is not finite is NaN
        throughout.
    """
    deletion, insertion = deletion.double(), insertion.double()
    finite = torch.isfinite(deletion).all(-1) & torch.isfinite(insertion).all(-1)
    status = torch.where(finite, status, INVALID)
    s_original, s_substrate = deletion[..., 0], deletion[..., -1]
    flips = _flips(x, deletion_flip, insertion_flip)
    no_log_p = torch.full_like(deletion, torch.nan)
    falling, rising = (no_log_p if one is None else one for one in (deletion_log_p, insertion_log_p))
    endpoints = {"s_original": s_original, "s_substrate": s_substrate, "effect": s_original - s_substrate}
    endpoints |= {"log_p_original": falling[..., 0].double(), "log_p_substrate": falling[..., -1].double()}
    return {
        **_only(_normalized(x, deletion, insertion), status == OK),
        **_only(_areas(x, deletion, insertion, "_logit"), status < OFF_FORMAT),
        **_only(_areas(x, deletion_prob, insertion_prob, "_prob"), status < OFF_FORMAT),
        **_only(_areas(x, falling, rising, "_log_p"), status < OFF_FORMAT),
        **_only(flips, status < OFF_FORMAT),
        **_only(endpoints, status < INVALID),
    }


def _only(columns: Mapping[str, Tensor], allowed: Tensor) -> dict[str, Tensor]:
    return {name: torch.where(allowed, values, torch.nan) for name, values in columns.items()}


def _areas(x: Tensor, deletion: Tensor, insertion: Tensor, variant: str) -> dict[str, Tensor]:
    deletion_auc, insertion_auc = auc(deletion, x), auc(insertion, x)
    return {
        f"deletion_auc{variant}": deletion_auc,
        f"insertion_auc{variant}": insertion_auc,
        f"srg{variant}": insertion_auc - deletion_auc,
    }


def _normalized(x: Tensor, deletion: Tensor, insertion: Tensor) -> dict[str, Tensor]:
    s_original, s_substrate = deletion[..., 0], deletion[..., -1]
    falling = normalize_curve(deletion, s_original, s_substrate)
    rising = normalize_curve(insertion, s_original, s_substrate)
    both = torch.cat([falling, rising], dim=-1)
    # The tolerance is in units of s, as the moves are: a division would round moves of exactly 1 % either way.
    tolerance = 0.01 * (s_original - s_substrate).abs()[..., None]
    wrong_way = torch.cat([deletion.diff(dim=-1), -insertion.diff(dim=-1)], dim=-1) > tolerance
    retained = {q: interpolate_at(falling, x, q / 100) for q in (10, 20, 50)}
    return {
        **_areas(x, falling, rising, ""),
        **_areas(x, falling.clamp(0, 1), rising.clamp(0, 1), "_clipped"),
        **{f"drop_{q}": 1 - value for q, value in retained.items()},
        "retained_50": retained[50],
        "clipped_share": ((both < 0) | (both > 1)).double().mean(-1),
        "monotonicity_violations": wrong_way.double().mean(-1),
    }


def _flips(x: Tensor, deletion_flip: Tensor, insertion_flip: Tensor) -> dict[str, Tensor]:
    """First x at which the answer is lost (deletion) or stands (insertion); NaN unless the substrate itself flips it.

    Without that condition the share of samples that never flip would be mixed into a mean of positions.
    """
    substrate_flips = deletion_flip[..., -1] < 0
    return {
        "flip_deletion": torch.where(substrate_flips, _first_x(deletion_flip < 0, x), torch.nan),
        "flip_insertion": torch.where(substrate_flips, _first_x(insertion_flip >= 0, x), torch.nan),
    }


def _first_x(condition: Tensor, x: Tensor) -> Tensor:
    first = x.double()[condition.int().argmax(-1)]
    return torch.where(condition.any(-1), first, torch.nan)
