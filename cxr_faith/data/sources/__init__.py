"""Data sources: one module per data set, each a generator of samples from the data set's published layout.

A source takes the root, the tally of the preparation and its own options, and yields `Sample`; what all samples go
through is in `cxr_faith.data.intake`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from cxr_faith.data.sample import Sample
from cxr_faith.data.sources.hub import hub
from cxr_faith.data.sources.mimic import mimic_cxr, mimic_cxr_vqa
from cxr_faith.data.sources.phantom_source import phantom
from cxr_faith.data.sources.slake import slake
from cxr_faith.data.sources.table import table
from cxr_faith.data.sources.vindr import vindr_cxr
from cxr_faith.data.sources.vindr_vqa import vindr_cxr_vqa
from cxr_faith.data.sources.vqa_rad import vqa_rad

SOURCES: dict[str, Callable[..., Iterator[Sample]]] = {
    "mimic-cxr-vqa": mimic_cxr_vqa,
    "mimic-cxr": mimic_cxr,
    "vindr-cxr": vindr_cxr,
    "vindr-cxr-vqa": vindr_cxr_vqa,
    "vqa-rad": vqa_rad,
    "slake": slake,
    "phantom": phantom,
    "table": table,
    "hub": hub,
}
"""Sources by the name that the command line knows them by."""
