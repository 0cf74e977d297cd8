"""Data sources: one generator of samples per data set, which reads the data set's published layout.

A source takes the root, the tally of the preparation and its own options, and yields samples. One that writes masks
also takes `folder`, the folder of the manifest. `cxr_faith.data.intake` then checks the samples of every source.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from cxr_faith.data.sample import Sample
from cxr_faith.data.sources.chexpert import chexpert
from cxr_faith.data.sources.hub import hub
from cxr_faith.data.sources.medical_diff_vqa import medical_diff_vqa
from cxr_faith.data.sources.mimic import mimic_cxr, mimic_cxr_vqa
from cxr_faith.data.sources.nih import nih
from cxr_faith.data.sources.padchest import padchest_gr
from cxr_faith.data.sources.phantom_source import phantoms
from cxr_faith.data.sources.picture_folder import folder
from cxr_faith.data.sources.rexvqa import rexvqa
from cxr_faith.data.sources.rsna import rsna
from cxr_faith.data.sources.siim import siim
from cxr_faith.data.sources.slake import slake
from cxr_faith.data.sources.table import table
from cxr_faith.data.sources.vinbigdata import vinbigdata
from cxr_faith.data.sources.vindr import vindr_cxr
from cxr_faith.data.sources.vindr_vqa import vindr_cxr_vqa
from cxr_faith.data.sources.vqa_rad import vqa_rad

SOURCES: dict[str, Callable[..., Iterator[Sample]]] = {
    "mimic-cxr-vqa": mimic_cxr_vqa,
    "mimic-cxr": mimic_cxr,
    "vindr-cxr": vindr_cxr,
    "vindr-cxr-vqa": vindr_cxr_vqa,
    "vinbigdata": vinbigdata,
    "nih": nih,
    "chexpert": chexpert,
    "rsna": rsna,
    "siim": siim,
    "padchest-gr": padchest_gr,
    "medical-diff-vqa": medical_diff_vqa,
    "rexvqa": rexvqa,
    "vqa-rad": vqa_rad,
    "slake": slake,
    "phantom": phantoms,
    "table": table,
    "folder": folder,
    "hub": hub,
}
"""Sources by their names on the command line."""
