"""Maps pictures, boxes and masks from original pixels to model pixels, all in the same way.

There are three coordinate systems: the file's pixels, the pixels after the border crop, and the model's input. All are
continuous: pixel i covers [i, i+1), so a half-open box [x1, x2) covers exactly the pixels x1 … x2 − 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

Boxes = npt.NDArray[np.float64]
_SAME_LEVELS = 2  # gray levels that resizing may round differently
_T = TypeVar("_T", bound=np.generic)


@dataclass(frozen=True)
class Geometry:
    """How a picture was cropped and resized to model size.

    Attributes:
        original: (height, width) of the image file, pixels.
        crop: (top, left, height, width) of the part that was kept, in original pixels.
        model: (height, width) of the model's input, pixels.
    """

    original: tuple[int, int]
    crop: tuple[int, int, int, int]
    model: tuple[int, int]

    def boxes_to_model(self, boxes: npt.ArrayLike) -> Boxes:
        """Map boxes [n, 4] (x1, y1, x2, y2) from original to model pixels.

        Boxes are clipped to the border crop; a box entirely in the cropped border gets zero area.
        """
        offset, scale = self._offset_and_scale()
        height, width = self.model
        mapped = (_as_boxes(boxes) - offset) * scale
        return np.clip(mapped, 0.0, np.array([width, height, width, height], dtype=np.float64))

    def boxes_to_original(self, boxes: npt.ArrayLike) -> Boxes:
        """Map boxes [n, 4] (x1, y1, x2, y2) from model to original pixels."""
        offset, scale = self._offset_and_scale()
        return _as_boxes(boxes) / scale + offset

    def boxes_to_mask(self, boxes: npt.ArrayLike) -> Tensor:
        """Union of boxes given in original pixels, as bool [H, W] in model pixels.

        A model pixel is inside if its center is. A box between two pixel centers gets the pixel that holds its middle.
        """
        mask = torch.zeros(self.model, dtype=torch.bool)
        for x1, y1, x2, y2 in self.boxes_to_model(boxes):
            if x1 < x2 and y1 < y2:
                mask[_pixels(y1, y2), _pixels(x1, x2)] = True
        return mask

    def to_cells(self, mask: Tensor, grid: tuple[int, int]) -> Tensor:
        """Fraction of each grid cell that a mask covers, exact even where cell borders cut through pixels.

        Args:
            mask: bool [H, W], model pixels.
            grid: (grid_h, grid_w), number of cells down and across.

        Returns:
            float32 [grid_h, grid_w] in [0, 1].

        Raises:
            ValueError: the mask does not have the model's size.
        """
        if tuple(mask.shape) != self.model:
            raise ValueError(f"mask is {tuple(mask.shape)}, expected the model size {self.model}")
        rows = cell_shares(grid[0], self.model[0]).to(mask.device)
        columns = cell_shares(grid[1], self.model[1]).to(mask.device)
        return (rows @ mask.double() @ columns.T).float()

    def _offset_and_scale(self) -> tuple[Boxes, Boxes]:
        top, left, height, width = self.crop
        x_scale, y_scale = self.model[1] / width, self.model[0] / height
        return np.array([left, top, left, top], dtype=np.float64), np.array([x_scale, y_scale, x_scale, y_scale])


def fit(image: npt.NDArray[np.uint8], size: tuple[int, int], border_crop: float = 0.0) -> tuple[Tensor, Geometry]:
    """Crop the border and resize to model size, bilinear with antialiasing.

    The aspect ratio is not kept: Gemma's own processor stretches pictures to a square too, and the model was trained
    on those.

    Args:
        image: uint8 [H, W, 3].
        size: (height, width) of the model's input.
        border_crop: share of the height (width) that is cut off at each side, for burnt-in text and collimator edges.

    Returns:
        uint8 tensor [3, H, W], and the geometry that maps boxes and masks the same way.

    Raises:
        ValueError: `border_crop` is not in [0, 0.5).
    """
    if not 0.0 <= border_crop < 0.5:
        raise ValueError(f"border_crop must be in [0, 0.5), got {border_crop}")
    height, width = image.shape[:2]
    top, left = round(height * border_crop), round(width * border_crop)
    geometry = Geometry((height, width), (top, left, max(height - 2 * top, 1), max(width - 2 * left, 1)), size)
    resized = Image.fromarray(_crop(image, geometry)).resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1).contiguous(), geometry


def is_constant(image: Tensor) -> bool:
    """Whether a picture [3, H, W] shows nothing but one color."""
    color = image[:, :1, :1]
    # Looking at a few pixels first settles it for all but constant pictures.
    return bool((image[:, ::16, ::16] == color).all() and (image == color).all())


def fit_mask(mask: npt.NDArray[np.bool_], geometry: Geometry) -> Tensor:
    """Crop and resize a mask as its picture was, by nearest neighbor.

    Args:
        mask: bool [H, W], original pixels.
        geometry: the picture's geometry, from `fit`.

    Returns:
        bool [H, W], model pixels.

    Raises:
        ValueError: the mask's size differs from the picture's.
    """
    if mask.shape != geometry.original:
        raise ValueError(f"mask is {mask.shape} px (height, width), its picture {geometry.original}")
    height, width = geometry.model
    resized = Image.fromarray(_crop(mask, geometry).astype(np.uint8)).resize((width, height), Image.Resampling.NEAREST)
    return torch.from_numpy(np.array(resized, dtype=bool))


def differs_outside(image: Tensor, pair: Tensor, mask: Tensor | None, geometry: Geometry) -> bool:
    """Whether two pictures differ where a mask says that they are the same.

    Args:
        image: uint8 [3, H, W], model pixels.
        pair: the other picture.
        mask: where they may differ, bool [H, W]; None: nowhere.
        geometry: how they came to model size: resizing carries a difference a little beyond the mask.
    """
    apart = (image.short() - pair.short()).abs().amax(0) > _SAME_LEVELS
    if mask is None or not apart.any():
        return bool(apart.any())
    reach = 2 + math.ceil(max(model / crop for model, crop in zip(geometry.model, geometry.crop[2:], strict=True)))
    near = torch.nn.functional.max_pool2d(mask[None].float(), 2 * reach + 1, stride=1, padding=reach)[0] > 0
    return bool((apart & ~near).any())


def _crop(pixels: npt.NDArray[_T], geometry: Geometry) -> npt.NDArray[_T]:
    top, left, height, width = geometry.crop
    return np.ascontiguousarray(pixels[top : top + height, left : left + width])


def _as_boxes(boxes: npt.ArrayLike) -> Boxes:
    return np.asarray(boxes, dtype=np.float64).reshape(-1, 4)


def _pixels(start: float, stop: float) -> slice:
    """Pixels whose centers lie in [start, stop); if there are none, the pixel that holds the middle."""
    first, end = int(np.ceil(start - 0.5)), int(np.ceil(stop - 0.5))
    if first < end:
        return slice(first, end)
    middle = int((start + stop) / 2)
    return slice(middle, middle + 1)


def cell_shares(cells: int, pixels: int) -> Tensor:
    """Share of each cell that each pixel fills along one axis: float64 [cells, pixels], rows sum to 1."""
    cell_edges = torch.arange(cells + 1, dtype=torch.float64) * (pixels / cells)
    pixel_edges = torch.arange(pixels + 1, dtype=torch.float64)
    stop = torch.minimum(cell_edges[1:, None], pixel_edges[None, 1:])
    start = torch.maximum(cell_edges[:-1, None], pixel_edges[None, :-1])
    return (stop - start).clamp(min=0.0) * (cells / pixels)
