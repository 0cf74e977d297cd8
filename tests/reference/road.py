"""Linear imputation by its definition: one equation per removed pixel, solved directly."""

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.linalg import spsolve

WEIGHTS = {(dy, dx): 1 / 6 if dy == 0 or dx == 0 else 1 / 12 for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx}


def equations(planes, gone):
    """(sparse matrix, right side [pixels, C]) of the pixels that are gone, in raster order."""
    _, height, width = planes.shape
    number = {pixel: i for i, pixel in enumerate(zip(*np.nonzero(gone), strict=True))}
    entries, right = [], np.zeros((len(number), len(planes)))
    for (y, x), i in number.items():
        for (dy, dx), weight in WEIGHTS.items():
            other = (y + dy, x + dx)
            if not (0 <= other[0] < height and 0 <= other[1] < width):
                continue
            entries.append((i, i, weight))
            if other in number:
                entries.append((i, number[other], -weight))
            else:
                right[i] += weight * planes[:, other[0], other[1]]
    rows, columns, values = zip(*entries, strict=True)
    return coo_matrix((values, (rows, columns)), shape=(len(number), len(number))).tocsc(), right


def impute(planes, gone):
    """planes [C, H, W] with the pixels where `gone` replaced by the weighted mean of their neighbors."""
    result = planes.astype(np.float64)
    if gone.any():
        result[:, gone] = spsolve(*equations(planes, gone)).T
    return result
