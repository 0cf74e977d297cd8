"""Distributes rows over ranks and batches by whole images; every row goes to exactly one rank at any world size.

An image's questions share its perturbed pictures, so they stay on one rank and, if they fit, in one batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heapreplace

import numpy as np
import numpy.typing as npt
from torch.utils.data import Sampler

Rows = npt.NDArray[np.int64]


def shard_by_image(images: Rows, rank: int, world_size: int) -> Rows:
    """Positions of one rank: whole images, with about as many positions for every rank.

    Images with the most positions are assigned first, each to the rank that has the fewest positions so far.

    Args:
        images: int [n], code of each position's image, equal for equal images.
        rank: this rank.
        world_size: number of ranks; with more ranks than images, some ranks get no positions.

    Returns:
        int64 positions, images in the order of their first occurrence, an image's questions side by side. Every
        position belongs to exactly one rank.

    Raises:
        ValueError: `rank` is not in [0, world_size).
    """
    if not 0 <= rank < world_size:
        raise ValueError(f"rank {rank} is not in a world of {world_size}")
    _, first, codes, counts = np.unique(images, return_index=True, return_inverse=True, return_counts=True)
    dealt = np.zeros(len(first), dtype=bool)
    loads = [(0, owner) for owner in range(world_size)]
    for image in np.lexsort((first, -counts)):
        load, owner = loads[0]
        dealt[image] = owner == rank
        heapreplace(loads, (load + int(counts[image]), owner))
    order: Rows = np.argsort(first[codes], kind="stable")
    mine: Rows = order[dealt[codes[order]]]
    return mine


class ImageBatches(Sampler[list[int]]):
    """Batch sampler that keeps an image's questions in one batch where they fit.

    An image with more questions than `batch_size` is split every `batch_size` samples.

    Args:
        images: int [n], image code of each position, equal codes side by side.
        batch_size: largest number of samples in a batch.

    Raises:
        ValueError: `batch_size` is less than 1.
    """

    def __init__(self, images: Rows, batch_size: int) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self.edges = _batch_edges(images, batch_size)

    def __len__(self) -> int:
        """Number of batches."""
        return len(self.edges) - 1

    def __iter__(self) -> Iterator[list[int]]:
        """The positions of each batch."""
        for start, stop in zip(self.edges[:-1], self.edges[1:], strict=True):
            yield list(range(start, stop))


def _batch_edges(images: Rows, batch_size: int) -> Rows:
    """First row of each batch, and the end: as many whole images as fit, else `batch_size` rows of one image."""
    total = len(images)
    image_starts = np.flatnonzero(np.diff(images, prepend=images[:1] - 1)) if total else np.empty(0, dtype=np.int64)
    borders = np.append(image_starts, total)
    edges = [0]
    while edges[-1] < total:
        full = edges[-1] + batch_size
        border = int(borders[np.searchsorted(borders, full, side="right") - 1])
        edges.append(border if border > edges[-1] else min(full, total))
    return np.array(edges, dtype=np.int64)
