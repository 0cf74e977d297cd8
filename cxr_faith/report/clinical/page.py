"""The clinical summary of one answer as a self-contained HTML page that prints on one sheet."""

import base64
import io

from markupsafe import Markup

from cxr_faith.report.charts import AnswerCurves, answer_curves
from cxr_faith.report.clinical.phrases import calibrated, source, wordings
from cxr_faith.report.clinical.summary import ClinicalSummary
from cxr_faith.report.figures import Map, Pixels, Region, overlay, svg
from cxr_faith.report.formats import whole_percent
from cxr_faith.report.templates import templates


def clinical_page(
    summary: ClinicalSummary,
    picture: Pixels,
    values: Map,
    curves: AnswerCurves | None = None,
    region: Region | None = None,
) -> str:
    """The page's HTML.

    Args:
        summary: as `clinical_summary` gives it.
        picture: [H, W] or [H, W, 3].
        values: the map, [grid_h, grid_w].
        curves: the answer's score while cells are removed and shown; None draws no curves.
        region: (top, left, height, width) of the part of the picture that the map covers; default all of it.
    """
    buffer = io.BytesIO()
    overlay(picture, values, region=region).savefig(buffer, format="png", dpi=110)
    page = templates().get_template("page_clinical.html.j2")
    return page.render(
        s=summary,
        picture=base64.b64encode(buffer.getvalue()).decode("ascii"),
        # The markup is matplotlib's and holds no name from outside.
        curves=None if curves is None else Markup(svg(answer_curves(curves))),
        percent=whole_percent,
        calibrated=calibrated(summary),
        wordings=wordings(summary),
        source=source(summary),
    )
