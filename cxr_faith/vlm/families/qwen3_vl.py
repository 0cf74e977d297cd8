"""Qwen3-VL: as Qwen2.5-VL, and features of inner tower layers are added to the first decoder layers (DeepStack).

An image token here holds all that the decoder takes of its place, one part after another: its embedding, then what is
added behind layer 0, 1, …. So gradients, paths and exchanged tokens cover every place where the picture enters.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import Qwen3VLForConditionalGeneration

from cxr_faith.vlm.decoder import Starts, placed
from cxr_faith.vlm.families.qwen2_5_vl import MRopeDecoder, Qwen2_5VLM
from cxr_faith.vlm.layout import Layout


class DeepStackDecoder(MRopeDecoder):
    """Takes each part of the image tokens where it enters."""

    def __init__(self, model: Any, layout: Layout) -> None:
        super().__init__(model, layout)
        self.body = self._stacked

    def embed(self, tokens: Tensor, ids: Sequence[Sequence[int]], image_starts: Starts) -> Tensor:
        """Input embeddings with the added parts behind them, 0 for text: [batch, sequence, parts * hidden]."""
        first, added = tokens.tensor_split([self.hidden_size], dim=-1)
        embedded = super().embed(first, ids, image_starts)
        nothing = embedded.new_zeros(*embedded.shape[:2], added.shape[-1])
        return torch.cat([embedded, placed(nothing, added.to(embedded.dtype), image_starts)], dim=-1)

    def _stacked(self, inputs_embeds: Tensor, **inputs: Any) -> Any:
        first, *added = inputs_embeds.split(self.hidden_size, dim=-1)
        if added:
            inputs["visual_pos_masks"] = torch.ones(first.shape[:2], dtype=torch.bool, device=first.device)
            inputs["deepstack_visual_embeds"] = [part.flatten(0, 1) for part in added]
        return self.model.model.language_model(inputs_embeds=first, **inputs)


class Qwen3VLM(Qwen2_5VLM):
    """A `Qwen3VLForConditionalGeneration`; see `FamilyVLM`."""

    model_class = Qwen3VLForConditionalGeneration
    decoder_class = DeepStackDecoder

    def hidden_size(self, tokens: Tensor) -> int:
        """Channels of one part; see `VLM.hidden_size`."""
        return self.decoder.hidden_size

    def encode_each(self, pixels: Tensor) -> Tensor:
        """Pixel values [batch, 3, H, W] to image tokens [batch, tokens, parts * hidden]."""
        self.counts.embed += len(pixels)
        self.counts.encode += len(pixels)
        patches, grid = self.patches(pixels)
        features = self.model.model.get_image_features(patches.to(self.model.dtype), grid)
        first = torch.stack(list(features.pooler_output))
        # transformers 5.17 gives the tokens of all pictures in one row, later versions picture by picture.
        added = [torch.cat(list(part)) if part[0].ndim == 2 else part for part in features.deepstack_features]
        return torch.cat([first, *(part.reshape(first.shape) for part in added)], dim=-1)
