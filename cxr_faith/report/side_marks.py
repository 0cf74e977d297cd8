"""R and L on a picture, where they hide no marker of the film, and the picture's name."""

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke

from cxr_faith.printable import printable

_Edge = Literal["top", "bottom"]

_CORNER = 0.14
"""Share of height and width in which a corner may hold a marker of the film."""
_MARKER = 60
"""Gray levels by which a marker is brighter than what a corner without one holds."""


def mark_sides(
    axes: Axes,
    size: float,
    whole: npt.NDArray[np.uint8],
    region: tuple[float, float, float, float],
    name: str = "",
) -> None:
    """Write R and L into the corners of a picture, and its name between them at the other edge.

    Args:
        axes: where `whole` is drawn.
        size: of the letters, in points.
        whole: all that is drawn, [H, W] or [H, W, 3].
        region: top, left, height and width of the picture in it, in pixels.
        name: the picture's name; empty for a picture that stands alone.
    """
    top, left, height, width = region
    rows, columns = whole.shape[:2]
    picture = whole[round(top) : round(top + height), round(left) : round(left + width)]
    edge = _plainer_edge(picture)
    marks: list[tuple[float, str, str, _Edge]] = [(0.015, "R", "left", edge), (0.985, "L", "right", edge)]
    if name:
        marks.append((0.5, printable(name), "center", "top" if edge == "bottom" else "bottom"))
    for x, text, side, at in marks:
        axes.text(
            (left + x * width) / columns,
            1 - (top + (0.015 if at == "top" else 0.985) * height) / rows,
            text,
            transform=axes.transAxes,
            ha=side,
            va=at,
            fontsize=size,
            fontweight="bold",
            color="white",
            parse_math=False,
            path_effects=[withStroke(linewidth=2, foreground="black")],
        )


def _plainer_edge(picture: npt.NDArray[np.uint8]) -> _Edge:
    """Where R and L hide no marker of the film: at the top, unless something brighter stands in a corner there."""
    gray = picture if picture.ndim == 2 else picture.mean(-1)
    height, width = (max(1, round(_CORNER * n)) for n in gray.shape)

    def brightest(rows: npt.NDArray[Any]) -> float:
        corners = rows[:, :width], rows[:, -width:]
        return max(float(corner.max() - np.median(corner)) for corner in corners)

    return "bottom" if brightest(gray[:height]) > brightest(gray[-height:]) + _MARKER else "top"
