"""Mean curves of one method in one slice, and their confidence bands."""

from dataclasses import dataclass

from cxr_faith.summary.result import Result


@dataclass(frozen=True)
class Bands(Result):
    """95 % percentile bootstrap intervals of the mean curves, point by point, over patients."""

    deletion_low: tuple[float, ...]
    """Lower end at each point of the deletion curve."""
    deletion_high: tuple[float, ...]
    """Upper end at each point of the deletion curve."""
    insertion_low: tuple[float, ...]
    """Lower end at each point of the insertion curve."""
    insertion_high: tuple[float, ...]
    """Upper end at each point of the insertion curve."""


@dataclass(frozen=True)
class Curves(Result):
    """Mean normalized curves, weighted by the effect: 1 is the score of the image, 0 that of the substrate."""

    n: int
    """Samples in the means: the common samples of the board that have a row of this method."""
    x: tuple[float, ...]
    """Share of the cells that are replaced (deletion) or restored (insertion), from 0 to 1."""
    deletion: tuple[float, ...]
    """Mean deletion curve at each `x`."""
    insertion: tuple[float, ...]
    """Mean insertion curve at each `x`."""
    bands: Bands | None = None
    """Confidence bands, where they were asked for (`bands.with_bands`); `summary.json` has none."""
