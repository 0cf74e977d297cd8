"""Nested grids: measured effects of blocks of cells, as fine as they add something, and an inner map within them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import rankdata

from cxr_faith.attribution.base import Attribution, AttributionBatch, Method, build_methods
from cxr_faith.attribution.blackbox import Masker
from cxr_faith.perturb.schedule import BoolArray, IntArray
from cxr_faith.perturb.substrate import DEFAULT_SUBSTRATE, Substrate
from cxr_faith.vlm.base import VLM, Target

FloatArray = npt.NDArray[np.float64]
Effects = Callable[[BoolArray], FloatArray]
"""Effects [M] of removing the cells of bool [M, N]; they are not finite where the model gives no finite score."""


class MultiScale(Method):
    """Effects on nested grids, and an inner map within.

    The effect of a block is s(intact) - s(block removed). The grids have 2×2 blocks, 4×4, … to single cells: the whole
    picture is cut in four, and each part again, as long as the finer blocks add something, which is when the effects of
    a block's parts differ by more than `tolerance` times the effect of the whole picture. Otherwise the block stays
    whole, since its parts matter alike or only together. Its effect is spread over its cells in proportion to their
    ranks by the inner map, in reverse for a negative effect, so its values sum to its effect. It asks the model about 2
    pictures and 4 for every block that is cut.

    Args:
        inner: name of the inner method, or its options with its `class`.
        tolerance: by how much the effects of a block's parts must differ, as a share of the whole picture's effect.
        substrate: what replaces removed cells; that of the inner method must be the same, if it uses one.
    """

    can_ablate = True
    substrate: Substrate

    def __init__(
        self, inner: str | Mapping[str, Any] = "attention", tolerance: float = 0.05, substrate: str = DEFAULT_SUBSTRATE
    ) -> None:
        if not tolerance >= 0:
            raise ValueError(f"tolerance must be at least 0, got {tolerance}")
        self.substrate, self.tolerance = Substrate.parse(substrate), tolerance
        self.inner = build_methods({"inner": {"class": inner} if isinstance(inner, str) else inner})["inner"]
        if self.inner.needs_mask:
            raise ValueError("inner must explain the model, not be the mask of the finding")
        if self.inner.substrate and self.inner.substrate.spec != self.substrate.spec:
            raise ValueError(f"substrate {self.substrate.spec} is not the inner method's, {self.inner.substrate.spec}")
        self.weights = self.inner.weights
        self._masker = Masker(self.substrate)

    def check(self, vlm: VLM) -> None:
        """Refuse a model that the inner method cannot explain; see `Method.check`."""
        self.inner.check(vlm)

    def attribute(self, vlm: VLM, batch: AttributionBatch, target: Sequence[Target]) -> Attribution:
        """The inner map, then the effects of blocks; see `Method.attribute`."""
        inner = self.inner.attribute(vlm, batch, target).maps.flatten(1).double().cpu().numpy()
        maps = [self._values(vlm, batch, target[index], index, own) for index, own in enumerate(inner)]
        return Attribution(torch.tensor(np.stack(maps), device=vlm.device).float().unflatten(1, vlm.grid))

    def _values(self, vlm: VLM, batch: AttributionBatch, target: Target, index: int, inner: FloatArray) -> FloatArray:
        """Values of one picture's cells [N]; NaN where the model or the inner map is not finite."""

        def scores(removed: BoolArray) -> FloatArray:
            return self._masker.scores(vlm, batch, [target], index, ~removed)[0].s.numpy()

        ends = np.arange(2).astype(bool)[:, None].repeat(vlm.n_cells, 1)
        intact, gone = scores(ends)

        def effects(removed: BoolArray) -> FloatArray:
            measured = torch.from_numpy(intact - scores(removed))[None]
            return self.core(measured, [batch.image_ids[index]], batch.seed)[0].numpy()

        blocks = kept_blocks(levels(vlm.picture_grid, vlm.pictures), effects, intact - gone, self.tolerance)
        if blocks is None or not np.isfinite(inner).all():
            return np.full(vlm.n_cells, np.nan)
        return spread(blocks, inner)


def levels(grid: tuple[int, int], pictures: int = 1) -> list[IntArray]:
    """The nested grids 1×1, 2×2, 4×4, … to single cells: for each, the number [N] of the block that each cell is in.

    Where a side is no power of two, the blocks of a grid differ by one row or column of cells. No block lies on two
    pictures of a sheet with this grid each.
    """
    numbers = []
    for halvings in range((max(grid) - 1).bit_length() + 1):
        side = 2**halvings
        rows, columns = (
            np.searchsorted(np.arange(1, side) * cells // side, np.arange(cells), "right") for cells in grid
        )
        own = (rows[:, None] * side + columns).ravel()
        numbers.append((np.arange(pictures)[:, None] * side**2 + own).ravel())
    return numbers


def kept_blocks(
    grids: Sequence[IntArray], effects: Effects, whole: float, tolerance: float
) -> list[tuple[IntArray, float]] | None:
    """Cut the picture where the parts of a block differ in their effects.

    Args:
        grids: nested grids, see `levels`.
        effects: measures the removal of some cells.
        whole: effect of the whole picture.
        tolerance: by how much the effects of a block's parts must differ, as a share of `whole`.

    Returns:
        the blocks that stayed whole, as cells and effect; None where an effect is not finite.
    """
    n_cells = len(grids[0])
    kept: list[tuple[IntArray, float]] = []
    open_blocks: list[tuple[IntArray, float]] = [(np.arange(n_cells), whole)]
    for numbers in grids:
        parts = [[cells[numbers[cells] == n] for n in np.unique(numbers[cells])] for cells, _ in open_blocks]
        tried = [part for own in parts if len(own) > 1 for part in own]
        if not tried:
            continue
        removed = np.zeros((len(tried), n_cells), bool)
        for mask, cells in zip(removed, tried, strict=True):
            mask[cells] = True
        measured = effects(removed)
        if not np.isfinite([whole, *measured]).all():
            return None
        finer, place = list[tuple[IntArray, float]](), 0
        for block, own in zip(open_blocks, parts, strict=True):
            values = measured[place : place + len(own)] if len(own) > 1 else np.array([block[1]])
            place += len(own) if len(own) > 1 else 0
            if len(own) == 1 or np.ptp(values) > tolerance * abs(whole):
                finer += zip(own, map(float, values), strict=True)
            else:
                kept.append(block)
        open_blocks = finer
    return kept + open_blocks


def spread(blocks: Sequence[tuple[IntArray, float]], inner: FloatArray) -> FloatArray:
    """Each block's effect on its cells, in proportion to their ranks by the inner map [N]; reversed if negative."""
    values = np.zeros(len(inner))
    for cells, effect in blocks:
        ranks = rankdata(inner[cells])
        shares = ranks if effect >= 0 else len(cells) + 1 - ranks
        values[cells] = effect * shares / shares.sum()
    return values
