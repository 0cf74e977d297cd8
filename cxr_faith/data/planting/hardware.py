"""Things on or in a patient that are no disease: a central line, a pacemaker and a side marker."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.interpolate import CubicSpline

from cxr_faith.data.planting.film import Field, Film, PlantError
from cxr_faith.data.planting.lungs import Chest
from cxr_faith.data.planting.opacities import PlantedObject

LINE_MM, LEAD_MM, MARKER_MM = 2.2, 2.0, 14.0
"""Width of a catheter and of a pacemaker's lead, height of a marker's letter."""
DEVICE_MM = (46.0, 42.0)
_LINE, _CAN, _LEAD, _LEAD_LETTER = 0.22, 0.8, 0.3, 0.75  # densities: plastic, titanium, wire, lead
_LETTERS = {
    "L": (((0.0, 0.0), (0.0, 1.0), (0.55, 1.0)),),
    "R": (
        ((0.0, 1.0), (0.0, 0.0), (0.35, 0.0), (0.52, 0.1), (0.55, 0.25), (0.5, 0.4), (0.35, 0.5), (0.0, 0.5)),
        ((0.25, 0.5), (0.58, 1.0)),
    ),
}

Points = npt.NDArray[np.float64]


def line(film: Film, rng: np.random.Generator) -> PlantedObject:
    """A central venous catheter from below the patient's right clavicle to above the heart."""
    chest = Chest.of(film)
    stops = [
        (-0.47, 0.0),
        (-0.3, 0.015),
        (-0.16, 0.05),
        (-0.085, 0.14),
        (-0.075, 0.3),
        (-0.06, rng.uniform(0.42, 0.56)),
    ]
    path = _curve([chest.at(x + rng.normal(0, 0.012), y + rng.normal(0, 0.012)) for x, y in stops])
    return PlantedObject(_LINE * _tube(film, path, film.pixels(LINE_MM) / 2))


def device(film: Film, rng: np.random.Generator) -> PlantedObject:
    """A pacemaker below the patient's left clavicle, with a lead that ends in the heart."""
    chest = Chest.of(film)
    center = chest.at(0.33 + rng.normal(0, 0.015), 0.12 + rng.normal(0, 0.015))
    tilt = rng.normal(0.2, 0.15)
    height, width = film.gray.shape
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    dx, dy = (columns - center[0]) * film.mm, (rows - center[1]) * film.mm
    u, v = dx * np.cos(tilt) + dy * np.sin(tilt), dy * np.cos(tilt) - dx * np.sin(tilt)
    reach = np.hypot(*DEVICE_MM) / 2
    near = (np.abs(u) < reach) & (np.abs(v) < reach)
    # A rounded can, its battery, which is denser, and the header of plastic that the lead is plugged into.
    can = _rounded(u, v, DEVICE_MM[0] / 2, DEVICE_MM[1] / 2, 14.0)
    battery = _rounded(u - 4, v - 6, 14.0, 11.0, 4.0)
    header = _rounded(u + 4, v + DEVICE_MM[1] / 2 + 3, 14.0, 5.0, 4.0)
    solid = np.where(can, 0.7 + 0.3 * battery, 0.0) + np.where(header & ~can, 0.22, 0.0)
    solid = np.where(near | header, solid, 0.0)
    # The header's middle, in pixels of the film: (u, v) turned back.
    plug = center + np.array([-4 * np.cos(tilt) + 25 * np.sin(tilt), -25 * np.cos(tilt) - 4 * np.sin(tilt)]) / film.mm
    stops = [(0.2, 0.035), (0.08, 0.07), (-0.055, 0.15), (-0.075, 0.35), (-0.06, 0.58), (0.03, 0.74), (0.14, 0.8)]
    path = _curve([plug, *(chest.at(x + rng.normal(0, 0.01), y + rng.normal(0, 0.01)) for x, y in stops)])
    wire = _tube(film, path, film.pixels(LEAD_MM) / 2)
    tip = _tube(film, path[-int(len(path) * 0.03) - 2 :], film.pixels(LEAD_MM) * 0.7)
    return PlantedObject(np.asarray(_CAN * solid + _LEAD * np.maximum(wire, 1.6 * tip), np.float32))


