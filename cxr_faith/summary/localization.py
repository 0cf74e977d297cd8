"""Do the maps lie on the finding, and are the more faithful maps also the better placed ones?"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class LocalizationScores:
    """One number for each localization score (`metrics.localization`); None where there is none."""

    pointing_game: float | None
    """Share of the map's maxima that lie on the finding."""
    energy_inside: float | None
    """Share of the map's positive mass that lies on the finding."""
    iou_otsu: float | None
    """Intersection over union of the finding and the pixels above Otsu's threshold."""
    iou_top_10: float | None
    """Intersection over union of the finding and the top tenth of the cells."""
    auprc: float | None
    """Average precision of the map's pixels."""

    def value(self, name: str) -> float | None:
        """A score by its name, one of `metrics.localization.LOCALIZATION_COLUMNS`."""
        score: float | None = getattr(self, name)
        return score


@dataclass(frozen=True)
class SrgCorrelation(LocalizationScores):
    """Spearman's correlation over samples between one method's `srg` and each of its localization scores."""

    n: int
    """Samples with both numbers."""


@dataclass(frozen=True)
class Localization(LocalizationScores):
    """Mean localization scores of one method."""

    method: str
    """Name of the method."""
    n: int
    """Samples with a localization score."""
    srg_located: float | None
    """Mean `srg` of the samples that have a localization score and are ok under the first substrate."""
    with_srg: Mapping[str, SrgCorrelation]
    """Substrate → correlation of `srg` with each score."""


@dataclass(frozen=True)
class LocalizationAcross(LocalizationScores):
    """Spearman's correlation over methods between the mean `srg` and each mean score; controls are left out."""

    n_methods: int
    """Methods in the correlation."""
