"""What `prepare` can add to samples: masks and boxes of other data sets, and headers of DICOM pictures."""

from __future__ import annotations

from pathlib import Path

from cxr_faith.data.chexlocalize import CheXlocalize
from cxr_faith.data.dicom_headers import DicomHeaders
from cxr_faith.data.intake import Join
from cxr_faith.data.organ_masks import AnatomyMasks
from cxr_faith.data.padchest_gr import PadChestGR
from cxr_faith.data.tally import Tally


def joins(
    root: Path,
    out: Path,
    tally: Tally,
    masks: str | None,
    chexlocalize: str | None,
    padchest_gr: str | None,
    dicom_headers: bool = False,
) -> list[Join]:
    """The joins that `prepare`'s options ask for, in a fixed order."""
    asked: list[Join] = []
    if masks:
        asked.append(AnatomyMasks(Path(masks), root, out, tally))
    if chexlocalize:
        asked.append(CheXlocalize(Path(chexlocalize), out, tally))
    if padchest_gr:
        asked.append(PadChestGR(Path(padchest_gr), tally))
    if dicom_headers:
        asked.append(DicomHeaders(root, tally))
    return asked
