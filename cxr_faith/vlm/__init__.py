"""Vision-language models: what one must offer, and Gemma 3."""

from pathlib import Path

from cxr_faith.vlm.base import VLM, Counts, ModelError, Prompt, Reply, Scores, Target
from cxr_faith.vlm.families.gemma3 import Gemma3VLM

__all__ = ["VLM", "Counts", "Gemma3VLM", "ModelError", "Prompt", "Reply", "Scores", "Target", "bundled_model"]


def bundled_model() -> Path:
    """Folder of the small Gemma-3 that ships with the package (its README.md is the model card)."""
    return Path(__file__).parent / "bundled"
