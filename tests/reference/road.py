"""Linear imputation by its definition: one equation per removed pixel, solved directly."""

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.linalg import spsolve

WEIGHTS = {(dy, dx): 1 / 6 if dy == 0 or dx == 0 else 1 / 12 for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx}


OUTSIDE, KEPT = -2, -1


def equations(planes, gone):
    """(sparse matrix, right side [pixels, C]) of the pixels that are gone, in raster order."""
    _, height, width = planes.shape
    y, x = np.nonzero(gone)
    own, right = np.arange(len(y)), np.zeros((len(y), len(planes)))
    number = np.full((height + 2, width + 2), OUTSIDE)  # with a frame around the picture
    number[1:-1, 1:-1] = KEPT
    number[y + 1, x + 1] = own
    rows, columns, values = [], [], []
    for (dy, dx), weight in WEIGHTS.items():
        other = number[y + 1 + dy, x + 1 + dx]
        inside, unknown, known = other != OUTSIDE, other >= 0, other == KEPT
        rows += [own[inside], own[unknown]]
        columns += [own[inside], other[unknown]]
        values += [np.full(inside.sum(), weight), np.full(unknown.sum(), -weight)]
        right[known] += weight * planes[:, y[known] + dy, x[known] + dx].T
    entries = np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))
    return coo_matrix(entries, shape=(len(y), len(y))).tocsc(), right


def impute(planes, gone):
    """planes [C, H, W] with the pixels where `gone` replaced by the weighted mean of their neighbors."""
    result = planes.astype(np.float64)
    if gone.any():
        result[:, gone] = spsolve(*equations(planes, gone), permc_spec="MMD_AT_PLUS_A").T
    return result
