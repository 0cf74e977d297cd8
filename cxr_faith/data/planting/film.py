"""What a film is like: its gray levels, its noise and its sharpness. A planted object takes all three."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter, gaussian_gradient_magnitude
from scipy.signal import fftconvolve

Field = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

FILM_MM = 430.0
"""Longer side of a film in mm where its pixel spacing is unknown: a film of 35 × 43 cm."""
WHITE = 5 / 3
"""Gray that ever more attenuation tends to. Above 1, since films show bone and metal as white before the detector is
dark: a thin layer adds 1 - gray / WHITE times its density, so as much in the lungs as on bone needs more than twice
the density."""

_TILE = 32
_BRIGHTEST = 0.97  # gray of tissue: what is whiter is bone or metal
_TISSUE = 70  # percentile of the gray levels of the chest
_QUIET = 10  # percentile of the noise of tiles: the quiet ones show no ribs or vessels
_STEEP = 99.5  # percentile of gradients that count as edges
_SMALLEST_BLUR, _LARGEST_BLUR = 0.5, 6.0


class PlantError(ValueError):
    """An object that this film cannot show; the message is one of a fixed vocabulary."""


@dataclass(frozen=True)
class Film:
    """A film that an object is planted in, turned so that the patient's right is on the left.

    Attributes:
        gray: what it shows, float32 [H, W], 0 = black, 1 = white.
        mm: millimeters per pixel.
        lungs: masks of the lungs, bool [H, W], the patient's right one first.
        blur: sharpness, σ in pixels of the Gaussian that an ideal edge would have been blurred with.
        grain: noise alone, float32 [32, 32]; its spectrum and strength are those of the film's noise.
        mirrored: whether the picture that was measured has the patient's left on the left.
    """

    gray: Field
    mm: float
    lungs: tuple[Mask, Mask]
    blur: float
    grain: Field
    mirrored: bool = False

    @classmethod
    def from_pixels(
        cls, pixels: npt.NDArray[np.uint8], mm: float | None, lungs: tuple[Mask, Mask], mirrored: bool = False
    ) -> Film:
        """Measure a film.

        Args:
            pixels: uint8 [H, W], the patient's right on the left.
            mm: millimeters per pixel; None: unknown, so that the longer side counts as `FILM_MM`.
            lungs: masks of the lungs, the patient's right one first.
            mirrored: whether the film's own picture is the mirror image of these pixels.
        """
        gray = np.asarray(pixels / 255, np.float32)
        return cls(gray, mm or FILM_MM / max(pixels.shape), lungs, sharpness(gray), grain(gray), mirrored)

    def pixels(self, mm: float) -> float:
        """A length in pixels."""
        return mm / self.mm

    def spread(self, rows: slice, columns: slice) -> float:
        """90th minus 10th percentile of the gray levels of the lungs in a box: what their structures differ by."""
        box = (slice(max(rows.start, 0), rows.stop), slice(max(columns.start, 0), columns.stop))
        low, high = np.percentile(self.gray[box][(self.lungs[0] | self.lungs[1])[box]], (10, 90))
        return float(high - low)

    @property
    def solid(self) -> float:
        """Density that makes the lungs, at the median of their gray levels, look like the tissue around them."""
        rows, columns = np.nonzero(self.lungs[0] | self.lungs[1])
        frame = self.gray[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        lung, tissue = float(np.median(self.gray[rows, columns])), float(np.percentile(frame, _TISSUE))
        return float(WHITE * np.log((WHITE - lung) / (WHITE - max(min(tissue, _BRIGHTEST), lung))))

    def missing_tissue(self, side: int, mm: float) -> Field:
        """Density that would make air look like the tissue around it, float32 [H, W]; 0 where the film shows tissue.

        Args:
            side: of the lung; the median gray level of what surrounds it, in the frame of it, counts as tissue.
            mm: σ of the blur that lets ribs and vessels keep their own contrast.
        """
        lung = self.lungs[side]
        rows, columns = np.nonzero(lung)
        frame = (slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1))
        around = self.gray[frame][~(self.lungs[0] | self.lungs[1])[frame]]
        tissue = min(float(np.median(around if around.size else self.gray[frame])), _BRIGHTEST)
        smooth = gaussian_filter(self.gray, self.pixels(mm))
        return np.asarray(WHITE * np.log(np.maximum(WHITE - smooth, WHITE - tissue) / (WHITE - tissue)), np.float32)

    def noise(self, shape: tuple[int, int], rng: np.random.Generator) -> Field:
        """New noise of the film's own strength and spectrum, float32 [shape]."""
        spectrum = np.abs(np.fft.fft2(self.grain)) / np.sqrt(self.grain.size)
        kernel = np.fft.fftshift(np.fft.ifft2(spectrum).real)
        white = rng.standard_normal((shape[0] + _TILE, shape[1] + _TILE))
        filtered = fftconvolve(white, kernel, mode="same")
        half = _TILE // 2
        return np.asarray(filtered[half : half + shape[0], half : half + shape[1]], np.float32)


def attenuated(gray: Field, density: Field) -> Field:
    """What a film shows where a layer multiplies the transmitted intensity by exp(-density); negative = less tissue."""
    return np.asarray(WHITE - (WHITE - gray) * np.exp(-density / WHITE), np.float32)


def sharpness(gray: Field) -> float:
    """σ of a film's blur in pixels, from how much its steepest edges lose under two known blurs.

    An edge that was blurred by σ has after another blur by τ a slope in proportion to 1 / √(σ² + τ²).
    """
    height, width = gray.shape
    inner = gray[height // 10 : height - height // 10, width // 10 : width - width // 10]  # no collimator, no marker
    steep, flat = (gaussian_gradient_magnitude(inner, tau) for tau in (1.0, 2.0))
    edges = steep >= np.percentile(steep, _STEEP)
    ratio = float(np.median(steep[edges] / np.maximum(flat[edges], 1e-9))) ** 2
    variance = (4 - ratio) / max(ratio - 1, 1e-9)
    return float(np.sqrt(np.clip(variance, _SMALLEST_BLUR**2, _LARGEST_BLUR**2)))


def grain(gray: Field) -> Field:
    """A tile of noise of a film, float32 [32, 32]: what a blur removes from one of its quiet parts; zero mean.

    Raises:
        PlantError: the film is smaller than a tile.
    """
    if min(gray.shape) < _TILE:
        raise PlantError("the film is too small")
    whole, fine = _tiles(gray), _tiles(gray - gaussian_filter(gray, 3))
    means, levels = whole.mean((1, 2)), fine.std((1, 2))
    # Black borders and white markers have no noise of their own.
    exposed = (means > 0.05) & (means < 0.95) & (levels > 0)
    if not exposed.any():
        return np.zeros((_TILE, _TILE), np.float32)
    wanted = np.percentile(levels[exposed], _QUIET)
    chosen = fine[int(np.argmin(np.where(exposed, np.abs(levels - wanted), np.inf)))]
    return np.asarray(chosen - chosen.mean(), np.float32)


def _tiles(values: Field) -> Field:
    """A picture cut into tiles, [tiles, 32, 32]; what is left at the right and below is left out."""
    rows, columns = (side // _TILE for side in values.shape)
    cut = values[: rows * _TILE, : columns * _TILE].reshape(rows, _TILE, columns, _TILE)
    return cut.swapaxes(1, 2).reshape(-1, _TILE, _TILE)
