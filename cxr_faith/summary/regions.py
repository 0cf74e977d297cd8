"""Where the maps lie: regions of the chest, the border of the image, organs."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class RegionValues:
    """One number for each region (the patient's sides) and the border; None without a map."""

    right_upper: float | None
    """The patient's right side, upper third of the image."""
    right_middle: float | None
    """The patient's right side, middle third."""
    right_lower: float | None
    """The patient's right side, lower third."""
    left_upper: float | None
    """The patient's left side, upper third of the image."""
    left_middle: float | None
    """The patient's left side, middle third."""
    left_lower: float | None
    """The patient's left side, lower third."""
    border: float | None
    """Within 5 % of a side of the image; overlaps the regions."""

    def value(self, name: str) -> float | None:
        """The number of a region by its name, one of `metrics.regions.REGIONS` or "border"."""
        number: float | None = getattr(self, name)
        return number


@dataclass(frozen=True)
class Organ:
    """How much of the maps lies on one organ, on average over the samples with a mask of it."""

    n: int
    """Maps of samples with a mask of the organ."""
    share: float | None
    """Mean share of the map's positive mass."""
    enrichment: float | None
    """Mean of mass share over area share; 1 is an even map."""


@dataclass(frozen=True)
class Regions(RegionValues):
    """Where the maps of one method lie: the mean share of their positive mass in each region."""

    method: str
    """Name of the method."""
    n: int
    """Maps with a positive value."""
    enrichment: RegionValues
    """Mean of mass share over area share; 1 is an even map."""
    organs: Mapping[str, Organ]
    """Organ → how much of the maps lies on it; empty without organ masks."""
