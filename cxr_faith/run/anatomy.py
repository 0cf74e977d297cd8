"""How much of each map lies on each organ, where the manifest names masks of them."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from cxr_faith.data.geometry import fit_mask
from cxr_faith.data.images import ImageError, load_mask
from cxr_faith.data.module import SampleItem
from cxr_faith.metrics.regions import enrichment, mass_shares

logger = logging.getLogger(__name__)


class Organs:
    """Masks of organs, on the grid; an image's questions come one after the other and need them read once."""

    def __init__(self, root: Path, grid: tuple[int, int]) -> None:
        """Choose where masks are.

        Args:
            root: the data root.
            grid: (gH, gW) of the maps.
        """
        self.root, self.grid = root, grid
        self._last: tuple[tuple[tuple[str, str], ...], dict[str, Tensor]] | None = None

    def cells(self, item: SampleItem) -> dict[str, Tensor]:
        """Label → share of each cell that the organ covers [gH, gW]; masks that cannot be used are left out."""
        named, geometry = item.sample.anatomy_masks, item.geometry
        if not named or geometry is None:
            return {}
        if self._last is None or self._last[0] != named:
            found: dict[str, Tensor] = {}
            for label, path in named:
                try:
                    found[label] = geometry.to_cells(fit_mask(load_mask(path, self.root), geometry), self.grid)
                except (ImageError, ValueError) as error:
                    logger.warning("sample %s: organ mask %s is left out (%s)", item.sample.sample_id, label, error)
            self._last = (named, found)
        return self._last[1]


def anatomy_column(saliency: np.ndarray, cells: Mapping[str, Tensor]) -> list[dict[str, Any]]:
    """The `anatomy` column of one map: share of its positive mass on each organ, and its enrichment there.

    Args:
        saliency: [gH, gW].
        cells: label → share of each cell that the organ covers [gH, gW].
    """
    if not cells or not np.isfinite(saliency).all():
        return []
    weights = np.stack([share.double().numpy() for share in cells.values()])
    shares = mass_shares(saliency, weights)
    ratios = enrichment(shares, weights)
    return [
        {"label": label, "share": float(share), "enrichment": float(ratio)}
        for label, share, ratio in zip(cells, shares, ratios, strict=True)
        if np.isfinite(ratio)
    ]
