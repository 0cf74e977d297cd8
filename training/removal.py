"""Removes grid cells from training pictures as deletion and insertion do.

A removed cell shows the substrate. Cells are chosen at random: single cells, smooth clumps, or the cells of a lesion
(the picture's own or a decoy) first or last. So training covers every stage of a deletion or insertion curve.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from architecture import GRID, IMAGE_SIZE
from numpy.typing import NDArray
from torch import Tensor

SUBSTRATES = ("blur", "mean", "zero", "noise")
SUBSTRATE_SHARES = (0.64, 0.12, 0.12, 0.12)
ALL_GONE = 0.08
LESION_ORDERED = 0.3
BLUR_SIGMA = 0.1


def blur_matrix(side: int = IMAGE_SIZE, sigma: float = BLUR_SIGMA) -> Tensor:
    """Matrix [side, side] of a one-dimensional Gaussian blur with reflect padding; sigma is a share of the side."""
    radius = min(math.ceil(3 * sigma * side), side - 1)
    kernel = np.exp(-0.5 * np.square(np.arange(-radius, radius + 1) / (sigma * side)))
    kernel /= kernel.sum()
    matrix = np.zeros((side, side))
    for row in range(side):
        index = np.abs(np.arange(row - radius, row + radius + 1))
        index = np.where(index > side - 1, 2 * (side - 1) - index, index)
        np.add.at(matrix[row], index, kernel)
    return torch.from_numpy(matrix.astype(np.float32))


def _clumps(rng: np.random.Generator) -> NDArray[np.float64]:
    """A smooth random field [grid, grid]."""
    axis = np.arange(GRID)
    smooth = np.exp(-0.5 * np.square((axis[:, None] - axis) / rng.uniform(0.8, 2.5)))
    field: NDArray[np.float64] = smooth @ rng.standard_normal((GRID, GRID)) @ smooth.T
    return field / field.std()


def few_or_many(rng: np.random.Generator, first_in: bool) -> float:
    """Share of the cells to remove in a good order: its curve changes most where few cells are inserted or deleted."""
    share = rng.uniform(0.0, 1.0) ** rng.choice([1.0, 2.0, 3.0])
    return float(1.0 - share if first_in else share)


def keep_most(field: NDArray[np.float64], share: float) -> NDArray[np.bool_]:
    """Cells [grid, grid] that are kept when a share of them is removed, smallest values of the field first."""
    kept = np.ones(GRID * GRID, bool)
    kept[np.argsort(field, axis=None)[: round(share * GRID * GRID)]] = False
    return kept.reshape(GRID, GRID)


def draw_kept(
    rng: np.random.Generator, lesion: NDArray[np.float16] | None, ordered: float, intact: float
) -> NDArray[np.bool_]:
    """Which cells are kept.

    Args:
        rng: source of randomness.
        lesion: cell shares of a lesion [grid, grid] around which cells may be ordered, or None.
        ordered: probability that they are.
        intact: probability that all cells are kept.

    Returns:
        bool [grid, grid]; True: the cell is kept.
    """
    if rng.random() < intact:
        return np.ones((GRID, GRID), bool)
    if rng.random() < ALL_GONE:
        return np.zeros((GRID, GRID), bool)
    field = _clumps(rng) if rng.random() < 0.5 else rng.standard_normal((GRID, GRID))
    if lesion is not None and rng.random() < ordered:
        # Lesion first out (deletion) or first in (insertion), as a good explanation would order the cells.
        first_in = rng.random() < 0.5
        field = field + (4.0 if first_in else -4.0) * lesion.astype(float) / max(float(lesion.max()), 1e-3)
        share = few_or_many(rng, first_in)
    else:
        share = rng.uniform(0.0, 1.0)
    return keep_most(field, share)


def remove(pixels: Tensor, kept: Tensor, kinds: NDArray[np.int64], blur: Tensor, generator: torch.Generator) -> Tensor:
    """Replace cells by their substrate.

    Args:
        pixels: [batch, 3, side, side] in model space.
        kept: bool [batch, grid, grid].
        kinds: index into `SUBSTRATES` per picture.
        blur: matrix of `blur_matrix`.
        generator: source of the noise substrate.

    Returns:
        pictures like `pixels`.
    """
    substrate = torch.zeros_like(pixels)
    for kind, name in enumerate(SUBSTRATES):
        rows = torch.from_numpy(np.flatnonzero(kinds == kind)).to(pixels.device)
        if not len(rows) or name == "zero":
            continue
        part = pixels[rows]
        std, mean = torch.std_mean(part, dim=(2, 3), keepdim=True, correction=0)
        if name == "blur":
            substrate[rows] = blur @ part @ blur.T
        elif name == "mean":
            substrate[rows] = mean.expand_as(part)
        else:
            field = torch.randn((len(rows), 1, *pixels.shape[2:]), generator=generator).to(pixels.device)
            substrate[rows] = mean + std * field
    cell = pixels.shape[-1] // GRID
    mask = kept.repeat_interleave(cell, 1).repeat_interleave(cell, 2)[:, None]
    return torch.where(mask, pixels, substrate)
