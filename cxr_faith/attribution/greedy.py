"""Greedy removal: the order of cells found by measured effects, an upper bound for any map under deletion."""

from collections.abc import Sequence

import numpy as np
import torch

from cxr_faith.attribution.base import Attribution, AttributionBatch, Method
from cxr_faith.attribution.blackbox import Masker
from cxr_faith.perturb.schedule import stream
from cxr_faith.perturb.substrate import DEFAULT_SUBSTRATE, Substrate
from cxr_faith.vlm.base import VLM, Target


class Greedy(Method):
    """Cells whose removal lowers the score most, in turn.

    Cell number k of the order has the value N - k; cells of equal effect are ordered at random, and once all cells left
    have the same effect, they tie. It asks the model about N(N + 1)/2 pictures, so use it on few samples: it says how
    far below the best order a method stays. It is greedy, and looks at deletion alone, so a better order may exist.

    Args:
        cells: number of cells that are chosen one by one; the others follow by their effects in the last step. None:
            all are.
        substrate: what replaces removed cells.
    """

    can_ablate = True
    substrate: Substrate

    def __init__(self, cells: int | None = None, substrate: str = DEFAULT_SUBSTRATE) -> None:
        if cells is not None and cells < 1:
            raise ValueError(f"cells must be at least 1, got {cells}")
        self.cells, self.substrate = cells, Substrate.parse(substrate)
        self._masker = Masker(self.substrate)

    def attribute(self, vlm: VLM, batch: AttributionBatch, target: Sequence[Target]) -> Attribution:
        """Maps of places in the order; see `Method.attribute`."""
        maps = [self._values(vlm, batch, target, index) for index in range(len(target))]
        return Attribution(torch.tensor(np.stack(maps), device=vlm.device).float().unflatten(1, vlm.grid))

    def _values(
        self, vlm: VLM, batch: AttributionBatch, target: Sequence[Target], index: int
    ) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """Values of one picture's cells [N]; NaN where the model gives no finite score."""
        image_id = batch.image_ids[index]
        shuffled = stream(batch.seed, image_id, "ties", "Greedy").permutation(vlm.n_cells)
        kept, values = np.ones(vlm.n_cells, bool), np.zeros(vlm.n_cells)
        for place in range(min(self.cells or vlm.n_cells, vlm.n_cells)):
            left = shuffled[kept[shuffled]]
            masks = np.repeat(kept[None], len(left), 0)
            masks[np.arange(len(left)), left] = False
            scored = self._masker.scores(vlm, batch, [target[index]], index, masks)[0].s
            scores = self.core(scored[None], [image_id], batch.seed)[0].numpy()
            if not np.isfinite(scores).all():
                return np.full(vlm.n_cells, np.nan)
            if (scores == scores[0]).all():
                values[left] = vlm.n_cells - place
                break
            by_effect = left[np.argsort(scores, kind="stable")]
            values[by_effect] = vlm.n_cells - place - np.arange(len(left))
            kept[by_effect[0]] = False
        return values
