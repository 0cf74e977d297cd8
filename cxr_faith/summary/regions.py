"""Where the maps lie: regions of the chest, the border of the image, organs.

Maps are read in pieces and are never all in memory. Sums are exact: a mean does not depend on the order of the pieces.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import pandas as pd

from cxr_faith.data.orientation import MIRRORED, OTHER
from cxr_faith.metrics.regions import REGIONS, border_weights, enrichment, mass_shares, region_weights
from cxr_faith.summary.columns import Floats, maps_of, rounded
from cxr_faith.summary.mean_curves import ExactSums
from cxr_faith.summary.result import Result

COLUMNS = ("map", "grid_h", "grid_w", "anatomy", "view", "orientation")
"""The columns of the records that this panel reads; older records lack the last one."""


@dataclass(frozen=True)
class RegionValues(Result):
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
class Organ(Result):
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
    """Maps with a positive value; of those about lateral or turned pictures only the border and the organs count."""
    enrichment: RegionValues
    """Mean of mass share over area share; 1 is an even map."""
    organs: Mapping[str, Organ]
    """Organ → how much of the maps lies on it; empty without organ masks."""


class _Mean:
    """Mean of rows of numbers, without rows that are not finite."""

    def __init__(self, width: int) -> None:
        self._width, self._sums, self.count = width, ExactSums((width,)), 0

    def add(self, values: Floats) -> None:
        """Add rows [rows, width]."""
        values = values[np.isfinite(values).all(axis=1)]
        self._sums.add(values)
        self.count += len(values)

    def values(self) -> list[float | None]:
        """The means; None without rows."""
        if not self.count:
            return [None] * self._width
        return [rounded(value) for value in self._sums.mean(self.count)]


_Means = dict[str, tuple[_Mean, _Mean]]
"""Method → the mean mass shares of its maps, and their mean enrichment."""


class MeanRegions:
    """Mean share of each map's positive mass, and its enrichment, by region (the patient's sides), border and organ."""

    def __init__(self) -> None:
        self._regions: _Means = {}
        self._borders: _Means = {}
        self._organs: dict[str, dict[str, _Mean]] = {}

    def add(self, rows: pd.DataFrame) -> None:
        """Add records of one setting, condition "none", with `COLUMNS`."""
        rows = rows[rows["map"].notna() & rows["grid_h"].notna()]
        for name, mine in rows.groupby("method", sort=True):
            maps, method = maps_of(mine), str(name)
            grid = (maps.shape[1], maps.shape[2])
            _add(self._regions, method, _from_the_front(mine, maps), region_weights(grid))
            _add(self._borders, method, maps, border_weights(grid)[None])
            organs, measured = self._organs.setdefault(method, {}), dict[str, list[list[float]]]()
            for organ in chain.from_iterable(mine["anatomy"].dropna()):
                measured.setdefault(organ["label"], []).append([organ["share"], organ["enrichment"]])
            for label, pairs in measured.items():
                organs.setdefault(label, _Mean(2)).add(np.array(pairs, np.float64))

    def panel(self, methods: Sequence[str]) -> tuple[Regions, ...]:
        """One entry for each of these methods that has a map."""
        return tuple(self._entry(method) for method in methods if method in self._borders)

    def _entry(self, method: str) -> Regions:
        names, parts = (*REGIONS, "border"), (self._regions[method], self._borders[method])
        shares, ratios = ([value for part in parts for value in part[which].values()] for which in (0, 1))
        organs = {}
        for label, mean in sorted(self._organs[method].items()):
            share, enriched = mean.values()
            organs[label] = Organ(n=mean.count, share=share, enrichment=enriched)
        return Regions(
            method=method,
            n=self._borders[method][0].count,
            enrichment=RegionValues(**dict(zip(names, ratios, strict=True))),
            organs=organs,
            **dict(zip(names, shares, strict=True)),
        )


def _add(means: _Means, method: str, maps: Floats, weights: Floats) -> None:
    share, enriched = means.setdefault(method, (_Mean(len(weights)), _Mean(len(weights))))
    shares = mass_shares(maps, weights)
    share.add(shares)
    enriched.add(enrichment(shares, weights))


def _from_the_front(rows: pd.DataFrame, maps: Floats) -> Floats:
    """The maps of pictures whose sides are known, with the patient's right on the left."""
    orientation = rows["orientation"] if "orientation" in rows else pd.Series(None, rows.index, object)
    view = rows["view"] if "view" in rows else pd.Series(None, rows.index, object)
    mirrored = orientation.eq(MIRRORED).to_numpy(bool)
    known = ~(orientation.eq(OTHER) | view.eq("LATERAL")).to_numpy(bool)
    return np.where(mirrored[:, None, None], maps[:, :, ::-1], maps)[known]


def region_panel(first: pd.DataFrame, methods: Sequence[str]) -> tuple[Regions, ...]:
    """The panel of records of one setting that are all in memory."""
    regions = MeanRegions()
    regions.add(first)
    return regions.panel(methods)
