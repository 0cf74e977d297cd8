"""Multigrid V-cycles for the linear system of `cxr_faith.perturb.road`.

The unknowns are the free pixels of a picture: degree × value = weighted sum of the eight neighbors. All operations are
elementwise or local and none sums over a picture, so a result depends neither on the batch nor on the number of
threads. On a GPU, launches and memory traffic are the cost: a sweep over a level takes five operations.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, pad

_SWEEPS = 2
_COARSEST_PIXELS = 64


@dataclass(frozen=True)
class Level:
    """What a level needs.

    Attributes:
        free: 1 where a pixel is solved for, else 0, [M, 1, h, w].
        degree: Σ of the weights of a pixel's neighbors, times 12, [1, 1, h, w]: 12, or 8 and 5 at sides and corners.
        step: free / degree.
    """

    free: Tensor
    degree: Tensor
    step: Tensor


class Cycle:
    """V-cycles over levels of halved sides, down to a system small enough to invert.

    Args:
        free: bool [M, 1, H, W], the pixels that are solved for; not all of a picture's.
        dtype: of the corrections.
    """

    def __init__(self, free: Tensor, dtype: torch.dtype) -> None:
        self.levels = []
        mask = free.to(dtype)
        while True:
            degree = neighbor_sum(pad(torch.ones_like(mask[:1]), (1, 1, 1, 1)))
            self.levels.append(Level(mask, degree, mask / degree))
            if mask.shape[-2] * mask.shape[-1] <= _COARSEST_PIXELS:
                break
            # A coarse pixel is free only if all of its pixels are, so a coarse correction never changes kept pixels.
            mask = (avg_pool2d(mask, 2, ceil_mode=True) == 1).to(dtype)
        self._degree = self.levels[0].degree.double()
        self._inverse = _inverse(self.levels[-1])

    def residual(self, values: Tensor) -> Tensor:
        """How far free pixels are from the mean of their neighbors, [M, C, H, W].

        Args:
            values: float64 with a frame of zeros, [M, C, H + 2, W + 2].
        """
        step = self.levels[0].step
        return neighbor_sum(values).addcmul_(self._degree, inside(values), value=-1).to(step.dtype).mul_(step)

    def correct(self, right_side: Tensor, number: int = 0) -> Tensor:
        """One cycle: approximately the error e with e − neighbor mean of e = right side on free pixels, 0 elsewhere."""
        if number == len(self.levels) - 1:
            flat = right_side.flatten(2)
            return (self._inverse * flat[:, :, None]).sum(-1).view_as(right_side)
        level, coarser = self.levels[number], self.levels[number + 1]
        framed = pad(right_side, (1, 1, 1, 1))  # the first sweep, from zero
        error = inside(framed)
        for _ in range(_SWEEPS - 1):
            torch.addcmul(right_side, level.step, neighbor_sum(framed), out=error)
        rest = neighbor_sum(framed).addcmul_(level.degree, error, value=-1)
        rest = rest.mul_(level.free).addcmul_(level.degree, right_side)
        # With pixels twice as wide the same stencil is four times as strong.
        coarse = self.correct(avg_pool2d(rest, 2, ceil_mode=True, divisor_override=1).mul_(coarser.step), number + 1)
        finer = interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=False)
        error.addcmul_(level.free, finer[..., : error.shape[-2], : error.shape[-1]])
        for _ in range(_SWEEPS):
            torch.addcmul(right_side, level.step, neighbor_sum(framed), out=error)
        return error


def inside(framed: Tensor) -> Tensor:
    """A view without the frame."""
    return framed[..., 1:-1, 1:-1]


def neighbor_sum(framed: Tensor) -> Tensor:
    """Σ over the eight neighbors of 12 × weight × value: sides count twice, corners once.

    Args:
        framed: with a frame of zeros, [..., h + 2, w + 2].

    Returns:
        [..., h, w].
    """
    ends = framed[..., :-2, :] + framed[..., 2:, :]
    tall = torch.add(ends, framed[..., 1:-1, :], alpha=2)
    return (tall[..., :-2] + tall[..., 2:]).add_(ends[..., 1:-1], alpha=2)


def _inverse(level: Level) -> Tensor:
    """Inverse of the system of a small level, [M, 1, n, n], by Gauss-Jordan elimination.

    The matrix is diagonally dominant, so no pivots are searched. A library's solver for batches may round differently
    at different batch sizes.
    """
    n = level.step[0].numel()
    one = torch.eye(n, dtype=torch.float64, device=level.step.device)
    neighbors = neighbor_sum(pad(one.view(n, 1, *level.step.shape[-2:]), (1, 1, 1, 1))).view(n, n)
    rows = torch.cat([one - level.step.double().view(-1, n, 1) * neighbors, one.expand(len(level.step), n, n)], 2)
    for pivot in range(n):
        factors = rows[:, :, pivot] - one[pivot]
        rows.addcmul_(factors[..., None], (rows[:, pivot] / rows[:, pivot, pivot, None])[:, None], value=-1)
    return rows[:, None, :, n:].to(level.step.dtype)
