"""Noisy linear imputation: removed pixels become weighted means of their neighbors (ROAD, Rong et al. 2022).

Every removed pixel equals the mean of its eight neighbors, with weights of 1/6 for sides, 1/12 for corners and 0
outside the picture: one sparse system per picture. Multigrid solves it on the pictures' own device. The number of
cycles is fixed and no value is summed over a picture, so a picture's result does not depend on its batch or on the
number of threads.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import pad

from cxr_faith.data.sheets import apart
from cxr_faith.perturb.road_cycle import Cycle, inside
from cxr_faith.perturb.schedule import stream

Fill = Callable[[Tensor], Tensor]
"""Keep masks bool [M, N] → pictures [M, 3, H, W] that fill the removed cells."""

NOISE = 0.01
"""Standard deviation of the noise, as a share of the picture's, per channel."""

_CYCLES = 24
_CYCLE_BOUNDS = (0.25, 5.0)
"""A cycle subtracts between a quarter of an error and five times the error, measured where a single cell is kept."""
_PIXELS_AT_ONCE = 2**25
"""Pixels of all planes that are solved together: some 2 GB of memory, 41 gray pictures of 896 pixels."""


def noise_field(pixels: Tensor, image_id: str, seed: int, pictures: int = 1) -> Tensor:
    """Gaussian noise for a picture or a sheet [3, H, W], one field for all channels; see `cxr_faith.data.sheets`.

    Returns:
        [pictures, 3, H / pictures, W]; it depends on image and seed, and scales with each picture's own spread.
    """
    drawn = torch.from_numpy(stream(seed, image_id, "noise").standard_normal((1, 1, *pixels.shape[-2:])))
    field, parts = apart(drawn.to(pixels.device, pixels.dtype), pictures), apart(pixels[None], pictures)
    return field * parts.std(dim=(-2, -1), keepdim=True, correction=0) * NOISE


def road_fill(pixels: Tensor, image_id: str, seed: int, grid: tuple[int, int], pictures: int = 1) -> Fill:
    """Imputation of one picture, or of each picture of a sheet from its own cells.

    Args:
        pixels: [3, H, W] in model input space.
        image_id: seeds the noise together with `seed`, so that a result depends on the mask alone.
        seed: the run's seed.
        grid: (grid_h, grid_w) of a picture, which divide its height and width.
        pictures: number of pictures on the sheet.
    """
    noise = noise_field(pixels, image_id, seed, pictures)
    # The channels of a gray picture are equal, and one solution serves all.
    planes = pixels[:1] if bool((pixels == pixels[:1]).all()) else pixels

    parts = apart(planes[None], pictures)

    def fill(keep: Tensor) -> Tensor:
        filled = [
            impute(part, own, grid) + field
            for part, own, field in zip(parts, keep.chunk(pictures, 1), noise, strict=True)
        ]
        return torch.cat(filled, dim=-2)

    return fill


@torch.no_grad()
def impute(pixels: Tensor, keep: Tensor, grid: tuple[int, int]) -> Tensor:
    """Linear imputation without noise.

    Args:
        pixels: [C, H, W].
        keep: bool [M, N], True = the cell stays original.
        grid: (grid_h, grid_w).

    Returns:
        [M, C, H, W]: the picture in kept cells, its harmonic continuation in the others; the channel means in masks
        that keep no cell.
    """
    # A mask's result does not depend on its batch, so large batches are solved in parts.
    masks = max(1, _PIXELS_AT_ONCE // pixels.numel())
    return torch.cat([_solve(pixels, part, grid) for part in keep.split(masks)])


def _solve(pixels: Tensor, keep: Tensor, grid: tuple[int, int]) -> Tensor:
    height, width = pixels.shape[-2:]
    rows, columns = height // grid[0], width // grid[1]
    gone = ~keep.unflatten(1, grid).repeat_interleave(rows, 1).repeat_interleave(columns, 2)[:, None]
    # By rows, then over rows: the sum of a whole plane would depend on the number of threads.
    mean = pixels.mean(-1, keepdim=True).mean(-2, keepdim=True)
    # Corrections may be rough, but the residual may not: with few kept cells in a large picture, float32 would round it
    # to some thousandths of the picture's range.
    framed = pad(torch.where(gone, mean, pixels).double(), (1, 1, 1, 1))
    values = inside(framed)
    # With no cell kept the system has no unique solution: the means stay as they are.
    cycle = Cycle(gone & keep.any(1)[:, None, None, None], pixels.dtype)
    # A cycle alone may overshoot, since kept cells shrink on coarser levels. Chebyshev iteration over the cycles (Saad
    # 2003, algorithm 12.1) only needs bounds of what a cycle does.
    lowest, highest = _CYCLE_BOUNDS
    middle, half = (highest + lowest) / 2, (highest - lowest) / 2
    rho, step = half / middle, cycle.correct(cycle.residual(framed)).div_(middle)
    values += step
    for _ in range(_CYCLES - 1):
        following = 1 / (2 * middle / half - rho)
        correction = cycle.correct(cycle.residual(framed))
        step.mul_(following * rho).add_(correction, alpha=2 * following / half)
        values += step
        rho = following
    return values.to(pixels.dtype)
