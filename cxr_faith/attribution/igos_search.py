"""The two optimizers of iGOS++: momentum, as for vision-language models, and a line search, as for classifiers."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from cxr_faith.attribution.igos_loss import MaskLoss

Noise = Callable[[int], Tensor | None]
"""Draws the noise fields of an iteration, [batch, steps, H, W]."""
ARMIJO, DECAY, SMALLEST = 1e-4, 0.2, 1e-5
"""Of the line search, as published: the decrease that it asks for, the ratio of its steps, and the last one."""


@dataclass
class Masks:
    """Optimized masks.

    Attributes:
        values: [batch, 2, grid_h, grid_w] in [0, 1]; NaN where a gradient was not finite.
        losses: before each step, [batch]; NaN from a gradient on that was not finite.
    """

    values: Tensor
    losses: list[Tensor] = field(default_factory=list)

    def keep(self, losses: Tensor, slopes: Tensor) -> Tensor:
        """Note the losses. Returns the slopes, NaN for pictures whose slope is not finite, so that they end as NaN."""
        usable = slopes.isfinite().flatten(1).all(1)
        self.losses.append(torch.where(usable, losses, torch.nan))
        return torch.where(usable[:, None, None, None], slopes, torch.nan)

    @property
    def history(self) -> list[list[float]]:
        """For each picture, its loss before each step; shorter where a gradient was not finite."""
        rows: list[list[float]] = torch.stack(self.losses, 1).tolist()
        return [[loss for loss in row if not math.isnan(loss)] for row in rows]


def momentum(loss: MaskLoss, iterations: int, step: float, decay: float, noise: Noise) -> Masks:
    """Nesterov's accelerated gradient from full masks on; the squared area counts less in each iteration.

    Steps are cut to [0, 1] before the momentum is taken from them: a long step out of the range would throw the mask
    back over the whole range in the next iteration.

    Args:
        loss: the losses as functions of the masks.
        iterations: number of steps.
        step: how far a slope of 1 moves a mask.
        decay: the weight of the squared area is multiplied by this in each iteration.
        noise: noise fields of each iteration.
    """
    masks = _full(loss)
    before = masks.values
    for iteration in range(iterations):
        now = loss.shrunk(decay**iteration)
        reached = (masks.values - step * masks.keep(*now.slopes(masks.values, noise(iteration)))).clamp(0, 1)
        ahead = reached + iteration / (iteration + 3) * (reached - before)
        masks.values, before = ahead.clamp(0, 1), reached
    return masks


def line_search(loss: MaskLoss, iterations: int, noise: Noise) -> Masks:
    """Steepest descent from full masks on; each picture's step shrinks until the loss on the path falls enough.

    The first step moves the steepest cell over the whole range. If no step lowers the loss enough, the smallest is
    taken, and the search goes on: the next iteration has other noise.

    Args:
        loss: the losses as functions of the masks.
        iterations: number of steps.
        noise: noise fields of each iteration, the same for all steps that are tried.
    """
    masks = _full(loss)
    for iteration in range(iterations):
        fields = noise(iteration)
        losses, slopes = loss.slopes(masks.values, fields)
        slopes = masks.keep(losses, slopes)
        steepest = slopes.abs().amax((1, 2, 3)).clamp_min(torch.finfo(slopes.dtype).tiny)
        wanted = ARMIJO * slopes.square().sum((1, 2, 3))
        size, failed = torch.ones_like(losses), torch.ones_like(losses, dtype=torch.bool)
        while True:
            rate = size / steepest
            tried = (masks.values - rate[:, None, None, None] * slopes).clamp(0, 1)
            failed &= (loss.values(tried, fields) > losses - rate * wanted) & (size > SMALLEST)
            size = torch.where(failed, size * DECAY, size)
            # The host waits here, once for each try. Pictures that are done are tried again with the others, unchanged.
            if not bool(failed.any()):
                break
        masks.values = (masks.values - (size / steepest)[:, None, None, None] * slopes).clamp(0, 1)
    return masks


def _full(loss: MaskLoss) -> Masks:
    count = len(loss.pictures)
    return Masks(torch.ones(count, 2, *loss.vlm.grid, device=loss.pictures.device))
