"""Do the methods' maps agree with each other?"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import pandas as pd

from cxr_faith.metrics.agreement import spearman, ssim, top_overlap
from cxr_faith.summary.columns import maps_of, rounded_mean
from cxr_faith.summary.result import Result

AGREEMENT_SAMPLES = 200
"""Agreement is a mean over at most this many samples, the first ones by `sample_id`."""

COLUMNS = ("grid_h", "grid_w")
"""The columns of the records that this panel reads, beside `map`."""


@dataclass(frozen=True)
class Agreement(Result):
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


def agreement_panel(first: pd.DataFrame, methods: Sequence[str]) -> tuple[Agreement, ...]:
    """How alike the maps are, for each pair of methods that share samples.

    Args:
        first: rows of one setting, condition "none", with a column `map`.
        methods: the order in which methods are listed.
    """
    drawn = first[first["map"].notna() & first["grid_h"].notna() & first["method"].isin(list(methods))]
    samples = drawn["sample_id"].drop_duplicates().sort_values().head(AGREEMENT_SAMPLES)
    rows = drawn[drawn["sample_id"].isin(samples)].set_index(["method", "sample_id"])
    members = {name: cast(pd.DataFrame, rows.xs(name)) for name in methods if name in rows.index}
    pairs = []
    for place, a in enumerate(members):
        shared = {b: members[a].index.intersection(members[b].index) for b in list(members)[place + 1 :]}
        shared = {b: common for b, common in shared.items() if len(common)}
        if not shared:
            continue
        # All pairs of a method at once: with a call for each pair, SSIM takes three times as long.
        x = np.concatenate([maps_of(members[a].loc[common]) for common in shared.values()])
        y = np.concatenate([maps_of(members[b].loc[common]) for b, common in shared.items()])
        ends = np.cumsum([len(common) for common in shared.values()])[:-1]
        alike = {"spearman": spearman(x, y), "ssim": ssim(x, y), "top_overlap": top_overlap(x, y)}
        parts = {name: np.split(values, ends) for name, values in alike.items()}
        for number, (b, common) in enumerate(shared.items()):
            means = {name: rounded_mean(values[number]) for name, values in parts.items()}
            pairs.append(Agreement(a=a, b=b, n=len(common), **means))
    return tuple(pairs)
