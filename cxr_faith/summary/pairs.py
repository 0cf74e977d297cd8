"""Planted pairs: how often the object turns the answer into a yes, by finding and contrast; and the verified pairs.

A pair is verified when the model says no to the film and yes to the copy with the object: then the object is what
changed the answer, by intervention, and its mask is known exactly.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cxr_faith.metrics.shares import wilson
from cxr_faith.summary.columns import Flags, rounded
from cxr_faith.summary.localization import Localization, method_localization
from cxr_faith.summary.result import Result

COLUMNS = ("pair_id", "planted", "contrast")
"""The columns of the records that name the pairs."""
VERIFIED = "verified"
"""Name of the slice of the planted copies of verified pairs."""
LEAST_MASS = 0.5
"""p(yes) + p(no) below which an answer is neither."""


@dataclass(frozen=True)
class Flips(Result):
    """The answers to the pairs of one finding at one contrast: a point of the model's psychometric curve."""

    finding: str
    """What was planted."""
    contrast: float
    """How strong; 1 is plain to see."""
    n: int
    """Pairs whose two answers could be read."""
    n_patients: int
    """Their patients."""
    n_said_no: int
    """Pairs whose film was answered with no, so that the object could turn the answer."""
    n_verified: int
    """Pairs that are verified: no to the film, yes to its copy."""
    verified: float
    """Share of the pairs that are verified."""
    low: float
    """Lower end of its 95 % interval: Wilson's, with patients as observations."""
    high: float
    """Upper end."""
    n_lost: int
    """Pairs whose film was answered with yes and the copy with no."""


@dataclass(frozen=True)
class Pairs(Result):
    """The planted pairs of a run."""

    n: int
    """Pairs of a film and a copy whose two answers could be read."""
    n_unread: int
    """Planted copies that have no such pair: an answer could not be read, or the film was not asked about."""
    n_verified: int
    """Pairs that are verified."""
    flips: tuple[Flips, ...]
    """By finding, then by contrast."""
    localization: tuple[Localization, ...]
    """Localization scores of each method against the exact masks, over the verified pairs in the first setting."""


def pair_table(samples: pd.DataFrame) -> pd.DataFrame:
    """One row per pair with two readable answers, by the `sample_id` of the planted copy.

    Args:
        samples: what `samples.sample_table` gave.

    Returns:
        `finding`, `contrast`, `patient`, and whether the model said yes to the `film` and to the `copy`.
    """
    mass = samples["yes_no_mass"].astype(float)
    said = samples[samples["predicted"].isin(["yes", "no"]) & ~mass.lt(LEAST_MASS) & samples["pair_id"].notna()]
    yes = said["predicted"].eq("yes")
    planted = said["planted"].eq(True)
    films = pd.Series(yes[~planted].to_numpy(), index=said.loc[~planted, "pair_id"])
    films = films[~films.index.duplicated()]
    copies = said.loc[planted, ["finding", "contrast", "patient", "pair_id"]].assign(copy=yes[planted])
    copies = copies[copies["pair_id"].isin(films.index)]
    return copies.assign(film=films.reindex(copies["pair_id"]).to_numpy(bool))


def verified(samples: pd.DataFrame) -> Flags:
    """Which samples are planted copies of verified pairs, [samples].

    Args:
        samples: what `samples.sample_table` gave.
    """
    pairs = pair_table(samples)
    flipped = pairs.index[pairs["copy"].to_numpy(bool) & ~pairs["film"].to_numpy(bool)]
    return np.asarray(samples.index.isin(flipped), bool)


def pairs_panel(samples: pd.DataFrame, first: pd.DataFrame, methods: Sequence[str]) -> Pairs | None:
    """The planted pairs; None for a run without any.

    Args:
        samples: what `samples.sample_table` gave.
        first: rows of the first setting, condition "none", with the columns of `localization` too.
        methods: the order in which methods are listed.
    """
    n_planted = int(samples["planted"].eq(True).sum())
    if not n_planted:
        return None
    pairs, inside = pair_table(samples), verified(samples)
    rows = first[first["sample_id"].isin(samples.index[inside])]
    located = (method_localization(rows, rows, name) for name in methods if rows["method"].eq(name).any())
    return Pairs(
        n=len(pairs),
        n_unread=n_planted - len(pairs),
        n_verified=int(inside.sum()),
        flips=tuple(_flips(pairs)),
        localization=tuple(entry for entry in located if entry.n),
    )


def _flips(pairs: pd.DataFrame) -> Iterator[Flips]:
    for (finding, contrast), part in pairs.groupby(["finding", "contrast"], sort=True):
        film, copy = part["film"].to_numpy(bool), part["copy"].to_numpy(bool)
        flipped, patients = int((copy & ~film).sum()), int(part["patient"].nunique())
        share = flipped / len(part)
        low, high = wilson(share, patients)
        yield Flips(
            finding=str(finding),
            contrast=float(str(contrast)),
            n=len(part),
            n_patients=patients,
            n_said_no=int((~film).sum()),
            n_verified=flipped,
            verified=rounded(share) or 0.0,
            low=rounded(low) or 0.0,
            high=rounded(high) or 0.0,
            n_lost=int((film & ~copy).sum()),
        )
