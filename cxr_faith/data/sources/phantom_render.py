"""Renders chest phantoms: the shapes of `phantom_body` as densities, then exposure, grain and side marker.

A logistic edge makes a shape soft; its sign is the exact mask. Nothing depends on the number of pixels, so a phantom
looks the same at any size.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cxr_faith.data.sources.phantom_body import ANATOMY, SIGN, Field, heart, lesion_shape, lung
from cxr_faith.data.sources.phantom_questions import FINDINGS, SIDED, SIDES
from cxr_faith.data.sources.phantom_spec import Lesion, Phantom

Mask = NDArray[np.bool_]

MARKER = "marker"
"""Name of the mask of the side marker's strokes."""

GLYPHS = {
    "L": ("10000", "10000", "10000", "10000", "10000", "10000", "11111"),
    "R": ("11110", "10001", "10001", "11110", "10100", "10010", "10001"),
}
CHUNK = 8


def stream(*names: object) -> np.random.Generator:
    """An independent random generator for these names, seeded by their blake2 hash."""
    digest = hashlib.blake2b("/".join(map(str, names)).encode(), digest_size=16).digest()
    return np.random.default_rng(np.random.SeedSequence(int.from_bytes(digest, "little")))


def _column(values: Sequence[float]) -> Field:
    """One number per phantom, as [batch, 1, 1]."""
    return np.asarray(values, np.float32).reshape(-1, 1, 1)


def _soft(f: Field, width: float) -> Field:
    """A signed shape with a logistic edge of this width: values in (0, 1)."""
    return np.asarray(1.0 / (1.0 + np.exp(np.clip(-f / width, -30.0, 30.0))), np.float32)


class Canvas:
    """Body coordinates and anatomy at every pixel of a few phantoms, and their noise.

    Args:
        phantoms: the phantoms of the batch.
        size: height and width in pixels.
    """

    def __init__(self, phantoms: Sequence[Phantom], size: tuple[int, int]) -> None:
        self.phantoms, self.size = phantoms, size
        height, width = size
        self.v, self.u = np.meshgrid(
            (np.arange(height, dtype=np.float32) + 0.5) / height,
            (np.arange(width, dtype=np.float32) + 0.5) / width,
            indexing="ij",
        )
        du = self.u - 0.5 - _column([p.dx for p in phantoms])
        dv = self.v - 0.5 - _column([p.dy for p in phantoms])
        angle, scale = _column([p.angle for p in phantoms]), _column([p.scale for p in phantoms])
        cos, sin = np.cos(angle) / scale, np.sin(angle) / scale
        self.x, self.y = cos * du + sin * dv, cos * dv - sin * du
        self.width = _column([p.lung_width for p in phantoms])
        self.bottom = _column([p.diaphragm for p in phantoms])
        self.heart_size = _column([p.heart_size for p in phantoms])
        self.heart_shift = _column([p.heart_shift for p in phantoms])
        self.heart = heart(self.x, self.y, self.heart_size, self.heart_shift)
        self.lungs = {side: lung(self.x * np.float32(s), self.y, self.width, self.bottom) for side, s in SIGN.items()}

    def noise(self, purpose: str, cells: int) -> Field:
        """Smooth noise with `cells` knots per side, one field per phantom: [batch, H, W]."""
        streams = [stream(p.seed, p.image_id, purpose) for p in self.phantoms]
        fields = np.stack([s.standard_normal((cells, cells), np.float32) for s in streams])
        rows, columns = (_interpolation(n, cells) for n in self.size)
        return np.asarray(rows @ fields @ columns.T, np.float32)

    def lesion(self, index: int, lesion: Lesion) -> Field:
        """Signed shape [H, W] of a lesion of phantom `index`."""
        params = (a[index] for a in (self.width, self.bottom, self.heart_size, self.heart_shift))
        return lesion_shape(lesion, self.x[index], self.y[index], *params)


def _interpolation(pixels: int, cells: int) -> Field:
    """Matrix [pixels, cells] of linear interpolation between evenly spaced knots."""
    position = (np.arange(pixels) + 0.5) / pixels * (cells - 1)
    low = np.minimum(position.astype(int), cells - 2)
    matrix = np.zeros((pixels, cells), np.float32)
    matrix[np.arange(pixels), low] = 1.0 - (position - low)
    matrix[np.arange(pixels), low + 1] = position - low
    return matrix


def _anatomy(c: Canvas) -> tuple[Field, Field]:
    """Density of the healthy chest and the soft lung field, each [batch, H, W]."""
    ax = np.abs(c.x)
    trunk = np.minimum(0.46 - ax + 0.05 * np.sin(5 * c.y), (c.y + 0.47) - 0.30 * np.clip(ax - 0.13, 0.0, 1.0))
    body = _soft(np.maximum(trunk, 0.11 - ax), 0.012)
    air = _soft(np.maximum(c.lungs["left"], c.lungs["right"]), 0.006)
    central = np.maximum(0.062 - ax + 0.012 * np.sin(9 * c.y + 1.0), 0.05 - np.hypot(c.x - 0.045, c.y + 0.12))
    heart_and_great_vessels = _soft(np.maximum(c.heart, np.minimum(central, 0.25 - c.y)), 0.008)
    air = air * (1.0 - heart_and_great_vessels)
    density = 0.60 + 0.08 * np.clip(c.y, -0.3, 0.4) - 0.40 * air + 0.06 * heart_and_great_vessels
    density += 0.07 * _soft(0.036 - ax, 0.006) * (1.0 + 0.35 * np.sin(2 * np.pi * c.y / 0.062))
    # Back ribs: bands that rise a little from the spine and fall towards the side.
    phase = (c.y - 0.9 * np.square(ax - 0.12) + 0.02) / 0.078
    rib = _soft(np.cos(2 * np.pi * phase) - 0.45, 0.12) * _soft(0.40 - ax, 0.01) * _soft(ax - 0.05, 0.01)
    density += 0.055 * rib * _soft(0.30 - c.y, 0.02) * _soft(c.y + 0.40, 0.02)
    clavicle = np.abs(c.y + 0.315 + 0.22 * (ax - 0.05)) - 0.013
    density += 0.07 * _soft(-clavicle, 0.004) * _soft(ax - 0.03, 0.01) * _soft(0.36 - ax, 0.01)
    hilum = np.exp(-(np.square((ax - 0.11) / 0.10) + np.square((c.y - 0.0) / 0.14)))
    density += air * (0.05 * hilum + (0.012 + 0.035 * hilum) * c.noise("vessels", 48))
    density += 0.012 * c.noise("tissue", 14)
    return np.asarray(density * body + 0.03, np.float32), air


