"""The masks and boxes of other data sets that `prepare` can add to samples."""

from __future__ import annotations

from pathlib import Path

from cxr_faith.data.chexlocalize import CheXlocalize
from cxr_faith.data.intake import Join
from cxr_faith.data.organ_masks import AnatomyMasks
from cxr_faith.data.padchest_gr import PadChestGR
from cxr_faith.data.tally import Tally


def joins(
    root: Path, out: Path, tally: Tally, masks: str | None, chexlocalize: str | None, padchest_gr: str | None
) -> list[Join]:
    """The joins that `prepare`'s options ask for, in a fixed order."""
    asked: list[Join] = []
    if masks:
        asked.append(AnatomyMasks(Path(masks), root, out, tally))
    if chexlocalize:
        asked.append(CheXlocalize(Path(chexlocalize), out, tally))
    if padchest_gr:
        asked.append(PadChestGR(Path(padchest_gr), tally))
    return asked
