"""What `Explainer.evaluate` returns: the scores of one explanation, named as the columns of a run's records."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import pandas as pd
import pyarrow as pa

from cxr_faith.records.schema import RECORD_SCHEMA


@dataclass(frozen=True)
class Scores:
    """How faithful one explanation is: deletion and insertion curves, their areas, and gaps to baselines.

    Scores s are in logits: the margin of yes/no answers, log-odds of others. Areas are over the share of cells removed
    or put back, x = k / N. Normalized values divide s by the effect. A number that is undefined for this answer is NaN
    or None; `status` says which numbers are defined.
    """

    image_id: str
    """Id of the picture; it seeds the random orders and the order of tied cells."""
    question: str
    """The question as asked."""
    method: str
    """Name of the attribution method."""
    substrate: str
    """What replaces removed cells, such as `blur:0.1`."""
    target: str
    """What is explained: `answer`, `first`, the index of an answer token, or `keyword:WORD`."""
    status: str
    """`ok`, `degenerate` (effect too small), `inverted` (effect negative), `off_format`, `invalid`, or `flat` (all
    cells of the map are equal: the scores are those of random orders)."""
    reason: str | None = None
    """Why there are no scores, for `off_format` and `invalid`."""
    s_original: float | None = None
    """Score s of the intact picture."""
    s_substrate: float | None = None
    """Score s with every cell removed."""
    effect: float | None = None
    """`s_original - s_substrate`: how much of the score depends on the picture."""
    log_p_original: float | None = None
    """Mean log-probability of the answer's tokens on the intact picture, in nats; for yes/no log sigmoid(s)."""
    log_p_substrate: float | None = None
    """The same with every cell removed."""
    deletion_auc: float | None = None
    """Area under the normalized deletion curve; lower is better."""
    insertion_auc: float | None = None
    """Area under the normalized insertion curve; higher is better."""
    srg: float | None = None
    """Symmetric relevance gain, `insertion_auc - deletion_auc`; random orders have 0."""
    deletion_auc_clipped: float | None = None
    """`deletion_auc` with each point of the curve clipped to [0, 1]."""
    insertion_auc_clipped: float | None = None
    """`insertion_auc` with each point of the curve clipped to [0, 1]."""
    srg_clipped: float | None = None
    """`insertion_auc_clipped - deletion_auc_clipped`."""
    deletion_auc_logit: float | None = None
    """Area under the deletion curve of s, not normalized."""
    insertion_auc_logit: float | None = None
    """Area under the insertion curve of s, not normalized."""
    srg_logit: float | None = None
    """`insertion_auc_logit - deletion_auc_logit`."""
    deletion_auc_prob: float | None = None
    """Area under the deletion curve of the answer's probability."""
    insertion_auc_prob: float | None = None
    """Area under the insertion curve of the answer's probability."""
    srg_prob: float | None = None
    """`insertion_auc_prob - deletion_auc_prob`."""
    deletion_auc_log_p: float | None = None
    """Area under the deletion curve of the answer's mean log-probability, in nats."""
    insertion_auc_log_p: float | None = None
    """Area under the insertion curve of the answer's mean log-probability."""
    srg_log_p: float | None = None
    """`insertion_auc_log_p - deletion_auc_log_p`."""
    drop_10: float | None = None
    """Share of the effect that is lost once the first 10 % of the cells are removed."""
    drop_20: float | None = None
    """Share of the effect that is lost once the first 20 % of the cells are removed."""
    drop_50: float | None = None
    """Share of the effect that is lost once the first half of the cells is removed."""
    retained_50: float | None = None
    """Share of the effect that is left once the first half of the cells is removed, `1 - drop_50`."""
    flip_deletion: float | None = None
    """First x of the deletion curve at which the answer has changed; NaN if it does not change without the picture."""
    flip_insertion: float | None = None
    """First x of the insertion curve at which the answer holds; NaN if it does not change without the picture."""
    clipped_share: float | None = None
    """Share of the points of both normalized curves that lie outside [0, 1]."""
    monotonicity_violations: float | None = None
    """Share of the steps of both curves that move in the wrong direction by more than 1 % of the effect."""
    gap_deletion_random: float | None = None
    """How much lower `deletion_auc` is than the mean over random orders."""
    gap_insertion_random: float | None = None
    """How much higher `insertion_auc` is than the mean over random orders."""
    gap_srg_random: float | None = None
    """How much higher `srg` is than the mean over random orders."""
    gap_deletion_center: float | None = None
    """How much lower `deletion_auc` is than that of the center baseline."""
    gap_insertion_center: float | None = None
    """How much higher `insertion_auc` is than that of the center baseline."""
    gap_srg_center: float | None = None
    """How much higher `srg` is than that of the center baseline."""
    random_z: float | None = None
    """`srg` divided by the standard deviation of the random orders' srg."""
    random_p: float | None = None
    """(1 + number of random orders with an srg at least as high) / (number of random orders + 1)."""
    tie_share: float | None = None
    """Share of the map's cells whose value occurs more than once; tied cells are ordered at random."""
    flat: bool | None = None
    """Whether all cells of the map are equal."""
    set_removal_flips: bool | None = None
    """For methods that give a set of cells: whether the answer changes without the set."""
    set_keeps: bool | None = None
    """For methods that give a set of cells: whether the set alone keeps the answer."""
    auc_error: float | None = None
    """With adaptive steps: estimated error of the areas as a share of the effect."""
    picture_shares: list[float] | None = None
    """Where a question shows several pictures: share of the map's positive mass on each."""
    picture_effects: list[float] | None = None
    """Where a question shows several pictures: how much of s is lost without each, in logits."""
    order: list[int] | None = None
    """The map's cells, most salient first."""
    k: list[int] | None = None
    """Number of cells removed or put back at each point of the curves."""
    deletion_scores: list[float] | None = None
    """Score s at each point of the deletion curve."""
    insertion_scores: list[float] | None = None
    """Score s at each point of the insertion curve."""
    deletion_probs: list[float] | None = None
    """Probability of the answer at each point of the deletion curve."""
    insertion_probs: list[float] | None = None
    """Probability of the answer at each point of the insertion curve."""
    deletion_log_p: list[float] | None = None
    """Mean log-probability of the answer at each point of the deletion curve, in nats."""
    insertion_log_p: list[float] | None = None
    """Mean log-probability of the answer at each point of the insertion curve."""

    def to_dict(self) -> dict[str, Any]:
        """Field name → value as JSON takes it; a missing number is None."""
        return {name: _json(value) for name, value in vars(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Scores":
        """Scores from `to_dict` or from a row of records, whose other columns are ignored.

        Raises:
            ValueError: `values` has a name that is not a column of records, or lacks a field that has no default.
        """
        if unknown := sorted(values.keys() - set(RECORD_SCHEMA.names)):
            raise ValueError(f"scores have no field {unknown[0]!r}")
        known = {field.name: values[field.name] for field in fields(cls) if field.name in values}
        try:
            return cls(**known)
        except TypeError as error:
            raise ValueError(f"incomplete scores: {error}") from error

    def to_frame(self) -> pd.DataFrame:
        """One row, its columns in the order and of the types that they have in records."""
        schema = pa.schema([column for column in RECORD_SCHEMA if column.name in vars(self)])
        frame: pd.DataFrame = pa.Table.from_pylist([self.to_dict()], schema=schema).to_pandas()
        return frame


def _json(value: str | float | Sequence[float] | None) -> Any:
    """NaN and infinity as None, alone or in a list."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return [_json(item) for item in value] if isinstance(value, list) else value
