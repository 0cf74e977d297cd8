"""Maps and curves of one sample as small pictures that need no script."""

import base64
import io
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.colors import to_hex
from PIL import Image

from cxr_faith.report.charts import method_styles
from cxr_faith.report.figures import COLORMAP, STRONGEST_ALPHA, scaled
from cxr_faith.report.packing import missing

WIDTH, HEIGHT = 420, 240
"""Size of a chart's area in units of its SVG."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class MapPicture:
    """One method's map.

    Attributes:
        method: its name.
        uri: PNG, one pixel a cell, as a data URI.
        rows: cells from top to bottom.
        columns: cells from left to right.
        srg: score of the map.
    """

    method: str
    uri: str
    rows: int
    columns: int
    srg: float | None


@dataclass(frozen=True)
class Line:
    """One method's curve in a chart.

    Attributes:
        method: its name.
        points: as SVG's `polyline` takes them.
        color: such as #0072B2.
        dash: as SVG's `stroke-dasharray`.
    """

    method: str
    points: str
    color: str
    dash: str


@dataclass(frozen=True)
class Chart:
    """Curves of all methods.

    Attributes:
        title: what is done to the cells.
        lines: one for each method.
        low: score at the bottom.
        high: score at the top.
    """

    title: str
    lines: Sequence[Line]
    low: float
    high: float


def map_pictures(rows: pd.DataFrame, over: bool) -> list[MapPicture]:
    """The maps of one sample, each on its own scale from its 2nd to its 98th percentile.

    Args:
        rows: records of one sample and setting.
        over: whether they are laid over the picture, so that weak cells must be transparent.
    """
    pictures = []
    for row in rows.to_dict("records"):
        if missing(row["map"]) or missing(row["grid_h"]):
            continue
        values = np.asarray(row["map"], np.float64).reshape(int(row["grid_h"]), int(row["grid_w"]))
        if np.isfinite(values).all():
            uri = _png(scaled(values)[0], over)
            srg = None if missing(row["srg"]) else float(row["srg"])
            pictures.append(MapPicture(str(row["method"]), uri, *values.shape, srg))
    return pictures


def _png(strength: Floats, over: bool) -> str:
    pixels = mpl.colormaps[COLORMAP](strength)
    if over:
        pixels[..., 3] = STRONGEST_ALPHA * strength
    file = io.BytesIO()
    Image.fromarray((255 * pixels).round().astype(np.uint8)).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def charts(rows: pd.DataFrame) -> list[Chart]:
    """Deletion and insertion scores of one sample; empty if no row has curves.

    Args:
        rows: records of one sample and setting.
    """
    curves = {
        str(row["method"]): (np.asarray(row["k"], np.float64), *_scores(row))
        for row in rows.to_dict("records")
        if not any(missing(row[name]) for name in ("k", "deletion_scores", "insertion_scores"))
    }
    known = [scores for _, *both in curves.values() for scores in both]
    if not known or not np.isfinite(np.concatenate(known)).all():
        return []
    low, high = float(np.concatenate(known).min()), float(np.concatenate(known).max())
    styles = method_styles(sorted(set(rows["method"])))
    drawn = []
    for side, title in enumerate(("Deletion: most salient cells removed", "Insertion: most salient cells shown")):
        lines = []
        for method, (k, *both) in curves.items():
            x, y = WIDTH * k / k[-1], HEIGHT * (high - both[side]) / ((high - low) or 1)
            points = " ".join(f"{left:.1f},{top:.1f}" for left, top in zip(x, y, strict=True))
            style = styles[method]
            dash = {"-": "none", "--": "6 4", "-.": "8 3 2 3", ":": "2 3"}[style["ls"]]
            lines.append(Line(method, points, to_hex(style["color"]), dash))
        drawn.append(Chart(title, lines, low, high))
    return drawn


def _scores(row: Mapping[Hashable, object]) -> tuple[Floats, Floats]:
    return np.asarray(row["deletion_scores"], np.float64), np.asarray(row["insertion_scores"], np.float64)
