"""The clinical summary of one answer as one A4 sheet, for PDF, with the content of the HTML page."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from cxr_faith.printable import printable
from cxr_faith.report.charts import AnswerCurves, draw_answer_curves
from cxr_faith.report.clinical.answer import Faithfulness
from cxr_faith.report.clinical.evidence import Evidence
from cxr_faith.report.clinical.phrases import calibrated, source, wordings
from cxr_faith.report.clinical.summary import ClinicalSummary
from cxr_faith.report.figures import Map, Pixels, Region, check_picture, draw_map, wrapped
from cxr_faith.report.formats import whole_percent
from cxr_faith.storage.atomic import write_atomic

WIDTH, HEIGHT, MARGIN = 8.27, 11.69, 0.6  # inches
SIDE, LEAST_SIDE = 3.3, 1.8
"""The picture's greatest and least height, in inches."""
_COLUMN, _GAP = 3.4, 0.27
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


def clinical_sheet(
    summary: ClinicalSummary,
    picture: Pixels,
    values: Map,
    curves: AnswerCurves | None = None,
    region: Region | None = None,
) -> Figure:
    """Draw a clinical summary on one A4 sheet.

    If there is too much text, the picture becomes smaller, and then the sheet longer: nothing is cut off.

    Args:
        summary: as `clinical_summary` gives it.
        picture: [H, W] or [H, W, 3].
        values: the map, [grid_h, grid_w].
        curves: the answer's score while cells are removed and shown; None draws no curves.
        region: (top, left, height, width) of the part of the picture that the map covers; default all of it.
    """
    drawn = _Drawn(check_picture(picture), values, curves, region)
    sheet = _fill(_Sheet(), summary, drawn)
    if sheet.y < MARGIN:
        sheet = _fill(_Sheet(side=max(LEAST_SIDE, SIDE - (MARGIN - sheet.y))), summary, drawn)
    if sheet.y < MARGIN:
        sheet = _fill(_Sheet(HEIGHT + MARGIN - sheet.y, LEAST_SIDE), summary, drawn)
    return sheet.figure


def _fill(sheet: "_Sheet", summary: ClinicalSummary, drawn: _Drawn) -> "_Sheet":
    _write_head(sheet, summary)
    top = sheet.y
    sheet.column(0, top)
    sheet.heading("Where the evidence lies")
    bottom = sheet.picture(drawn)
    sheet.column(1, top)
    sheet.heading("In words")
    sheet.write(summary.evidence.words, 9.5)
    sheet.rows(_evidence(summary.evidence))
    if summary.evidence.caveat:
        sheet.write(summary.evidence.caveat, 8, color=_QUIET, space=0.06)
    sheet.column(0, min(bottom, sheet.y))
    top = sheet.y
    sheet.heading("Does the answer depend on what the map shows?")
    sheet.rows(_faithfulness(summary.faithfulness))
    if summary.agreement:
        sheet.heading("Agreement with other methods (rank correlation)")
        sheet.rows([(name, _number(value)) for name, value in summary.agreement.items()])
    if drawn.curves is not None:
        sheet.curves(drawn.curves, top)
    sheet.column(0, sheet.y, whole=True)
    sheet.heading("Where this comes from")
    sheet.write(source(summary), 8, color=_QUIET)
    return sheet


def _write_head(sheet: "_Sheet", summary: ClinicalSummary) -> None:
    """The statement, the question, the answer and the reasons for caution."""
    sheet.boxed([summary.statement], 9, edge="#aa1111", bold=True)
    sheet.write(summary.question, 14, bold=True, space=0.1)
    sheet.write(_answered(summary), 11.5, space=0.06)
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
        # Fewer letters are sure to fit on a line if they are bold.
        for line in wrapped(text, (self.width - 2 * indent) * (0.84 if bold else 0.94), points, most=6):
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

    def picture(self, drawn: _Drawn) -> float:
        """Draw the map below; returns the height of its lower edge."""
        height, width = drawn.picture.shape[:2]
        scale = min(_COLUMN / width, self.side / height)
        size = (width * scale, height * scale)
        bottom = self.y - 0.08 - size[1]
        axes = self.figure.add_axes((self.x / WIDTH, bottom / self.height, size[0] / WIDTH, size[1] / self.height))
        draw_map(axes, drawn.picture, drawn.values, region=drawn.region, marks=11)
        self.y = bottom
        self.write("R and L are the patient's sides. Color and opacity grow with the map's value.", 8, color=_QUIET)
        return self.y

    def curves(self, curves: AnswerCurves, top: float) -> None:
        """Draw the curves of the answer's score in the right column, from a height on."""
        x, y = MARGIN + _COLUMN + _GAP + 0.5, top - 0.4 - 2.2
        axes = self.figure.add_axes((x / WIDTH, y / self.height, (_COLUMN - 0.5) / WIDTH, 2.2 / self.height))
        draw_answer_curves(axes, curves)
        self.y = min(self.y, y - 0.45)


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
