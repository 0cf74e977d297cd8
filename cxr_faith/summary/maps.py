"""The few maps that panels compare with each other: all maps of a run need not fit into memory."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from cxr_faith.perturb.condition import NONE
from cxr_faith.records import KEY
from cxr_faith.summary.agreement import AGREEMENT_SAMPLES
from cxr_faith.summary.board import Setting
from cxr_faith.summary.rows import Rows
from cxr_faith.summary.stability import GROUP, turn_pairs, variant_pairs

_NO_PAIRS = pd.DataFrame(columns=["base", "variant"])


class ComparedMaps:
    """Keeps the maps of some samples for agreement, and of all samples that have variants, turns or conditions.

    Args:
        rows: the run's records.
        setting: the first setting.
        order: all methods.
        methods: those whose maps are compared with each other.
    """

    def __init__(self, rows: Rows, setting: Setting, order: Sequence[str], methods: Sequence[str]) -> None:
        self._rows, self._setting = rows, setting
        drawn, asked, changed = set[str](), list[pd.DataFrame](), set[str]()
        for part in rows.parts(("grid_h", *GROUP), setting, order, plain=False):
            plain = part["condition"].eq(NONE)
            with_map = part.loc[plain & part["grid_h"].notna() & part["method"].isin(list(methods)), "sample_id"]
            drawn |= set(with_map.drop_duplicates().sort_values().head(AGREEMENT_SAMPLES))
            asked = [pd.concat([*asked, part[plain]]).drop_duplicates("sample_id")]
            changed |= set(part.loc[~plain, "sample_id"])
        pairs = pd.concat([of(one) for one in asked for of in (variant_pairs, turn_pairs)] or [_NO_PAIRS])
        self._wanted = {*sorted(drawn)[:AGREEMENT_SAMPLES], *pairs["base"], *pairs["variant"], *changed}
        self._kept = [pd.DataFrame(columns=[*KEY, "map"])]

    def add(self, rows: pd.DataFrame) -> None:
        """Add records of the first setting with their maps."""
        few = rows.loc[rows["map"].notna() & rows["sample_id"].isin(self._wanted), [*KEY, "map"]]
        # A copy: a map of a piece is a view, which would keep all maps of the piece.
        self._kept.append(few.assign(map=few["map"].map(np.array)))

    def frame(self, columns: Sequence[str], plain: bool = True) -> pd.DataFrame:
        """The rows of the samples whose maps are compared, with a column `map`; None for maps of several pictures.

        Args:
            columns: other columns of the records.
            plain: only rows without a condition.
        """
        rows = self._rows.frame(("grid_h", *columns), self._setting, plain, samples=self._wanted)
        kept = pd.concat([some for some in self._kept if len(some)] or self._kept)
        joined = rows.merge(kept, on=list(KEY), how="left")
        return joined.assign(map=joined["map"].where(joined["grid_h"].notna(), None))
