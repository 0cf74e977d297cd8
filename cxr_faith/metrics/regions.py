"""Where a map lies: regions of the chest, the border, organs. Organs need masks; the rest needs only the map.

Shares are of the positive mass; enrichment = mass share / area share, so 1 is a map that is spread evenly.
"""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

REGIONS = tuple(f"{side}_{level}" for side in ("right", "left") for level in ("upper", "middle", "lower"))
"""Sides are those of the patient: in the usual view the left of the image is the patient's right."""

BORDER = 0.05


def region_weights(grid: tuple[int, int]) -> Floats:
    """How much of each cell belongs to each of `REGIONS`, [6, grid_h, grid_w]; the regions share out the grid.

    A cell belongs where its center lies: thirds of the height, halves of the width; the middle column of an odd
    grid belongs to both sides by half. They are those of the usual view: flip the maps of mirrored pictures first.
    """
    rows, columns = ((np.arange(n) + 0.5) / n for n in grid)
    level = np.minimum((rows * 3).astype(int), 2)
    right = np.where(np.isclose(columns, 0.5), 0.5, columns < 0.5)
    levels = (level == np.arange(3)[:, None]).astype(np.float64)
    sides = np.stack([right, 1 - right])
    return np.asarray((sides[:, None, None, :] * levels[None, :, :, None]).reshape(6, *grid))


def border_weights(grid: tuple[int, int]) -> Floats:
    """Share of each cell's area within 5 % of a side of the picture, [grid_h, grid_w]."""
    inner = []
    for n in grid:
        edges = np.arange(n + 1) / n
        overlap = np.minimum(edges[1:], 1 - BORDER) - np.maximum(edges[:-1], BORDER)
        inner.append(overlap.clip(min=0) * n)
    return 1 - np.outer(*inner)


def mass_shares(maps: npt.ArrayLike, weights: npt.ArrayLike) -> Floats:
    """Share of each map's positive mass in each region.

    Args:
        maps: [..., grid_h, grid_w].
        weights: [regions, grid_h, grid_w] in [0, 1].

    Returns:
        [..., regions]; NaN for a map without a positive value.
    """
    positive = np.asarray(maps, dtype=np.float64).clip(min=0)
    total = positive.sum((-2, -1))[..., None]
    with np.errstate(invalid="ignore"):
        shares = np.einsum("...hw,rhw->...r", positive, np.asarray(weights, dtype=np.float64)) / total
    return np.asarray(shares)


def enrichment(shares: npt.ArrayLike, weights: npt.ArrayLike) -> Floats:
    """Mass share over area share; NaN for a region without area.

    Args:
        shares: [..., regions] from `mass_shares`.
        weights: [regions, grid_h, grid_w], the same.
    """
    area = np.asarray(weights, dtype=np.float64).mean((-2, -1))
    return np.asarray(shares, dtype=np.float64) / np.where(area > 0, area, np.nan)


def picture_shares(values: np.ndarray, pictures: int) -> list[float] | None:
    """Share of a map's positive mass on each picture; None for a map without any, or that is not finite.

    Args:
        values: [pictures * grid_h, grid_w].
        pictures: number of pictures, one below the other.
    """
    mass = np.array([part.clip(min=0).sum(dtype=np.float64) for part in np.split(values, pictures)])
    total = mass.sum()
    shares: list[float] = (mass / total).tolist() if np.isfinite(total) and total > 0 else []
    return shares or None
