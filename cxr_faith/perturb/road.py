"""Noisy linear imputation: removed pixels become weighted means of their neighbors (ROAD, Rong et al. 2022).

Every removed pixel equals the mean of its eight neighbors, sides weighing 1/6 and corners 1/12, outside of the picture
nothing: one sparse system per picture. It is solved by multigrid on the pictures' own device. The number of cycles is
fixed and no value is summed over a picture, so a picture's result does not depend on its batch or on threads.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, pad

from cxr_faith.perturb.schedule import stream

Fill = Callable[[Tensor], Tensor]
"""Keep masks bool [M, N] → what stands in the removed cells, [M, 3, H, W]."""

NOISE = 0.01
"""Standard deviation of the noise, as a share of the picture's, per channel."""

_CYCLES = 24
_CYCLE_BOUNDS = (0.25, 5.0)
"""A cycle takes between a quarter of an error and five times of it, measured where a single cell holds the picture."""
_SWEEPS = 2
_COARSEST_STEPS = 120
_SMALLEST_SIDE = 8
_HIGHEST = 2.0
"""No eigenvalue of I − (neighbors / degree) is above: its rows are a random walk's. Chebyshev needs a sure bound."""


def noise_field(pixels: Tensor, image_id: str, seed: int) -> Tensor:
    """Gaussian noise of a picture [3, H, W], one field for all channels; it depends on the image alone."""
    field = torch.from_numpy(stream(seed, image_id, "noise").standard_normal((1, *pixels.shape[-2:])))
    return field.to(pixels.device, pixels.dtype) * pixels.std(dim=(-2, -1), keepdim=True, correction=0) * NOISE


def road_fill(pixels: Tensor, image_id: str, seed: int, grid: tuple[int, int]) -> Fill:
    """Imputation of one picture.

    Args:
        pixels: [3, H, W] in model input space.
        image_id: seeds the noise together with `seed`, so that a result depends on the mask only.
        seed: the run's seed.
        grid: (gH, gW), which divide H and W.
    """
    noise = noise_field(pixels, image_id, seed)

    def fill(keep: Tensor) -> Tensor:
        return impute(pixels, keep, grid) + noise

    return fill


@torch.no_grad()
def impute(pixels: Tensor, keep: Tensor, grid: tuple[int, int]) -> Tensor:
    """Linear imputation without noise.

    Args:
        pixels: [3, H, W].
        keep: bool [M, N], True = the cell stays original.
        grid: (gH, gW).

    Returns:
        [M, 3, H, W]: the picture where it is kept, else the harmonic continuation; the channel means where no cell is
        kept.
    """
    height, width = pixels.shape[-2:]
    rows, columns = height // grid[0], width // grid[1]
    gone = ~keep.unflatten(1, grid).repeat_interleave(rows, 1).repeat_interleave(columns, 2)[:, None]
    # A correction may be rough, what is left to correct may not: where few cells hold a large picture, float32 rounds
    # it to some thousandths of the picture's range.
    values = torch.where(gone, pixels.mean(dim=(-2, -1), keepdim=True), pixels).double()
    empty = ~keep.any(1)
    # Nothing holds the solution where no cell is left: there the means are kept as they are.
    levels = _levels((gone & ~empty[:, None, None, None]).to(pixels.dtype))
    # A cycle alone may overshoot: a kept cell is a smaller hold on a coarser level. Chebyshev iteration over the cycles
    # (Saad 2003, algorithm 12.1) needs no more than bounds of what a cycle does.
    lowest, highest = _CYCLE_BOUNDS
    middle, half = (highest + lowest) / 2, (highest - lowest) / 2
    fine = [part.double() for part in levels[0]]

    def correction() -> Tensor:
        return _cycle(levels, 0, _residual(values, *fine).to(pixels.dtype))

    rho, step = half / middle, correction().double() / middle
    values += step
    for _ in range(_CYCLES - 1):
        following = 1 / (2 * middle / half - rho)
        step.mul_(following * rho).add_(correction(), alpha=2 * following / half)
        values += step
        rho = following
    return values.to(pixels.dtype)


