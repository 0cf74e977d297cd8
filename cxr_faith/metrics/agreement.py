"""How alike two maps are: Spearman, SSIM and top-k overlap, batched."""

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import rankdata

Floats = npt.NDArray[np.float64]

SSIM_WINDOW = 5
TOP_SHARE = 0.1

_AT_ONCE = 256
"""Pairs of maps that SSIM takes at once: it unfolds each into 25 copies, in five versions."""


def spearman(a: npt.ArrayLike, b: npt.ArrayLike) -> Floats:
    """Rank correlation of each pair of maps, ties at their mean rank; NaN where a map is constant.

    Args:
        a: [pairs, grid_h, grid_w].
        b: the same shape.

    Returns:
        [pairs].
    """
    ranks = [rankdata(_flat(maps), axis=1) for maps in (a, b)]
    return _correlation(*ranks)


def ssim(a: npt.ArrayLike, b: npt.ArrayLike) -> Floats:
    """Structural similarity of each pair of maps scaled to [0, 1], uniform window of 5 cells, range 1.

    Args:
        a: [pairs, grid_h, grid_w], at least 3 cells a side.
        b: the same shape.

    Returns:
        [pairs]; a constant map is scaled to 0.
    """
    # Imported where it is used: torchmetrics takes seconds to import and brings matplotlib with it.
    from torchmetrics.functional.image import structural_similarity_index_measure

    first, second = (torch.from_numpy(_scaled(maps))[:, None].split(_AT_ONCE) for maps in (a, b))
    parts = [np.zeros(0)]
    for x, y in zip(first, second, strict=True):
        if len(x):
            similarity = structural_similarity_index_measure(
                x, y, gaussian_kernel=False, kernel_size=SSIM_WINDOW, reduction="none", data_range=1.0
            )
            assert isinstance(similarity, torch.Tensor)
            parts.append(similarity.reshape(-1).numpy())
    return np.concatenate(parts)


def top_overlap(a: npt.ArrayLike, b: npt.ArrayLike, share: float = TOP_SHARE) -> Floats:
    """Intersection over union of the top cells of each pair of maps.

    Cells that tie at the cut belong to it by the same fraction each, so that the order of the cells does not matter.

    Args:
        a: [pairs, grid_h, grid_w].
        b: the same shape.
        share: of the cells that count as top; at least one cell.

    Returns:
        [pairs].
    """
    first, second = (_top(_flat(maps), share) for maps in (a, b))
    return np.asarray(np.minimum(first, second).sum(1) / np.maximum(first, second).sum(1))


def _top(values: Floats, share: float) -> Floats:
    """Membership of each cell in the top k, [pairs, N] in [0, 1], each row summing to k."""
    k = max(1, round(share * values.shape[1]))
    cut = np.sort(values, axis=1)[:, [-k]]
    above, tied = values > cut, values == cut
    with np.errstate(invalid="ignore"):  # a map that is not finite has no top: NaN
        return np.asarray(above + tied * (k - above.sum(1, keepdims=True)) / tied.sum(1, keepdims=True))


def _flat(maps: npt.ArrayLike) -> Floats:
    values = np.asarray(maps, dtype=np.float64)
    return values.reshape(len(values), int(np.prod(values.shape[1:])))


def _scaled(maps: npt.ArrayLike) -> Floats:
    values = np.asarray(maps, dtype=np.float64)
    low, high = (f(values, axis=(-2, -1), keepdims=True) for f in (np.min, np.max))
    return np.asarray((values - low) / np.where(high > low, high - low, 1.0))


def _correlation(a: Floats, b: Floats) -> Floats:
    a, b = (x - x.mean(1, keepdims=True) for x in (a, b))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((a * b).sum(1) / np.sqrt((a * a).sum(1) * (b * b).sum(1)))
