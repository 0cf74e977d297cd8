"""Copies of a picture over which the spread of a map is measured: with little noise, or under other seeds."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor

from cxr_faith.perturb.condition import Condition

Source = Literal["noise", "seed"]
"""What differs between the copies."""


@dataclass(frozen=True)
class Copies:
    """How the uncertainty of maps is measured: the section `protocol.uncertainty` of a config.

    Attributes:
        copies: copies of each map, two or more; each costs as much as the map.
        source: `noise`: Gaussian noise on the picture, one field for all channels; `seed`: the picture as it is and
            another seed, which tells how much a method with random masks or noise of its own varies.
        size: standard deviation of the noise, as a share of the picture's.
    """

    copies: int = 8
    source: Source = "noise"
    size: float = 0.1

    def __post_init__(self) -> None:
        """Check each value."""
        if self.copies < 2:
            raise ValueError(f"uncertainty.copies must be at least 2, got {self.copies}")
        if self.source not in get_args(Source):
            raise ValueError(f"uncertainty.source must be one of {', '.join(get_args(Source))}, got {self.source!r}")
        if not 0 < self.size < 1:
            raise ValueError(f"uncertainty.size is a share of the picture's deviation, in (0, 1), got {self.size}")

    def of(self, pixels: Tensor, image_ids: Sequence[str], seed: int) -> Iterator[tuple[Tensor, int]]:
        """Each copy of a picture, and the seed under which its map is made.

        Args:
            pixels: [3, H, W] in model input space; several pictures of a question lie one below the other.
            image_ids: one for each picture.
            seed: the run's seed.
        """
        for number in range(1, self.copies + 1):
            if self.source == "seed":
                yield pixels, seed + number
            else:
                yield Condition("noise", self.size).apply_each(pixels, image_ids, seed + number), seed
