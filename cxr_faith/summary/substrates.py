"""Do the substrates agree, and does one of them harm the answer by itself?"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class SubstratePair:
    """Whether two substrates rank the methods alike; baselines and controls are left out."""

    a: str
    """The first substrate by name."""
    b: str
    """The second substrate by name."""
    n_methods: int
    """Methods with samples that are ok under both."""
    n_samples: int
    """Samples that are ok under both for some method."""
    kendall_tau: float | None
    """Kendall's τ-b of the methods' mean `srg`; None under three methods."""


@dataclass(frozen=True)
class Substrates:
    """The panel about substrates."""

    pairs: tuple[SubstratePair, ...]
    """Every pair of substrates."""
    breaks_early: Mapping[str, float | None]
    """Substrate → 1 − 2 × the deletion AUC of random orders: towards 1 if any few cells break the answer."""
    ood: Mapping[str, float | None]
    """Substrate → out-of-distribution score: the effect lost when the best map's lower half is replaced."""
