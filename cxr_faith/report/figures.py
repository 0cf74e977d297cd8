"""Figures: a map on its picture, and mean curves. Objects throughout, no pyplot: nothing to close, safe in workers."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from cxr_faith.data.sample import Box

COLORMAP = "viridis"
"""Perceptually uniform, and none of its colors is a grey of the radiograph."""
STRONGEST_ALPHA = 0.6
RANDOM = "random"


def overlay(
    picture: npt.NDArray[np.uint8],
    values: npt.NDArray[np.floating[Any]],
    title: str | None = None,
    boxes: Sequence[Box] | None = None,
    region: tuple[float, float, float, float] | None = None,
) -> Figure:
    """Draw a map on its picture, cell by cell, in the picture's own proportions.

    Only the positive part is drawn, scaled from its smallest to its largest value; color and opacity both grow with it.
    The image's left is the patient's right, marked R.

    Args:
        picture: [H, W] or [H, W, 3].
        values: the map, [grid_h, grid_w]; larger = more important.
        title: plain text.
        boxes: in pixels of the picture.
        region: (top, left, height, width) of the part of the picture that the map covers, in pixels; default all of it.

    Raises:
        ValueError: a picture or a map of another shape, or a map that is not finite.
    """
    picture, strength = np.asarray(picture), _strength(np.asarray(values, dtype=np.float64))
    if picture.ndim not in (2, 3) or picture.shape[2:] not in ((), (3,)):
        raise ValueError(f"a picture is [H, W] or [H, W, 3], not {list(picture.shape)}")
    height, width = picture.shape[:2]
    top, left, covered_h, covered_w = region or (0, 0, height, width)
    long_side = 5.0  # inches
    size = (long_side * width / max(height, width), long_side * height / max(height, width))
    # Title and scale get their own strips, so that the axes have the picture's proportions exactly.
    lines = _wrapped(title, size[0])
    head, foot = 0.08 + 0.19 * len(lines), 0.42
    figure = Figure(figsize=(size[0], size[1] + head + foot), dpi=150)
    axes = figure.add_axes((0, foot / (size[1] + head + foot), 1, size[1] / (size[1] + head + foot)))
    axes.imshow(picture, cmap="gray", vmin=0, vmax=255, extent=(0, width, height, 0), interpolation="antialiased")
    image = axes.imshow(
        strength,
        cmap=COLORMAP,
        vmin=0,
        vmax=1,
        alpha=STRONGEST_ALPHA * strength,
        extent=(left, left + covered_w, top + covered_h, top),
        interpolation="nearest",
    )
    axes.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
    _mark_sides(axes)
    for box in boxes or ():
        axes.add_patch(Rectangle((box.x1, box.y1), box.x2 - box.x1, box.y2 - box.y1, fill=False, ec="red", lw=1.5))
    scale_axes = figure.add_axes((0.25, 0.24 / figure.get_figheight(), 0.5, 0.09 / figure.get_figheight()))
    scale = figure.colorbar(image, cax=scale_axes, orientation="horizontal", ticks=[0, 1])
    scale.ax.set_xticklabels(["lowest", "highest"], fontsize=7)
    scale.outline.set_visible(False)
    if lines:
        figure.text(0.5, 1 - 0.05 / figure.get_figheight(), "\n".join(lines), ha="center", va="top", fontsize=9,
                    parse_math=False)  # fmt: skip
    return figure


def mean_curves(curves: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Draw mean normalized curves of several methods: deletion beside insertion, random orders dashed in grey.

    Args:
        curves: method → `x`, `deletion`, `insertion`, each [steps + 1], and `n`, the number of samples, as in a
            summary's boards.
    """
    figure = Figure(figsize=(9.0, 4.6), dpi=110, layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    colors = [*mpl.color_sequences["tab10"], *mpl.color_sequences["Dark2"]]
    styles = {name: _style(name, number, colors) for number, name in enumerate(n for n in curves if n != RANDOM)}
    for panel, kind, better in zip(panels, ("deletion", "insertion"), ("lower", "higher"), strict=True):
        for name, curve in curves.items():
            panel.plot(100 * np.asarray(curve["x"]), curve[kind], **styles.get(name, _RANDOM_STYLE))
        panel.axhline(0, color="0.8", lw=0.8, zorder=0)
        panel.axhline(1, color="0.8", lw=0.8, zorder=0)
        verb = "removed" if kind == "deletion" else "shown"
        panel.set(title=f"{kind.capitalize()} ({better} is better)", xlabel=f"cells {verb}, most salient first (%)")
        panel.set_xlim(0, 100)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("share of the effect kept\n(1 = intact picture, 0 = all substrate)")
    handles = [Line2D([], [], **styles.get(name, _RANDOM_STYLE)) for name in curves]
    labels = [f"{name} (n={curve['n']})" for name, curve in curves.items()]
    box = figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    for text in box.get_texts():
        text.set_parse_math(False)
    return figure


def svg(figure: Figure) -> str:
    """A figure as an SVG element for a page: no prolog, no date, the same ids every time."""
    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "cxr_faith", "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = buffer.getvalue()
    return text[text.index("<svg") :]


_RANDOM_STYLE: dict[str, Any] = {"color": "0.5", "ls": "--", "lw": 1.8}


def _style(name: str, number: int, colors: Sequence[Any]) -> dict[str, Any]:
    """Colors repeat after 18 methods; the oracle, a known truth, stands out in black."""
    if name == "oracle":
        return {"color": "black", "ls": "-", "lw": 1.8}
    return {"color": colors[number % len(colors)], "ls": ("-", ":")[number // len(colors) % 2], "lw": 1.5}


def _strength(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Positive part scaled to [0, 1]; 0 everywhere for a map without contrast."""
    if values.ndim != 2 or not np.isfinite(values).all():
        raise ValueError(f"a map is [grid_h, grid_w] and finite; got shape {list(values.shape)}")
    positive = np.clip(values, 0, None)
    low, high = positive.min(), positive.max()
    scaled: npt.NDArray[np.float64] = (positive - low) / (high - low) if high > low else np.zeros_like(positive)
    return scaled


def _mark_sides(axes: Axes) -> None:
    for x, text, side in ((0.015, "R", "left"), (0.985, "L", "right")):
        axes.text(x, 0.985, text, transform=axes.transAxes, ha=side, va="top", fontsize=11, fontweight="bold",
                  color="white", path_effects=[withStroke(linewidth=2, foreground="black")])  # fmt: skip


def _wrapped(title: str | None, width: float) -> list[str]:
    """The title in lines that fit a figure of this width (inches) at 9 points; at most three lines."""
    per_line = max(12, int(width * 14.5))
    words, lines = (title or "").split(), [""]
    for word in words:
        if lines[-1] and len(lines[-1]) + 1 + len(word) > per_line:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    if len(lines) > 3:
        lines = [*lines[:2], f"{lines[2][: per_line - 1]}…"]
    return [line for line in lines if line]