def marker(film: Film, rng: np.random.Generator) -> PlantedObject:
    """A letter of lead in an upper corner, L on the patient's left and R on the right; mirrored as its film is."""
    height, width = film.gray.shape
    side, size = int(rng.integers(2)), film.pixels(MARKER_MM)
    # Radiographers put it beside the shoulder, near the film's edge and not in the patient.
    x = (0.06 + 0.03 * rng.random()) * width if side == 0 else (0.94 - 0.03 * rng.random()) * width - 0.6 * size
    y = (0.1 + 0.08 * rng.random()) * height
    turn = rng.normal(0, 0.06)
    turned = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    drawn = np.zeros(film.gray.shape, np.float32)
    for stroke in _LETTERS["RL"[side]]:
        path = np.array(stroke) @ turned.T * size + (x, y)
        drawn = np.maximum(drawn, _tube(film, path, size * 0.085, flat=True))
    return PlantedObject(_LEAD_LETTER * drawn)


def _rounded(u: Field, v: Field, half_width: float, half_height: float, corner: float) -> npt.NDArray[np.bool_]:
    """A rectangle with round corners around the origin."""
    across = np.maximum(np.abs(u) - (half_width - corner), 0)
    down = np.maximum(np.abs(v) - (half_height - corner), 0)
    return np.asarray(across**2 + down**2 < corner**2)


def _curve(points: Sequence[Points]) -> Points:
    """A smooth curve through points, as (x, y) [n, 2]."""
    steps = np.concatenate(
        [[0.0], np.cumsum([float(np.hypot(*(b - a))) for a, b in zip(points, points[1:], strict=False)])]
    )
    return np.asarray(CubicSpline(steps, np.stack(points))(np.linspace(0, steps[-1], 120)))


def _tube(film: Film, path: Points, radius: float, flat: bool = False) -> Field:
    """Thickness of a tube along a path, float32 [H, W], 1 in its middle; flat: 1 everywhere in it.

    Raises:
        PlantError: the tube is thinner than a pixel can show.
    """
    if radius < 0.3:
        raise PlantError("the film is too small for it")
    height, width = film.gray.shape
    nearest = np.full((height, width), np.inf, np.float32)
    margin = radius + 2
    for start, end in zip(path, path[1:], strict=False):
        low, high = np.minimum(start, end) - margin, np.maximum(start, end) + margin
        rows = slice(max(int(low[1]), 0), max(int(high[1]) + 1, 0))
        columns = slice(max(int(low[0]), 0), max(int(high[0]) + 1, 0))
        if not nearest[rows, columns].size:
            continue
        y, x = np.mgrid[rows.start : min(rows.stop, height), columns.start : min(columns.stop, width)]
        nearest[rows, columns] = np.minimum(nearest[rows, columns], _distance(x, y, start, end))
    if flat:
        return np.asarray(np.clip(radius - nearest + 0.5, 0, 1), np.float32)
    # A pixel shows the mean over its area, so a thin tube is faint rather than broken.
    inner = np.clip(1 - (nearest / (radius + 0.5)) ** 2, 0, None)
    return np.asarray(np.sqrt(inner) * min(1.0, 2 * radius / (2 * radius + 0.5)), np.float32)


def _distance(x: npt.NDArray[np.int_], y: npt.NDArray[np.int_], start: Points, end: Points) -> Field:
    """Distance of pixels to a segment."""
    span = end - start
    length = float(span @ span)
    along = ((x - start[0]) * span[0] + (y - start[1]) * span[1]) / max(length, 1e-9)
    along = np.clip(along, 0, 1)
    return np.asarray(np.hypot(x - start[0] - along * span[0], y - start[1] - along * span[1]), np.float32)
