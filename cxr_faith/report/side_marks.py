"""R and L on a picture, where they hide no marker of the film, and the picture's name."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke

from cxr_faith.data.orientation import USUAL_SIDES, Sides
from cxr_faith.printable import printable

Pixels = npt.NDArray[np.uint8]
Region = tuple[float, float, float, float]
"""Top, left, height and width of a part of a picture, in pixels."""
_Edge = Literal["top", "bottom"]

_CORNER = 0.14
"""Share of height and width in which a corner may hold a marker of the film."""
_MARKER = 60
"""Gray levels by which a marker is brighter than what a corner without one holds."""


@dataclass(frozen=True)
class Marks:
    """How the sides of the patient are marked on a picture."""

    size: float = 11
    """Of the letters, in points."""
    sides: Sides = USUAL_SIDES
    """The letters at the left and at the right edge; empty where the side is not known."""
    film: Pixels | None = None
    """The picture before it was changed, of the same proportions. Markers of the film are looked for there, so that the
    letters stay at one edge in all frames of a strip. None: in the picture that is drawn."""


def mark_sides(axes: Axes, marks: Marks, whole: Pixels, region: Region, name: str = "") -> None:
    """Write the patient's sides into the corners of a picture, and its name between them at the other edge.

    Args:
        axes: where `whole` is drawn.
        marks: the letters, and how large they are.
        whole: all that is drawn, [H, W] or [H, W, 3].
        region: top, left, height and width of the picture in it, in pixels.
        name: the picture's name; empty for a picture that stands alone.
    """
    top, left, height, width = region
    rows, columns = whole.shape[:2]
    film = whole if marks.film is None else marks.film
    down, right = film.shape[0] / rows, film.shape[1] / columns
    edge = _plainer_edge(
        film[round(top * down) : round((top + height) * down), round(left * right) : round((left + width) * right)]
    )
    texts: list[tuple[float, str, str, _Edge]] = [
        (0.015, marks.sides[0], "left", edge),
        (0.985, marks.sides[1], "right", edge),
        (0.5, printable(name), "center", "top" if edge == "bottom" else "bottom"),
    ]
    for x, text, side, at in filter(lambda one: one[1], texts):
        axes.text(
            (left + x * width) / columns,
            1 - (top + (0.015 if at == "top" else 0.985) * height) / rows,
            text,
            transform=axes.transAxes,
            ha=side,
            va=at,
            fontsize=marks.size,
            fontweight="bold",
            color="white",
            parse_math=False,
            path_effects=[withStroke(linewidth=2, foreground="black")],
        )


def _plainer_edge(picture: Pixels) -> _Edge:
    """Where R and L hide no marker of the film: at the top, unless something brighter stands in a corner there."""
    gray = picture if picture.ndim == 2 else picture.mean(-1)
    height, width = (max(1, round(_CORNER * n)) for n in gray.shape)

    def brightest(rows: npt.NDArray[Any]) -> float:
        corners = rows[:, :width], rows[:, -width:]
        return max(float(corner.max() - np.median(corner)) for corner in corners)

    return "bottom" if brightest(gray[:height]) > brightest(gray[-height:]) + _MARKER else "top"
