"""Noisy linear imputation: removed pixels become weighted means of their neighbors (ROAD, Rong et al. 2022).

Every removed pixel equals the mean of its eight neighbors, with weights of 1/6 for sides, 1/12 for corners and 0
outside the picture: one sparse system per picture. Multigrid solves it on the pictures' own device. The number of
cycles is fixed and no value is summed over a picture, so a picture's result does not depend on its batch or on the
number of threads.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, pad

from cxr_faith.perturb.schedule import stream

Fill = Callable[[Tensor], Tensor]
"""Keep masks bool [M, N] → pictures [M, 3, H, W] that fill the removed cells."""

NOISE = 0.01
"""Standard deviation of the noise, as a share of the picture's, per channel."""

_CYCLES = 24
_CYCLE_BOUNDS = (0.25, 5.0)
"""A cycle subtracts between a quarter of an error and five times the error, measured where a single cell is kept."""
_SWEEPS = 2
_COARSEST_STEPS = 120
_SMALLEST_SIDE = 8
_HIGHEST = 2.0
"""Upper bound of the eigenvalues of I − (neighbors / degree), a random walk's matrix; Chebyshev needs a sure bound."""


def noise_field(pixels: Tensor, image_id: str, seed: int) -> Tensor:
    """Gaussian noise for a picture [3, H, W], one field for all channels; it depends on image and seed alone."""
    field = torch.from_numpy(stream(seed, image_id, "noise").standard_normal((1, *pixels.shape[-2:])))
    return field.to(pixels.device, pixels.dtype) * pixels.std(dim=(-2, -1), keepdim=True, correction=0) * NOISE


def road_fill(pixels: Tensor, image_id: str, seed: int, grid: tuple[int, int]) -> Fill:
    """Imputation of one picture.

    Args:
        pixels: [3, H, W] in model input space.
        image_id: seeds the noise together with `seed`, so that a result depends on the mask alone.
        seed: the run's seed.
        grid: (grid_h, grid_w), which divide H and W.
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
        grid: (grid_h, grid_w).

    Returns:
        [M, 3, H, W]: the picture in kept cells, its harmonic continuation in the others; the channel means in masks
        that keep no cell.
    """
    height, width = pixels.shape[-2:]
    rows, columns = height // grid[0], width // grid[1]
    gone = ~keep.unflatten(1, grid).repeat_interleave(rows, 1).repeat_interleave(columns, 2)[:, None]
    # Corrections may be rough, but the residual may not: with few kept cells in a large picture, float32 would round it
    # to some thousandths of the picture's range.
    values = torch.where(gone, pixels.mean(dim=(-2, -1), keepdim=True), pixels).double()
    empty = ~keep.any(1)
    # With no cell kept the system has no unique solution: the means stay as they are.
    levels = _levels((gone & ~empty[:, None, None, None]).to(pixels.dtype))
    # A cycle alone may overshoot, since kept cells shrink on coarser levels. Chebyshev iteration over the cycles (Saad
    # 2003, algorithm 12.1) only needs bounds of what a cycle does.
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
    """(free [M, 1, h, w], degree [1, 1, h, w]) of each level, sides halving; free is 1 where a pixel is solved for.

    A coarse pixel is free only if all of its pixels are, so a coarse correction never changes kept pixels.
    """
    levels = []
    while True:
        levels.append((free, _neighbor_sum(torch.ones_like(free[:1]))))
        if min(free.shape[-2:]) <= _SMALLEST_SIDE:
            return levels
        free = (avg_pool2d(_even(free, 1.0), 2) == 1).to(free.dtype)


def _cycle(levels: list[tuple[Tensor, Tensor]], level: int, right_side: Tensor) -> Tensor:
    """One V-cycle: an approximate solution of (degree − neighbors) e = right side on the free pixels, 0 elsewhere."""
    free, degree = levels[level]
    if level == len(levels) - 1:
        return _coarsest(free, degree, right_side)
    right_side = free * right_side
    error = right_side / degree
    for _ in range(_SWEEPS - 1):
        error += _residual(error, free, degree).add_(right_side).div_(degree)
    rest = _residual(error, free, degree).add_(right_side)
    # With pixels twice as wide the same stencil is four times as strong.
    coarse = _cycle(levels, level + 1, 4 * avg_pool2d(_even(rest, 0.0), 2))
    finer = interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=False)
    error.addcmul_(free, finer[..., : free.shape[-2], : free.shape[-1]])
    for _ in range(_SWEEPS):
        error += _residual(error, free, degree).add_(right_side).div_(degree)
    return error


def _coarsest(free: Tensor, degree: Tensor, right_side: Tensor) -> Tensor:
    """Solution on the coarsest level by Chebyshev iteration (Saad 2003, algorithm 12.1).

    It needs no sums over the picture, only bounds of the eigenvalues. The lowest one is about 1 / (6 n): with a single
    pixel kept, a random walk on n pixels takes some 6 n steps to reach it.
    """
    lowest = 1 / (6 * free.shape[-1] * free.shape[-2])
    middle, half = (_HIGHEST + lowest) / 2, (_HIGHEST - lowest) / 2
    rho = half / middle
    rest = free * right_side / degree
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
    """Difference of each free pixel's neighbor mean and its value, times its degree.

    A full Jacobi step along it damps rough errors by a factor of 3: the stencil's rough eigenvalues are in [2/3, 4/3].
    """
    return _neighbor_sum(values).addcmul_(degree, values, value=-1).mul_(free)


def _neighbor_sum(values: Tensor) -> Tensor:
    """Σ over the eight neighbors of weight × value, with zeros beyond the border, [..., h, w].

    The stencil is [1, 2, 1] along both axes over 12, minus its middle, 4/12. Memory bandwidth limits this work, so sums
    are made in place.
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
