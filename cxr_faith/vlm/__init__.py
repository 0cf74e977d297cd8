"""Vision-language models: what one must offer, and Gemma 3."""

from cxr_faith.vlm.base import VLM, ModelError, PictureScores, Prompt, Reply, Target
from cxr_faith.vlm.config import bundled_model
from cxr_faith.vlm.counts import Counts
from cxr_faith.vlm.families.gemma3 import Gemma3VLM

__all__ = ["VLM", "Counts", "Gemma3VLM", "ModelError", "Prompt", "Reply", "PictureScores", "Target", "bundled_model"]
