"""Where the maps' mass is, on average, and the few maps that are compared: from records that come in pieces.

Maps are most of a record beside its curves. Like those they are read once and never all in memory, and sums are exact:
means do not depend on the order of the pieces.
"""

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_faith.metrics.regions import REGIONS, border_weights, enrichment, mass_shares, region_weights
from cxr_faith.perturb.condition import NONE
from cxr_faith.records import KEY
from cxr_faith.records.controls import SETTING, first_setting
from cxr_faith.summary.mean_curves import ExactSums
from cxr_faith.summary.panels import AGREEMENT_SAMPLES, maps_of
from cxr_faith.summary.significance import DIGITS
from cxr_faith.summary.stability import variant_pairs

COLUMNS = ("map", "grid_h", "grid_w", "anatomy")

_ORGAN = ("share", "enrichment")


class _Mean:
    """Mean of rows of numbers, without those that are not finite."""

    def __init__(self, width: int) -> None:
        self._sums, self.count = ExactSums((width,)), 0

    def add(self, values: npt.NDArray[np.float64]) -> None:
        """Add rows [rows, width]."""
        values = values[np.isfinite(values).all(axis=1)]
        self._sums.add(values)
        self.count += len(values)

    def values(self) -> list[float | None]:
        """The means; None without rows."""
        if not self.count:
            return [None] * len(self._sums.mean(1))
        return [float(f"{value:.{DIGITS}g}") for value in self._sums.mean(self.count)]


class MeanRegions:
    """Mean share of each map's positive mass, and its enrichment, by region (the patient's sides), border and organ."""

    def __init__(self) -> None:
        """No map yet."""
        self._shares: dict[str, _Mean] = {}
        self._enriched: dict[str, _Mean] = {}
        self._organs: dict[str, dict[str, _Mean]] = {}

    def add(self, rows: pd.DataFrame) -> None:
        """Add records of one substrate, target and space, condition "none", with `COLUMNS`."""
        rows = rows[rows["map"].notna() & rows["grid_h"].notna()]
        for name, mine in rows.groupby("method", sort=True):
            maps, method = maps_of(mine), str(name)
            grid = (maps.shape[1], maps.shape[2])
            weights = np.concatenate([region_weights(grid), border_weights(grid)[None]])
            shares = mass_shares(maps, weights)
            self._shares.setdefault(method, _Mean(len(weights))).add(shares)
            self._enriched.setdefault(method, _Mean(len(weights))).add(enrichment(shares, weights))
            organs, values = self._organs.setdefault(method, {}), dict[str, list[list[float]]]()
            for organ in chain.from_iterable(mine["anatomy"].dropna()):
                values.setdefault(organ["label"], []).append([organ[name] for name in _ORGAN])
            for label, found in values.items():
                organs.setdefault(label, _Mean(len(_ORGAN))).add(np.array(found, np.float64))

    def panel(self, methods: Sequence[str]) -> list[dict[str, Any]]:
        """One entry for each method that has a map, in this order: `n`, mass shares, `enrichment`, `organs`."""
        found = []
        for method in methods:
            if method in self._shares:
                shares, enriched = self._shares[method], self._enriched[method]
                entry: dict[str, Any] = {"method": method, "n": shares.count}
                entry |= dict(zip((*REGIONS, "border"), shares.values(), strict=True))
                entry["enrichment"] = dict(zip((*REGIONS, "border"), enriched.values(), strict=True))
                organs = sorted(self._organs[method].items())
                entry["organs"] = {
                    label: {"n": mean.count} | dict(zip(_ORGAN, mean.values(), strict=True)) for label, mean in organs
                }
                found.append(entry)
        return found


def region_panel(first: pd.DataFrame, methods: Sequence[str]) -> list[dict[str, Any]]:
    """The means of records that are all in memory; see `MeanRegions`."""
    regions = MeanRegions()
    regions.add(first)
    return regions.panel(methods)


class Maps:
    """What a summary needs of the maps of its first substrate, target and space.

    Args:
        everything: the records of all conditions, with `panels.PANEL_COLUMNS`.
        methods: those whose maps are compared with each other.
    """

    def __init__(self, everything: pd.DataFrame, methods: Sequence[str]) -> None:
        """Choose the samples whose maps are kept: some for agreement, those that have variants or conditions."""
        first = first_setting(everything)
        self._setting = first[list(SETTING)].head(1)
        plain = first["condition"].eq(NONE)
        drawn = first.loc[plain & first["grid_h"].notna() & first["method"].isin(list(methods)), "sample_id"]
        pairs = variant_pairs(first[plain])
        self._wanted = set(drawn.drop_duplicates().sort_values().head(AGREEMENT_SAMPLES))
        self._wanted |= {*pairs["base"], *pairs["variant"], *first.loc[~plain, "sample_id"]}
        self.regions = MeanRegions()
        self._kept = [pd.DataFrame(columns=[*KEY, "map"])]

    def add(self, pieces: Iterable[pd.DataFrame]) -> "Maps":
        """Add records with the key and `COLUMNS`."""
        for piece in pieces:
            piece = piece.reindex(columns=[*KEY, *COLUMNS]).merge(self._setting, on=list(SETTING))
            self.regions.add(piece[piece["condition"].eq(NONE)])
            few = piece.loc[piece["map"].notna() & piece["sample_id"].isin(self._wanted), [*KEY, "map"]]
            # A copy: a map of a piece is a view, which would keep all maps of the piece.
            self._kept.append(few.assign(map=few["map"].map(np.array)))
        return self

    def compared(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Those rows whose maps are compared, with a column `map`."""
        kept = pd.concat([some for some in self._kept if len(some)] or self._kept)
        return rows[rows["sample_id"].isin(self._wanted)].merge(kept, on=list(KEY), how="left")
