"""Perturbed sheets of several pictures: only the pictures of which some cells changed pass through the vision tower."""

from collections.abc import Callable

import torch
from torch import Tensor

from cxr_faith.data.sheets import apart
from cxr_faith.perturb.road import Fill
from cxr_faith.perturb.substrate import compose
from cxr_faith.vlm.base import VLM


def sheet_source(vlm: VLM, pair: Tensor, fill: Fill | None, softness: float) -> Callable[[Tensor], Tensor]:
    """A function from masks bool [M, N] to image tokens [M, tokens, hidden].

    The tokens of intact pictures, and of pictures without any cell, are made here, once.

    Args:
        vlm: the model, shown several pictures.
        pair: the original sheet and the substrate sheet [2, 3, pictures * H, W].
        fill: makes the substrate of each mask, for substrates that depend on it.
        softness: σ in pixels of the masks' edges.
    """
    count, one = vlm.pictures, vlm.showing(1)
    originals, removals = apart(pair[:1], count), apart(pair[1:], count)
    intact, gone = one.encode(originals), one.encode(removals)

    def select(keep: Tensor) -> Tensor:
        masks = keep.unflatten(1, (count, -1))
        some, all_cells = masks.any(-1), masks.all(-1)
        tokens = torch.where(some[..., None, None], intact, gone)
        rows, pictures = (some & ~all_cells).nonzero(as_tuple=True)
        filled = None if fill is None else apart(fill(keep), count).unflatten(0, (-1, count))
        parts = [
            _composed(originals, removals if filled is None else filled[row], masks[row], int(picture), vlm, softness)
            for row, picture in zip(rows.tolist(), pictures.tolist(), strict=True)
        ]
        # In rows of a whole micro-batch: a tower may round differently at another batch size.
        for start in range(0, len(parts), len(keep)):
            batch = parts[start : start + len(keep)]
            padded = batch + batch[:1] * (len(keep) - len(batch))
            own = slice(start, start + len(batch))
            tokens[rows[own], pictures[own]] = one.encode(torch.stack(padded))[: len(batch)]
        return tokens.flatten(1, 2)

    return select


def _composed(originals: Tensor, removals: Tensor, masks: Tensor, picture: int, vlm: VLM, softness: float) -> Tensor:
    """One picture [3, H, W] of a sheet under its mask; `masks` are those of all pictures [pictures, N]."""
    keep = masks[picture][None]
    return compose(originals[picture], removals[picture], keep, vlm.picture_grid, softness)[0]
