"""Which samples of a run are worth a look."""

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from cxr_faith.records.controls import is_control

GALLERY_SIZE = 6
TITLES = {
    "best": "Best explained (highest mean srg of the methods, where the effect is at least a quarter of its median)",
    "worst": "Worst explained (lowest mean srg, where the effect is at least a quarter of its median)",
    "degenerate": "Degenerate (hardly any effect to explain, or an inverted one)",
    "disagreeing": "Disagreeing (lowest rank correlation between the methods' maps)",
}
"""Kind of samples → heading."""
TELLING = 0.25
"""Share of the median effect below which srg, in units of the effect, says more of its divisor than of the maps."""
SAMPLES_AT_ONCE = 500
"""Samples whose maps are ranked at once, to bound the memory."""


def gallery(records: pd.DataFrame, size: int = GALLERY_SIZE) -> dict[str, list[str]]:
    """Kind → samples worth a look, the clearest example first.

    best and worst: by mean srg over the methods, controls left out, where the effect is `TELLING`; degenerate: samples
    without enough effect to divide by (degenerate or inverted), smallest first; disagreeing: lowest mean rank
    correlation between the methods' maps.

    Args:
        records: one setting's rows, with `method, status, srg, effect, map`.
        size: samples of each kind.
    """
    real = records[~records["method"].map(is_control)]
    if real.empty:
        real = records
    scored = real[real["status"].eq("ok")].groupby("sample_id")[["srg", "effect"]].mean().dropna()
    telling = scored[scored["effect"].abs() >= TELLING * scored["effect"].abs().median()]
    srg = telling["srg"].sort_values(kind="stable")
    weak = real[real["status"].isin(("degenerate", "inverted"))].groupby("sample_id")["effect"].first()
    agreement = _agreement(real[real["map"].notna()])
    examples = {
        "best": srg.index[::-1][:size],
        "worst": srg.index[: min(size, max(0, len(srg) - size))],
        "degenerate": weak.abs().sort_values(kind="stable").index[:size],
        "disagreeing": agreement.sort_values(kind="stable").index[:size],
    }
    return {kind: [str(name) for name in names] for kind, names in examples.items()}


def _agreement(rows: pd.DataFrame) -> pd.Series:
    """Sample → mean Spearman correlation over all pairs of its maps; samples without two such maps are left out.

    A constant map has no correlation and does not count.
    """
    rows = rows.sort_values("sample_id", kind="stable")
    samples, names = pd.factorize(rows["sample_id"])
    means = np.full(len(names), np.nan)
    maps = rows["map"].to_list()
    for number in range(0, len(names), SAMPLES_AT_ONCE):
        start, stop = np.searchsorted(samples, (number, number + SAMPLES_AT_ONCE))
        for size in sorted({len(values) for values in maps[start:stop]}):
            chosen = [row for row in range(start, stop) if len(maps[row]) == size]
            ranks = rankdata([maps[row] for row in chosen], axis=1)
            ranks -= ranks.mean(axis=1, keepdims=True)
            norms = np.linalg.norm(ranks, axis=1)
            # With unit vectors the sum over all pairs is (|sum of vectors|^2 - their number) / 2.
            units = np.divide(ranks, norms[:, None], out=np.zeros_like(ranks), where=norms[:, None] > 0)
            owners, which = np.unique(samples[chosen], return_inverse=True)
            totals, counts = np.zeros((len(owners), size)), np.bincount(which, norms > 0)
            np.add.at(totals, which, units)
            enough = counts > 1
            pairs = ((totals**2).sum(axis=1) - counts)[enough] / (counts * (counts - 1))[enough]
            means[owners[enough]] = pairs
    return pd.Series(means, index=pd.Index(names)).dropna()
