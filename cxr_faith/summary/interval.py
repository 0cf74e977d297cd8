"""A mean with its confidence interval and its test; patients are what is resampled."""

from dataclasses import dataclass, field

from cxr_faith.summary.result import Result


@dataclass(frozen=True)
class Interval(Result):
    """A mean over samples, its 95 % intervals over patients and its tests (`metrics.statistics`).

    A number that does not exist, such as the ends of an interval over fewer than ten patients, is None.
    """

    mean: float | None
    """Mean over the samples that have a value; weighted by the effect where the values are in units of it."""
    n: int
    """Samples with a value."""
    clusters: int
    """Patients with a value; an image without a patient counts as one."""
    t_low: float | None = field(default=None, kw_only=True)
    """Lower end of the bootstrap-t interval (Efron 1981), studentized by the jackknife."""
    t_high: float | None = field(default=None, kw_only=True)
    """Upper end of the bootstrap-t interval."""
    low: float | None
    """Lower end of the percentile bootstrap interval."""
    high: float | None
    """Upper end of the percentile bootstrap interval."""
    bca_low: float | None
    """Lower end of the bias-corrected and accelerated interval (Efron 1987)."""
    bca_high: float | None
    """Upper end of the bias-corrected and accelerated interval."""
    p: float | None
    """Two-sided p that the mean is 0, from the bootstrap-t under that hypothesis; under ten patients by sign flips."""
    p_sign_flip: float | None = field(default=None, kw_only=True)
    """The same by sign flips of whole patients, which assume a symmetric distribution."""
    d_z: float | None
    """Effect size: mean of the patients' means over their standard deviation."""
    p_holm: float | None
    """`p` after Holm's correction over the methods of the board, or over its pairs of methods."""

    @property
    def ends(self) -> tuple[float, float] | None:
        """The interval to show: bootstrap-t where it exists, else BCa, else percentile; None where there is none."""
        for low, high in ((self.t_low, self.t_high), (self.bca_low, self.bca_high), (self.low, self.high)):
            if low is not None and high is not None:
                return low, high
        return None


@dataclass(frozen=True)
class Difference(Interval):
    """The mean difference `a - b` of two methods in the board's headline, over the samples that both have."""

    mean: float
    """Mean of a's value minus b's."""
    p: float
    """Two-sided p that the mean difference is 0."""
    p_holm: float
    """`p` after Holm's correction over all pairs of methods of the board."""
    a: str
    """The method that is listed first."""
    b: str
    """The method that is listed later."""
