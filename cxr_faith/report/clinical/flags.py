"""Reasons to distrust one answer or its map, in words."""

from collections.abc import Mapping

import numpy as np

from cxr_faith.report.clinical.answer import Answer, Faithfulness, ModelCalibration
from cxr_faith.report.clinical.evidence import EMPTY, Evidence

HIGH_ECE = 0.15
"""From this expected calibration error on, `cxr-faith doctor` warns too."""
WIDE_BORDER = 0.3
"""From this share of the map in the border on, the evidence is suspect."""
LOW_AGREEMENT = 0.3
"""Below this mean rank correlation, the methods disagree."""

UNSCORED = {
    "off_format": "the model's answer to a yes/no question is mostly neither",
    "invalid": "the model's scores of this picture are not finite",
}
"""Status without scores → its reason."""

_NO_EVIDENCE = {
    "degenerate": "Removing the whole picture hardly changes this answer, so no map can say what it depends on.",
    "inverted": "Without the picture the model is surer of this answer, so no map can say what it depends on.",
    "flat": "All cells of the map are equal: it says nothing.",
    **{status: f"{reason[0].upper()}{reason[1:]}." for status, reason in UNSCORED.items()},
}
"""Status → why its map is no evidence."""


def no_evidence(scores: Faithfulness | None) -> str | None:
    """Why a map is no evidence for what the answer depends on; None if its status is ok."""
    if scores is None:
        return "The map was not tested: nothing says that the answer depends on what it shows."
    return None if scores.status == "ok" else _NO_EVIDENCE.get(scores.status or "", "The map could not be scored.")


def safety_flags(answer: Answer, evidence: Evidence, agreement: Mapping[str, float | None]) -> list[str]:
    """Reasons to distrust the answer or its map; empty if every check that could be made passed.

    Args:
        answer: with its scores, its paraphrases and the model's calibration.
        evidence: where its map lies.
        agreement: other method → rank correlation of its map with the answer's map.
    """
    return [
        *_border_flags(evidence),
        *_faithfulness_flags(answer.faithfulness),
        *_agreement_flags(agreement),
        *_paraphrase_flags(answer),
        *_calibration_flags(answer.calibration, answer.confidence),
    ]


def _border_flags(evidence: Evidence) -> list[str]:
    if evidence == EMPTY:
        return ["The map is empty."]
    if evidence.border is None:
        return []
    if evidence.border > WIDE_BORDER:
        return [f"Border evidence: {evidence.border:.0%} of the map lies in the outer 5% of the picture."]
    return []


def _faithfulness_flags(scores: Faithfulness | None) -> list[str]:
    if scores is None:
        return ["The map was not tested for faithfulness."]
    if scores.status == "inverted":
        return ["Inverted effect: without the picture's detail the model is surer of its answer."]
    if scores.status == "flat":
        return ["The map says nothing: all of its cells are equal."]
    if scores.status in UNSCORED:
        return [f"Not scored ({scores.status}): {UNSCORED[scores.status]}."]
    if scores.status != "ok":
        return [f"Low effect ({scores.status}): the answer hardly depends on the picture's detail."]
    if scores.random_p is None or scores.random_p > 0.1:
        return ["Not better than random: removing this map's cells changes the answer no faster than any cells."]
    return []


def _agreement_flags(agreement: Mapping[str, float | None]) -> list[str]:
    known = [value for value in agreement.values() if value is not None]
    if known and np.mean(known) < LOW_AGREEMENT:
        return [f"Disagreement: mean rank correlation with the other methods' maps is {np.mean(known):.2f}."]
    return []


def _paraphrase_flags(answer: Answer) -> list[str]:
    flips = sum(other.casefold() != answer.answer.casefold() for other in answer.paraphrases)
    if not flips:
        return []
    return [f"Paraphrase flips: {flips} of {len(answer.paraphrases)} other wordings get another answer."]


def _calibration_flags(calibration: ModelCalibration | None, confidence: float | None) -> list[str]:
    if confidence is None:
        return ["No confidence: calibration is known for yes/no answers only."]
    if calibration is None:
        return ["Calibration unknown: the probability was never compared with how often such answers are right."]
    flags, (low, high) = [], calibration.confidence_range
    if not low <= confidence <= high:
        flags.append(f"Out of calibration: the confidence {confidence:.2f} lies outside of {low:.2f} to {high:.2f}.")
    if calibration.ece >= HIGH_ECE:
        flags.append(f"Poorly calibrated: such probabilities are off by {calibration.ece:.2f} on average (ECE).")
    return flags
