"""What DICOM objects are made from: one answer, its map, and how far to believe it."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from cxr_faith.report.figures import Map, Pixels

_T = TypeVar("_T", bound=np.generic)

VERSION = version("cxr-faith")
TOP_SHARE = 0.2
"""Share of the cells that the segmentation holds: the most salient ones."""

NUMBERS = ("srg", "random_p", "gap_srg_center", "effect")
"""What is said of a map in numbers; names as in the records."""

SALIENCY = ("130404", "Saliency")
VISUAL_EXPLANATIONS = {"grad_cam": ("130403", "Gradient weighted class activation")}
"""Method → its code and meaning in CID 217; all others have `SALIENCY`."""


@dataclass(frozen=True)
class DicomResult:
    """One answer about one film, as objects of its study say it."""

    question: str
    """The question as it was asked."""
    answer: str
    """The model's answer."""
    p_yes: float | None
    """The model's probability of yes; None for questions of another kind."""
    method: str
    """The method that made the map."""
    map: Map
    """The map, [grid_h, grid_w]; larger is more important."""
    order: npt.NDArray[np.integer[Any]]
    """The cells, most salient first, [grid_h * grid_w], row major."""
    region: tuple[int, int, int, int]
    """Top, left, height and width of the part of the film that the map covers, in pixels."""
    scores: Mapping[str, float | None]
    """`srg`, `random_p` and others that were measured; empty if the map was not evaluated."""
    verdict: str
    """Whether to believe the map, in a sentence."""
    believed: bool
    """Whether the map may be taken for evidence."""
    sanity: str
    """What the sanity check says of the method; "not run" if it was not run."""
    model: Mapping[str, str]
    """Name, revision and hash of the model."""
    figure: Pixels
    """The figure of the answer, [H, W, 3]."""

    @property
    def code(self) -> tuple[str, str]:
        """Code and meaning of the map in CID 217, "Visual Explanation" (scheme DCM)."""
        return VISUAL_EXPLANATIONS.get(self.method, SALIENCY)

    @property
    def top(self) -> npt.NDArray[np.bool_]:
        """Whether each cell is among the first `TOP_SHARE`, [grid_h, grid_w]."""
        chosen = np.zeros(self.map.size, bool)
        chosen[self.order[: round(TOP_SHARE * self.map.size)]] = True
        return chosen.reshape(self.map.shape)


def on_pixels(values: npt.NDArray[_T], region: tuple[int, int, int, int], shape: tuple[int, int]) -> npt.NDArray[_T]:
    """Cells on the pixels of the film, nearest neighbor; 0 outside the region.

    Args:
        values: [grid_h, grid_w].
        region: (top, left, height, width) that the cells cover, in pixels.
        shape: height and width of the film.

    Returns:
        [height, width], the type of `values`.
    """
    top, left, height, width = region
    # A pixel belongs to the cell that holds its center.
    rows = ((np.arange(height) + 0.5) * values.shape[0] / height).astype(int)
    columns = ((np.arange(width) + 0.5) * values.shape[1] / width).astype(int)
    film = np.zeros(shape, values.dtype)
    film[top : top + height, left : left + width] = values[np.ix_(rows, columns)]
    return film
