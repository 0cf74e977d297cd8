"""The clinical summary of one answer as a figure of one A4 sheet, for PDF: the same content as its HTML page."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from cxr_faith.records import write_atomic
from cxr_faith.report.charts import draw_answer_curves
from cxr_faith.report.clinical import percent, source_of, wordings_of
from cxr_faith.report.figures import Map, Pixels, Region, check_picture, draw_map, wrapped

WIDTH, HEIGHT, MARGIN = 8.27, 11.69, 0.6  # inches
SIDE, LEAST_SIDE = 3.3, 1.8
"""Inches that the picture may be high, and that it keeps however much there is to say."""
_COLUMN, _GAP = 3.4, 0.27
_INK, _QUIET = "#1c2430", "#55606e"


def clinical_sheet(
    summary: Mapping[str, Any],
    picture: Pixels,
    values: Map,
    curves: Mapping[str, Any] | None = None,
    region: Region | None = None,
) -> Figure:
    """Draw a clinical summary on one A4 sheet.

    Where there is much to say the picture becomes smaller, and then the sheet longer: nothing is cut off.

    Args:
        summary: as `clinical_summary` gives it.
        picture: [H, W] or [H, W, 3].
        values: the map, [grid_h, grid_w].
        curves: `x`, `deletion`, `insertion` in units of the score; None draws no curves.
        region: (top, left, height, width) of the part of the picture that the map covers; default all of it.
    """
    drawn = (summary, check_picture(picture), values, curves, region)
    sheet = _fill(_Sheet(), *drawn)
    if sheet.y < MARGIN:
        sheet = _fill(_Sheet(side=max(LEAST_SIDE, SIDE - (MARGIN - sheet.y))), *drawn)
    if sheet.y < MARGIN:
        sheet = _fill(_Sheet(HEIGHT + MARGIN - sheet.y, LEAST_SIDE), *drawn)
    return sheet.figure


def _fill(
    sheet: "_Sheet",
    summary: Mapping[str, Any],
    picture: Pixels,
    values: Map,
    curves: Mapping[str, Any] | None,
    region: Region | None,
) -> "_Sheet":
    sheet.boxed([summary["statement"]], 9, edge="#aa1111", bold=True)
    sheet.write(summary["question"], 14, bold=True, space=0.1)
    sheet.write(_answered(summary), 11.5, space=0.06)
    sheet.write(_calibrated(summary), 8.5, color=_QUIET)
    sheet.write(wordings_of(summary), 8.5, color=_QUIET)
    if summary["flags"]:
        lines = [f"• {flag}" for flag in summary["flags"]]
        sheet.boxed(["Reasons for caution", *lines], 9, face="#fff6e6", space=0.12)
    top = sheet.y
    sheet.column(0, top)
    sheet.heading("Where the evidence lies")
    bottom = sheet.picture(picture, values, region)
    sheet.column(1, top)
    sheet.heading("In words")
    sheet.write(summary["evidence"]["words"], 9.5)
    sheet.rows(_evidence(summary["evidence"]))
    if summary["evidence"]["caveat"]:
        sheet.write(summary["evidence"]["caveat"], 8, color=_QUIET, space=0.06)
    sheet.column(0, min(bottom, sheet.y))
    top = sheet.y
    sheet.heading("Does the answer depend on what the map shows?")
    sheet.rows(_faithfulness(summary["faithfulness"]))
    if summary["agreement"]:
        sheet.heading("Agreement with other methods (rank correlation)")
        sheet.rows([(name, _number(value)) for name, value in summary["agreement"].items()])
    if curves is not None:
        sheet.curves(curves, top)
    sheet.column(0, sheet.y, whole=True)
    sheet.heading("Where this comes from")
    sheet.write(source_of(summary), 8, color=_QUIET)
    return sheet


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
        """Go on in a column, or over the whole width, at a height."""
        self.x, self.y = MARGIN + number * (_COLUMN + _GAP), y
        self.width = WIDTH - 2 * MARGIN if whole else _COLUMN

    def heading(self, text: str) -> None:
        self.write(text, 10.5, bold=True, space=0.16)

    def write(
        self, text: str, points: float, bold: bool = False, color: str = _INK, space: float = 0.03, indent: float = 0
    ) -> None:
        """Write a paragraph of at most six lines."""
        self.y -= space
        # Bold letters are wider; so many letters fit on a line for certain.
        for line in wrapped(text, (self.width - 2 * indent) * (0.84 if bold else 0.94), points, most=6):
            self.y -= points * 1.3 / 72
            self.figure.text((self.x + indent) / WIDTH, self.y / self.height, line, fontsize=points, color=color,
                             fontweight="bold" if bold else "normal", parse_math=False)  # fmt: skip

    def boxed(
        self, texts: Sequence[str], points: float, bold: bool = False, face: str = "white", edge: str = "#b35900",
        space: float = 0.0,
    ) -> None:  # fmt: skip
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
                self.figure.text(x, y, text, fontsize=9, ha=side, color=_INK, parse_math=False)

    def picture(self, picture: Pixels, values: Map, region: Region | None) -> float:
        """Draw the map below; returns the height of its lower edge."""
        height, width = picture.shape[:2]
        scale = min(_COLUMN / width, self.side / height)
        size = (width * scale, height * scale)
        bottom = self.y - 0.08 - size[1]
        axes = self.figure.add_axes((self.x / WIDTH, bottom / self.height, size[0] / WIDTH, size[1] / self.height))
        draw_map(axes, picture, values, region=region, marks=11)
        self.y = bottom
        self.write("R and L are the patient's sides. Color and opacity grow with the map's value.", 8, color=_QUIET)
        return self.y

    def curves(self, curves: Mapping[str, Any], top: float) -> None:
        """Draw the score while cells are removed and while they are shown, in the right column."""
        x, y = MARGIN + _COLUMN + _GAP + 0.5, top - 0.4 - 2.2
        axes = self.figure.add_axes((x / WIDTH, y / self.height, (_COLUMN - 0.5) / WIDTH, 2.2 / self.height))
        draw_answer_curves(axes, curves)
        self.y = min(self.y, y - 0.45)


def _answered(summary: Mapping[str, Any]) -> str:
    sure = summary["confidence"]
    text = str(summary["answer"])
    return text if sure is None else f"{text} · the model's own probability of this answer {percent(sure)}"


def _calibrated(summary: Mapping[str, Any]) -> str:
    known = summary["calibration"]
    if known:
        return (
            f"On {known['dataset']} ({known['n']} answers) {percent(known['accuracy'])} of its answers were right; "
            f"expected calibration error {known['ece']:.2f}."
        )
    if summary["confidence"] is None:
        return ""
    return "This probability was not compared with how often such answers are right."


def _evidence(evidence: Mapping[str, Any]) -> list[tuple[str, str]]:
    if evidence["organs"] is None:
        return []
    shares = {f"{name} third": share for name, share in evidence["thirds"].items()}
    shares |= {**evidence["organs"], "outer 5% of the picture": evidence["border"]}
    return [(name, percent(share)) for name, share in shares.items()]


def _faithfulness(found: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    if found is None:
        return [("not tested", "")]
    return [
        ("status", f"{found['status']} under {found['substrate']}"),
        ("effect of the whole picture", _number(found["effect"], "+.2f")),
        ("srg: insertion minus deletion, 0 = random", _number(found["srg"], "+.2f")),
        ("standard deviations above random orders", _number(found["random_z"], "+.1f")),
        ("p against random orders", _number(found["random_p"], ".3f")),
        ("gap to “nearest to the center first”", _number(found["gap_srg_center"], "+.2f")),
    ]


def _number(value: float | None, form: str = ".2f") -> str:
    return "–" if value is None else format(value, form)
