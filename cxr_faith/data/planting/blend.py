"""Blends an object into a film: in its gray scale, at its sharpness, in its noise; and says which pixels changed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter, grey_opening, zoom

from cxr_faith.data.planting.film import WHITE, Field, Film, Mask, PlantError, attenuated
from cxr_faith.data.planting.opacities import PlantedObject

_HALF_LEVEL = 0.5 / 255  # what an 8-bit picture can show of a change
_VISIBLE = 3 / 255
_MARKINGS_MM = 5.0  # vessels are narrower than this, ribs are wider
_COARSE_MM = 0.5


@dataclass(frozen=True)
class Planted:
    """A film with an object in it, as its picture lies: a mirrored one is mirrored again.

    Attributes:
        pixels: uint8 [H, W]; outside of the mask they are the film's.
        mask: the pixels that the object may have changed, bool [H, W].
    """

    pixels: npt.NDArray[np.uint8]
    mask: Mask


def blend(film: Film, item: PlantedObject, contrast: float, rng: np.random.Generator) -> Planted:
    """Plant an object.

    The object multiplies the transmitted intensity. What that takes from the film's own noise is added again, as new
    noise of the same spectrum: the noise is the same inside and outside of the object.

    Args:
        film: the film.
        item: the object at contrast 1.
        contrast: times the object's density.
        rng: draws the noise.

    Raises:
        PlantError: the film shows nothing of the object.
    """
    density = np.asarray(item.density * contrast, np.float32)
    if item.most is not None:
        density = np.minimum(density, item.most)
    emptied = None if item.emptied is None else np.minimum(item.emptied * contrast, 1).astype(np.float32)
    if item.sharp:
        density = gaussian_filter(density, film.blur)
    base = film.gray if emptied is None else film.gray - emptied * markings(film)
    changed = attenuated(base, density)
    mask = np.abs(changed - film.gray) >= _HALF_LEVEL
    if emptied is not None:
        mask |= emptied > 0.05
    if not mask.any() or np.abs(np.clip(changed, 0, 1) - film.gray)[mask].max() < _VISIBLE:
        raise PlantError("the film shows nothing of it")
    rows, columns = (slice(int(where.min()), int(where.max()) + 1) for where in np.nonzero(mask))
    kept = np.exp(-density[rows, columns] / WHITE)
    lost = np.sqrt(np.clip(1 - kept**2, 0, None))
    noise = film.noise(lost.shape, rng) * lost
    shown = film.gray.copy()
    shown[rows, columns] = np.where(mask[rows, columns], changed[rows, columns] + noise, shown[rows, columns])
    pixels, across = np.rint(np.clip(shown, 0, 1) * 255).astype(np.uint8), -1 if film.mirrored else 1
    return Planted(np.ascontiguousarray(pixels[:, ::across]), np.ascontiguousarray(mask[:, ::across]))


def markings(film: Film) -> Field:
    """The bright structures that are narrower than ribs, such as vessels of the lung: a top-hat, float32 [H, W]."""
    step = max(film.pixels(_COARSE_MM), 1.0)
    coarse = zoom(gaussian_filter(film.gray, step / 2), 1 / step, order=1)
    narrow = coarse - grey_opening(coarse, size=max(int(_MARKINGS_MM / _COARSE_MM), 3))
    height, width = film.gray.shape
    return np.asarray(zoom(narrow, (height / narrow.shape[0], width / narrow.shape[1]), order=1), np.float32)
