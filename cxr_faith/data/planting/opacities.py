"""Opacities inside a lung: nodule, mass and consolidation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter, zoom

from cxr_faith.data.planting.film import Field, Film
from cxr_faith.data.planting.lungs import place

NODULE_MM, MASS_MM, CONSOLIDATION_MM = (6.0, 15.0), (18.0, 30.0), (28.0, 45.0)
"""Smallest and largest radius."""
_HARMONICS = 5
_SOLID = 0.4
_CLOUD_MM = ((3.0, 0.5), (8.0, 1.0))  # σ of a layer of the cloud, and its weight


@dataclass(frozen=True)
class PlantedObject:
    """An object at contrast 1, on the pixels of a film.

    Attributes:
        density: what it adds to the attenuation, float32 [H, W]; negative where there is less tissue.
        emptied: share of the lung's markings that it takes away, float32 [H, W], 0 to 1; None: none.
        sharp: whether it has edges of its own that the film has to blur.
        most: density that it keeps below at any contrast, float32 [H, W]; None: no bound.
    """

    density: Field
    emptied: Field | None = None
    sharp: bool = True
    most: Field | None = None


def nodule(film: Film, rng: np.random.Generator) -> PlantedObject:
    """A solid, almost round nodule."""
    return _ball(film, rng, film.pixels(rng.uniform(*NODULE_MM)), 0.03)


def mass(film: Film, rng: np.random.Generator) -> PlantedObject:
    """A mass, less round than a nodule."""
    return _ball(film, rng, film.pixels(rng.uniform(*MASS_MM)), 0.06)


def consolidation(film: Film, rng: np.random.Generator) -> PlantedObject:
    """Cloudy shadowing without an edge, which ends at the border of the lung."""
    radius, side = film.pixels(rng.uniform(*CONSOLIDATION_MM)), int(rng.integers(2))
    x, y = place(film, 0.4 * radius, side, rng)
    aspect, turn = rng.uniform(0.65, 1.0), rng.uniform(0, np.pi)
    dx, dy = _offsets(film, x, y)
    along, across = dx * np.cos(turn) + dy * np.sin(turn), (dy * np.cos(turn) - dx * np.sin(turn)) / aspect
    envelope = np.exp(-((along**2 + across**2) / (0.7 * radius) ** 2))
    cloud = sum(weight * _cloud(film, film.pixels(mm), rng) for mm, weight in _CLOUD_MM)
    filled = np.clip(1.5 * envelope * (1 + 0.3 * cloud) - 0.12, 0, None)
    filled = 1 - np.exp(-1.4 * filled)
    lung = gaussian_filter(film.lungs[side].astype(np.float32), film.pixels(2.0))
    contrast = _strength(film, x, y, radius)
    return PlantedObject(np.asarray(contrast * filled * np.clip(2 * lung - 0.4, 0, 1), np.float32), sharp=False)


def _ball(film: Film, rng: np.random.Generator, radius: float, wobble: float) -> PlantedObject:
    """A ball whose radius wobbles by this share in five angular harmonics."""
    x, y = place(film, 0.9 * radius, int(rng.integers(2)), rng)
    dx, dy = _offsets(film, x, y)
    angle, outline = np.arctan2(dy, dx), np.ones_like(dx)
    for order in range(2, 2 + _HARMONICS):
        outline += rng.normal(0, wobble / np.sqrt(order)) * np.cos(order * angle + rng.uniform(0, 2 * np.pi))
    share = np.hypot(dx, dy) / (radius * outline)
    thickness = np.sqrt(np.clip(1 - share**2, 0, None))
    return PlantedObject(np.asarray(_strength(film, x, y, radius) * thickness, np.float32))


def _strength(film: Film, x: float, y: float, radius: float) -> float:
    """How dense an object is that is plain to see: as much as structures of the lung around it differ in gray.

    Around means a box of three radii to each side. Where the lung shows hardly any structure, a share of the density
    that would make the lung look like solid tissue takes its place.
    """
    reach = 3 * radius
    box = (slice(int(y - reach), int(y + reach) + 1), slice(int(x - reach), int(x + reach) + 1))
    return max(film.spread(*box), _SOLID * film.solid)


def _offsets(film: Film, x: float, y: float) -> tuple[Field, Field]:
    """Each pixel's distance from a point to the right and down, float32 [H, W]."""
    height, width = film.gray.shape
    rows, columns = np.arange(height, dtype=np.float32), np.arange(width, dtype=np.float32)
    dy, dx = np.meshgrid(rows - np.float32(y), columns - np.float32(x), indexing="ij")
    return dx, dy


def _cloud(film: Film, sigma: float, rng: np.random.Generator) -> Field:
    """Smooth noise of unit size, float32 [H, W]; drawn coarsely, since nothing in it is smaller than σ."""
    step = max(sigma / 3, 1.0)
    height, width = film.gray.shape
    coarse = gaussian_filter(rng.standard_normal((int(height / step) + 4, int(width / step) + 4)), sigma / step)
    fine = zoom(coarse / coarse.std(), step, order=1)[:height, :width]
    return np.asarray(np.pad(fine, ((0, height - fine.shape[0]), (0, width - fine.shape[1])), "edge"), np.float32)
