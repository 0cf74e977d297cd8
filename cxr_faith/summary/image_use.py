"""Do the answers use their pictures, and do they depend on the finding? An unused picture leaves nothing to explain."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cxr_faith.metrics.image_use import IGNORES, MIXED, USES
from cxr_faith.metrics.shares import wilson
from cxr_faith.records.controls import RANDOM
from cxr_faith.records.schema import GROUNDING
from cxr_faith.summary.columns import Flags, numbers, rounded
from cxr_faith.summary.result import Result

COLUMNS = GROUNDING
"""The columns of the records that this panel reads, beside those of the samples."""
USING = "uses_image"
"""Name of the slice of the answers that use their picture."""
_SLICES = ("all", "present", "absent", "answered_yes", "answered_no", "correct", "wrong")
_CHANGED = {"blank": "margin_blank", "swapped": "margin_swapped", "no picture": "margin_no_picture"}


@dataclass(frozen=True)
class Share(Result):
    """A share with its 95 % interval: Wilson's, with patients as observations."""

    n: int
    """Answers that it is taken over."""
    n_patients: int
    """Their patients."""
    share: float
    """From 0 to 1."""
    low: float
    """Lower end of the interval."""
    high: float
    """Upper end."""


@dataclass(frozen=True)
class UseOfSlice(Result):
    """The classes of the answers of one slice."""

    slice: str
    """Which samples, as in `Board.slice`."""
    n: int
    """Answers with a class."""
    uses: float
    """Share of the answers that go with a blank picture and with another patient's."""
    mixed: float
    """Share of those that go with one of them."""
    ignores: Share
    """Share of those that go with neither."""


@dataclass(frozen=True)
class Changed(Result):
    """Yes/no answers on other pictures than their own."""

    picture: str
    """"blank", "swapped" (another patient's) or "no picture"."""
    changes: Share
    """Share of the answers that change from yes to no or from no to yes."""


@dataclass(frozen=True)
class Grounding(Result):
    """Do the answers depend on the cells of the finding's mask, and on no others? Under one substrate."""

    substrate: str
    """What replaces the cells, e.g. "blur:0.1"."""
    slice: str
    """Which samples: "all" or "answered_yes"."""
    cgr: Share
    """Share of the answers that change when the cells of the mask are removed."""
    uar: Share | None
    """Share of the answers that stay when as many cells away from it are removed; None where there is no room."""


@dataclass(frozen=True)
class ImageUse(Result):
    """Whether the answers of a run use their pictures."""

    n: int
    """Answers with a class."""
    n_unknown: int
    """Answers without one: it was not measured, there is no other patient's picture, or the answer was no answer."""
    n_opposite: int
    """Answers whose other picture has another reference answer."""
    slices: tuple[UseOfSlice, ...]
    """All samples first."""
    changed: tuple[Changed, ...]
    """Yes/no answers on a blank picture, on another patient's, and without a picture."""
    grounding: tuple[Grounding, ...]
    """By substrate, for the samples whose finding has a mask."""

    @property
    def whole(self) -> UseOfSlice:
        """The classes of all answers."""
        return self.slices[0]


def using(samples: pd.DataFrame) -> Flags:
    """Which answers use their picture, [samples]; none where all answers do, whose board is that of all samples.

    Args:
        samples: what `samples.sample_table` gave.
    """
    inside = samples["image_use"].eq(USES).to_numpy(bool)
    return inside & ~inside.all()


def use_panel(samples: pd.DataFrame, records: pd.DataFrame, slices: Mapping[str, Flags]) -> ImageUse | None:
    """Whether the answers use their pictures; None where that was not measured.

    Args:
        samples: what `samples.sample_table` gave.
        records: rows with `COLUMNS`, condition "none".
        slices: name → which samples are in it.
    """
    known = samples["image_use"].notna().to_numpy(bool)
    if not known.any():
        return None
    return ImageUse(
        n=int(known.sum()),
        n_unknown=int((~known).sum()),
        n_opposite=int((known & samples["swap_opposite"].eq(True).to_numpy(bool)).sum()),
        slices=tuple(
            _use(name, samples[slices[name] & known])
            for name in _SLICES
            if name in slices and (slices[name] & known).any()
        ),
        changed=tuple(_changed(samples)),
        grounding=tuple(_grounding(samples, records, slices)),
    )


def _use(name: str, samples: pd.DataFrame) -> UseOfSlice:
    classes, patients = samples["image_use"], samples["patient"]
    uses, mixed = (rounded(float(classes.eq(one).mean())) or 0.0 for one in (USES, MIXED))
    return UseOfSlice(name, len(samples), uses, mixed, _share(classes.eq(IGNORES).to_numpy(bool), patients))


def _share(holds: Flags, patients: "pd.Series[str]") -> Share:
    share, clusters = float(holds.mean()), int(patients.nunique())
    low, high = wilson(share, clusters)
    return Share(len(holds), clusters, rounded(share) or 0.0, rounded(low) or 0.0, rounded(high) or 0.0)


def _changed(samples: pd.DataFrame) -> Iterator[Changed]:
    said_yes = samples["predicted"].eq("yes").to_numpy(bool)
    asked = samples["p_yes"].notna().to_numpy(bool)
    for name, column in _CHANGED.items():
        margins = numbers(samples[column])
        known = asked & np.isfinite(margins)
        if known.any():
            changes = (margins >= 0) != said_yes
            yield Changed(name, _share(changes[known], samples.loc[known, "patient"]))


def _grounding(samples: pd.DataFrame, records: pd.DataFrame, slices: Mapping[str, Flags]) -> Iterator[Grounding]:
    rows = records[records["method"].eq(RANDOM) & records["mask_removal_flips"].notna()]
    for substrate, mine in rows.groupby("substrate", sort=True):
        for name in ("all", "answered_yes"):
            inside = mine[mine["sample_id"].isin(samples.index[slices[name]])] if name in slices else mine[:0]
            if len(inside):
                yield Grounding(str(substrate), name, *_both(samples, inside))


def _both(samples: pd.DataFrame, rows: pd.DataFrame) -> tuple[Share, Share | None]:
    """CGR and UAR of some rows."""
    patients = samples["patient"].reindex(rows["sample_id"])
    away = rows["away_removal_keeps"].notna().to_numpy(bool)
    cgr = _share(rows["mask_removal_flips"].eq(True).to_numpy(bool), patients)
    kept = rows["away_removal_keeps"].eq(True).to_numpy(bool)
    return cgr, _share(kept[away], patients[away]) if away.any() else None
