"""The specification of one phantom picture: pose, anatomy, exposure and lesions."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Lesion:
    """One lesion, in body coordinates (units of the picture's side).

    Attributes:
        finding: Name of the finding.
        side: The patient's side, right or left; None for the heart.
        zone: upper, middle or lower for nodule and consolidation.
        cx: Center, x.
        cy: Center, y; for an effusion the y of its level.
        r: Radius; for a pneumothorax the width of the gap.
        tilt: Aspect ratio; for a pneumothorax how much the gap widens downwards.
        phase: Shape of an irregular outline.
        contrast: Density that it adds.
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
        image_id: Name of the picture.
        patient_id: Name of the patient; a patient's pictures share their anatomy.
        study_id: Name of the study.
        seed: Seed of the data set.
        lesions: At most one per finding and side.
        dx: Shift to the right, as a share of the width.
        dy: Shift down, as a share of the height.
        scale: Size of the body.
        angle: Rotation in radians.
        lung_width: Lateral reach of the lungs.
        diaphragm: y of the diaphragm.
        heart_size: Long semi-axis of the heart.
        heart_shift: Shift of the heart towards the patient's left.
        gamma: Exposure curve.
        gain: Exposure gain.
        grain: Standard deviation of the grain; white is 1.
        marker: Letter of the side marker, or an empty string.
        marker_at: Left and top of the marker, in [0, 1].
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
