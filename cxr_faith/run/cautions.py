"""What is known before a run that takes the meaning from its numbers."""

import pyarrow.compute as pc

from cxr_faith.data.module import CXRVQADataModule
from cxr_faith.data.phantoms_only import PHANTOMS_ONLY
from cxr_faith.data.sources.phantom_files import SOURCE
from cxr_faith.run.module import FaithfulnessModule
from cxr_faith.vlm.bundled_weights import has_bundled_weights


def run_cautions(module: FaithfulnessModule, data: CXRVQADataModule) -> list[str]:
    """Sentences for the first lines of all results; empty for most runs.

    Raises:
        ManifestError: the manifest cannot be used.
    """
    sources = set(pc.unique(data.table.data.column("source")).to_pylist())
    return [PHANTOMS_ONLY] if sources - {SOURCE} and has_bundled_weights(module.model_config.source) else []
