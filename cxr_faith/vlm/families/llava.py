r"""LLaVA: square pictures of one size, tokens of a CLIP tower's inner layer, a causal decoder.

A prompt is `<s>USER: image tokens | \n question ASSISTANT:`; the bar marks the end of the prefix.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import LlavaForConditionalGeneration

from cxr_faith.vlm.errors import ModelError
from cxr_faith.vlm.family import Size
from cxr_faith.vlm.layout import Layout
from cxr_faith.vlm.pretrained import FamilyVLM
from cxr_faith.vlm.square_patches import check_whole_patches, square_layout


class LlavaVLM(FamilyVLM):
    """A `LlavaForConditionalGeneration`; see `FamilyVLM`."""

    model_class = LlavaForConditionalGeneration

    @classmethod
    def layout_of(cls, config: Any, image_size: Size | None = None) -> tuple[Layout, Size]:
        """Each cell is a patch of the tower; see `Family.layout_of`."""
        return square_layout(config, image_size)

    @classmethod
    def check_config(cls, config: Any, source: object) -> None:
        """Whole patches, without the class token; see `Family.check_config`."""
        check_whole_patches(config, source)
        if config.vision_feature_select_strategy != "default":
            strategy = "vision_feature_select_strategy must be default: a class token lies nowhere"
            raise ModelError(f"{source}: config.json: {strategy}")

    @classmethod
    def check_processor(cls, processor: Any, config: Any) -> None:
        """Size of pictures; see `Family.check_processor`."""
        images, side = processor.image_processor, config.vision_config.image_size
        size = getattr(images, "crop_size", None) if getattr(images, "do_center_crop", False) else images.size
        if not isinstance(size, dict) or {size.get("height"), size.get("width")} != {side}:
            raise ModelError(f"the processor makes pictures of {size}, the tower wants {side} px squares")

    def encode_each(self, pixels: Tensor) -> Tensor:
        """Pixel values [batch, 3, H, W] to projected image tokens [batch, tokens, hidden]."""
        self.counts.embed += len(pixels)
        self.counts.encode += len(pixels)
        return torch.stack(list(self.model.model.get_image_features(pixels.to(self.model.dtype)).pooler_output))
