"""A map on its picture, and what all figures share: colors, side marks, titles, SVG.

No function uses pyplot, so figures need no closing and are safe in workers. `figure.savefig` writes PNG, PDF or SVG by
the name's ending. `grids.py` puts several maps into one figure; `charts.py` and `bars.py` draw numbers.
"""

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from cxr_faith.data.orientation import USUAL_SIDES, Sides
from cxr_faith.data.sample import Box
from cxr_faith.printable import printable
from cxr_faith.report.letters import readable
from cxr_faith.report.letters import width as letter_width
from cxr_faith.report.side_marks import Marks as Marks
from cxr_faith.report.side_marks import Pixels as Pixels
from cxr_faith.report.side_marks import Region as Region
from cxr_faith.report.side_marks import mark_sides

# Texts of a run's data are drawn in SVG as text, which a browser has the letters for.
warnings.filterwarnings("ignore", message="Glyph .* missing from font")

COLORMAP = "viridis"
"""Perceptually uniform, and without the grays of a radiograph."""
STRONGEST_ALPHA = 0.6
LIMITS = (2, 98)
"""Percentiles of a map that get its weakest and its strongest color, so that one outlier does not hide the rest."""

OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#882255")
"""Seven colors that differ for all common kinds of color vision (Okabe & Ito 2008; wine in place of yellow)."""

Map = npt.NDArray[np.floating[Any]]
COLUMN_WIDTH = 3.4
"""Width of charts in inches, that of a paper's column; letters have 7 to 8 points."""
DPI = 200


@dataclass(frozen=True)
class Part:
    """One of several pictures that are drawn as one."""

    name: str
    """What is written on it."""
    region: Region
    """Where it stands."""
    sides: Sides = USUAL_SIDES
    """The patient's sides at its left and right edges; empty where they are not known."""


def overlay(
    picture: Pixels,
    values: Map,
    title: str | None = None,
    boxes: Sequence[Box] | None = None,
    region: Region | None = None,
    gray: bool = False,
    sides: Sides = USUAL_SIDES,
) -> Figure:
    """Draw a map on its picture, cell by cell, in the picture's own proportions.

    Only the positive part is drawn, on its own scale from its 2nd to its 98th percentile; color and opacity both grow
    with it. The patient's sides are marked.

    Args:
        picture: [H, W] or [H, W, 3].
        values: the map, [grid_h, grid_w]; larger = more important.
        title: plain text.
        boxes: in pixels of the picture.
        region: (top, left, height, width) of the part of the picture that the map covers, in pixels; default all of it.
        gray: draw the map without colors, since it shows no evidence.
        sides: of the patient, at the picture's left and right edges; by default those of the usual view, R and L.

    Raises:
        ValueError: a picture or a map of another shape, or a map that is not finite.
    """
    picture = check_picture(picture)
    height, width = picture.shape[:2]
    long_side = 5.0  # inches
    size = (long_side * width / max(height, width), long_side * height / max(height, width))
    # Title and scale have strips beside the axes, which keep the picture's proportions exactly.
    lines = wrapped(title, size[0])
    head, foot = 0.08 + 0.19 * len(lines), 0.42
    figure = Figure(figsize=(size[0], size[1] + head + foot), dpi=150)
    axes = figure.add_axes((0, foot / (size[1] + head + foot), 1, size[1] / (size[1] + head + foot)))
    image, limits = draw_map(axes, picture, values, boxes, region, Marks(sides=sides), gray=gray)
    scale_axes = figure.add_axes((0.25, 0.24 / figure.get_figheight(), 0.5, 0.09 / figure.get_figheight()))
    scale = figure.colorbar(image, cax=scale_axes, orientation="horizontal", ticks=[0, 1])
    scale.ax.set_xticklabels(end_labels(limits), fontsize=7)
    scale.outline.set_visible(False)
    if lines:
        top = 1 - 0.05 / figure.get_figheight()
        figure.text(0.5, top, "\n".join(lines), ha="center", va="top", fontsize=9, parse_math=False)
    return figure


def draw_map(
    axes: Axes,
    picture: Pixels,
    values: Map | None,
    boxes: Sequence[Box] | None = None,
    region: Region | None = None,
    marks: Marks = Marks(),  # noqa: B008 - frozen
    alpha: float = STRONGEST_ALPHA,
    gray: bool = False,
    parts: Sequence[Part] = (),
    sure: Map | None = None,
) -> tuple[AxesImage, tuple[float, float]]:
    """Draw a picture, and a map over it, into axes.

    Args:
        axes: axes of the picture's proportions.
        picture: [H, W] or [H, W, 3].
        values: the map, [grid_h, grid_w]; None draws the picture alone.
        boxes: in pixels of the picture.
        region: (top, left, height, width) that the map covers; default the whole picture.
        marks: the marks of the patient's sides; those of `parts` go before.
        alpha: opacity of the strongest cell.
        gray: draw the map without colors, since it shows no evidence.
        parts: where several pictures stand in this one; their maps, one below the other, share one scale.
        sure: how sure each cell is, from 0 to 1, [grid_h, grid_w]: unsure cells fade.

    Returns:
        the drawn map (or picture) and the values (weakest, strongest) at the ends of its color scale.

    Raises:
        ValueError: as `overlay` does.
    """
    picture = check_picture(picture)
    height, width = picture.shape[:2]
    drawn = axes.imshow(
        picture, cmap="gray", vmin=0, vmax=255, extent=(0, width, height, 0), interpolation="antialiased"
    )
    limits = (0.0, 0.0)
    if values is not None:
        strength, limits = scaled(values)
        opacity = alpha * strength * (1 if sure is None else sure)
        regions = [part.region for part in parts] or [region or (0, 0, height, width)]
        shares = (np.split(values, len(regions)) for values in (strength, opacity))
        for shown, seen, (top, left, covered_h, covered_w) in zip(*shares, regions, strict=True):
            drawn = axes.imshow(
                shown,
                cmap="gray" if gray else COLORMAP,
                vmin=0,
                vmax=1,
                alpha=seen,
                extent=(left, left + covered_w, top + covered_h, top),
                interpolation="nearest",
            )
    axes.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
    for part in parts or (Part("", (0, 0, height, width), marks.sides),):
        mark_sides(axes, replace(marks, sides=part.sides), picture, part.region, part.name)
    for box in boxes or ():
        # White with a dark edge is visible on bone, on lung and on every color of the map.
        outline = Rectangle(
            (box.x1, box.y1), box.x2 - box.x1, box.y2 - box.y1, fill=False, ec="white", lw=marks.size / 9
        )
        outline.set_path_effects([withStroke(linewidth=marks.size / 4, foreground="black")])
        axes.add_patch(outline)
    return drawn, limits


