"""The two optimizers of iGOS++: momentum, as for vision-language models, and a line search, as for classifiers."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from cxr_faith.attribution.igos_loss import MaskLoss

Noise = Callable[[], Tensor | None]
"""Draws the noise fields of the next iteration, [batch, steps, H, W]."""
ARMIJO, DECAY, SMALLEST = 1e-4, 0.2, 1e-5
"""Of the line search, as published: the decrease that it asks for, the ratio of its steps, and the last one."""


@dataclass
class Masks:
    """Optimized masks.

    Attributes:
        values: [batch, 2, grid_h, grid_w] in [0, 1]; NaN where a gradient was not finite.
        history: for each picture, its loss before each step; shorter where a gradient was not finite.
    """

    values: Tensor
    history: list[list[float]] = field(default_factory=list)

    def keep(self, losses: Tensor, slopes: Tensor) -> Tensor:
        """Note the losses; pictures whose slope is not finite end as NaN. Returns the slopes."""
        usable = slopes.isfinite().flatten(1).all(1)
        self.values[~usable] = torch.nan
        for history, loss, finite in zip(self.history, losses.tolist(), usable.tolist(), strict=True):
            if finite:
                history.append(loss)
        return slopes


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
        reached = (masks.values - step * masks.keep(*now.slopes(masks.values, noise()))).clamp(0, 1)
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
    for _ in range(iterations):
        fields = noise()
        losses, slopes = loss.slopes(masks.values, fields)
        slopes = masks.keep(losses, slopes)
        steepest = slopes.abs().amax((1, 2, 3)).clamp_min(torch.finfo(slopes.dtype).tiny)
        wanted = ARMIJO * slopes.square().sum((1, 2, 3))
        size, left = torch.ones_like(losses), list(range(len(losses)))
        while left:
            rate = size[left] / steepest[left]
            tried = (masks.values[left] - rate[:, None, None, None] * slopes[left]).clamp(0, 1)
            reached = loss.of(left).values(tried, None if fields is None else fields[left])
            failed = (reached > losses[left] - rate * wanted[left]) & (size[left] > SMALLEST)
            left = [index for index, again in zip(left, failed.tolist(), strict=True) if again]
            size[left] *= DECAY
        masks.values = (masks.values - (size / steepest)[:, None, None, None] * slopes).clamp(0, 1)
    return masks


def _full(loss: MaskLoss) -> Masks:
    count = len(loss.pictures)
    return Masks(torch.ones(count, 2, *loss.vlm.grid, device=loss.pictures.device), [[] for _ in range(count)])
