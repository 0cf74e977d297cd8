"""The map of an explanation, picture by picture: a question may show several."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxr_faith.data.geometry import Geometry
from cxr_faith.data.orientation import Sides
from cxr_faith.explainer.measured import Measured
from cxr_faith.explainer.scores import Scores
from cxr_faith.explainer.view import View
from cxr_faith.metrics.regions import picture_shares


@dataclass(frozen=True, eq=False, repr=False)
class MapOfPictures:
    """A map over the pictures of one question, and what was measured of it."""

    map: NDArray[np.float32]
    """Importance of each cell for the answer, float32 [grid_h, grid_w]; larger = more important. The maps of several
    pictures lie one below the other, [pictures * grid_h, grid_w]; see `maps`."""
    _view: View
    _measured: list[Measured] = field(default_factory=list, kw_only=True)
    """What `Explainer.evaluate` measured of it, the latest last."""
    _quick: list[Measured] = field(default_factory=list, kw_only=True)
    """One quick measurement, for the figure of an explanation that was not evaluated."""

    @property
    def picture(self) -> NDArray[np.uint8]:
        """The picture as it was given, uint8 [H, W, 3]; the first one of several."""
        return self.pictures[0]

    @property
    def pictures(self) -> tuple[NDArray[np.uint8], ...]:
        """All pictures of the question as they were given, uint8 [H, W, 3] each."""
        return self._view.pictures

    @property
    def picture_names(self) -> tuple[str, ...]:
        """What figures and files call each picture."""
        return self._view.names

    @property
    def sides(self) -> tuple[Sides, ...]:
        """The patient's sides at the left and right edges of each picture; empty texts where they are not known."""
        return self._view.sides

    @property
    def maps(self) -> tuple[NDArray[np.float32], ...]:
        """The map of each picture, float32 [grid_h, grid_w]."""
        return tuple(np.split(self.map, len(self.pictures)))

    @property
    def picture_shares(self) -> tuple[float, ...] | None:
        """Share of the map's positive mass on each picture; None for a map without any."""
        shares = picture_shares(self.map, len(self.pictures))
        return None if shares is None else tuple(shares)

    @property
    def picture_effects(self) -> tuple[float, ...] | None:
        """How much of the score is lost without each of several pictures, in logits; None before it was measured.

        `Explainer.evaluate` and `plot` measure it, under the substrate of the former, or blur:0.1.
        """
        measured = self._measured or self._quick
        effects = measured[-1].scores.picture_effects if measured else None
        return None if effects is None else tuple(effects)

    @property
    def geometry(self) -> Geometry:
        """How the picture was fitted to the model's input; the first one of several."""
        return self._view.geometries[0]

    @property
    def scores(self) -> Scores | None:
        """What `Explainer.evaluate` gave for it the last time; None before."""
        return self._measured[-1].scores if self._measured else None

    def strongest_cell(self) -> list[int]:
        """Row and column, after the number of the picture where there are several."""
        place = [int(index) for index in np.unravel_index(int(self.map.argmax()), np.shape(self.maps))]
        return place if len(self.pictures) > 1 else place[1:]

    def each_picture(self) -> list[dict[str, Any]]:
        """Name, map, share and effect of each picture, as JSON takes them."""
        nothing = (None,) * len(self.pictures)
        parts = (self.picture_names, self.maps, self.picture_shares or nothing, self.picture_effects or nothing)
        return [
            {"name": name, "map": values.tolist(), "share": share, "effect": effect}
            for name, values, share, effect in zip(*parts, strict=True)
        ]

    def overlay(self, size: tuple[int, int] | None = None, picture: int = 0) -> NDArray[np.float32]:
        """The map on the pixel grid of the picture, nearest neighbor.

        Args:
            size: (height, width) of the result; default: the picture's own.
            picture: which of several, from 0.

        Returns:
            float32 [height, width].
        """
        values = self.maps[picture]
        height, width = size or self.pictures[picture].shape[:2]
        rows = np.arange(height) * values.shape[0] // height
        columns = np.arange(width) * values.shape[1] // width
        return np.ascontiguousarray(values[rows][:, columns])
