"""The clinical summary of one answer as one A4 sheet, for PDF, with the content of the HTML page."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle

from cxr_faith.data.orientation import USUAL_SIDES, Sides
from cxr_faith.printable import printable
from cxr_faith.report.charts import AnswerCurves, draw_answer_curves
from cxr_faith.report.clinical.answer import Faithfulness
from cxr_faith.report.clinical.evidence import Evidence
from cxr_faith.report.clinical.lines import lines_of
from cxr_faith.report.clinical.phrases import calibrated, marked, picture_file, source, verdict, wordings
from cxr_faith.report.clinical.summary import ClinicalSummary
from cxr_faith.report.figures import Map, Marks, Pixels, Region, check_picture, draw_map, end_labels
from cxr_faith.report.formats import whole_percent
from cxr_faith.storage.atomic import write_atomic

WIDTH, HEIGHT, MARGIN = 8.27, 11.69, 0.6  # inches
SIDE, LEAST_SIDE = 3.3, 1.5
"""The picture's greatest and least height, in inches."""
_COLUMN, _GAP, _CURVES = 3.4, 0.27, 1.7
_ROUNDING = 1e-6  # inches: without it a sheet that is just full can count as overfull
_INK, _QUIET = "#1c2430", "#55606e"


@dataclass(frozen=True)
class _Drawn:
    """What is drawn beside the text."""

    picture: Pixels
    """[H, W] or [H, W, 3]."""
    values: Map
    """The map, [grid_h, grid_w]."""
    curves: AnswerCurves | None
    """The answer's score while cells are removed and shown."""
    region: Region | None
    """The part of the picture that the map covers."""
    sides: Sides
    """The patient's sides at its left and right edges."""


def clinical_sheet(
    summary: ClinicalSummary,
    picture: Pixels,
    values: Map,
    curves: AnswerCurves | None = None,
    region: Region | None = None,
    sides: Sides = USUAL_SIDES,
) -> Figure:
    """Draw a clinical summary on one A4 sheet.

    If there is too much text, the picture becomes smaller, and then the sheet longer: nothing is cut off.

    Args:
        summary: as `clinical_summary` gives it.
        picture: [H, W] or [H, W, 3].
        values: the map, [grid_h, grid_w].
        curves: the answer's score while cells are removed and shown; None draws no curves.
        region: (top, left, height, width) of the part of the picture that the map covers; default all of it.
        sides: of the patient, at the picture's left and right edges; empty texts where they are not known.
    """
    drawn = _Drawn(check_picture(picture), values, curves, region, sides)
    sheet = _fill(_Sheet(), summary, drawn)
    if sheet.y < MARGIN:
        height, width = drawn.picture.shape[:2]
        side = min(SIDE, _COLUMN * height / width) - (MARGIN - sheet.y) - _ROUNDING
        sheet = _fill(_Sheet(side=max(LEAST_SIDE, side)), summary, drawn)
    if sheet.y < MARGIN:
        sheet = _fill(_Sheet(HEIGHT + MARGIN - sheet.y, LEAST_SIDE), summary, drawn)
    return sheet.figure


def _fill(sheet: "_Sheet", summary: ClinicalSummary, drawn: _Drawn) -> "_Sheet":
    _write_head(sheet, summary)
    top = sheet.y
    shown = summary.no_evidence is None
    sheet.column(0, top)
    sheet.heading("The picture")
    sheet.picture(drawn.picture)
    sheet.write(marked(drawn.sides), 8, color=_QUIET)
    bottom = sheet.y
    sheet.column(1, top)
    sheet.heading("What the map shows" if shown else "No evidence to show")
    scale = sheet.map(drawn, gray=not shown)
    if shown:
        sheet.scale(*scale)
    else:
        sheet.write("The map is gray: it says nothing about this answer.", 8, color=_QUIET)
    top = min(bottom, sheet.y)
    sheet.column(0, top)
    sheet.heading("In words")
    sheet.write(summary.evidence.words, 9.5)
    sheet.rows(_evidence(summary.evidence))
    if summary.evidence.caveat:
        sheet.write(summary.evidence.caveat, 8, color=_QUIET, space=0.06)
    if summary.agreement:
        sheet.heading("Agreement with other methods (Spearman)")
        sheet.rows([(name, _number(value)) for name, value in summary.agreement.items()])
    bottom = sheet.y
    sheet.column(1, top)
    sheet.heading("Does the answer depend on what it shows?")
    sheet.rows(_faithfulness(summary.faithfulness))
    if drawn.curves is not None:
        sheet.curves(drawn.curves)
    sheet.column(0, min(bottom, sheet.y), whole=True)
    sheet.heading("Where this comes from")
    for line in filter(None, (picture_file(summary), source(summary))):
        sheet.write(line, 8, color=_QUIET)
    return sheet


