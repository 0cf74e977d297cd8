"""Fluid and air between a lung and the chest wall: pleural effusion and pneumothorax."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter, map_coordinates

from cxr_faith.data.planting.film import Field, Film, Mask
from cxr_faith.data.planting.opacities import PlantedObject

LEVEL = (0.3, 0.5)
"""Lowest and highest fluid level in the middle of a lung, in shares of its height above its lowest point."""
SHRUNK = (0.78, 0.9)
"""Smallest and largest size of a lung beside air, in shares of its own."""
PLEURA_MM = 0.9
_SMOOTH_MM = 12.0  # masks of segmentation models have jagged borders; a pleura has none


def pleural_effusion(film: Film, rng: np.random.Generator) -> PlantedObject:
    """Fluid at the base of a lung, whose upper border rises towards the chest wall."""
    side = int(rng.integers(2))
    rows, columns = np.nonzero(film.lungs[side])
    top, bottom, left, right = rows.min(), rows.max(), columns.min(), columns.max()
    height, width = film.gray.shape
    outward = np.clip((np.arange(width, dtype=np.float32) - left) / (right - left), 0, 1)
    outward = 1 - outward if side == 0 else outward
    level = rng.uniform(*LEVEL) * (0.72 + 0.28 * outward + 0.4 * np.clip(outward - 0.5, 0, None) ** 2 / 0.25)
    surface = bottom - level * (bottom - top)
    # The layer of fluid thins out upwards, so the border is soft above and the fluid dense below.
    depth = (np.arange(height, dtype=np.float32)[:, None] - surface[None]) / film.pixels(28.0)
    fluid = 1 / (1 + np.exp(-(depth - 0.35) * 5.5))
    inside = gaussian_filter(film.lungs[side].astype(np.float32), film.pixels(3.0))
    # At the lung's own border the film is half tissue already, so the fluid may reach beyond it.
    air = film.missing_tissue(side, 4.0)
    # More fluid than fills the lung is no denser than tissue.
    filled = np.asarray(air * np.clip(2.5 * inside - 0.1, 0, 1), np.float32)
    return PlantedObject(np.asarray(filled * fluid, np.float32), sharp=False, most=filled)


def pneumothorax(film: Film, rng: np.random.Generator) -> PlantedObject:
    """Air around a lung that has shrunk: a rim without markings, inside of it the thin line of the pleura."""
    side = int(rng.integers(2))
    lung = gaussian_filter(film.lungs[side].astype(np.float32), film.pixels(_SMOOTH_MM))
    rows, columns = np.nonzero(film.lungs[side])
    inner = float(columns.max() if side == 0 else columns.min())
    hilum = (rows.min() + 0.72 * (rows.max() - rows.min()), inner)
    shrunk = _scaled(lung, hilum, rng.uniform(*SHRUNK)) > 0.5
    # Below the hilum air lies beside the lung alone: what else the lung spares there is heart or a mass.
    above = np.arange(len(lung))[:, None] < hilum[0]
    rim = (lung > 0.5) & ~shrunk & (above | _beside(shrunk, side))
    edge = np.where(shrunk, distance_transform_edt(shrunk), np.inf)
    # Where the lung still touches the chest wall or the mediastinum there is no air, and no line is seen.
    near_air = gaussian_filter(rim.astype(np.float32), film.pixels(2.0)) > 0.12
    line = np.exp(-((edge / film.pixels(PLEURA_MM)) ** 2)) * near_air
    emptied = gaussian_filter(rim.astype(np.float32), film.pixels(0.7))
    top, bottom = int(rows.min()), int(rows.max())
    spread = film.spread(slice(top, bottom + 1), slice(int(columns.min()), int(columns.max()) + 1))
    density = spread * (0.45 * line - 0.32 * emptied)
    return PlantedObject(np.asarray(density, np.float32), emptied)


def _beside(lung: Mask, side: int) -> Mask:
    """Pixels between the chest wall and a lung, or above or below it, bool [H, W]; side 0: the wall is on the left."""
    across = 1 if side == 0 else -1
    return np.asarray(np.cumsum(lung[:, ::across], axis=1)[:, ::across] == 0, np.bool_)


def _scaled(values: Field, center: tuple[float, float], size: float) -> Field:
    """A picture shrunk around a point (row, column), float32 [H, W]."""
    height, width = values.shape
    rows = center[0] + (np.arange(height) - center[0]) / size
    columns = center[1] + (np.arange(width) - center[1]) / size
    grid = np.meshgrid(rows, columns, indexing="ij")
    return np.asarray(map_coordinates(values, grid, order=1, mode="constant"), np.float32)
