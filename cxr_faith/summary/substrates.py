"""Do the substrates agree, and does one of them harm the answer by itself?"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from scipy.stats import kendalltau

from cxr_faith.metrics.functional import MEASURED
from cxr_faith.records.controls import RANDOM, is_control
from cxr_faith.summary.board import Board
from cxr_faith.summary.columns import FEWEST, Floats, numbers, rounded, weighted_mean
from cxr_faith.summary.result import Result

COLUMNS = ("status", "effect", "srg", "deletion_auc")
"""The columns of the records that this panel reads."""
_RANKED = ("srg", "effect")


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


def substrate_panel(parts: Iterable[pd.DataFrame], samples: "pd.Index[str]", boards: Sequence[Board]) -> Substrates:
    """Do the substrates rank the methods alike, and does one of them harm the answer by itself?

    Methods are ranked by their mean `srg`, over the samples that are ok for every method under both substrates.
    Baselines and controls are left out: they are far from the methods under any substrate, and would raise τ.

    Args:
        parts: records of one target and space, condition "none", some methods after the others.
        samples: ids of all samples.
        boards: those of the run.
    """
    breaks_early: dict[str, float | None] = {}
    scores: dict[str, dict[str, Floats]] = {}
    for part in parts:
        for (method, substrate), rows in part[part["status"].isin(MEASURED)].groupby(
            ["method", "substrate"], sort=True
        ):
            if method == RANDOM:
                breaks_early[str(substrate)] = _breaks_early(rows)
            elif not is_control(str(method)):
                values = np.full((2, len(samples)), np.nan)
                values[:, samples.get_indexer(pd.Index(rows["sample_id"]))] = [numbers(rows[name]) for name in _RANKED]
                scores.setdefault(str(substrate), {})[str(method)] = values
    return Substrates(
        pairs=tuple(_pair(scores, a, b) for a, b in combinations(sorted(scores), 2)),
        breaks_early=dict(sorted(breaks_early.items())),
        ood=ood_scores(boards),
    )


def _pair(scores: Mapping[str, Mapping[str, Floats]], a: str, b: str) -> SubstratePair:
    """Two substrates, from `srg` and the effect [2, samples] by substrate and method; NaN where they are unknown."""
    both = {name: (scores[a][name], scores[b][name]) for name in scores[a] if name in scores[b]}
    known = {name: np.isfinite(first[0]) & np.isfinite(second[0]) for name, (first, second) in both.items()}
    names = [name for name, inside in known.items() if inside.any()]
    shared = np.logical_and.reduce([known[name] for name in names]) if names else np.zeros(0, bool)
    n_samples, tau = int(shared.sum()), np.nan
    if n_samples and len(names) >= FEWEST:
        means = [[weighted_mean(*values[:, shared]) for values in both[name]] for name in names]
        tau = kendalltau(*zip(*means, strict=True)).statistic
    return SubstratePair(a=a, b=b, n_methods=len(names), n_samples=n_samples, kendall_tau=rounded(tau))


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
