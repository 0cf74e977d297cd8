r"""LLaVA-OneVision: a view of the whole picture, then tiles of the padded picture with a separator after each row.

A prompt is `… user image tokens | \n question … <|im_start|>assistant`; the bar marks the end of the prefix.
The picture keeps its shape: it is padded with black to whole tiles, and tokens of the padding are dropped. A last strip
of each tile that is narrower than a patch is not seen.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import LlavaOnevisionForConditionalGeneration
from transformers.image_processing_utils import get_patch_output_size, select_best_resolution
from transformers.image_utils import ChannelDimension

from cxr_faith.vlm.errors import ModelError
from cxr_faith.vlm.family import Size
from cxr_faith.vlm.layout import Layout
from cxr_faith.vlm.pretrained import FamilyVLM

MOST_TILES = 9
"""With more, the model shrinks its tokens to a grid that does not follow the patches."""


class LlavaOnevisionVLM(FamilyVLM):
    """A `LlavaOnevisionForConditionalGeneration`; see `FamilyVLM`. Pictures are two by two tiles by default."""

    model_class = LlavaOnevisionForConditionalGeneration
    stops = ("<|im_end|>",)
    writes_bos = False
    several = False  # of several pictures the model reads no tiles

    @classmethod
    def layout_of(cls, config: Any, image_size: Size | None = None) -> tuple[Layout, Size]:
        """Cells as fine as the whole view's tokens, as far as they divide the picture; see `Family.layout_of`."""
        tile, patch = config.vision_config.image_size, config.vision_config.patch_size
        size = image_size or (2 * tile, 2 * tile)
        padded, most = _padded(config, size), tile // patch
        whole = torch.arange(most, dtype=torch.float64)[:, None] * patch + torch.tensor([0, patch])
        base = _boxes(whole / tile, whole / tile)
        rows, columns = (_seen(config, axis, size, padded) for axis in (0, 1))
        separators = torch.zeros(len(rows), 1, 4, dtype=torch.float64)
        tiles = torch.cat([_boxes(rows, columns).unflatten(0, (len(rows), -1)), separators], dim=1).flatten(0, 1)
        fine = (max(cells for cells in range(1, most + 1) if pixels % cells == 0) for pixels in size)
        return Layout.of((next(fine), next(fine)), torch.cat([base, tiles])), size

    @classmethod
    def check_config(cls, config: Any, source: object) -> None:
        """Patches without a class token, tiles of the usual number; see `Family.check_config`."""
        if config.vision_feature_select_strategy != "full":
            strategy = "vision_feature_select_strategy must be full: this tower has no class token"
            raise ModelError(f"{source}: config.json: {strategy}")
        if config.vision_aspect_ratio != f"anyres_max_{MOST_TILES}":
            raise ModelError(f"{source}: config.json: vision_aspect_ratio must be anyres_max_{MOST_TILES}")

    def encode_each(self, pixels: Tensor) -> Tensor:
        """Pixel values [batch, 3, H, W] to projected image tokens [batch, tokens, hidden]."""
        self.counts.embed += len(pixels)
        self.counts.encode += len(pixels)
        sizes = torch.tensor([pixels.shape[-2:]] * len(pixels), device=pixels.device)
        features = self.model.model.get_image_features(self.views(pixels).to(self.model.dtype), sizes)
        return torch.stack(list(features.pooler_output))

    def views(self, pixels: Tensor) -> Tensor:
        """The whole picture, then the tiles row by row: [batch, views, 3, tile, tile]."""
        config, black = self.model.config, self.normalize(torch.zeros(1, 3, 1, 1, dtype=torch.uint8))
        tile, (height, width) = config.vision_config.image_size, _padded(self.model.config, self.image_size)
        free = (height - self.image_size[0], width - self.image_size[1])
        margins = (free[1] // 2, free[1] - free[1] // 2, free[0] // 2, free[0] - free[0] // 2)
        padded = torch.nn.functional.pad(pixels - black, margins) + black
        tiles = padded.unflatten(3, (-1, tile)).unflatten(2, (-1, tile)).permute(0, 2, 4, 1, 3, 5).flatten(1, 2)
        return torch.cat([self.resized(pixels, (tile, tile))[:, None], tiles], dim=1)


def _padded(config: Any, size: Size) -> Size:
    """(H, W) of the tiles that hold a picture.

    Raises:
        ModelError: a picture of this size would be resized, or has too many tiles.
    """
    tile = config.vision_config.image_size
    height, width = select_best_resolution(size, config.image_grid_pinpoints)
    blank = torch.empty(3, *size, device="meta")
    fitted = tuple(get_patch_output_size(blank, (height, width), input_data_format=ChannelDimension.FIRST))
    if fitted != tuple(size):
        read = f"would be read at {fitted[0]}x{fitted[1]}: ask for that"
        raise ModelError(f"vlm.image_size: {size[0]}x{size[1]} px {read}")
    if (height // tile) * (width // tile) > MOST_TILES:
        raise ModelError(f"vlm.image_size: {size[0]}x{size[1]} px take more than {MOST_TILES} tiles of {tile} px")
    return height, width


def _seen(config: Any, axis: int, size: Size, padded: Size) -> Tensor:
    """Start and end of each row or column of tokens that is not dropped, in shares of the picture, [count, 2]."""
    tile, patch = config.vision_config.image_size, config.vision_config.patch_size
    each, tiles = tile // patch, padded[axis] // tile
    starts = torch.arange(tiles)[:, None] * tile + torch.arange(each) * patch
    pixels = starts.flatten().double()[:, None] + torch.tensor([0, patch]) - (padded[axis] - size[axis]) // 2
    # As the model drops them: by the picture's shape alone, on the grid of tokens.
    tokens = [side // tile * each for side in padded]
    wide = size[1] / size[0] > tokens[1] / tokens[0]
    dropped = 0
    if wide == (axis == 0):
        along = tokens[1 - axis] / size[1 - axis]
        dropped = (tokens[axis] - int(round(size[axis] * along, 7))) // 2
    kept = pixels[dropped : tokens[axis] - dropped]
    shares: Tensor = (kept / size[axis]).clamp(0, 1)
    return shares


def _boxes(rows: Tensor, columns: Tensor) -> Tensor:
    """Boxes [rows * columns, 4] from the starts and ends of rows and columns."""
    tall, wide = rows[:, None].expand(-1, len(columns), -1), columns[None].expand(len(rows), -1, -1)
    boxes: Tensor = torch.stack([wide[..., 0], tall[..., 0], wide[..., 1], tall[..., 1]], dim=-1).flatten(0, 1)
    return boxes
