"""Controls and baselines: maps that do not come from the model.

The baseline `random` is a set of orders, not a map: see `cxr_faith.scoring`.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from kornia.filters import sobel
from scipy.ndimage import distance_transform_edt, gaussian_filter
from torch import Tensor

from cxr_faith.attribution.base import Attribution, AttributionBatch, Method
from cxr_faith.data.sheets import apart, together
from cxr_faith.perturb.schedule import stream
from cxr_faith.vlm.base import VLM, Target


class RandomMap(Method):
    """Uniform noise, one map for each image.

    It is scored like any method, and its gaps to random orders must be 0 within error.
    """

    def attribute(self, vlm: VLM, batch: AttributionBatch, target: Sequence[Target]) -> Attribution:
        """Noise maps; see `Method.attribute`."""
        noise = [torch.from_numpy(stream(batch.seed, i, "random_map").random(vlm.grid)) for i in batch.image_ids]
        return Attribution(torch.stack(noise).float().to(vlm.device))


class Center(Method):
    """Closeness to the middle of the picture.

    What is achieved without looking at the picture.
    """

    def attribute(self, vlm: VLM, batch: AttributionBatch, target: Sequence[Target]) -> Attribution:
        """Minus the distance in cells to the center of the grid, the same for every sample; see `Method.attribute`."""
        height, width = vlm.picture_grid
        rows = torch.arange(height, device=vlm.device) - (height - 1) / 2
        columns = torch.arange(width, device=vlm.device) - (width - 1) / 2
        distance = (rows[:, None].square() + columns[None, :].square()).sqrt()
        return Attribution(-distance.repeat(vlm.pictures, 1).expand(len(batch.prompts), -1, -1))


class Edges(Method):
    """Sobel energy of the picture in each cell."""

    def attribute(self, vlm: VLM, batch: AttributionBatch, target: Sequence[Target]) -> Attribution:
        """Mean squared gradient magnitude of the gray picture; see `Method.attribute`."""
        gray = apart(batch.pixels.mean(1, keepdim=True), vlm.pictures)
        energy = together(sobel(gray).square(), vlm.pictures)
        return Attribution(torch.nn.functional.adaptive_avg_pool2d(energy, vlm.grid)[:, 0])


class Oracle(Method):
    """The finding's own mask, where there is one.

    It is defined for yes/no questions about a finding that has a mask.

    Args:
        mask: label of an anatomy mask of the manifest to use instead, such as that of a marker which may decide the
            answer; for yes/no questions about pictures that have it.
    """

    needs_mask = True

    def __init__(self, mask: str | None = None) -> None:
        self.mask = mask

    def attribute(self, vlm: VLM, batch: AttributionBatch, target: Sequence[Target]) -> Attribution:
        """The share of each cell that the mask covers; the other cells tie, and are ordered at random as in any map.

        See `Method.attribute`.

        Raises:
            ValueError: the batch has no masks.
        """
        return Attribution(_shares(batch).to(vlm.device))


class OracleNear(Method):
    """The finding's own mask, then the nearest cells.

    The distance favors it over the maps of methods, whose ties are ordered at random: compare it with `oracle` to see
    what the surroundings of a finding are worth.
    """

    needs_mask = True

    def attribute(self, vlm: VLM, batch: AttributionBatch, target: Sequence[Target]) -> Attribution:
        """The share of each cell that the finding covers; elsewhere minus the distance to the finding in cells.

        See `Method.attribute`.

        Raises:
            ValueError: the batch has no masks.
        """
        shares = _shares(batch).numpy()
        parts = shares.reshape(-1, *vlm.picture_grid)  # a picture without the finding comes last
        distances = np.stack([_distances(part) for part in parts]).reshape(shares.shape)
        return Attribution(torch.from_numpy(np.where(shares > 0, shares, -distances)).float().to(vlm.device))


def _distances(shares: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Distance of each cell of a picture to the finding, in cells; without a finding more than any other."""
    if not shares.any():
        return np.full(shares.shape, float(sum(shares.shape)))
    distances: npt.NDArray[np.float64] = distance_transform_edt(shares == 0)
    return distances


def _shares(batch: AttributionBatch) -> Tensor:
    """The share of each cell that the finding covers, float32 [batch, grid_h, grid_w] on the CPU."""
    if batch.finding_cells is None:
        raise ValueError("oracle needs a finding mask or boxes, and this sample has neither")
    return batch.finding_cells.float().cpu()


CONTROLS = (RandomMap, Center, Edges, Oracle, OracleNear)
"""Methods that do not use the model."""


def blurred_map(values: np.ndarray, pictures: int) -> np.ndarray:
    """Each picture's part of a map smoothed by σ = 1 cell; a flat map stays flat, which rounding would end."""
    if np.ptp(values) == 0:
        return values
    return np.concatenate([gaussian_filter(part, sigma=1.0) for part in np.split(values, pictures)])
