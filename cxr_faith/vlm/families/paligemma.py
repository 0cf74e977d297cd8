r"""PaliGemma: square pictures of one size; image and question see each other in both directions.

A prompt is `image tokens | <bos> question \n`. Image tokens see the question, so no cache serves two questions:
each one takes the whole pass. The answer is causal.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import PaliGemmaForConditionalGeneration

from cxr_faith.vlm.decoder import Decoder, Starts
from cxr_faith.vlm.family import Size
from cxr_faith.vlm.folder import ModelFolder
from cxr_faith.vlm.layout import Layout
from cxr_faith.vlm.pretrained import FamilyVLM
from cxr_faith.vlm.square_patches import check_whole_patches, square_layout

TEMPLATE = (
    "{% for content in messages[0]['content'] %}"
    "{{ '<image>' + bos_token if content['type'] == 'image' else content['text'] + '\n' }}{% endfor %}"
)
"""The family has no chat template of its own; its processor writes this."""


class PaliGemmaDecoder(Decoder):
    """Every position before the answer sees every other one."""

    norm_offset = 1.0

    def __init__(self, model: Any, layout: Layout) -> None:
        super().__init__(model, layout)
        self.body = model.model  # makes masks from token types, and counts positions from 1

    def image_inputs(self, embedded: Tensor, image_starts: Starts, prompt_length: int | None) -> dict[str, Tensor]:
        """Token types: 1 for the answer; see `Decoder.image_inputs`."""
        types = torch.zeros(embedded.shape[:2], dtype=torch.long, device=embedded.device)
        if prompt_length is not None:
            types[:, prompt_length:] = 1
        return {"token_type_ids": types}


class PaliGemmaVLM(FamilyVLM):
    """A `PaliGemmaForConditionalGeneration`; see `FamilyVLM`."""

    model_class = PaliGemmaForConditionalGeneration
    decoder_class = PaliGemmaDecoder
    several = False  # its models learned from single pictures
    shares_prefix = False
    looks_ahead = True

    @classmethod
    def layout_of(cls, config: Any, image_size: Size | None = None) -> tuple[Layout, Size]:
        """Each cell is a patch of the tower; see `Family.layout_of`."""
        return square_layout(config, image_size)

    @classmethod
    def check_config(cls, config: Any, source: object) -> None:
        """Whole patches; see `Family.check_config`."""
        check_whole_patches(config, source)

    @classmethod
    def load_processor(cls, folder: ModelFolder, config: Any) -> Any:
        """Its parts, with the processor's own way to write a prompt; see `Family.load_processor`."""
        parts = super().load_processor(folder, config)
        parts.chat_template = TEMPLATE
        parts.tokenizer.add_bos_token = False  # the template writes it behind the image
        return parts

    def encode_each(self, pixels: Tensor) -> Tensor:
        """Pixel values [batch, 3, H, W] to projected image tokens [batch, tokens, hidden]."""
        self.counts.embed += len(pixels)
        self.counts.encode += len(pixels)
        tokens: Tensor = self.model.model.get_image_features(pixels.to(self.model.dtype)).pooler_output
        return tokens