def _paint(density: Field, lesion: Lesion, f: Field, texture: Field, heart_edge: Field) -> None:
    """Draw one lesion into its phantom's density [H, W], in place."""
    if lesion.finding == "nodule":
        density += lesion.contrast * _soft(f, 0.004)
    elif lesion.finding == "consolidation":
        density += lesion.contrast * _soft(f, 0.010) * (1.0 + 0.28 * texture) * heart_edge
    elif lesion.finding == "pleural effusion":
        # Slightly beyond the border, or the lung's soft edge would show as a dark rim.
        inside = _soft(f + 0.012, 0.006)
        density += inside * (0.66 - density) * (lesion.contrast / 0.3)
    elif lesion.finding == "pneumothorax":
        inside = _soft(f, 0.003) * heart_edge
        density += inside * (0.10 - density) * 0.85
        density += 0.14 * np.exp(-np.square((f - 0.002) / 0.004)) * heart_edge


def _paint_all(phantoms: Sequence[Phantom], size: tuple[int, int]) -> tuple[NDArray[np.uint8], dict[str, Mask]]:
    """Render a few phantoms; findings that none of them has get no mask."""
    c = Canvas(phantoms, size)
    density, _ = _anatomy(c)
    texture = c.noise("texture", 40)
    organs = (c.lungs["right"], c.lungs["left"], c.heart)
    masks: dict[str, Mask] = {name: f > 0 for name, f in zip(ANATOMY, organs, strict=True)}
    masks[MARKER] = np.stack([marker_mask(phantom, size) for phantom in phantoms])
    outside_heart = _soft(-c.heart, 0.008)
    for i, phantom in enumerate(phantoms):
        for lesion in phantom.lesions:
            f = c.lesion(i, lesion)
            _paint(density[i], lesion, f, texture[i], outside_heart[i])
            inside = (f > 0) if lesion.finding in ("cardiomegaly", "nodule") else (f > 0) & (c.heart[i] <= 0)
            for name in (lesion.finding, f"{lesion.finding}/{lesion.side}")[: 2 if lesion.side else 1]:
                masks.setdefault(name, np.zeros(c.x.shape, bool))[i] |= inside
    return _expose(c, density, masks[MARKER]), masks


def marker_mask(phantom: Phantom, size: tuple[int, int]) -> Mask:
    """Pixels [H, W] of the side marker's strokes; none where the phantom has no marker."""
    on = np.zeros(size, bool)
    if phantom.marker:
        glyph = np.array([[bit == "1" for bit in row] for row in GLYPHS[phantom.marker]], bool)
        left, top = phantom.marker_at
        column, row = (
            np.floor(((np.arange(pixels, dtype=np.float32) + 0.5) / pixels - start) / 0.011).astype(int)
            for pixels, start in zip(size[::-1], (left, top), strict=True)
        )
        inside = np.ix_((row >= 0) & (row < 7), (column >= 0) & (column < 5))
        on[inside] = glyph[np.ix_(row[(row >= 0) & (row < 7)], column[(column >= 0) & (column < 5)])]
    return on


def _expose(c: Canvas, density: Field, markers: Mask) -> NDArray[np.uint8]:
    """Apply exposure, grain and side marker: density to 8-bit pixels [batch, H, W]."""
    tilt = c.noise("exposure", 3)
    level = np.clip(density * (1.0 + 0.05 * tilt), 0.0, None) ** _column([p.gamma for p in c.phantoms])
    grain = _column([p.grain for p in c.phantoms]) * c.noise("grain", 176)
    level = level * _column([p.gain for p in c.phantoms]) + grain
    level[markers] = 0.95
    return np.asarray(np.clip(level, 0.0, 1.0) * 255.0 + 0.5, np.uint8)


def render(phantoms: Sequence[Phantom], size: tuple[int, int]) -> tuple[NDArray[np.uint8], dict[str, Mask]]:
    """Render phantoms.

    Args:
        phantoms: the phantoms.
        size: height and width in pixels.

    Returns:
        pictures, uint8 [batch, H, W] (bright is dense), and masks by name, bool [batch, H, W]: one per finding,
        one per finding and side (`nodule/left`), the anatomy (`right lung`, `left lung`, `heart`) and the `marker`.
    """
    names = [MARKER, *ANATOMY, *FINDINGS, *(f"{f}/{side}" for f in SIDED for side in SIDES)]
    images = np.empty((len(phantoms), *size), np.uint8)
    masks = {name: np.zeros((len(phantoms), *size), bool) for name in names}
    for start in range(0, len(phantoms), CHUNK):
        part = slice(start, start + CHUNK)
        images[part], shown = _paint_all(phantoms[part], size)
        for name, mask in shown.items():
            masks[name][part] = mask
    return images, masks
