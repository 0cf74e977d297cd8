"""Greedy search over regions for what alone keeps the score and whose removal loses it."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cxr_faith.attribution.base import Attribution, AttributionBatch, Method
from cxr_faith.attribution.blackbox import Masker
from cxr_faith.perturb.schedule import IntArray, stream
from cxr_faith.perturb.substrate import DEFAULT_SUBSTRATE, Substrate
from cxr_faith.vlm.base import VLM, Target

FloatArray = npt.NDArray[np.float64]


class Eagle(Method):
    """EAGLE (Chen et al. 2026): insight plus necessity.

    Regions are ordered greedily. At each step the region is taken that, with those taken before, has the largest s(only
    these kept) - s(these removed): the first term is their insight, the second their necessity. The paper adds
    probabilities; s does not saturate. Region number k of the order has the value R - k; its cells tie, and so do
    regions left of equal gain. Regions are superpixels of cells: k-means on position and gray level, from a regular
    grid of seeds. A full search asks the model about R(R + 1) pictures. Steps beyond the budget are left out, and the
    regions left follow by their gains in the last step.

    Args:
        regions: number R of superpixels, at most, of all pictures together.
        budget: pictures that are scored at most; at least 2 R, the first step.
        compactness: weight of the position against the gray level; large values make regions square.
        substrate: what replaces removed cells.
    """

    can_ablate = True
    substrate: Substrate

    def __init__(
        self, regions: int = 36, budget: int = 800, compactness: float = 1.0, substrate: str = DEFAULT_SUBSTRATE
    ) -> None:
        if regions < 2:
            raise ValueError(f"regions must be at least 2, got {regions}")
        if budget < 2 * regions:
            raise ValueError(f"budget must be at least 2 × regions, {2 * regions}, got {budget}")
        if not compactness > 0:
            raise ValueError(f"compactness must be above 0, got {compactness}")
        self.regions, self.budget, self.compactness = regions, budget, compactness
        self.substrate = Substrate.parse(substrate)
        self._masker = Masker(self.substrate)

    def attribute(self, vlm: VLM, batch: AttributionBatch, target: Sequence[Target]) -> Attribution:
        """Maps of places in the order; see `Method.attribute`."""
        gray = torch.nn.functional.adaptive_avg_pool2d(batch.pixels.float().mean(1, keepdim=True), vlm.grid)[:, 0]
        maps = []
        for index, levels in enumerate(gray.cpu().numpy()):
            labels = self._regions(np.split(levels, vlm.pictures))
            maps.append(self._places(vlm, batch, target, index, labels)[labels])
        return Attribution(torch.tensor(np.stack(maps), device=vlm.device).float().unflatten(1, vlm.grid))

    def _regions(self, pictures: Sequence[npt.NDArray[np.floating]]) -> IntArray:
        """Region [N] of each cell, from the gray levels of each picture; no region lies on two pictures."""
        labels = list[IntArray]()
        for levels in pictures:
            own = superpixels(levels, max(self.regions // len(pictures), 1), self.compactness)
            labels.append(own + (labels[-1].max() + 1 if labels else 0))
        return np.concatenate(labels)

    def _places(
        self, vlm: VLM, batch: AttributionBatch, target: Sequence[Target], index: int, labels: IntArray
    ) -> FloatArray:
        """Values of one picture's regions; NaN where the model gives no finite score."""
        image_id, count, left_to_ask = batch.image_ids[index], int(labels.max()) + 1, self.budget
        left = stream(batch.seed, image_id, "ties", "Eagle").permutation(count)
        taken, values = np.zeros(len(labels), bool), np.zeros(count)
        while len(left) > 1 and 2 * len(left) <= left_to_ask:
            shown = taken | (labels == left[:, None])
            scores = self._masker.scores(vlm, batch, [target[index]], index, np.concatenate([shown, ~shown]))[0].s
            gains = self._gains(scores, image_id, batch.seed)
            if not np.isfinite(gains).all():
                return np.full(count, np.nan)
            if (gains == gains[0]).all():
                values[left] = len(left)
                break
            left_to_ask -= 2 * len(left)
            by_gain = left[np.argsort(-gains, kind="stable")]
            values[by_gain] = np.arange(len(left), 0, -1)
            taken |= labels == by_gain[0]
            left = left[left != by_gain[0]]
        return values

    def _gains(self, scores: Tensor, image_id: str, seed: int) -> FloatArray:
        """Insight plus necessity of each region left, from the scores [2 · regions] with them alone and without."""
        alone, without = self.core(scores[None], [image_id], seed)[0].numpy().reshape(2, -1)
        gains: FloatArray = alone - without
        return gains


def superpixels(levels: npt.NDArray[np.floating], regions: int, compactness: float, rounds: int = 10) -> IntArray:
    """Superpixel [N] of each cell, numbered from 0: k-means on position and gray level (SLIC, Achanta et al. 2012).

    Args:
        levels: gray levels [grid_h, grid_w].
        regions: number of seeds at most: a regular grid of them is laid, and superpixels that lose all cells are gone.
        compactness: weight of the position; distances are in seed spacings, gray levels in standard deviations.
        rounds: number of k-means steps.
    """
    height, width = levels.shape
    rows = min(max(round((regions * height / width) ** 0.5), 1), height, regions)
    columns = min(regions // rows, width)
    y, x = np.mgrid[:height, :width].reshape(2, -1)
    labels = (y * rows // height) * columns + x * columns // width
    spacing = (height * width / (rows * columns)) ** 0.5
    gray = (levels.ravel() - levels.mean()) / (levels.std() or 1.0)
    points = np.stack([compactness * y / spacing, compactness * x / spacing, gray], axis=1).astype(np.float64)
    for _ in range(rounds):
        numbers = np.unique(labels)
        centers = np.stack([points[labels == number].mean(0) for number in numbers])
        labels = np.square(points[:, None] - centers).sum(-1).argmin(1)
    return np.unique(labels, return_inverse=True)[1].astype(np.int64)
