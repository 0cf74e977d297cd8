"""One row of a board: what one method reached on one slice of the samples."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from cxr_faith.summary.curves import Curves
from cxr_faith.summary.interval import Interval
from cxr_faith.summary.result import Result

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class BoardRow(Result):
    """Means of one method over one slice, named as the columns of the records; a mean of nothing is None.

    Means are taken over the common samples: those that are ok for every method that has a row for them; flat maps count
    with the scores of random orders. Means in units of the effect (areas, `srg`, drops, gaps) are weighted by the
    effect, Σ effect · value / Σ effect; `plain_means` and `medians` stand beside them. `*_scored` are taken over the
    scored samples: those that every such method could score, whatever their effect.
    """

    method: str
    """Name of the method, baseline or control."""
    own_substrate: bool
    """Whether the method perturbs with this substrate itself: compare it under another one."""
    n: int
    """Rows of the method in the slice."""
    n_ok: int
    """Rows whose status is ok."""
    coverage: float
    """Share of the rows that have normalized scores: status ok or flat."""
    n_common: int
    """Common samples that the method has."""
    n_scored: int
    """Scored samples that the method has."""
    n_clusters: int
    """Patients behind the mean that ranks the board."""
    status: Mapping[str, int]
    """Number of rows with each status: ok, degenerate, inverted, off_format, invalid, flat."""
    deletion_auc: float | None
    """Area under the normalized deletion curve; lower is better."""
    insertion_auc: float | None
    """Area under the normalized insertion curve; higher is better."""
    srg: float | None
    """Symmetric relevance gain: `insertion_auc - deletion_auc`; random orders have 0."""
    drop_10: float | None
    """Share of the effect that is lost when the first 10 % of the cells are replaced."""
    drop_20: float | None
    """Share of the effect that is lost when the first 20 % of the cells are replaced."""
    drop_50: float | None
    """Share of the effect that is lost when the first half of the cells is replaced."""
    retained_50: float | None
    """Share of the effect that remains when the first half of the cells is replaced."""
    gap_deletion_random: float | None
    """`deletion_auc` of random orders minus the method's; positive is better than random."""
    gap_insertion_random: float | None
    """The method's `insertion_auc` minus that of random orders."""
    gap_srg_random: float | None
    """The method's `srg` minus that of random orders."""
    gap_deletion_center: float | None
    """`deletion_auc` of the center baseline minus the method's; positive is better than center."""
    gap_insertion_center: float | None
    """The method's `insertion_auc` minus that of the center baseline."""
    gap_srg_center: float | None
    """The method's `srg` minus that of the center baseline."""
    random_z: float | None
    """`srg` in standard deviations of the same image's random orders."""
    flip_deletion: float | None
    """Share of cells replaced when the answer first flips, where the substrate flips it."""
    flip_insertion: float | None
    """Share of cells restored when the answer first stands, where the substrate flips it."""
    clipped_share: float | None
    """Share of the points of both normalized curves that lie outside 0 to 1."""
    monotonicity_violations: float | None
    """Share of the steps that move the wrong way by more than 1 % of the effect."""
    tie_share: float | None
    """Share of the cells whose map value another cell has too."""
    substrate_flips: float | None
    """Share of the samples whose answer the substrate alone flips."""
    deletion_auc_logit: float | None
    """`deletion_auc` in the unit of the scores (logits)."""
    insertion_auc_logit: float | None
    """`insertion_auc` in the unit of the scores."""
    srg_logit: float | None
    """`srg` in the unit of the scores."""
    srg_ratio_of_sums: float | None
    """Sum of `srg_logit` over the sum of the effects; the same as `srg`."""
    deletion_auc_logit_scored: float | None
    """`deletion_auc_logit` over the scored samples."""
    insertion_auc_logit_scored: float | None
    """`insertion_auc_logit` over the scored samples."""
    srg_logit_scored: float | None
    """`srg_logit` over the scored samples."""
    gap_deletion_random_se: float | None
    """Standard error of `gap_deletion_random` over patients."""
    gap_insertion_random_se: float | None
    """Standard error of `gap_insertion_random` over patients."""
    gap_srg_random_se: float | None
    """Standard error of `gap_srg_random` over patients."""
    gap_deletion_center_se: float | None
    """Standard error of `gap_deletion_center` over patients."""
    gap_insertion_center_se: float | None
    """Standard error of `gap_insertion_center` over patients."""
    gap_srg_center_se: float | None
    """Standard error of `gap_srg_center` over patients."""
    srg_se: float | None
    """Standard error of `srg` over patients (jackknife), as of every weighted mean."""
    srg_logit_se: float | None
    """Standard error of `srg_logit` over patients."""
    srg_logit_scored_se: float | None
    """Standard error of `srg_logit_scored` over patients."""
    intervals: Mapping[str, Interval]
    """Intervals and tests of the gaps, `srg`, `srg_logit` and `srg_logit_scored`, by column."""
    curves: Curves | None = None
    """Mean curves; None without a common sample."""
    plain_means: Mapping[str, float | None] | None = None
    """Column in units of the effect → its mean without weights."""
    medians: Mapping[str, float | None] | None = None
    """The same columns → median over the samples."""
    flat_share: float | None = None
    """Share of the samples in the headline's mean whose map is flat: all its cells are equal, it says nothing."""
    sanity_failed: bool | None = None
    """Whether the method failed `cxr-faith sanity`; None if that was not run."""
    caveat: str | None = None
    """What the method's maps say against themselves, one sentence; None if nothing."""

    def value(self, column: str) -> float | None:
        """The mean of a column, e.g. `gap_srg_center`.

        Raises:
            KeyError: no such column.
        """
        if column not in MEANS:
            raise KeyError(f"a board has no column {column!r}; it has {', '.join(MEANS)}")
        value: float | None = getattr(self, column)
        return value

    def flat(self) -> dict[str, str | float | None]:
        """The row as one level of columns, for a table.

        A status becomes `status_NAME`. An interval becomes `COLUMN_low` and `COLUMN_high` (the ends to show) and
        `COLUMN_p_holm`. Plain means and medians become `COLUMN_plain` and `COLUMN_median`. Curves are left out.
        """
        nested = ("status", "intervals", "curves", "plain_means", "medians")
        flat = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in nested}
        flat |= {f"status_{name}": count for name, count in self.status.items()}
        for column, interval in self.intervals.items():
            low, high = interval.ends or (None, None)
            flat |= {f"{column}_low": low, f"{column}_high": high, f"{column}_p_holm": interval.p_holm}
        flat |= {f"{column}_plain": value for column, value in (self.plain_means or {}).items()}
        return flat | {f"{column}_median": value for column, value in (self.medians or {}).items()}

    def to_frame(self) -> "pd.DataFrame":
        """One row with the columns of `flat`."""
        import pandas as pd

        return pd.DataFrame([self.flat()])


MEANS = tuple(field.name for field in fields(BoardRow) if field.type == float | None)
"""The columns of a row that are means or their standard errors."""