def _write_head(sheet: "_Sheet", summary: ClinicalSummary) -> None:
    """The statement, the question, the answer and the reasons for caution."""
    sheet.boxed([summary.statement], 9, edge="#aa1111", bold=True)
    sheet.write(summary.question, 14, bold=True, space=0.1)
    sheet.write(_answered(summary), 11.5, space=0.06)
    if summary.verdict is not None:
        sheet.write(verdict(summary), 9.5, bold=True)
    sheet.write(calibrated(summary), 8.5, color=_QUIET)
    sheet.write(wordings(summary), 8.5, color=_QUIET)
    if summary.flags:
        lines = [f"• {flag}" for flag in summary.flags]
        sheet.boxed(["Reasons for caution", *lines], 9, face="#fff6e6", space=0.12)


def save_sheet(figure: Figure, path: Path) -> None:
    """Write the sheet as PDF, the same bytes each time, whole or not at all.

    Raises:
        OSError: the file could not be written.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="pdf", metadata={"CreationDate": None, "Title": "Explanation of one answer"})
    write_atomic(path, buffer.getvalue())


class _Sheet:
    """A page that is filled from the top; `y` is the distance from its lower edge, in inches."""

    def __init__(self, height: float = HEIGHT, side: float = SIDE) -> None:
        self.figure = Figure(figsize=(WIDTH, height), dpi=100)
        self.height, self.side = height, side
        self.x, self.y, self.width = MARGIN, height - MARGIN, WIDTH - 2 * MARGIN

    def column(self, number: int, y: float, whole: bool = False) -> None:
        """Continue in a column, or over the whole width, at a height."""
        self.x, self.y = MARGIN + number * (_COLUMN + _GAP), y
        self.width = WIDTH - 2 * MARGIN if whole else _COLUMN

    def heading(self, text: str) -> None:
        self.write(text, 10.5, bold=True, space=0.16)

    def write(
        self, text: str, points: float, bold: bool = False, color: str = _INK, space: float = 0.03, indent: float = 0
    ) -> None:
        """Write a paragraph of at most six lines."""
        self.y -= space
        for line in lines_of(text, self.width - 2 * indent, points, bold):
            self.y -= points * 1.3 / 72
            self.figure.text(
                (self.x + indent) / WIDTH,
                self.y / self.height,
                line,
                fontsize=points,
                color=color,
                fontweight="bold" if bold else "normal",
                parse_math=False,
            )

    def boxed(
        self,
        texts: Sequence[str],
        points: float,
        bold: bool = False,
        face: str = "white",
        edge: str = "#b35900",
        space: float = 0.0,
    ) -> None:
        """Write paragraphs into a box; the first one is bold where there are several."""
        self.y -= space
        top, inset = self.y, 0.1
        self.y -= 0.05
        for number, text in enumerate(texts):
            self.write(text, points, bold or (number == 0 and len(texts) > 1), indent=inset)
        self.y -= 0.12
        place = (self.x / WIDTH, self.y / self.height)
        size = (self.width / WIDTH, (top - self.y) / self.height)
        self.figure.add_artist(Rectangle(place, *size, fc=face, ec=edge, lw=1.2, zorder=-1))

    def rows(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Write a table of names and values."""
        for name, value in pairs:
            self.y -= 0.2
            y = self.y / self.height
            at = ((self.x / WIDTH, name, "left"), ((self.x + self.width) / WIDTH, value, "right"))
            for x, text, side in at:
                self.figure.text(x, y, printable(text), fontsize=9, ha=side, color=_INK, parse_math=False)

    def picture(self, picture: Pixels) -> None:
        """Draw the picture alone, without marks that could hide its own."""
        axes = self._axes_of(picture)
        axes.imshow(picture, cmap="gray", vmin=0, vmax=255, interpolation="antialiased")
        axes.set(xticks=[], yticks=[])

    def map(self, drawn: _Drawn, gray: bool) -> tuple[AxesImage, tuple[float, float]]:
        """Draw the map on the picture; returns it and the values at the ends of its scale."""
        axes, marks = self._axes_of(drawn.picture), Marks(sides=drawn.sides)
        return draw_map(axes, drawn.picture, drawn.values, region=drawn.region, marks=marks, gray=gray)

    def _axes_of(self, picture: Pixels) -> Axes:
        """Axes of a picture's proportions below what is written."""
        height, width = picture.shape[:2]
        scale = min(_COLUMN / width, self.side / height)
        size = (width * scale, height * scale)
        self.y -= 0.08 + size[1]
        return self.figure.add_axes((self.x / WIDTH, self.y / self.height, size[0] / WIDTH, size[1] / self.height))

    def scale(self, drawn: AxesImage, ends: tuple[float, float]) -> None:
        """Draw the bar of a map's colors below it."""
        self.y -= 0.16
        place = ((self.x + 0.15) / WIDTH, self.y / self.height, 1.6 / WIDTH, 0.09 / self.height)
        bar = self.figure.colorbar(drawn, cax=self.figure.add_axes(place), orientation="horizontal", ticks=[0, 1])
        bar.ax.set_xticklabels(end_labels(ends), fontsize=7)
        bar.ax.tick_params(length=0)
        bar.outline.set_visible(False)
        self.y -= 0.14
        self.figure.text((self.x + 2.05) / WIDTH, (self.y + 0.14) / self.height, "importance", fontsize=8, color=_QUIET)

    def curves(self, curves: AnswerCurves) -> None:
        """Draw the curves of the answer's score."""
        x, y = self.x + 0.5, self.y - 0.25 - _CURVES
        axes = self.figure.add_axes((x / WIDTH, y / self.height, (_COLUMN - 0.65) / WIDTH, _CURVES / self.height))
        draw_answer_curves(axes, curves)
        self.y = y - 0.45


