"""Several pictures drawn as one: in rows, all of one height, each in its own proportions."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from cxr_faith.report.figures import Part, Pixels

HEIGHT, GAP = 512, 8
"""Height of each picture that stands beside others, and the space between two, in pixels."""

_ROW = 4
"""Pictures in a row; more of them are laid out in a square."""


@dataclass(frozen=True)
class Arrangement:
    """Where each picture stands."""

    size: tuple[int, int]
    """(height, width) of the whole, in pixels."""
    parts: tuple[Part, ...]
    """Name and place of each picture."""

    @classmethod
    def of(cls, names: Sequence[str], sizes: Sequence[tuple[int, int]]) -> "Arrangement":
        """Places for pictures of these (height, width)."""
        columns = len(sizes) if len(sizes) <= _ROW else math.ceil(math.sqrt(len(sizes)))
        parts, left, widest = list[Part](), 0, 0
        for index, (name, (height, width)) in enumerate(zip(names, sizes, strict=True)):
            row, column = divmod(index, columns)
            left = left if column else 0
            shown = max(1, round(width * HEIGHT / height))
            parts.append(Part(name, (row * (HEIGHT + GAP), left, HEIGHT, shown)))
            left += shown + GAP
            widest = max(widest, left - GAP)
        rows = -(-len(sizes) // columns)
        return cls((rows * (HEIGHT + GAP) - GAP, widest), tuple(parts))

    def draw(self, pictures: Sequence[Pixels]) -> Pixels:
        """The pictures [H, W, 3] at their places on white, [height, width, 3]."""
        whole = np.full((*self.size, 3), 255, np.uint8)
        for picture, part in zip(pictures, self.parts, strict=True):
            top, left, height, width = map(int, part.region)
            resized = Image.fromarray(picture).resize((width, height), Image.Resampling.BILINEAR)
            whole[top : top + height, left : left + width] = np.asarray(resized)
        return whole
