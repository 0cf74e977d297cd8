"""Conditions: small changes of the picture, or another seed, that should hardly change answers and maps."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from cxr_faith.data.sheets import apart, together
from cxr_faith.perturb.schedule import stream

NONE = "none"
"""The condition of records about the unchanged picture with the run's own seed."""


@dataclass(frozen=True)
class Condition:
    """One condition and its parameter.

    Attributes:
        name: `shift` (pixels down and to the right, repeating the border), `contrast` (factor about the channel means),
            `noise` (Gaussian, one field for all channels, its deviation a share of the picture's) or `seed` (added to
            the run's seed; the picture is unchanged).
        value: the parameter.
    """

    name: str
    value: float

    NAMES: ClassVar[tuple[str, ...]] = ("shift", "contrast", "noise", "seed")

    @classmethod
    def parse(cls, spec: str) -> "Condition":
        """Read a spelling such as `shift:2`, `contrast:0.95`, `noise:0.02` or `seed:1`.

        Raises:
            ValueError: unknown name, or a missing value or one out of range.
        """
        name, _, parameter = spec.partition(":")
        if name not in cls.NAMES:
            raise ValueError(f"condition {spec!r}: the name must be one of {', '.join(cls.NAMES)}")
        try:
            value = float(parameter)
        except ValueError:
            value = math.nan
        if not 0 < value < 1e6 or (name in ("shift", "seed") and value != int(value)):
            kind = "a whole number above 0" if name in ("shift", "seed") else "a number above 0"
            raise ValueError(f"condition {spec!r}: {name} needs {kind}, such as {name}:{_EXAMPLES[name]}")
        return cls(name, value)

    @property
    def spec(self) -> str:
        """The spelling in records and tables."""
        return f"{self.name}:{self.value:g}"

    def seed(self, seed: int) -> int:
        """The seed that replaces the run's."""
        return seed + int(self.value) if self.name == "seed" else seed

    def apply(self, pixels: Tensor, image_id: str, seed: int) -> Tensor:
        """Change a picture.

        Args:
            pixels: [3, H, W] in model input space.
            image_id: seeds the noise together with `seed`.
            seed: the run's seed.

        Returns:
            [3, H, W].
        """
        if self.name == "shift":
            height, width = pixels.shape[-2:]
            by = int(self.value)
            return pad(pixels[None], (by, 0, by, 0), mode="replicate")[0, :, :height, :width]
        if self.name == "contrast":
            mean = pixels.mean((-2, -1), keepdim=True)
            return mean + self.value * (pixels - mean)
        if self.name == "noise":
            field = stream(seed, image_id, "small_noise").standard_normal((1, *pixels.shape[-2:]))
            return pixels + self.value * pixels.std() * torch.from_numpy(field).to(pixels)
        return pixels

    def apply_each(self, sheet: Tensor, image_ids: Sequence[str], seed: int) -> Tensor:
        """Change each picture of a sheet by itself.

        Args:
            sheet: [3, pictures * H, W] in model input space; see `cxr_faith.data.sheets`.
            image_ids: one for each picture; see `apply`.
            seed: the run's seed.

        Returns:
            [3, pictures * H, W].
        """
        parts = apart(sheet[None], len(image_ids))
        changed = [self.apply(part, image_id, seed) for part, image_id in zip(parts, image_ids, strict=True)]
        return together(torch.stack(changed), len(image_ids))[0]


_EXAMPLES = {"shift": "2", "contrast": "0.95", "noise": "0.02", "seed": "1"}
