"""The specification of one phantom picture: pose, anatomy, exposure and lesions."""

from __future__ import annotations

from dataclasses import dataclass

HEART_NORMAL, HEART_LARGE = (0.115, 0.145), (0.19, 0.225)
"""Smallest and largest `heart_size` without and with cardiomegaly."""


@dataclass(frozen=True)
class Lesion:
    """One lesion, in body coordinates (units of the picture's side).

    Attributes:
        finding: name of the finding.
        side: the patient's side, right or left; None for the heart.
        zone: upper, middle or lower for nodule and consolidation.
        cx: center, x.
        cy: center, y; for an effusion the y of its level.
        r: radius; for a pneumothorax the width of the gap.
        tilt: aspect ratio; for a pneumothorax how much the gap widens downwards.
        phase: shape of an irregular outline.
        contrast: density that it adds.
    """

    finding: str
    side: str | None = None
    zone: str | None = None
    cx: float = 0.0
    cy: float = 0.0
    r: float = 0.0
    tilt: float = 1.0
    phase: float = 0.0
    contrast: float = 0.3


@dataclass(frozen=True)
class Phantom:
    """Everything that determines one picture.

    Attributes:
        image_id: name of the picture.
        patient_id: name of the patient; a patient's pictures share their anatomy.
        study_id: name of the study.
        seed: seed of the data set.
        lesions: at most one per finding and side.
        dx: shift to the right, as a share of the width.
        dy: shift down, as a share of the height.
        scale: size of the body.
        angle: rotation in radians.
        lung_width: lateral reach of the lungs.
        diaphragm: y of the diaphragm.
        heart_size: long semi-axis of the heart.
        heart_shift: shift of the heart towards the patient's left.
        gamma: exposure curve.
        gain: exposure gain.
        grain: standard deviation of the grain; white is 1.
        marker: letter of the side marker, or an empty string.
        marker_at: left and top of the marker, in [0, 1].
    """

    image_id: str
    patient_id: str
    study_id: str
    seed: int
    lesions: tuple[Lesion, ...]
    dx: float
    dy: float
    scale: float
    angle: float
    lung_width: float
    diaphragm: float
    heart_size: float
    heart_shift: float
    gamma: float
    gain: float
    grain: float
    marker: str
    marker_at: tuple[float, float]

    @property
    def visible(self) -> dict[tuple[str, str | None], bool | None]:
        """Visibility of each lesion on the intact picture: all are visible."""
        return {(lesion.finding, lesion.side): True for lesion in self.lesions}

    @property
    def zones(self) -> dict[tuple[str, str | None], str | None]:
        """Zone of each lesion."""
        return {(lesion.finding, lesion.side): lesion.zone for lesion in self.lesions}
