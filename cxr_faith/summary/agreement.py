"""Do the methods' maps agree with each other?"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Agreement:
    """How alike the maps of two methods are, on average over the samples that both have."""

    a: str
    """The method that is listed first."""
    b: str
    """The method that is listed later."""
    n: int
    """Samples with a map of both, at most `AGREEMENT_SAMPLES`."""
    spearman: float | None
    """Spearman's rank correlation of the cells."""
    ssim: float | None
    """Structural similarity of the maps."""
    top_overlap: float | None
    """Overlap of the top tenths of the cells."""