def _levels(free: Tensor) -> list[tuple[Tensor, Tensor]]:
    """(free [M, 1, h, w], degree [1, 1, h, w]) of each level, halving; 1 = the pixel is solved for.

    A coarse pixel is free only if all of its pixels are, so a coarse correction never moves what is kept.
    """
    levels = []
    while True:
        levels.append((free, _neighbor_sum(torch.ones_like(free[:1]))))
        if min(free.shape[-2:]) <= _SMALLEST_SIDE:
            return levels
        free = (avg_pool2d(_even(free, 1.0), 2) == 1).to(free.dtype)


def _cycle(levels: list[tuple[Tensor, Tensor]], level: int, wanted: Tensor) -> Tensor:
    """One V-cycle: an approximate solution of (degree − neighbors) e = wanted on the free pixels, 0 elsewhere."""
    free, degree = levels[level]
    if level == len(levels) - 1:
        return _coarsest(free, degree, wanted)
    wanted = free * wanted
    error = wanted / degree
    for _ in range(_SWEEPS - 1):
        error += _residual(error, free, degree).add_(wanted).div_(degree)
    rest = _residual(error, free, degree).add_(wanted)
    # Pixels twice as wide make the same stencil four times as strong.
    coarse = _cycle(levels, level + 1, 4 * avg_pool2d(_even(rest, 0.0), 2))
    finer = interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=False)
    error.addcmul_(free, finer[..., : free.shape[-2], : free.shape[-1]])
    for _ in range(_SWEEPS):
        error += _residual(error, free, degree).add_(wanted).div_(degree)
    return error


def _coarsest(free: Tensor, degree: Tensor, wanted: Tensor) -> Tensor:
    """The same by Chebyshev iteration, which needs bounds of the eigenvalues and no sums (Saad 2003, algorithm 12.1).

    With a single pixel kept, a random walk on n pixels takes some 6 n steps to find it: the lowest eigenvalue.
    """
    lowest = 1 / (6 * free.shape[-1] * free.shape[-2])
    middle, half = (_HIGHEST + lowest) / 2, (_HIGHEST - lowest) / 2
    rho = half / middle
    rest = free * wanted / degree
    step = rest / middle
    error = step.clone()
    for _ in range(_COARSEST_STEPS):
        rest += _residual(step, free, degree).div_(degree)
        following = 1 / (2 * middle / half - rho)
        step.mul_(following * rho).add_(rest, alpha=2 * following / half)
        error += step
        rho = following
    return error


def _residual(values: Tensor, free: Tensor, degree: Tensor) -> Tensor:
    """How far each free pixel is from the mean of its neighbors, times its degree.

    A full Jacobi step along it damps everything rough by 3: the stencil's rough eigenvalues lie in [2/3, 4/3].
    """
    return _neighbor_sum(values).addcmul_(degree, values, value=-1).mul_(free)


def _neighbor_sum(values: Tensor) -> Tensor:
    """Σ over the eight neighbors of weight × value, nothing beyond the border, [..., h, w].

    It is what [1, 2, 1] both ways over 12 leaves without the middle, 4/12; work on the picture is bound by memory, so
    sums are made in place.
    """
    tall = 2 * values
    tall[..., 1:, :] += values[..., :-1, :]
    tall[..., :-1, :] += values[..., 1:, :]
    total = values.mul(-1 / 3).add_(tall, alpha=1 / 6)
    total[..., 1:].add_(tall[..., :-1], alpha=1 / 12)
    total[..., :-1].add_(tall[..., 1:], alpha=1 / 12)
    return total


def _even(values: Tensor, fill: float) -> Tensor:
    """Pad the last row and column so that both sides are even."""
    height, width = values.shape[-2:]
    return pad(values, (0, width % 2, 0, height % 2), value=fill)
