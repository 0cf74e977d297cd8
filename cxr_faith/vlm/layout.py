"""Where image tokens lie in the pictures, and how values on tokens become values on cells.

Cells belong to the picture: a regular grid, on which maps and perturbations live. Tokens belong to the model: a tile's
token covers its part of the tile, a thumbnail's token its part of the whole picture, a separator nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

Grid = tuple[int, int]
WHOLE = (0.0, 0.0, 1.0, 1.0)
"""The box of a whole picture."""


def grid_boxes(grid: Grid, within: Sequence[float] = WHOLE) -> Tensor:
    """Boxes float64 [grid_h * grid_w, 4] of a regular grid over a box, row by row.

    Args:
        grid: (grid_h, grid_w).
        within: x1, y1, x2, y2 in shares of the picture.
    """
    x1, y1, x2, y2 = within
    ys, xs = (
        low + (high - low) * torch.arange(count + 1, dtype=torch.float64) / count
        for low, high, count in ((y1, y2, grid[0]), (x1, x2, grid[1]))
    )
    top, left = torch.meshgrid(ys[:-1], xs[:-1], indexing="ij")
    bottom, right = torch.meshgrid(ys[1:], xs[1:], indexing="ij")
    return torch.stack([left, top, right, bottom], dim=-1).flatten(0, 1)


@dataclass(frozen=True, eq=False)
class Layout:
    """Cells of one or more pictures, and the boxes of the image tokens.

    Attributes:
        grids: (grid_h, grid_w) cells of each picture; cells are counted picture by picture, row by row.
        boxes: float64 [tokens, 4], xyxy in shares of the token's picture, half open; an empty box for a token that
            covers nothing.
        pictures: int64 [tokens], index of each token's picture.
    """

    grids: tuple[Grid, ...]
    boxes: Tensor
    pictures: Tensor

    @classmethod
    def of(cls, grid: Grid, boxes: Tensor) -> "Layout":
        """The layout of one picture."""
        return cls((grid,), boxes, torch.zeros(len(boxes), dtype=torch.int64))

    @classmethod
    def of_grid(cls, grid: Grid) -> "Layout":
        """One picture whose tokens are the cells."""
        return cls.of(grid, grid_boxes(grid))

    @classmethod
    def joined(cls, layouts: Sequence["Layout"]) -> "Layout":
        """Pictures one after another."""
        counts = [len(layout.grids) for layout in layouts]
        offsets = [sum(counts[:index]) for index in range(len(counts))]
        return cls(
            tuple(grid for layout in layouts for grid in layout.grids),
            torch.cat([layout.boxes for layout in layouts]),
            torch.cat([layout.pictures + offset for layout, offset in zip(layouts, offsets, strict=True)]),
        )

    @property
    def n_tokens(self) -> int:
        """Number of image tokens, separators included."""
        return len(self.boxes)

    @cached_property
    def is_grid(self) -> bool:
        """Whether the tokens are the cells, one for one."""
        cells = torch.cat([grid_boxes(grid) for grid in self.grids])
        owners = torch.cat([torch.full((h * w,), index) for index, (h, w) in enumerate(self.grids)])
        return torch.equal(self.boxes, cells) and torch.equal(self.pictures, owners)

    @cached_property
    def shares(self) -> Tensor:
        """float64 [tokens, cells]: the share of a token's box that lies in a cell, |box ∩ cell| / |box|.

        A row sums to 1; that of a token that covers nothing is 0.
        """
        blocks = []
        for index, grid in enumerate(self.grids):
            cells = grid_boxes(grid)
            low = torch.maximum(self.boxes[:, None, :2], cells[None, :, :2])
            high = torch.minimum(self.boxes[:, None, 2:], cells[None, :, 2:])
            overlap = (high - low).clamp_min(0).prod(-1)
            blocks.append(torch.where((self.pictures == index)[:, None], overlap, 0.0))
        overlaps = torch.cat(blocks, dim=1)
        area = overlaps.sum(1, keepdim=True)
        return torch.where(area > 0, overlaps / area.clamp_min(torch.finfo(torch.float64).tiny), 0.0)

    def to_cells(self, values: Tensor) -> Tensor:
        """Values of tokens [..., tokens] on cells [..., cells], split by area; their sum stays.

        Where the tokens are the cells, the values themselves.
        """
        if self.is_grid:
            return values
        return (values.double() @ self.shares.to(values.device)).to(values.dtype)

    def least_on_cells(self, values: Tensor, otherwise: float) -> Tensor:
        """The least value among the tokens that touch a cell, [..., tokens] to [..., cells]; else `otherwise`."""
        if self.is_grid:
            return values
        touching = self.shares.to(values.device) > 0
        return torch.where(touching, values[..., None], otherwise).amin(-2)

    def kept_tokens(self, keep: Tensor) -> Tensor:
        """Which tokens stay, bool [..., tokens], where these cells do, bool [..., cells].

        A token stays if at least half of its box does. A separator, which covers nothing, is the same in every picture.
        """
        if self.is_grid:
            return keep
        return keep.double() @ self.shares.T.to(keep.device) > 0.5 - 1e-9
