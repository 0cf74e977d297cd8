"""Counterfactual: the smallest set of cells that has to look like another picture for the answer to change."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cxr_faith.attribution.base import Attribution, AttributionBatch, Method
from cxr_faith.attribution.blackbox import Masker
from cxr_faith.attribution.cleann_search import FloatArray, Removal, cell_masks, reduce_set
from cxr_faith.perturb.schedule import IntArray, stream
from cxr_faith.perturb.substrate import PAIR, Substrate
from cxr_faith.vlm.base import VLM, PictureScores, Target

MIRROR = "mirror"


class Counterfactual(Method):
    """The smallest set of cells whose edit changes the answer.

    A cell's edit is the same cell of the picture without the finding (`pair`), where the manifest names one. Without
    it, an estimate of healthy tissue: by default the cell on the other side of the picture. The record's `edit` says
    which one it was.

    The search is greedy. Each step edits the cell that lowers the answer's standing most, until the answer changes. If
    it does not, but is another one about the pair, the search goes on from all cells. Then cells are put back until
    every cell that is left is needed. A smaller set may exist.

    The map is 1 in the set and 0 elsewhere, plus up to one half for the effect of each cell's edit alone, where it
    lowers the answer's standing.

    Extras: `verified` (1: the edit changed the answer; 0: no set did, and the set is what the search edited),
    `set_size`, `score_drop`, s(intact) - s(set edited), and `edit`.

    Args:
        edit: what stands in for a cell without a pair: `mirror` (the other side of the picture), or a substrate such as
            `road` (filled from the cells around it).
        cells: steps of the search. Each asks about as many pictures as there are cells left.
    """

    can_ablate = True
    uses_pair = True

    def __init__(self, edit: str = MIRROR, cells: int = 16) -> None:
        if cells < 1:
            raise ValueError(f"cells must be at least 1, got {cells}")
        self.edit, self.cells = edit, cells
        if edit != MIRROR:
            self.substrate = Substrate.parse(edit)
        self._masker = Masker(self.substrate or Substrate("mean"))

    def attribute(self, vlm: VLM, batch: AttributionBatch, target: Sequence[Target]) -> Attribution:
        """One search for each picture; see `Method.attribute`."""
        results = [self._explain(vlm, batch, one, index) for index, one in enumerate(target)]
        maps = torch.tensor(np.stack([values for values, _ in results]), device=vlm.device)
        extras = {key: [own[key] for _, own in results] for key in results[0][1]}
        return Attribution(maps.float().unflatten(1, vlm.grid), extras)

    def _explain(
        self, vlm: VLM, batch: AttributionBatch, target: Target, index: int
    ) -> tuple[FloatArray, dict[str, Any]]:
        """The map [N] and the extras of one picture."""
        image_id, edited, edit = batch.image_ids[index], None, self.edit
        if batch.pairs is not None:
            edited, edit = batch.pairs[index], PAIR
        elif edit == MIRROR:
            edited = batch.pixels[index].flip(-1)
        candidates = np.arange(vlm.n_cells)
        if edited is not None:
            candidates = candidates[changed_cells(batch.pixels[index], edited, vlm.grid)]
        candidates = stream(batch.seed, image_id, "ties", "Counterfactual").permutation(candidates)

        def removal(masks: np.ndarray[Any, np.dtype[np.bool_]]) -> PictureScores:
            return self._masker.scores(vlm, batch, [target], index, ~masks, edited)[0]

        def core(drops: FloatArray) -> FloatArray:
            values: FloatArray = self.core(torch.from_numpy(drops)[None], [image_id], batch.seed)[0].numpy()
            return values

        noise = core if self.ablated else None
        search = smallest_edit(candidates, vlm.n_cells, self.cells, removal, edit == PAIR, noise)
        if search is None:
            return np.full(vlm.n_cells, np.nan), {"verified": False, "set_size": 0, "score_drop": np.nan, "edit": edit}
        values, most = np.zeros(vlm.n_cells), search.effects.max(initial=0.0)
        values[candidates] = search.effects.clip(0) / most / 2 if most > 0 else 0.0
        values[search.cells] += 1
        drop = {"score_drop": search.score_drop, "edit": edit}
        return values, {"verified": search.verified, "set_size": len(search.cells)} | drop


def changed_cells(pixels: Tensor, edited: Tensor, grid: tuple[int, int]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Cells [N] in which two pictures [3, H, W] differ."""
    height, width = pixels.shape[-2:]
    differs = (pixels != edited).any(0).unflatten(1, (grid[1], width // grid[1]))
    cells: Tensor = differs.unflatten(0, (grid[0], height // grid[0])).any(-1).any(1)
    return cells.flatten().cpu().numpy()


@dataclass(frozen=True)
class Edit:
    """What a search came to.

    Attributes:
        cells: the set.
        verified: whether its edit changes the answer.
        effects: how much each candidate's edit alone lowers the answer's standing.
        score_drop: s(intact) - s(set edited).
    """

    cells: IntArray
    verified: bool
    effects: FloatArray
    score_drop: float


def smallest_edit(
    candidates: IntArray,
    n_cells: int,
    most: int,
    removal: Removal,
    or_all: bool,
    noise: Callable[[FloatArray], FloatArray] | None = None,
) -> Edit | None:
    """Edit cells one after another until the answer changes, then put back those that are not needed.

    Args:
        candidates: the cells that may be edited.
        n_cells: number of cells of the grid.
        most: steps that the search takes.
        removal: scores pictures with some cells edited.
        or_all: if these steps do not change the answer, but all cells do, go on from all of them.
        noise: for an ablation: what stands in for measured drops; nothing is put back then.

    Returns:
        the smallest set found; None where a score is not finite.
    """
    intact = removal(cell_masks([candidates[:0]], n_cells))
    standing = float(intact.standing[0])
    if not np.isfinite(standing):
        return None
    cells, effects, verified = candidates[:0], np.zeros(len(candidates)), False
    stands = standing >= 0
    while not verified and len(cells) < min(most, len(candidates)):
        left = candidates[~np.isin(candidates, cells)]
        scores = removal(cell_masks([np.append(cells, cell) for cell in left], n_cells)).standing.numpy()
        if not np.isfinite(scores).all():
            return None
        drops = standing - scores
        blind = (drops == 0).all()  # no further cell has an effect of its own
        drops = drops if noise is None else noise(drops)
        effects = drops if len(cells) == 0 else effects
        if blind or not stands:
            break
        chosen = int(np.argmax(drops))
        cells, standing = np.append(cells, left[chosen]), float(scores[chosen])
        verified = standing < 0
    if or_all and stands and not verified and noise is None:
        verified = bool(removal(cell_masks([candidates], n_cells)).standing[0] < 0)
        cells = candidates if verified else cells
    if verified and noise is None:
        cells = reduce_set(cells, n_cells, removal)
    after = removal(cell_masks([cells], n_cells))
    return Edit(cells, verified and bool(after.standing[0] < 0), effects, float(intact.s[0] - after.s[0]))
