"""The picture of one answer: the picture, a map, the picture without the map's first cells, and what that changed.

One row for each method; the curves of all methods share their axes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cxr_faith.data.orientation import USUAL_SIDES, Sides
from cxr_faith.data.sample import Box
from cxr_faith.report.figures import (
    DPI,
    OKABE_ITO,
    STRONGEST_ALPHA,
    Map,
    Marks,
    Part,
    Pixels,
    Region,
    check_picture,
    draw_map,
    end_labels,
    plain,
    wrapped,
)
from cxr_faith.report.letters import draw_all_letters

SHARE = 0.2
"""Share of the cells that the third picture lacks."""

_PICTURE = (2.5, 2.9)  # inches: most of the width and height of a picture
_WIDER = 1.7  # of the width of several pictures
_GAP, _EDGE, _CURVES = 0.14, 0.12, 2.45
_NARROWEST = 1.75  # of a column
_LEGEND = 1.3  # of the x-axis and the legend below the curves
_LINE = 0.2
_HEAD, _FOOT = 0.5, 0.62  # of the column titles; of the scale and the method's name below a picture
_RANDOM = "0.45"


@dataclass(frozen=True)
class AnswerLines:
    """Curves of one map and of random orders, over the share of cells removed or shown."""

    x: Sequence[float]
    """Share of the cells, from 0 to 1, [points]."""
    deletion: Sequence[float]
    """With that share removed, the most salient first, [points]."""
    insertion: Sequence[float]
    """With only that share shown, [points]."""
    random_deletion: Sequence[float]
    """Mean of `deletion` over random orders, [points]."""
    random_insertion: Sequence[float]
    """Mean of `insertion` over random orders, [points]."""
    label: str
    """What the values are."""


@dataclass(frozen=True)
class PanelRow:
    """One method of a panel."""

    method: str
    """Its name."""
    map: Map
    """Its map, [grid_h, grid_w]."""
    removed: Pixels
    """The picture without the first `SHARE` of the map's cells, [H, W, 3], in the picture's proportions; several
    pictures stand in it as in the picture."""
    change: str
    """What became of the answer, such as "now it says no"."""
    lines: AnswerLines | None
    """The curves; None for an answer that has none."""
    verdict: str = ""
    """Whether to believe the map, in words; empty for one that was not evaluated."""
    evidence: bool = True
    """Whether there is an effect that a map can explain; without one the map is gray."""
    sure: Map | None = None
    """How sure each cell is, from 0 to 1, [grid_h, grid_w]: unsure cells fade."""


@dataclass(frozen=True)
class PanelHead:
    """What stands above a panel."""

    question: str
    """As asked."""
    answer: str
    """What the model says, with p(yes) where it is known."""
    source: str
    """Model, picture and substrate."""


def panel(
    picture: Pixels,
    head: PanelHead,
    rows: Sequence[PanelRow],
    boxes: Sequence[Box] | None = None,
    region: Region | None = None,
    alpha: float | None = None,
    parts: Sequence[Part] = (),
    sides: Sides = USUAL_SIDES,
) -> Figure:
    """Draw a row for each method: map, and what is left of the answer without its first cells.

    Args:
        picture: [H, W] or [H, W, 3].
        head: the text above.
        rows: one or more methods that explain the same answer.
        boxes: in pixels of the picture.
        region: (top, left, height, width) that the maps cover; default the whole picture.
        alpha: opacity of the strongest cell of a map; default `figures.STRONGEST_ALPHA`.
        parts: where several pictures stand in `picture`, and in each row's `removed`.
        sides: of the patient, at the edges of one picture.

    Raises:
        ValueError: no row, or as `figures.overlay` does.
    """
    if not rows:
        raise ValueError("a panel needs a map or more")
    picture = check_picture(picture)
    place = _Places.of(picture, head, rows, len(parts))
    marks = Marks(7 if parts else 9, sides, picture)
    figure = Figure(figsize=(place.total_w, place.total_h), dpi=DPI)
    place.write_head(figure, head, curves=any(row.lines for row in rows))
    draw_map(place.axes(figure, 0, 0), picture, None, boxes, region, marks, parts=parts)
    strongest = STRONGEST_ALPHA if alpha is None else alpha
    for number, row in enumerate(rows):
        color = OKABE_ITO[number % len(OKABE_ITO)]
        axes = place.axes(figure, 1, number)
        gray, sure = not row.evidence, row.sure
        drawn, limits = draw_map(axes, picture, row.map, boxes, region, marks, strongest, gray, parts, sure)
        _frame(axes, color)
        scale = figure.colorbar(drawn, cax=place.scale(figure, number), orientation="horizontal", ticks=[0, 0.5, 1])
        middle = "importance" if place.column > 2 else ""
        least, most = end_labels(limits)
        scale.ax.set_xticklabels([least, middle, most], fontsize=7)
        scale.ax.tick_params(length=0)
        scale.outline.set_visible(False)
        axes = place.axes(figure, 2, number)
        draw_map(axes, row.removed, None, marks=marks, parts=parts)
        _frame(axes, color)
        place.write_row(figure, number, row, color)
    if any(row.lines for row in rows):
        axes = place.curve_axes(figure)
        _draw_lines(axes, rows, axes.get_position().height * place.total_h)
    return draw_all_letters(figure)


def _frame(axes: Axes, color: str) -> None:
    for spine in axes.spines.values():
        spine.set(color=color, linewidth=2)


def _draw_lines(axes: Axes, rows: Sequence[PanelRow], height: float) -> None:
    """Deletion curves against random orders; a single method also shows its insertion. The height is in inches."""
    alone = len(rows) == 1
    first = next(row.lines for row in rows if row.lines is not None)
    share = 100 * np.asarray(first.x)
    axes.plot(share, first.random_deletion, color=_RANDOM, lw=1.8, ls=":", label="random order, removed")
    if alone:
        axes.plot(share, first.random_insertion, color=_RANDOM, lw=1, ls=(0, (1, 3)), label="random order, shown")
    for number, row in enumerate(rows):
        color = OKABE_ITO[number % len(OKABE_ITO)]
        if row.lines is not None:
            x = 100 * np.asarray(row.lines.x)
            axes.plot(x, row.lines.deletion, color=color, lw=2, label=f"{row.method}, removed" if alone else row.method)
            if alone:
                axes.plot(x, row.lines.insertion, color=color, lw=1.2, ls="--", label=f"{row.method}, shown")
    axes.axvline(100 * SHARE, color="0.7", lw=1, ls=":", zorder=0)
    axes.set(xlim=(0, 100), xlabel="cells removed or shown (%)" if alone else "cells removed (%)", ylabel=first.label)
    legend = axes.legend(
        frameon=False, fontsize=7, loc="upper center", bbox_to_anchor=(0.45, -0.52 / height), ncols=1, borderaxespad=0
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
    plain(axes)


@dataclass(frozen=True)
class _Places:
    """Where everything stands, in inches from the left and from the top."""

    side: tuple[float, float]
    """Width and height of each picture."""
    column: float
    """Width of a picture's column, which has room for its title."""
    heading: tuple[str, ...]
    """Lines of the question."""
    verdicts: tuple[tuple[str, ...], ...]
    """Lines of each row's verdict."""
    total_w: float
    """Width of the figure."""
    total_h: float
    """Height of the figure."""

    @classmethod
    def of(cls, picture: Pixels, head: PanelHead, rows: Sequence[PanelRow], parts: int = 0) -> "_Places":
        height, width = picture.shape[:2]
        scale = min(_PICTURE[0] * (_WIDER if parts else 1) / width, _PICTURE[1] / height)
        side = width * scale, height * scale
        column = max(side[0], _NARROWEST)
        total_w = 2 * _EDGE + 3 * column + 3 * _GAP + 0.62 + _CURVES
        heading = tuple(wrapped(head.question, total_w - 0.3, 12, most=3))
        verdicts = tuple(tuple(wrapped(row.verdict, 2 * column + _GAP, 8.5, most=3)) for row in rows)
        first_row = _EDGE + len(heading) * 0.24 + 0.25 + _HEAD
        rows_h = sum(side[1] + _FOOT + _LINE * len(lines) for lines in verdicts)
        return cls(side, column, heading, verdicts, total_w, first_row + max(rows_h, 1.9 + _LEGEND))

    @property
    def first_row(self) -> float:
        return _EDGE + len(self.heading) * 0.24 + 0.25 + _HEAD

    def top(self, row: int) -> float:
        above = self.verdicts[:row]
        return self.first_row + sum(self.side[1] + _FOOT + _LINE * len(lines) for lines in above)

    def left(self, column: int) -> float:
        return _EDGE + column * (self.column + _GAP)

    def _add(self, figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
        place = left / self.total_w, 1 - (top + height) / self.total_h, width / self.total_w, height / self.total_h
        return figure.add_axes(place)

    def _write(
        self,
        figure: Figure,
        left: float,
        top: float,
        text: str,
        points: float,
        color: str = "black",
        weight: str = "normal",
    ) -> None:
        place = left / self.total_w, 1 - top / self.total_h
        style = {"fontsize": points, "color": color, "fontweight": weight}
        figure.text(*place, text, va="top", parse_math=False, fontdict=style)

    def axes(self, figure: Figure, column: int, row: int) -> Axes:
        return self._add(figure, self.left(column), self.top(row), *self.side)

    def scale(self, figure: Figure, row: int) -> Axes:
        return self._add(figure, self.left(1) + 0.42, self.top(row) + self.side[1] + 0.07, self.column - 0.84, 0.08)

    def curve_axes(self, figure: Figure) -> Axes:
        left, top = self.left(3) + 0.62, self.first_row
        height = min(self.total_h - top - _LEGEND, 3.2)
        return self._add(figure, left, top, _CURVES, height)

    def write_head(self, figure: Figure, head: PanelHead, curves: bool) -> None:
        top = _EDGE
        self._write(figure, _EDGE, top, "\n".join(self.heading), 12, weight="bold")
        top += 0.24 * len(self.heading) + 0.02
        self._write(figure, _EDGE, top, head.answer, 10)
        names = ("Picture", "Map", f"First {SHARE:.0%} removed", "Does the answer go?")
        for column, name in enumerate(names if curves else names[:3]):
            left = self.left(column) + (0.3 if column == 3 else 0)
            self._write(figure, left, self.first_row - 0.25, name, 9.5, weight="bold")
        lines = wrapped(head.source, self.column, 8, most=4)
        self._write(figure, _EDGE, self.first_row + self.side[1] + 0.08, "\n".join(lines), 8, color="0.35")

    def write_row(self, figure: Figure, number: int, row: PanelRow, color: str) -> None:
        top = self.top(number) + self.side[1]
        change = "\n".join(wrapped(row.change, self.column, 9, most=2))
        self._write(figure, self.left(1), top + 0.36, row.method, 9.5, color, "bold")
        self._write(figure, self.left(2), top + 0.08, change, 9, color, "bold")
        self._write(figure, self.left(1), top + 0.57, "\n".join(self.verdicts[number]), 8.5)
