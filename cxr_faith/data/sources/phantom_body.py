"""The shapes of a chest phantom's organs and lesions in body coordinates.

A shape is a function f(x, y) that is positive inside, in units of the picture's side. Body coordinates have their
origin in the middle of the thorax; y points down, x to the right of the picture, which is the patient's left.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxr_faith.data.sources.phantom_spec import Lesion

Field = NDArray[np.floating[Any]]

ANATOMY = ("right lung", "left lung", "heart")
SIGN = {"right": -1.0, "left": 1.0}
"""Sign of body x on each side of the patient."""


def lung(ax: Field, y: Field, width: Field, bottom: Field, shrink: Field | float = 0.0) -> Field:
    """Signed shape of one lung.

    Args:
        ax: distance from the midline, positive on this lung's side.
        y: body y.
        width: lateral reach of the lung at its widest.
        bottom: y of the diaphragm's dome.
        shrink: how far the outer border has moved inwards (a collapsed lung).

    Returns:
        about the distance to the border, positive inside.
    """
    top = -0.37 + 1.2 * shrink
    t = np.clip((y - top) / (bottom - top), 0.0, 1.0)
    lateral = 0.12 + (width - shrink - 0.12) * np.sqrt(np.clip(1.0 - (1.0 - t) ** 2.4, 0.0, 1.0))
    medial = 0.045 + 0.07 * (1.0 - t) ** 4
    dome = bottom + 0.9 * np.square(ax - 0.15)
    apex = (y - top) - 1.2 * np.square(ax - 0.15)
    return np.asarray(np.minimum(np.minimum(lateral - ax, ax - medial), np.minimum(dome - y, apex)), np.float32)


def heart(x: Field, y: Field, size: Field, shift: Field) -> Field:
    """Signed shape of the heart: a tilted ellipse, most of it on the patient's left."""
    dx, dy = x - (0.05 + shift), y - 0.14
    along, across = 0.88 * dx + 0.47 * dy, -0.47 * dx + 0.88 * dy
    radius = np.sqrt(np.square(along / size) + np.square(across / (0.78 * size + 0.01)))
    return np.asarray((1.0 - radius) * size, np.float32)


def lesion_shape(lesion: Lesion, x: Field, y: Field, width: Field, bottom: Field, size: Field, shift: Field) -> Field:
    """Signed shape of one lesion, at points of its phantom's body.

    Args:
        lesion: what to draw.
        x: body x of the points.
        y: body y of the points.
        width: lateral reach of the lungs.
        bottom: y of the diaphragm.
        size: size of the heart.
        shift: shift of the heart.

    Returns:
        positive inside the lesion, same shape as x.
    """
    if lesion.finding == "cardiomegaly":
        return heart(x, y, size, shift)
    ax = x * np.float32(SIGN[lesion.side or "left"])
    inside = lung(ax, y, width, bottom)
    if lesion.finding == "pleural effusion":
        level = lesion.cy - 0.55 * np.square(np.clip(ax - 0.08, 0.0, 1.0))
        return np.asarray(np.minimum(inside, y - level), np.float32)
    if lesion.finding == "pneumothorax":
        # The gap is widest where the lung has collapsed: at the apex, the side, or both.
        gap = lesion.r * np.clip(1.0 + lesion.tilt * (y + 0.05) / 0.3, 0.25, 1.6)
        return np.minimum(inside, -lung(ax, y, width, bottom, gap))
    dx, dy = x - lesion.cx, y - lesion.cy
    if lesion.finding == "nodule":
        return np.asarray(lesion.r - np.sqrt(dx**2 + (dy * lesion.tilt) ** 2), np.float32)
    theta = np.arctan2(dy, dx)
    rough = 1.0 + 0.16 * np.sin(3 * theta + lesion.phase) + 0.09 * np.sin(7 * theta + 2.3 * lesion.phase)
    blob = (rough - np.sqrt(np.square(dx / lesion.r) + np.square(dy / (lesion.r * lesion.tilt)))) * lesion.r
    return np.minimum(np.asarray(blob, np.float32), inside)
