"""Vision-language models: what one must offer, and the families that are read."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cxr_faith.vlm.base import VLM, PictureScores, Prompt, Reply, Target
    from cxr_faith.vlm.config import bundled_model
    from cxr_faith.vlm.counts import Counts
    from cxr_faith.vlm.errors import ModelError
    from cxr_faith.vlm.families.gemma3 import Gemma3VLM

__all__ = ["VLM", "Counts", "Gemma3VLM", "ModelError", "Prompt", "Reply", "PictureScores", "Target", "bundled_model"]

_HOMES = {
    "Counts": "counts",
    "Gemma3VLM": "families.gemma3",
    "ModelError": "errors",
    "bundled_model": "config",
}


def __getattr__(name: str) -> Any:
    # The command line checks a model folder before torch is loaded, so each name is loaded on its first use.
    if name in __all__:
        return getattr(importlib.import_module(f"cxr_faith.vlm.{_HOMES.get(name, 'base')}"), name)
    raise AttributeError(f"module 'cxr_faith.vlm' has no attribute {name!r}")
