"""Sentences that the clinical page and the clinical sheet share."""

import re

from cxr_faith.data.orientation import UNKNOWN_SIDES, Sides
from cxr_faith.report.clinical.summary import SCHEMA_VERSION, ClinicalSummary
from cxr_faith.report.formats import whole_percent


def calibrated(summary: ClinicalSummary) -> str:
    """What is known about the model's probabilities; empty for an answer without one."""
    known = summary.calibration
    if known is not None:
        return (
            f"On {known.dataset} ({known.n} answers) {whole_percent(known.accuracy)} of its answers were right; "
            f"expected calibration error {known.ece:.2f}."
        )
    if summary.confidence is None:
        return ""
    return "This probability was not compared with how often such answers are right."


def wordings(summary: ClinicalSummary) -> str:
    """How many other wordings of the question get the same answer; empty if none was asked."""
    others = summary.paraphrases
    same = sum(other.casefold() == summary.answer.casefold() for other in others)
    return f"{same} of {len(others)} other wordings of the question get the same answer." if others else ""


def verdict(summary: ClinicalSummary) -> str:
    """Whether to believe the map, without the numbers, which stand in a table; empty if nothing can be said."""
    return "" if summary.verdict is None else f"Verdict on the map · {re.sub(r' [(][^)]*[)]', '', summary.verdict)}"


def picture_file(summary: ClinicalSummary) -> str:
    """Which picture was asked about, as one line; empty if it was not given as a file."""
    file = summary.picture
    if file is None:
        return ""
    names = {"picture": file.name, "SHA-256": file.sha256, "SOP instance": file.sop_instance, "study": file.study_date}
    return " · ".join(f"{name}: {value}" for name, value in names.items() if value)


def marked(sides: Sides) -> str:
    """What the marks on the map are, or why there are none."""
    if sides == UNKNOWN_SIDES:
        return "A lateral or turned picture: no sides are marked."
    return "R and L on the map are the patient's sides."


def source(summary: ClinicalSummary) -> str:
    """Method, model and schema as one line."""
    names = {"method": summary.method, **summary.model, "schema version": SCHEMA_VERSION}
    shown = {
        name: f"{value:,}" if name == "parameters" and value is not None else value for name, value in names.items()
    }
    return " · ".join(f"{name.replace('_', ' ')}: {value}" for name, value in shown.items() if value not in ("", None))
