"""The search of CLEANN: the smallest set of candidate cells whose removal changes the answer."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from cxr_faith.perturb.schedule import BoolArray, IntArray
from cxr_faith.vlm.base import PictureScores

FloatArray = npt.NDArray[np.float64]
Removal = Callable[[BoolArray], PictureScores]
"""Scores [M] of pictures without the cells of bool [M, N]."""


def explaining_set(
    depth: IntArray, mass: FloatArray, radius: int, removal: Removal
) -> tuple[FloatArray, dict[str, float]]:
    """Search the set, and make the map from it.

    Args:
        depth: depth of each cell for each head [heads, N].
        mass: attention of the answer's position on each cell, for each head [heads, N].
        radius: greatest depth of a candidate.
        removal: scores pictures without some cells.

    Returns:
        (map [N], extras); see `Cleann`.
    """
    n_cells = depth.shape[1]
    soft = (mass * (depth <= radius) / depth.clip(1)).sum(0)
    cells = np.empty(0, np.int64)
    intact = removal(np.zeros((1, n_cells), bool))
    if np.isfinite(mass).all() and bool(intact.standing[0] >= 0):
        cells = smallest_change(rankings(depth, mass, radius), n_cells, removal)
    verified = len(cells) > 0
    if not verified:
        cells = attention_mass_set(mass.sum(0))
    members = cell_masks([cells], n_cells)
    drop = float(intact.s[0] - removal(members).s[0])
    share = soft / soft.max() if soft.max() != 0 else soft
    return members[0] + share / 2, {"verified": verified, "set_size": len(cells), "score_drop": drop}


def rankings(depth: IntArray, mass: FloatArray, radius: int) -> list[IntArray]:
    """Candidates by depth summed over heads, then the candidates of each head by its own depth.

    Args:
        depth: [heads, N].
        mass: [heads, N]; orders cells of equal depth.
        radius: greatest depth of a candidate.
    """
    joint = np.lexsort((-mass.sum(0), depth.sum(0)))
    heads = [np.lexsort((-m, d))[: int((d <= radius).sum())] for d, m in zip(depth, mass, strict=True)]
    near = depth.min(axis=0) <= radius
    return [joint[near[joint]], *heads]


def prefixes(ranked: Sequence[IntArray]) -> list[IntArray]:
    """The first 1, 2, 3, 4, 6, 8, 11, … and all cells of every ranking, by size, then by ranking."""
    sets: list[IntArray] = []
    for ranking in ranked:
        sizes = {min(round(2 ** (half / 2)), len(ranking)) for half in range(2 * len(ranking).bit_length() + 1)}
        sets += [ranking[:size] for size in sorted(sizes) if size > 0]
    return sorted(sets, key=len)


def smallest_change(ranked: Sequence[IntArray], n_cells: int, removal: Removal) -> IntArray:
    """The smallest tested set whose removal changes the answer, reduced; empty if no set does.

    The graph alone says which cells come first: with candidates in the order of their measured effects, the search
    would be greedy occlusion, whatever the graph.

    Args:
        ranked: rankings of candidates.
        n_cells: number of cells of the grid.
        removal: scores pictures without some cells.
    """
    sets = prefixes(ranked)
    if not sets:
        return np.empty(0, np.int64)
    changes = np.flatnonzero(removal(cell_masks(sets, n_cells)).standing.numpy() < 0)
    return reduce_set(sets[changes[0]], n_cells, removal) if len(changes) > 0 else np.empty(0, np.int64)


def reduce_set(cells: IntArray, n_cells: int, removal: Removal) -> IntArray:
    """Put back cells that are not needed for the change until every cell that is left is needed."""
    while len(cells) > 1:
        without = [np.delete(cells, place) for place in range(len(cells))]
        standing = removal(cell_masks(without, n_cells)).standing.numpy()
        spare = np.argsort(standing, kind="stable")[: int((standing < 0).sum())]
        if len(spare) == 0:
            break
        # Put back as many at once as possible, the least needed first.
        nested = [np.delete(cells, spare[:count]) for count in range(1, min(len(spare), len(cells) - 1) + 1)]
        still = np.flatnonzero(removal(cell_masks(nested, n_cells)).standing.numpy() < 0)
        # The first one changes the answer as tested above; near 0, a GPU may round differently in another batch size.
        cells = nested[still[-1]] if len(still) > 0 else nested[0]
    return cells


def attention_mass_set(mass: FloatArray, share: float = 0.5) -> IntArray:
    """The fewest cells that hold a share of the attention [N]."""
    order = np.argsort(-mass, kind="stable")
    held = np.cumsum(mass[order])
    return order[: int(np.searchsorted(held, share * held[-1])) + 1]


def cell_masks(sets: Sequence[IntArray], n_cells: int) -> BoolArray:
    """Masks [M, N] of sets of cells."""
    masks = np.zeros((len(sets), n_cells), bool)
    for mask, cells in zip(masks, sets, strict=True):
        mask[cells] = True
    return masks
