"""Qwen2.5-VL: pictures of any size, patches merged two by two, a causal decoder with three rows of positions.

A prompt is `… <|vision_start|> image tokens | <|vision_end|> question … <|im_start|>assistant`; the bar
marks the end of the prefix. A picture's tokens all have one temporal position, and those of their row and column; text
goes on after the largest of them.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import Qwen2_5_VLForConditionalGeneration

from cxr_faith.vlm.decoder import Decoder, Starts
from cxr_faith.vlm.errors import ModelError
from cxr_faith.vlm.family import Size
from cxr_faith.vlm.layout import Layout
from cxr_faith.vlm.pretrained import FamilyVLM

SIDE = 448
"""Side of the square at which pictures are read by default, in pixels, rounded up to whole cells; a checkpoint that was
trained at one size states its own as `vision_config.image_size`."""


class MRopeDecoder(Decoder):
    """Numbers image tokens by time, row and column."""

    def positions(self, seen: int, new: int, image_starts: Starts | None) -> dict[str, Tensor]:
        """Positions int64 [3, 1, new]; see `Decoder.positions`."""
        rows, columns = self.layout.grids[0]
        places = torch.arange(seen, seen + new).expand(3, -1).clone()
        # Each picture takes as many positions as it has rows or columns.
        count, shift = rows * columns, rows * columns - max(rows, columns)
        cell = torch.arange(count)
        offsets = torch.stack([torch.zeros_like(cell), cell // columns, cell % columns])
        for start in image_starts or ():
            places[:, start : start + count] = places[:, start, None] + offsets
            places[:, start + count :] -= shift
        if image_starts is None:
            places -= shift * len(self.layout.grids)
        return {"position_ids": places[:, None].to(self.model.device)}


class Qwen2_5VLM(FamilyVLM):  # noqa: N801 - the family's name
    """A `Qwen2_5_VLForConditionalGeneration`; see `FamilyVLM`."""

    model_class: ClassVar[Any] = Qwen2_5_VLForConditionalGeneration
    decoder_class = MRopeDecoder
    stops = ("<|im_end|>",)
    writes_bos = False
    nullable = (*FamilyVLM.nullable, "text_config")

    @classmethod
    def layout_of(cls, config: Any, image_size: Size | None = None) -> tuple[Layout, Size]:
        """Each cell is a block of merged patches; see `Family.layout_of`."""
        vision = config.vision_config
        cell = vision.patch_size * vision.spatial_merge_size
        side = getattr(vision, "image_size", None) or -(-SIDE // cell) * cell
        height, width = image_size or (side, side)
        if height % cell or width % cell or min(height, width) < cell:
            raise ModelError(f"vlm.image_size: both sides must be multiples of {cell} px, got {height}x{width}")
        return Layout.of_grid((height // cell, width // cell)), (height, width)

    @classmethod
    def layer_counts(cls, config: Any) -> dict[str, int]:
        """Blocks of the tower; see `Family.layer_counts`."""
        return {"visual": config.vision_config.depth}

    def encode_each(self, pixels: Tensor) -> Tensor:
        """Pixel values [batch, 3, H, W] to projected image tokens [batch, tokens, hidden]."""
        self.counts.embed += len(pixels)
        self.counts.encode += len(pixels)
        patches, grid = self.patches(pixels)
        features = self.model.model.get_image_features(patches.to(self.model.dtype), grid)
        return torch.stack(list(features.pooler_output))

    def patches(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Flat patches [batch * patches, values], block by block, and (1, rows, columns) of each picture's patches."""
        vision = self.model.config.vision_config
        side, merge, frames = vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size
        batch, (rows, columns) = len(pixels), self.picture_grid
        blocks = pixels.view(batch, 3, rows, merge, side, columns, merge, side)
        # A still picture is every frame of its one moment.
        frame = blocks.permute(0, 2, 5, 3, 6, 1, 4, 7)[:, :, :, :, :, :, None].expand(*[-1] * 6, frames, -1, -1)
        grid = torch.tensor([[1, rows * merge, columns * merge]] * batch, device=pixels.device)
        return frame.reshape(batch * rows * columns * merge**2, -1), grid
