"""What a clinical summary is made from: one answer, its map, and what was measured about them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Self

import numpy as np

from cxr_faith.data.orientation import USUAL_SIDES, Sides
from cxr_faith.report.figures import Map


@dataclass(frozen=True)
class Faithfulness:
    """The scores of one map, named as the columns of the records; a number that does not exist is None."""

    status: str | None
    """ok, degenerate, inverted, off_format or invalid."""
    substrate: str | None
    """What replaces removed cells, e.g. "blur:0.1"."""
    deletion_auc: float | None
    """Area under the normalized deletion curve; lower is better."""
    insertion_auc: float | None
    """Area under the normalized insertion curve; higher is better."""
    srg: float | None
    """`insertion_auc - deletion_auc`; random orders have 0."""
    random_z: float | None
    """`srg` in standard deviations of the same picture's random orders."""
    random_p: float | None
    """p of the map being no better than random orders."""
    effect: float | None
    """Score of the picture minus that of the substrate alone, in logits."""
    gap_srg_center: float | None
    """`srg` minus that of the center baseline."""

    @classmethod
    def from_record(cls, columns: Mapping[str, Any]) -> Self:
        """The scores among the columns of a record; a column that is missing or not finite gives None."""
        values = {one.name: columns.get(one.name) for one in fields(cls)}
        finite = {
            name: None if isinstance(value, float) and not np.isfinite(value) else value
            for name, value in values.items()
        }
        return cls(**finite)


@dataclass(frozen=True)
class ModelCalibration:
    """How often the model's yes/no answers on a named data set are right, and how sure it is of them."""

    dataset: str
    """Name of the data set."""
    n: int
    """Answers with a reference."""
    accuracy: float
    """Share of them that is right."""
    ece: float
    """Expected calibration error, 15 bins."""
    confidence_range: tuple[float, float]
    """Lowest and highest probability that the model gave to its own answers there."""


@dataclass(frozen=True)
class PictureFile:
    """Which picture was asked about."""

    name: str
    """The file's name, without its folder."""
    sha256: str
    """SHA-256 of the file."""
    sop_instance: str | None
    """SOP Instance UID of a DICOM picture."""
    study_date: str | None
    """Date of the study as its header states it; None unless it was asked for."""


@dataclass(frozen=True)
class Answer:
    """What the model said about one picture, and what was measured about it."""

    question: str
    """The question as it was asked."""
    answer: str
    """The model's answer."""
    p_yes: float | None
    """The model's probability of yes; None for questions of another kind."""
    map: Map
    """The attribution map, [grid_h, grid_w]; larger is more important."""
    method: str
    """The method that made the map."""
    model: Mapping[str, str | int | None]
    """Source, hash of the weights and number of parameters of the model, as read from it."""
    faithfulness: Faithfulness | None = None
    """Scores of the map; None if it was not tested."""
    verdict: str | None = None
    """Whether to believe the map, as a sentence; None if too little was measured to say."""
    others: Mapping[str, Map] = field(default_factory=dict)
    """Other method → its map of the same answer, for agreement."""
    masks: Mapping[str, Map] = field(default_factory=dict)
    """Organ → share of each cell that it covers, [grid_h, grid_w]."""
    calibration: ModelCalibration | None = None
    """Calibration of the same model; None if unknown."""
    paraphrases: Sequence[str] = ()
    """Answers to other wordings of the question; empty if none was asked."""
    picture: PictureFile | None = None
    """The picture's file; None for a picture that is none."""
    sides: Sides = USUAL_SIDES
    """The patient's sides at the picture's left and right edges; empty texts where they are not known."""
    cautions: Sequence[str] = ()
    """Reasons for distrust that are known beforehand, such as what the model was trained on."""

    @property
    def confidence(self) -> float | None:
        """The model's probability of the answer given, for yes/no questions."""
        return None if self.p_yes is None else max(self.p_yes, 1 - self.p_yes)
