"""The clinical summary of one answer as a self-contained HTML page that prints on one sheet."""

import base64
import io

from markupsafe import Markup
from PIL import Image

from cxr_faith.data.orientation import USUAL_SIDES, Sides
from cxr_faith.report.charts import AnswerCurves, answer_curves
from cxr_faith.report.clinical.phrases import calibrated, picture_file, source, verdict, wordings
from cxr_faith.report.clinical.summary import ClinicalSummary
from cxr_faith.report.figures import Map, Pixels, Region, check_picture, overlay, svg
from cxr_faith.report.formats import whole_percent
from cxr_faith.report.templates import templates

_SIDE = 640
"""Longest side of the plain picture, in pixels."""


def clinical_page(
    summary: ClinicalSummary,
    picture: Pixels,
    values: Map,
    curves: AnswerCurves | None = None,
    region: Region | None = None,
    sides: Sides = USUAL_SIDES,
) -> str:
    """The page's HTML.

    Args:
        summary: as `clinical_summary` gives it.
        picture: [H, W] or [H, W, 3].
        values: the map, [grid_h, grid_w].
        curves: the answer's score while cells are removed and shown; None draws no curves.
        region: (top, left, height, width) of the part of the picture that the map covers; default all of it.
        sides: of the patient, at the picture's left and right edges; empty texts where they are not known.
    """
    buffer, alone = io.BytesIO(), Image.fromarray(check_picture(picture))
    figure = overlay(picture, values, region=region, gray=summary.no_evidence is not None, sides=sides)
    figure.savefig(buffer, format="png", dpi=110)
    alone.thumbnail((_SIDE, _SIDE))
    page = templates().get_template("page_clinical.html.j2")
    return page.render(
        s=summary,
        overlaid=_base64(buffer),
        alone=_base64(_png(alone)),
        sides=sides,
        file=picture_file(summary),
        # The markup is matplotlib's and holds no name from outside.
        curves=None if curves is None else Markup(svg(answer_curves(curves))),
        percent=whole_percent,
        calibrated=calibrated(summary),
        wordings=wordings(summary),
        verdict=verdict(summary),
        source=source(summary),
    )


def _png(picture: Image.Image) -> io.BytesIO:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer


def _base64(buffer: io.BytesIO) -> str:
    return base64.b64encode(buffer.getvalue()).decode("ascii")
