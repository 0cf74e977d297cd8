"""Substrates: what replaces removed cells, in the pixel values that the model gets."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from kornia.filters import gaussian_blur2d
from torch import Tensor

from cxr_faith.data.sheets import apart, together
from cxr_faith.perturb.road import Fill, noise_field, road_fill
from cxr_faith.perturb.schedule import stream

DEFAULT_SUBSTRATE = "blur:0.1"
PAIR = "pair"
"""The substrate that is a picture of its own, named in the manifest: the same one without the finding."""


@dataclass(frozen=True)
class Substrate:
    """A substrate and its parameter.

    Attributes:
        name: `blur` (Gaussian, σ a fraction of the image side), `mean` (channel means of the picture), `zero` (0 in
            model input space, mid gray), `noise` (Gaussian of the picture's channel means and stds), `road` (noisy
            linear imputation from the cells that are left, see `cxr_faith.perturb.road`) or `pair` (the same picture
            without the finding, which the manifest names: healthy tissue where the finding is, no change elsewhere).
        sigma: the fraction, for `blur`.
    """

    name: str
    sigma: float = 0.0

    NAMES: ClassVar[tuple[str, ...]] = ("blur", "mean", "zero", "noise", "road", PAIR)

    @classmethod
    def parse(cls, spec: str) -> "Substrate":
        """Read a spelling such as `blur:0.1` or `mean`.

        Raises:
            ValueError: unknown name, or a parameter that is out of range or that this substrate does not take.
        """
        name, _, parameter = spec.partition(":")
        if name not in cls.NAMES:
            raise ValueError(f"substrate {spec!r}: the name must be one of {', '.join(cls.NAMES)}")
        if name != "blur":
            if parameter:
                raise ValueError(f"substrate {spec!r}: {name} takes no parameter")
            return cls(name)
        try:
            sigma = float(parameter or "0.1")
        except ValueError:
            sigma = math.nan
        if not 0 < sigma <= 1:
            raise ValueError(f"substrate {spec!r}: the sigma of blur is a fraction of the image side in (0, 1]")
        return cls(name, sigma)

    @property
    def spec(self) -> str:
        """The spelling in records and tables."""
        return f"blur:{self.sigma:g}" if self.name == "blur" else self.name

    def apply(self, pixels: Tensor, image_ids: Sequence[str], seed: int, pictures: int = 1) -> Tensor:
        """Pictures with every cell removed.

        Args:
            pixels: [batch, 3, H, W] in model input space, on any device.
            image_ids: one for each picture; they seed `noise` and `road`, so that these do not depend on the batch.
            seed: the run's seed.
            pictures: how many pictures of equal size lie one below the other in each, see `cxr_faith.data.sheets`. Each
                of them gets its own substrate.

        Returns:
            [batch, 3, H, W], same device and dtype.

        Raises:
            ValueError: the substrate is `pair`, which no function of the picture gives.
        """
        if self.name == PAIR:
            raise ValueError("substrate pair needs the same picture without the finding, as a manifest names it")
        if self.name == "zero":
            return torch.zeros_like(pixels)
        parts = apart(pixels, pictures)
        if self.name == "mean":
            removed = parts.mean(dim=(-2, -1), keepdim=True).expand_as(parts)
        elif self.name == "noise":
            removed = self._noise(pixels, image_ids, seed, pictures)
        elif self.name == "road":
            fields = [noise_field(sheet, i, seed, pictures) for sheet, i in zip(pixels, image_ids, strict=True)]
            removed = parts.mean(dim=(-2, -1), keepdim=True) + torch.cat(fields)
        else:
            removed = self._blur(parts)
        return together(removed, pictures)

    def fill(self, pixels: Tensor, image_id: str, seed: int, grid: tuple[int, int], pictures: int = 1) -> Fill | None:
        """A function from masks to pictures, for a substrate that depends on the mask; None for the others.

        Args:
            pixels: one picture [3, H, W].
            image_id: its id.
            seed: the run's seed.
            grid: (grid_h, grid_w) of a picture.
            pictures: see `apply`.
        """
        return road_fill(pixels, image_id, seed, grid, pictures) if self.name == "road" else None

    def _blur(self, pixels: Tensor) -> Tensor:
        height, width = pixels.shape[-2:]
        sigmas = (self.sigma * height, self.sigma * width)
        kernel = (_kernel_size(sigmas[0], height), _kernel_size(sigmas[1], width))
        blurred: Tensor = gaussian_blur2d(pixels, kernel, sigmas, border_type="reflect", separable=True)
        return blurred

    def _noise(self, pixels: Tensor, image_ids: Sequence[str], seed: int, pictures: int) -> Tensor:
        # One field for all three channels, so that a gray picture stays gray.
        shape = (1, *pixels.shape[-2:])
        fields = [torch.from_numpy(stream(seed, i, "noise").standard_normal(shape)) for i in image_ids]
        field = apart(torch.stack(fields).to(pixels.device, pixels.dtype), pictures)
        std, mean = torch.std_mean(apart(pixels, pictures), dim=(-2, -1), keepdim=True, correction=0)
        return mean + std * field


def compose(original: Tensor, removed: Tensor, keep: Tensor, grid: tuple[int, int], softness: float = 0.0) -> Tensor:
    """Pictures with some cells from the original and the others from the substrate.

    Args:
        original: [3, H, W].
        removed: the substrate picture [3, H, W], or one for each mask [M, 3, H, W].
        keep: bool [M, N], True = the cell stays original; N = grid_h * grid_w, row major.
        grid: (grid_h, grid_w), which divide H and W.
        softness: σ in pixels of a Gaussian (reflect) on the mask; 0 = hard cells.

    Returns:
        [M, 3, H, W].
    """
    height, width = original.shape[-2:]
    rows, columns = height // grid[0], width // grid[1]
    mask = keep.unflatten(1, grid).repeat_interleave(rows, 1).repeat_interleave(columns, 2)[:, None]
    if softness == 0:
        return torch.where(mask, original, removed)
    kernel = (_kernel_size(softness, height), _kernel_size(softness, width))
    # A convolution rounds one picture differently than two or more, and the batch size must not matter.
    several = mask.expand(2, -1, -1, -1) if len(mask) == 1 else mask
    blurred = gaussian_blur2d(several.to(original.dtype), kernel, (softness, softness), border_type="reflect")
    weight = blurred[: len(mask)]
    return weight * original + (1 - weight) * removed


def _kernel_size(sigma: float, side: int) -> int:
    """2·⌈3σ⌉ + 1, at most the largest odd size that reflect padding allows: side - 1 pixels on each side."""
    return min(2 * math.ceil(3 * sigma) + 1, 2 * side - 1)
