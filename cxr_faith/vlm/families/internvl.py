"""InternVL: square tiles and, beside several of them, a thumbnail of the whole picture; a causal decoder.

A prompt is `… <img> image tokens | </img> question … <|im_start|>assistant`; the bar marks the end of the
prefix. The tiles come row by row, the thumbnail last: each place of the picture is seen twice.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import InternVLForConditionalGeneration

from cxr_faith.vlm.errors import ModelError
from cxr_faith.vlm.family import Size
from cxr_faith.vlm.layout import Layout, grid_boxes
from cxr_faith.vlm.pretrained import FamilyVLM


class InternVLVLM(FamilyVLM):
    """An `InternVLForConditionalGeneration`; see `FamilyVLM`. One tile is the class's own default."""

    model_class = InternVLForConditionalGeneration
    stops = ("<|im_end|>",)
    writes_bos = False

    @classmethod
    def layout_of(cls, config: Any, image_size: Size | None = None) -> tuple[Layout, Size]:
        """Cells of one tile's grid over the whole picture, tokens of tiles and thumbnail; see `Family.layout_of`."""
        tile, patch = config.vision_config.image_size[0], config.vision_config.patch_size[0]
        side = int(tile // patch * config.downsample_ratio)
        height, width = image_size or (tile, tile)
        if height % tile or width % tile or min(height, width) < tile:
            raise ModelError(f"vlm.image_size: both sides must be multiples of {tile} px, got {height}x{width}")
        tiles = grid_boxes((height // tile, width // tile))
        boxes = [grid_boxes((side, side), box.tolist()) for box in tiles]
        if len(tiles) > 1:
            boxes.append(grid_boxes((side, side)))
        return Layout.of((side, side), torch.cat(boxes)), (height, width)

    @classmethod
    def check_config(cls, config: Any, source: object) -> None:
        """Square tiles; see `Family.check_config`."""
        size, patch = config.vision_config.image_size, config.vision_config.patch_size
        if len({*size}) != 1 or len({*patch}) != 1 or size[0] % patch[0]:
            raise ModelError(f"{source}: config.json: tiles of {size} px and patches of {patch} px are no squares")

    @classmethod
    def image_text(cls, processor: Any, config: Any, n_tokens: int) -> tuple[str, str]:
        """The tokens of the whole picture between its marks; see `Family.image_text`."""
        mark, written = super().image_text(processor, config, n_tokens)
        return mark, f"<img>{written}</img>"

    def encode_each(self, pixels: Tensor) -> Tensor:
        """Pixel values [batch, 3, H, W] to projected image tokens [batch, tokens, hidden]."""
        self.counts.embed += len(pixels)
        self.counts.encode += len(pixels)
        views = self.views(pixels)
        features = self.model.model.get_image_features(views.flatten(0, 1).to(self.model.dtype)).pooler_output
        tokens: Tensor = features.unflatten(0, views.shape[:2]).flatten(1, 2)
        return tokens

    def views(self, pixels: Tensor) -> Tensor:
        """Tiles row by row, then the thumbnail: [batch, views, 3, tile, tile]."""
        tile = self.model.config.vision_config.image_size[0]
        tiles: Tensor = pixels.unflatten(3, (-1, tile)).unflatten(2, (-1, tile)).permute(0, 2, 4, 1, 3, 5).flatten(1, 2)
        if tiles.shape[1] == 1:
            return tiles
        return torch.cat([tiles, self.resized(pixels, (tile, tile))[:, None]], dim=1)