def end_labels(limits: tuple[float, float]) -> tuple[str, str]:
    """What stands at the weak and the strong end of a map's color scale; next to nothing is 0."""
    low, high = limits
    return f"≤ {0 if low < 1e-6 * high else low:.2g}", f"≥ {high:.2g}"


def scaled(values: Map) -> tuple[npt.NDArray[np.float64], tuple[float, float]]:
    """The positive part of a map on its own scale [0, 1], and the values at the two ends.

    The ends are the 2nd and 98th percentile. Where those are equal (a few bright cells on nothing) they are the
    smallest and the largest value; a map without contrast is 0 everywhere.

    Raises:
        ValueError: the map is not [grid_h, grid_w] or not finite.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2 or not np.isfinite(values).all():
        raise ValueError(f"a map is [grid_h, grid_w] and finite; got shape {list(values.shape)}")
    strength, (low, high) = scaled_all(values[None])
    return strength[0], (float(low[0]), float(high[0]))


def scaled_all(maps: Map) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """`scaled` for finite maps [n, grid_h, grid_w]: strengths of the same shape, and the ends [2, n]."""
    positive = np.clip(np.asarray(maps, np.float64), 0, None)
    ends = np.percentile(positive, LIMITS, axis=(1, 2))
    extremes = np.stack([positive.min(axis=(1, 2)), positive.max(axis=(1, 2))])
    ends = np.where(ends[1] > ends[0], ends, extremes)
    low, high = ends[:, :, None, None]
    contrast = high > low
    strength = np.clip((positive - low) / np.where(contrast, high - low, 1), 0, 1)
    return np.where(contrast, strength, 0.0), ends


def check_picture(picture: Pixels) -> Pixels:
    """The picture as an array.

    Raises:
        ValueError: it is neither [H, W] nor [H, W, 3].
    """
    picture = np.asarray(picture)
    if picture.ndim not in (2, 3) or picture.shape[2:] not in ((), (3,)):
        raise ValueError(f"a picture is [H, W] or [H, W, 3], not {list(picture.shape)}")
    return picture


def svg(figure: Figure) -> str:
    """A figure as an SVG element for a page: no prolog, no date, the same ids every time."""
    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "cxr_faith", "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = buffer.getvalue()
    return printable(text[text.index("<svg") :], keep="\n")


def chart(height: float, width: float = COLUMN_WIDTH) -> Figure:
    """An empty figure for a chart, in inches."""
    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")


def plain(axes: Axes) -> None:
    """Remove the box around the plot, make letters small, and draw names literally, never as formulas."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=7)
    for text in (axes.xaxis.label, axes.yaxis.label, axes.title):
        text.set_fontsize(8)
    for text in (*axes.get_xticklabels(), *axes.get_yticklabels(), axes.title):
        text.set_parse_math(False)


def legend_below(
    figure: Figure, columns: int = 2, handles: Sequence[Artist] | None = None, labels: Sequence[str] | None = None
) -> None:
    """Draw a legend below the plot, with names drawn literally, never as formulas."""
    # Without handles and labels, matplotlib takes those of the axes.
    given = {name: entries for name, entries in (("handles", handles), ("labels", labels)) if entries is not None}
    box = figure.legend(loc="outside lower center", ncols=columns, frameon=False, fontsize=7, **given)
    for text in box.get_texts():
        text.set_parse_math(False)


def wrapped(title: str | None, width: float, points: float = 9, most: int = 3) -> list[str]:
    """A title in lines that fit a width in inches; beyond `most` lines it is cut and ends with an ellipsis."""
    per_line = max(8, int(width * 130 / points))
    lines = [""]
    words = [part for word in readable(printable(title or "")).split() for part in _parts(word, per_line)]
    for word in words:
        if lines[-1] and letter_width(f"{lines[-1]} {word}") > per_line:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    if len(lines) > most:
        lines = [*lines[: most - 1], f"{_begin(lines[most - 1], per_line - 1)}…"]
    return [line for line in lines if line]


def _parts(word: str, most: int) -> list[str]:
    """A word in parts of at most that width, of about equal length."""
    whole = letter_width(word)
    share, parts = -(-whole // -(-whole // most)), list[str]()
    while word:
        parts.append(_begin(word, share))
        word = word[len(parts[-1]) :]
    return parts


def _begin(text: str, most: int) -> str:
    """The first letters of a text, of at most that width; one at least."""
    end = len(text)
    while end > 1 and letter_width(text[:end]) > most:
        end -= 1
    return text[:end]