def _answered(summary: ClinicalSummary) -> str:
    if summary.confidence is None:
        return summary.answer
    return f"{summary.answer} · the model's own probability of this answer {whole_percent(summary.confidence)}"


def _evidence(evidence: Evidence) -> list[tuple[str, str]]:
    if evidence.organs is None or evidence.thirds is None:
        return []
    shares = {f"{name} third": share for name, share in evidence.thirds.items()}
    rows = [(name, whole_percent(share)) for name, share in {**shares, **evidence.organs}.items()]
    return [*rows, ("outer 5% of the picture", whole_percent(evidence.border))]


def _faithfulness(scores: Faithfulness | None) -> list[tuple[str, str]]:
    if scores is None:
        return [("not tested", "")]
    return [
        ("status", f"{scores.status} under {scores.substrate}"),
        ("effect of the whole picture", _number(scores.effect, "+.2f")),
        ("srg: insertion minus deletion, 0 = random", _number(scores.srg, "+.2f")),
        ("standard deviations above random orders", _number(scores.random_z, "+.1f")),
        ("p against random orders", _number(scores.random_p, ".3f")),
        ("gap to “nearest to the center first”", _number(scores.gap_srg_center, "+.2f")),
    ]


def _number(value: float | None, form: str = ".2f") -> str:
    return "–" if value is None else format(value, form)
