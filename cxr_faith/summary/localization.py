"""Do the maps lie on the finding, and are the more faithful maps also the better placed ones?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cxr_faith.metrics.localization import LOCALIZATION_COLUMNS
from cxr_faith.records.controls import RANDOM, is_control
from cxr_faith.summary.columns import numbers, rank_correlation, rounded_mean
from cxr_faith.summary.result import Result

COLUMNS = ("status", "srg", *LOCALIZATION_COLUMNS)
"""The columns of the records that this panel reads."""


@dataclass(frozen=True)
class LocalizationScores(Result):
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


def localization_panel(records: pd.DataFrame, first: pd.DataFrame, methods: Sequence[str]) -> tuple[Localization, ...]:
    """Mean localization scores of each method but `random`, whose orders have no map.

    Args:
        records: as `read_records` gives them, sorted by key, condition "none".
        first: those of the first setting.
        methods: the order in which methods are listed.
    """
    listed = [name for name in methods if name != RANDOM and first["method"].eq(name).any()]
    return tuple(method_localization(records, first, name) for name in listed)


def method_localization(records: pd.DataFrame, first: pd.DataFrame, method: str) -> Localization:
    """Mean localization scores of one method, and by substrate their correlation with `srg`.

    Args:
        records: as `read_records` gives them, condition "none".
        first: those of the first setting.
        method: name of the method.
    """
    mine = first[first["method"].eq(method)]
    has_score = mine[LOCALIZATION_COLUMNS[0]].notna()
    scored = records[records["method"].eq(method) & records["status"].eq("ok")].groupby("substrate")
    return Localization(
        method=method,
        n=int(has_score.sum()),
        srg_located=rounded_mean(numbers(mine.loc[mine["status"].eq("ok") & has_score, "srg"])),
        with_srg={str(substrate): _with_srg(rows) for substrate, rows in scored},
        **{name: rounded_mean(numbers(mine[name])) for name in LOCALIZATION_COLUMNS},
    )


def _with_srg(rows: pd.DataFrame) -> SrgCorrelation:
    srg = numbers(rows["srg"])
    scores = {name: numbers(rows[name]) for name in LOCALIZATION_COLUMNS}
    n = int((np.isfinite(srg) & np.isfinite(scores[LOCALIZATION_COLUMNS[0]])).sum())
    return SrgCorrelation(n=n, **{name: rank_correlation(srg, values) for name, values in scores.items()})


def across_methods(panel: Sequence[Localization]) -> LocalizationAcross:
    """Are the methods with the more faithful maps also those whose maps are better placed? Spearman over their means.

    Baselines and controls are left out: they are far from the methods in both.

    Args:
        panel: what `localization_panel` gave.
    """
    mine = [entry for entry in panel if not is_control(entry.method) and entry.srg_located is not None]
    srg = np.array([entry.srg_located for entry in mine], np.float64)
    scores = {name: np.array([entry.value(name) for entry in mine], np.float64) for name in LOCALIZATION_COLUMNS}
    correlations = {name: rank_correlation(srg, values) for name, values in scores.items()}
    return LocalizationAcross(n_methods=len(mine), **correlations)
