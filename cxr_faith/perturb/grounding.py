"""Is an answer grounded? It should change without the finding's cells, and stay without as many cells elsewhere."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import binary_dilation
from torch import Tensor

from cxr_faith.perturb.engine import Plan
from cxr_faith.perturb.schedule import stream
from cxr_faith.vlm.base import PictureScores

Run = Callable[[Plan], list[PictureScores]]
Cells = npt.NDArray[np.bool_]

INSIDE = 0.5
"""Share of a cell that an organ must cover for the cell to lie in it."""

FLAT = 0.05
"""A cell that varies by less than this share of the picture's standard deviation is background, not body."""


@dataclass(frozen=True)
class Regions:
    """Two sets of cells of one question.

    Attributes:
        mask: the cells that the finding's mask touches, bool [N].
        away: as many cells away from it, in one piece where they lie together, bool [N]; None: there is no room.
    """

    mask: Cells
    away: Cells | None


def regions_of(
    finding: Tensor | None, organs: Mapping[str, Tensor], pixels: Tensor, pictures: int, image_id: str, seed: int
) -> Regions | None:
    """The cells of the finding's mask, and as many others inside the lungs, or without masks of lungs inside the body.

    Cells away from the mask neither belong to it nor touch it. They are those nearest to one of them that is drawn at
    random, so that they lie together as a finding does.

    Args:
        finding: share of each cell under the finding [grid_h, grid_w]; None: it has no mask.
        organs: label → share of each cell that the organ covers [grid_h, grid_w].
        pixels: the picture [3, H, W]; several pictures lie one below the other.
        pictures: number of pictures.
        image_id: seeds the draw.
        seed: the run's seed.

    Returns:
        None without a mask.
    """
    if finding is None or not (mask := finding.cpu().numpy() > 0).any():
        return None
    lungs = [share.cpu().numpy() for label, share in organs.items() if "lung" in label.casefold()]
    inside = np.add.reduce(lungs) >= INSIDE if lungs else _body(organs, pixels, mask.shape)
    whole = np.arange(len(mask)) * pictures // len(mask)  # the picture of each row of cells
    near = np.concatenate([binary_dilation(mask[whole == one], np.ones((3, 3))) for one in range(pictures)])
    own = np.isin(whole, whole[mask.any(1)])[:, None]
    room = np.argwhere(inside & own & ~near)
    if len(room) < mask.sum():
        return Regions(mask.ravel(), None)
    start = room[stream(seed, image_id, "away").integers(len(room))]
    nearest = np.argsort(((room - start) ** 2).sum(1), kind="stable")[: int(mask.sum())]
    away = np.zeros_like(mask)
    away[tuple(room[nearest].T)] = True
    return Regions(mask.ravel(), away.ravel())


def _body(organs: Mapping[str, Tensor], pixels: Tensor, grid: tuple[int, ...]) -> Cells:
    """Cells of the body: those of a mask labeled so, else those that are no flat background."""
    named = [share.cpu().numpy() for label, share in organs.items() if label.casefold() == "body"]
    if named:
        return np.asarray(np.add.reduce(named) >= INSIDE)
    gray = pixels.mean(0).double().cpu().numpy()
    blocks = gray.reshape(grid[0], gray.shape[0] // grid[0], grid[1], gray.shape[1] // grid[1])
    return np.asarray(blocks.std((1, 3)) > FLAT * gray.std())


def score_regions(run: Run, n_cells: int, regions: Sequence[Regions | None]) -> list[dict[str, bool | int | None]]:
    """Two pictures for each question: one without the cells of the mask, one without those away from it.

    Args:
        run: scores a plan of one image's pictures, for each question.
        n_cells: number of cells of the grid.
        regions: of each question; None: it has no mask.

    Returns:
        for each question `mask_cells`, `mask_removal_flips` (the answer changes without the mask's cells) and
        `away_removal_keeps` (it stands without the others); None where a score is not finite or there is no room.
        Empty without a mask.
    """
    plan = Plan(n_cells)
    places = [
        np.array([], np.int64)
        if one is None
        else plan.add(number, ~np.stack([one.mask] if one.away is None else [one.mask, one.away]))
        for number, one in enumerate(regions)
    ]
    if not len(plan):
        return [{} for _ in regions]
    rows = list[dict[str, bool | int | None]]()
    for one, scores, at in zip(regions, run(plan), places, strict=True):
        if one is None:
            rows.append({})
            continue
        without, *away = (value if np.isfinite(value) else None for value in scores.standing[at].tolist())
        rows.append(
            {
                "mask_cells": int(one.mask.sum()),
                "mask_removal_flips": None if without is None else without < 0,
                "away_removal_keeps": None if not away or away[0] is None else away[0] >= 0,
            }
        )
    return rows
