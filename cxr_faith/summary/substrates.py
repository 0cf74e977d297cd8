"""Do the substrates agree, and does one of them harm the answer by itself?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from scipy.stats import kendalltau

from cxr_faith.metrics.functional import MEASURED
from cxr_faith.records.controls import RANDOM, is_control
from cxr_faith.summary.board import Board
from cxr_faith.summary.columns import FEWEST, numbers, rounded, weighted_mean
from cxr_faith.summary.result import Result

COLUMNS = ("status", "effect", "srg", "deletion_auc")
"""The columns of the records that this panel reads."""


@dataclass(frozen=True)
class SubstratePair(Result):
    """Whether two substrates rank the methods alike; baselines and controls are left out."""

    a: str
    """The first substrate by name."""
    b: str
    """The second substrate by name."""
    n_methods: int
    """Methods with samples that are ok under both."""
    n_samples: int
    """Samples that are ok under both for every one of these methods."""
    kendall_tau: float | None
    """Kendall's τ-b of the methods' mean `srg`, weighted by the effect; None under three methods."""


@dataclass(frozen=True)
class Substrates(Result):
    """The panel about substrates."""

    pairs: tuple[SubstratePair, ...]
    """Every pair of substrates."""
    breaks_early: Mapping[str, float | None]
    """Substrate → 1 − 2 × the deletion AUC of random orders.

    0 if the answer fades in step with the image, towards 1 if any few cells are enough to break it, as for images far
    from what the model knows.
    """
    ood: Mapping[str, float | None]
    """Substrate → out-of-distribution score, see `ood_scores`."""


def substrate_panel(records: pd.DataFrame, boards: Sequence[Board]) -> Substrates:
    """Do the substrates rank the methods alike, and does one of them harm the answer by itself?

    Methods are ranked by their mean `srg`, over the samples that are ok for every method under both substrates.
    Baselines and controls are left out: they are far from the methods under any substrate, and would raise τ.

    Args:
        records: as `read_records` gives them, sorted by key, condition "none".
        boards: those of the run.
    """
    for name in ("target", "space"):  # the first of each
        records = records[records[name].eq(records[name].min())]
    is_ok = records["status"].isin(MEASURED)
    ok = records[is_ok & ~records["method"].map(is_control).astype(bool)]
    srg, effect = (
        ok.pivot_table(index=["sample_id", "method"], columns="substrate", values=name) for name in ("srg", "effect")
    )
    random = records[records["method"].eq(RANDOM) & is_ok].groupby("substrate")
    return Substrates(
        pairs=tuple(_pair(srg[[a, b]].dropna(), effect[[a, b]], a, b) for a, b in combinations(sorted(srg.columns), 2)),
        breaks_early={str(name): _breaks_early(rows) for name, rows in random},
        ood=ood_scores(boards),
    )


def _pair(srg: pd.DataFrame, effect: pd.DataFrame, a: str, b: str) -> SubstratePair:
    """Two substrates, from `srg` and the effect by (sample, method) under both."""
    n_methods = srg.index.get_level_values("method").nunique()
    shared = srg.groupby(level="sample_id")[a].transform("size").eq(n_methods)
    srg, effect = srg[shared], effect.loc[srg.index[shared]]
    means = (srg * effect).groupby(level="method").sum() / effect.groupby(level="method").sum()
    tau = kendalltau(means[a], means[b]).statistic if len(means) >= FEWEST else np.nan
    samples = srg.index.get_level_values("sample_id")
    return SubstratePair(a=a, b=b, n_methods=n_methods, n_samples=int(samples.nunique()), kendall_tau=rounded(tau))


def _breaks_early(rows: pd.DataFrame) -> float | None:
    """1 - 2 · the mean deletion AUC of the random rows."""
    area = weighted_mean(numbers(rows["deletion_auc"]), numbers(rows["effect"]))
    return None if area is None else rounded(1 - 2 * area)


def ood_scores(boards: Sequence[Board]) -> dict[str, float | None]:
    """How far each substrate takes images from what the model knows: an out-of-distribution score.

    The score is the share of the effect that is lost when half of the cells are replaced, namely those that the best
    map ranks lowest: 1 − the highest mean insertion curve at x = .5, not below 0. The evidence is in the half that
    stays, so a harmless substrate loses nothing; towards 1, the substrate breaks the answer wherever it is put. It is
    an upper bound: evidence that is spread over the whole image, or maps that are all bad, raise it too.

    Args:
        boards: those of a summary. For each substrate the first board over all samples counts, and of its methods
            those that have all its common samples, there and under every other substrate.

    Returns:
        substrate → score in units of the effect; None without a curve.
    """
    kept: dict[str, dict[str, float]] = {}
    for board in boards:
        if board.slice == "all" and board.substrate not in kept:
            curves = {row.method: row.curves for row in board.rows if row.curves is not None}
            kept[board.substrate] = {
                name: float(np.interp(0.5, c.x, c.insertion)) for name, c in curves.items() if c.n == board.n_common
            }
    shared = set[str]().union(*kept.values()).intersection(*(mine for mine in kept.values() if mine))
    return {
        substrate: rounded(max(0.0, 1 - max(mine[name] for name in shared))) if mine and shared else None
        for substrate, mine in kept.items()
    }
