"""How sure a map is: the spread of its cells over copies, and the share of cells that keep their rank."""

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

Floats = npt.NDArray[np.float64]

STEADY = 0.05
"""Largest standard deviation of a stable cell's rank, as a share of the cells."""


def spread(maps: npt.ArrayLike) -> Floats:
    """Standard deviation of each cell over the copies of a map, in the unit of the map, [cells].

    Args:
        maps: one map for each copy, two or more, [copies, cells].
    """
    return np.asarray(np.asarray(maps, np.float64).std(axis=0, ddof=1))


def stable_share(maps: npt.ArrayLike) -> float:
    """Share of the cells whose rank varies by at most `STEADY` of the cells (standard deviation over the copies).

    Ranks do not depend on the scale of a map, which methods choose freely. Cells of equal value have their mean rank.

    Args:
        maps: one map for each copy, two or more, [copies, cells].
    """
    ranks = rankdata(np.asarray(maps, np.float64), axis=1)
    return float((ranks.std(axis=0, ddof=1) <= STEADY * ranks.shape[1]).mean())
