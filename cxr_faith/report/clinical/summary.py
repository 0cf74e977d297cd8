"""The clinical summary of one answer: what was said, where the evidence lies, and how far to trust the map.

`clinical.schema.json` in `cxr_faith/report` describes its JSON.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import spearmanr

from cxr_faith.report.clinical.answer import Answer, Faithfulness, ModelCalibration, PictureFile
from cxr_faith.report.clinical.evidence import Evidence, evidence_of, nothing_to_show
from cxr_faith.report.clinical.flags import no_evidence, safety_flags
from cxr_faith.report.formats import without_folder
from cxr_faith.summary.codec import to_json

SCHEMA_VERSION = 1
"""Version of the JSON; it rises whenever a field changes its meaning or goes."""
STATEMENT = (
    "Research output. Not a medical device, not for diagnosis or treatment. The map shows what this model's answer "
    "depends on, not what is wrong with the patient."
)


@dataclass(frozen=True)
class ClinicalSummary:
    """The content of the clinical page."""

    statement: str
    """That this is research output; shown with everything else."""
    picture: PictureFile | None
    """The picture's file; None if it was not given as one."""
    question: str
    """The question as it was asked."""
    answer: str
    """The model's answer."""
    confidence: float | None
    """Probability of the answer given, for yes/no questions."""
    p_yes: float | None
    """Probability of yes, for yes/no questions."""
    calibration: ModelCalibration | None
    """Calibration of the same model on a named data set; None if unknown."""
    method: str
    """The method that made the map."""
    no_evidence: str | None
    """Why the map is no evidence; None if its status is ok."""
    evidence: Evidence
    """Where the map lies; without numbers if it is no evidence."""
    agreement: Mapping[str, float | None]
    """Other method → Spearman correlation of its map with this one; None if either map is constant."""
    faithfulness: Faithfulness | None
    """Scores of this map; None if it was not tested."""
    verdict: str | None
    """Whether to believe the map, as a sentence; None if too little was measured to say."""
    paraphrases: tuple[str, ...]
    """Answers to other wordings of the question."""
    model: Mapping[str, str | int | None]
    """Source, hash of the weights and number of parameters, as read from the model; of a folder only its name."""
    flags: tuple[str, ...]
    """Reasons to distrust the answer or its map; empty if no check failed."""

    def to_dict(self) -> dict[str, Any]:
        """The content of the JSON file."""
        values: dict[str, Any] = to_json(self)
        return {"schema_version": SCHEMA_VERSION, **values}


def clinical_summary(answer: Answer) -> ClinicalSummary:
    """The content of the page about one answer.

    Raises:
        ValueError: the map is not [grid_h, grid_w] or not finite.
    """
    values = np.asarray(answer.map, np.float64)
    if values.ndim != 2 or not np.isfinite(values).all():
        raise ValueError(f"a map is [grid_h, grid_w] and finite; got shape {list(values.shape)}")
    reason = no_evidence(answer.faithfulness)
    evidence = evidence_of(values, answer.masks, answer.sides) if reason is None else nothing_to_show(reason)
    agreement = {name: _correlation(values, np.asarray(other, np.float64)) for name, other in answer.others.items()}
    return ClinicalSummary(
        statement=STATEMENT,
        picture=answer.picture,
        question=answer.question,
        answer=answer.answer,
        confidence=answer.confidence,
        p_yes=answer.p_yes,
        calibration=answer.calibration,
        method=answer.method,
        no_evidence=reason,
        evidence=evidence,
        agreement=agreement,
        faithfulness=answer.faithfulness,
        verdict=answer.verdict,
        paraphrases=tuple(answer.paraphrases),
        model={n: without_folder(value) if isinstance(value, str) else value for n, value in answer.model.items()},
        flags=(*answer.cautions, *safety_flags(answer, evidence, agreement)),
    )


def _correlation(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> float | None:
    if one.shape != other.shape or np.ptp(one) == 0 or np.ptp(other) == 0:
        return None
    return float(spearmanr(one.ravel(), other.ravel()).statistic)
