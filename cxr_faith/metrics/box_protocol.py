"""Box protocol: boxes that are made from a map, against the boxes of the finding.

1. The cells at or above the map's .9 quantile are chosen, all cells of that value among them; cells that are not
   positive never are. So a map with many equal values may choose more than a tenth of its cells.
2. Cells that touch, also by a corner, are one component. The largest components are kept, by number of cells, as many
   as the finding has boxes; of two equal ones the one whose first cell comes first, row by row.
3. Each is replaced by its bounding box. The union of these boxes is compared with the union of the finding's boxes,
   pixel by pixel.

A finding with a mask has the bounding boxes of the mask's components. As for all localization, a map without a positive
value is a miss, 0 throughout, and without a finding pixel there is nothing to hit: NaN.
"""

import numpy as np
import numpy.typing as npt
from scipy.ndimage import find_objects, label

from cxr_faith.metrics.localization import LOCALIZATION_COLUMNS, pixels_inside

Mask = npt.NDArray[np.bool_]

QUANTILE = 0.9
BOX_COLUMNS = ("box_iou_q90", "box_precision_q90", "box_recall_q90", "box_f1_q90")
"""All in [0, 1], higher = boxes of the map that agree more with those of the finding."""
PLACE_COLUMNS = (*LOCALIZATION_COLUMNS, *BOX_COLUMNS)
"""All columns that say how well a map lies on the finding."""


def box_scores(saliency: npt.ArrayLike, truth: npt.ArrayLike, n_boxes: int, pictures: int = 1) -> dict[str, float]:
    """Scores of one map's boxes against those of the finding.

    Args:
        saliency: [pictures * grid_h, grid_w].
        truth: bool [pictures * H, W] in model pixels, the union of the finding's boxes; the grid divides it.
        n_boxes: number of these boxes; so many components of the map are kept.
        pictures: number of pictures, one below the other; no component lies on two of them.

    Returns:
        `box_iou_q90` (intersection over union), `box_precision_q90` (share of the map's boxes inside those of the
        finding), `box_recall_q90` (share of the finding's boxes inside the map's) and `box_f1_q90`, over pixels.
    """
    values = np.asarray(saliency, dtype=np.float64).clip(min=0)
    inside, area = pixels_inside(np.asarray(truth, dtype=bool), values.shape)
    if not inside.any():
        return dict.fromkeys(BOX_COLUMNS, float("nan"))
    chosen = (values >= np.quantile(values, QUANTILE)) & (values > 0)
    drawn, _ = bounding_boxes(chosen, n_boxes, pictures)
    shared, own, there = inside[drawn.ravel()].sum(), drawn.sum() * area, inside.sum()
    if not own:
        return dict.fromkeys(BOX_COLUMNS, 0.0)
    scores = shared / (own + there - shared), shared / own, shared / there, 2 * shared / (own + there)
    return dict(zip(BOX_COLUMNS, map(float, scores), strict=True))


def bounding_boxes(chosen: Mask, most: int | None = None, pictures: int = 1) -> tuple[Mask, int]:
    """Bounding boxes of the connected components, largest first: their union, like `chosen`, and how many there are.

    Args:
        chosen: bool [pictures * height, width].
        most: number of components that are kept; None: all.
        pictures: number of pictures, one below the other.
    """
    sheets = chosen.reshape(pictures, -1, chosen.shape[1])
    touching = np.zeros((3, 3, 3), bool)
    touching[1] = True  # within a picture
    labels, _ = label(sheets, touching)
    numbers, first, sizes = np.unique(labels, return_index=True, return_counts=True)
    by_size = np.lexsort((first, -sizes))
    kept = [number for number in numbers[by_size] if number][:most]
    boxes, drawn = find_objects(labels), np.zeros_like(sheets)
    for number in kept:
        drawn[boxes[number - 1]] = True
    return drawn.reshape(chosen.shape), len(kept)
