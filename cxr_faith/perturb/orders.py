"""Orders of the cells: from a map, or by the distance to the middle of the picture."""

import numpy as np

from cxr_faith.metrics.functional import BASELINES
from cxr_faith.perturb.schedule import saliency_order, stream

CENTER = BASELINES[1]


def map_order(values: np.ndarray, seed: int, image_id: str, method: str) -> np.ndarray | None:
    """Cells of a map [grid_h, grid_w], most salient first; seeded ties; None for a map that is not finite."""
    if not np.isfinite(values).all():
        return None
    ties = stream(seed, image_id, CENTER) if method == CENTER else stream(seed, image_id, "ties", method)
    return saliency_order(values.ravel(), ties.permutation(values.size))


def center_order(grid: tuple[int, int], seed: int, image_id: str, pictures: int = 1) -> np.ndarray:
    """The center baseline: cells by distance to the middle of their own picture, seeded ties.

    Args:
        grid: (grid_h, grid_w) of a picture.
        seed: the run's seed.
        image_id: seeds the ties.
        pictures: number of pictures, all of this grid.
    """
    rows, columns = np.indices(grid, dtype=np.float64)
    middle = ((grid[0] - 1) / 2, (grid[1] - 1) / 2)
    nearness = -np.hypot(rows - middle[0], columns - middle[1])
    order = map_order(np.tile(nearness, (pictures, 1)), seed, image_id, CENTER)
    assert order is not None
    return order


def is_flat(values: np.ndarray) -> bool:
    """Whether all cells of a map are equal, so that it ranks nothing."""
    return bool(np.isfinite(values).all() and values.min() == values.max())


def tie_share(values: np.ndarray) -> float:
    """Share of a map's cells whose value another cell has too."""
    _, counts = np.unique(values, return_counts=True)
    return float(counts[counts > 1].sum() / values.size)
