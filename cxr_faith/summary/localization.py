"""Do the maps lie on the finding, and are the more faithful maps also the better placed ones?"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cxr_faith.metrics.box_protocol import PLACE_COLUMNS
from cxr_faith.metrics.functional import MEASURED
from cxr_faith.metrics.localization import LOCALIZATION_COLUMNS
from cxr_faith.records.controls import RANDOM, READER, SETTING, is_control
from cxr_faith.records.schema import READER_COLUMNS
from cxr_faith.summary.board import Setting
from cxr_faith.summary.columns import numbers, rank_correlation, rounded, rounded_mean, weighted_mean
from cxr_faith.summary.parts import by_method
from cxr_faith.summary.result import Result

COLUMNS = ("status", "effect", "srg", "pointing_ceiling", *PLACE_COLUMNS, *READER_COLUMNS)
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
    """Mean localization scores of one method, or of `reader`."""

    method: str
    """Name of the method; `reader`: one reader's boxes as a map against the other readers', mean over readers."""
    n: int
    """Samples with a localization score."""
    srg_located: float | None
    """Mean `srg`, weighted by the effect, of the samples with a localization score that are ok under the first
    substrate."""
    with_srg: Mapping[str, SrgCorrelation]
    """Substrate → correlation of `srg` with each score."""
    pointing_ceiling: float | None = None
    """Highest `pointing_game` that any map can have on these samples: findings cover some cells only in part."""
    box_iou_q90: float | None = None
    """Intersection over union of the finding's boxes and those around the map's largest components."""
    box_precision_q90: float | None = None
    """Share of the map's boxes that lies inside those of the finding."""
    box_recall_q90: float | None = None
    """Share of the finding's boxes that lies inside the map's."""
    box_f1_q90: float | None = None
    """Harmonic mean of the two."""


@dataclass(frozen=True)
class LocalizationAcross(LocalizationScores):
    """Spearman's correlation over methods between the mean `srg` and each mean score; controls are left out.

    All means are over the samples that every one of these methods has.
    """

    n_methods: int
    """Methods in the correlation."""


def localization_panel(
    parts: Iterable[pd.DataFrame], first: Setting, methods: Sequence[str]
) -> tuple[Localization, ...]:
    """Mean localization scores of each method but `random`, whose orders have no map, and last those of `reader`.

    Args:
        parts: records of all settings, condition "none", some methods after the others.
        first: the first setting.
        methods: the order in which methods are listed.
    """
    entries, readers = list[Localization](), list[Localization]()
    for name, rows in by_method(parts, methods):
        inside = rows[(rows[list(SETTING)] == list(first)).all(axis=1)]
        if name == RANDOM:  # its rows say how well readers agree
            readers = _of_readers(inside)
        elif len(inside):
            entries.append(method_localization(rows, inside, name))
    return (*entries, *readers)


def method_localization(records: pd.DataFrame, first: pd.DataFrame, method: str) -> Localization:
    """Mean localization scores of one method, and by substrate their correlation with `srg`.

    Args:
        records: as `read_records` gives them, condition "none".
        first: those of the first setting.
        method: name of the method.
    """
    mine = first[first["method"].eq(method)]
    has_score = mine[LOCALIZATION_COLUMNS[0]].notna()
    scored = records[records["method"].eq(method) & records["status"].isin(MEASURED)].groupby("substrate")
    return Localization(
        method=method,
        n=int(has_score.sum()),
        srg_located=_mean_srg(mine[mine["status"].isin(MEASURED) & has_score]),
        with_srg={str(substrate): _with_srg(rows) for substrate, rows in scored},
        pointing_ceiling=rounded_mean(numbers(mine["pointing_ceiling"])),
        **{name: rounded_mean(numbers(mine[name])) for name in PLACE_COLUMNS},
    )


def _of_readers(rows: pd.DataFrame) -> list[Localization]:
    """The row `reader`, from the rows of `random`; none without samples that two readers have marked."""
    scores = {name: numbers(rows[column]) for name, column in zip(PLACE_COLUMNS, READER_COLUMNS, strict=True)}
    n = int(np.isfinite(scores[PLACE_COLUMNS[0]]).sum())
    means = {name: rounded_mean(values) for name, values in scores.items()}
    return [Localization(method=READER, n=n, srg_located=None, with_srg={}, **means)] if n else []


def _mean_srg(rows: pd.DataFrame) -> float | None:
    mean = weighted_mean(numbers(rows["srg"]), numbers(rows["effect"]))
    return None if mean is None else rounded(mean)


def _with_srg(rows: pd.DataFrame) -> SrgCorrelation:
    srg = numbers(rows["srg"])
    scores = {name: numbers(rows[name]) for name in LOCALIZATION_COLUMNS}
    n = int((np.isfinite(srg) & np.isfinite(scores[LOCALIZATION_COLUMNS[0]])).sum())
    return SrgCorrelation(n=n, **{name: rank_correlation(srg, values) for name, values in scores.items()})


def across_methods(parts: Iterable[pd.DataFrame], methods: Sequence[str]) -> LocalizationAcross:
    """Are the methods with the more faithful maps also those whose maps are better placed? Spearman over their means.

    Baselines and controls are left out: they are far from the methods in both.

    Args:
        parts: records of the first setting, condition "none", some methods after the others.
        methods: the order in which methods are listed.
    """
    mine = []
    for _, rows in by_method(parts, [name for name in methods if not is_control(name)]):
        located = rows[rows["status"].isin(MEASURED) & rows[LOCALIZATION_COLUMNS[0]].notna()]
        if len(located):
            mine.append(located[["sample_id", "srg", "effect", *LOCALIZATION_COLUMNS]])
    counts = pd.concat([rows["sample_id"] for rows in mine]).value_counts() if mine else pd.Series(dtype=int)
    shared = counts.index[counts.eq(len(mine))]
    mine = [rows[rows["sample_id"].isin(shared)] for rows in mine] if len(shared) else []
    srg = np.array([_mean_srg(some) for some in mine], np.float64)
    scores = {
        name: np.array([rounded_mean(numbers(some[name])) for some in mine], np.float64)
        for name in LOCALIZATION_COLUMNS
    }
    correlations = {name: rank_correlation(srg, values) for name, values in scores.items()}
    return LocalizationAcross(n_methods=len(mine), **correlations)
