"""Maps and curves of one sample as small pictures that need no script."""

import base64
import io
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.colors import to_hex
from PIL import Image

from cxr_faith.records.controls import CENTER
from cxr_faith.report.charts import method_styles
from cxr_faith.report.figures import COLORMAP, STRONGEST_ALPHA, scaled
from cxr_faith.report.formats import number
from cxr_faith.report.packing import missing

WIDTH, HEIGHT = 420, 240
"""Size of a chart's area in units of its SVG."""

_GRAYS = "gray"
"""Colors of maps that have nothing to explain."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class MapPicture:
    """One method's map.

    Attributes:
        method: its name.
        uris: PNG, one pixel a cell, as a data URI; one for each picture of the question.
        rows: cells of one picture from top to bottom.
        columns: cells of one picture from left to right.
        says: its srg, or the status where that is not ok; then the map is gray.
    """

    method: str
    uris: Sequence[str]
    rows: int
    columns: int
    says: str


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
    """The maps of one sample, each on its own scale from its 2nd to its 98th percentile, one for all its pictures.

    The center prior has none: its cells have no positive value, and are the same for every picture.

    Args:
        rows: records of one sample and setting.
        over: whether they are laid over the pictures, so that weak cells must be transparent.
    """
    pictures = []
    for row in rows.to_dict("records"):
        grids = _grids(row)
        if missing(row["map"]) or not grids or row["method"] == CENTER:
            continue
        (height, width), count = grids[0], len(grids)  # pictures of one question have equal grids
        values = np.asarray(row["map"], np.float64).reshape(count * height, width)
        if np.isfinite(values).all():
            ok = row["status"] == "ok"
            uris = [_png(part, over, COLORMAP if ok else _GRAYS) for part in np.split(scaled(values)[0], count)]
            srg = None if missing(row["srg"]) else float(row["srg"])
            says = f"srg {number(srg, signed=True)}" if ok else str(row["status"])
            pictures.append(MapPicture(str(row["method"]), uris, height, width, says))
    return pictures


def _grids(row: Mapping[Hashable, Any]) -> list[tuple[int, int]]:
    """Rows and columns of each picture's cells; empty where they are not recorded."""
    if not missing(row["grid_h"]):
        return [(int(row["grid_h"]), int(row["grid_w"]))]
    several = row.get("grids")
    return [] if several is None or missing(several) else [(grid["h"], grid["w"]) for grid in several]


def _png(strength: Floats, over: bool, colors: str) -> str:
    pixels = mpl.colormaps[colors](strength)
    if over:
        pixels[..., 3] = STRONGEST_ALPHA * strength
    file = io.BytesIO()
    Image.fromarray((255 * pixels).round().astype(np.uint8)).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def charts(rows: pd.DataFrame, methods: Sequence[str]) -> list[Chart]:
    """Deletion and insertion scores of one sample; empty if no row has curves.

    Args:
        rows: records of one sample and setting.
        methods: those of the run in the order of its report, so that a method has the same color there.
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
    styles = method_styles(methods)
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
