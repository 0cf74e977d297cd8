"""The few maps that panels compare with each other: all maps of a run need not fit into memory."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from cxr_faith.perturb.condition import NONE
from cxr_faith.records import KEY
from cxr_faith.summary.agreement import AGREEMENT_SAMPLES
from cxr_faith.summary.stability import turn_pairs, variant_pairs


class ComparedMaps:
    """Keeps the maps of some samples for agreement, and of all samples that have variants, turns or conditions.

    Args:
        rows: the records of the first setting, of all conditions, without maps.
        methods: those whose maps are compared with each other.
    """

    def __init__(self, rows: pd.DataFrame, methods: Sequence[str]) -> None:
        plain = rows["condition"].eq(NONE)
        drawn = rows.loc[plain & rows["grid_h"].notna() & rows["method"].isin(list(methods)), "sample_id"]
        pairs = pd.concat([variant_pairs(rows[plain]), turn_pairs(rows[plain])])
        self._wanted = set(drawn.drop_duplicates().sort_values().head(AGREEMENT_SAMPLES))
        self._wanted |= {*pairs["base"], *pairs["variant"], *rows.loc[~plain, "sample_id"]}
        self._kept = [pd.DataFrame(columns=[*KEY, "map"])]

    def add(self, rows: pd.DataFrame) -> None:
        """Add records of the first setting with their maps."""
        few = rows.loc[rows["map"].notna() & rows["sample_id"].isin(self._wanted), [*KEY, "map"]]
        # A copy: a map of a piece is a view, which would keep all maps of the piece.
        self._kept.append(few.assign(map=few["map"].map(np.array)))

    def join(self, rows: pd.DataFrame) -> pd.DataFrame:
        """The rows of the samples whose maps are compared, with a column `map`; None for maps of several pictures."""
        kept = pd.concat([some for some in self._kept if len(some)] or self._kept)
        joined = rows[rows["sample_id"].isin(self._wanted)].merge(kept, on=list(KEY), how="left")
        return joined.assign(map=joined["map"].where(joined["grid_h"].notna(), None))
