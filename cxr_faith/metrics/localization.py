"""Does a map lie where the finding is? At model-pixel resolution, the map upsampled nearest.

A map is constant within a cell and cells are equal, so all pixel sums are sums over cells of how many of a cell's
pixels lie inside the mask: exact, and as fast for 896 px as for 56. Negative values count as zero (a map points at
what speaks for the answer). A map without a positive value points nowhere: a miss, 0 throughout. Without a finding
pixel there is nothing to hit: NaN.
"""

import numpy as np
import numpy.typing as npt
from skimage.filters import threshold_otsu

Floats = npt.NDArray[np.float64]

TOP_SHARE = 0.1
LOCALIZATION_COLUMNS = ("pointing_game", "energy_inside", "iou_otsu", "iou_top_10", "auprc")
"""All in [0, 1], higher = more of the map on the finding."""


def localization_scores(
    saliency: npt.ArrayLike, mask: npt.ArrayLike, order: npt.ArrayLike | None = None
) -> dict[str, float]:
    """Scores of one map against one mask.

    Args:
        saliency: [grid_h, grid_w].
        mask: bool [H, W] in model pixels, the union of the finding's boxes or its mask; grid_h divides H and
            grid_w divides W.
        order: permutation of the cells, most salient first, which settles ties of `iou_top_10`; default: row by row.

    Returns:
        `pointing_game` (share of the maxima that is inside, Zhang et al. 2018, ties shared), `energy_inside` (share of
        the positive mass, Wang et al. 2020), `iou_otsu` (pixels above Otsu's threshold), `iou_top_10` (the first tenth
        of the cells), `auprc` (average precision of the pixels).

    Raises:
        ValueError: the grid does not divide the mask, or the map has values that are not finite.
    """
    values = np.asarray(saliency, dtype=np.float64)
    inside, area = pixels_inside(np.asarray(mask, dtype=bool), values.shape)
    if not np.isfinite(values).all():
        raise ValueError("a map with values that are not finite has no place")
    if not inside.any():
        return dict.fromkeys(LOCALIZATION_COLUMNS, float("nan"))
    positive = values.clip(min=0).ravel()
    if positive.max() == 0:
        return dict.fromkeys(LOCALIZATION_COLUMNS, 0.0)
    first = np.argsort(-positive, kind="stable") if order is None else np.asarray(order)
    top = np.isin(np.arange(positive.size), first[: max(1, round(TOP_SHARE * positive.size))])
    highest = positive == positive.max()
    return {
        "pointing_game": float(inside[highest].mean() / area),
        "energy_inside": float(positive @ inside / (positive.sum() * area)),
        "iou_otsu": _iou(positive > threshold_otsu(positive.reshape(values.shape)), inside, area),
        "iou_top_10": _iou(top, inside, area),
        "auprc": average_precision(positive, inside, area - inside),
    }


def pointing_ceiling(mask: npt.ArrayLike, grid: tuple[int, int]) -> float:
    """Highest `pointing_game` that a map can have: the largest share of a cell that is inside; NaN without a finding.

    Args:
        mask: bool [H, W] in model pixels; a box may cover every cell only in part.
        grid: (grid_h, grid_w) of the maps.
    """
    inside, area = pixels_inside(np.asarray(mask, dtype=bool), grid)
    return float(inside.max() / area) if inside.any() else float("nan")


def average_precision(values: Floats, hits: Floats, misses: Floats) -> float:
    """Area under the precision-recall curve, Σ (R_n − R_{n−1}) P_n over the distinct values.

    Args:
        values: [N], tied ones enter together.
        hits: pixels of each cell that belong to the finding [N]; at least one.
        misses: its other pixels [N].
    """
    order = np.argsort(-values, kind="stable")
    last = np.append(np.diff(values[order]) != 0, True)  # of each run of ties
    inside, seen = np.cumsum(hits[order])[last], np.cumsum((hits + misses)[order])[last]
    gained = np.diff(inside, prepend=0)
    return float((gained * inside / seen).sum() / inside[-1])


def pixels_inside(mask: npt.NDArray[np.bool_], grid: tuple[int, ...]) -> tuple[Floats, int]:
    """(pixels of each cell inside the mask [N], pixels of a cell)."""
    (height, width), (rows, columns) = mask.shape, grid
    if height % rows or width % columns:
        raise ValueError(f"a grid of {rows}x{columns} cells does not divide a mask of {height}x{width} px")
    cells = mask.reshape(rows, height // rows, columns, width // columns)
    return cells.sum((1, 3), dtype=np.float64).ravel(), (height // rows) * (width // columns)


def _iou(chosen: npt.NDArray[np.bool_], inside: Floats, area: int) -> float:
    """Chosen cells against the mask."""
    shared = inside[chosen].sum()
    return float(shared / (chosen.sum() * area + inside.sum() - shared))
