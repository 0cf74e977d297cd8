"""Plain color and shape pictures for training: the answer depends on a known part of the picture.

Layouts: `split` (two halves), `quadrant` (four fields) and `shape` (a circle, square or triangle on a background).
Left and right are the viewer's here. Coordinates are normalized, so a picture looks the same at any size.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.floating[Any]]

COLORS = {
    "red": (215, 40, 40),
    "green": (40, 160, 60),
    "blue": (40, 70, 210),
    "yellow": (235, 215, 50),
    "orange": (240, 140, 30),
    "purple": (140, 50, 170),
    "white": (245, 245, 245),
    "black": (15, 15, 15),
    "gray": (128, 128, 128),
}
SHAPES = ("circle", "square", "triangle")
QUADRANTS = ("upper left", "upper right", "lower left", "lower right")
HALVES = {"vertical": ("left", "right"), "horizontal": ("upper", "lower")}
SAME_HALF = {"left": "left", "right": "right", "upper": "top", "lower": "bottom"}


@dataclass(frozen=True)
class ShapePicture:
    """Everything that determines one picture.

    Attributes:
        image_id: name of the picture.
        seed: seed of its pixel noise.
        layout: split_vertical, split_horizontal, quadrant or shape.
        colors: field colors in reading order; for `shape` the colors of the shape and the background.
        shape: kind of shape (layout `shape` only).
        center: center (x, y) of the shape, in [0, 1].
        radius: half the extent of the shape, as a share of the side.
        grain: standard deviation of the pixel noise, in 8-bit levels.
    """

    image_id: str
    seed: int
    layout: str
    colors: tuple[str, ...]
    shape: str | None = None
    center: tuple[float, float] = (0.5, 0.5)
    radius: float = 0.0
    grain: float = 0.0


@dataclass(frozen=True)
class ShapeQuestion:
    """A question about a color or shape picture.

    Attributes:
        text: the question.
        kind: yes_no or open.
        answer: the right answer.
        region: name of the mask that the answer depends on; None: the whole picture.
    """

    text: str
    kind: str
    answer: str
    region: str | None


def sample_shape(image_id: str, seed: int) -> ShapePicture:
    """Sample a color or shape picture: the same name and seed always give the same one."""
    digest = hashlib.blake2b(f"{seed}/{image_id}/shapes".encode(), digest_size=8).digest()
    stream = int.from_bytes(digest, "little")
    rng = np.random.default_rng(stream)
    layout = ("split_vertical", "split_horizontal", "quadrant", "shape", "shape")[rng.integers(5)]
    names = list(COLORS)
    count = 4 if layout == "quadrant" else 2
    colors = tuple(names[i] for i in rng.permutation(len(names))[:count])
    grain = float(rng.choice([0.0, 4.0, 10.0]))
    if layout != "shape":
        return ShapePicture(image_id, stream, layout, colors, grain=grain)
    radius = float(rng.uniform(0.1, 0.2))
    # Off the middle lines, so that the quadrant of the shape is unambiguous.
    x, y = (float(np.where(rng.random() < 0.5, *sorted(rng.uniform(0.2, 0.4) + np.array([0.0, 0.4])))) for _ in "xy")
    return ShapePicture(image_id, stream, layout, colors, SHAPES[rng.integers(3)], (x, y), radius, grain)


def _regions(picture: ShapePicture, x: Field, y: Field) -> dict[str, NDArray[np.bool_]]:
    """Masks [H, W] of the fields or of the shape by name, in the order of the colors."""
    if picture.layout == "quadrant":
        columns, rows = {"left": x < 0.5, "right": x >= 0.5}, {"upper": y < 0.5, "lower": y >= 0.5}
        return {q: rows[q.split()[0]] & columns[q.split()[1]] for q in QUADRANTS}
    if picture.layout.startswith("split"):
        first, second = HALVES[picture.layout.removeprefix("split_")]
        in_first = (x < 0.5) if first == "left" else (y < 0.5)
        return {first: in_first & True, second: ~in_first & True}
    dx, dy, r = x - picture.center[0], y - picture.center[1], picture.radius
    if picture.shape == "circle":
        inside = dx**2 + dy**2 < r**2
    elif picture.shape == "square":
        inside = np.maximum(np.abs(dx), np.abs(dy)) < 0.88 * r
    else:
        inside = (dy < 0.8 * r) & (np.abs(dx) < (dy + r) * 0.6)
    return {"shape": inside}


def render_shapes(
    pictures: Sequence[ShapePicture], size: tuple[int, int]
) -> tuple[NDArray[np.uint8], list[dict[str, NDArray[np.bool_]]]]:
    """Render pictures.

    Args:
        pictures: the pictures.
        size: height and width in pixels.

    Returns:
        pixels, uint8 [batch, H, W, 3], and for each picture its region masks by name, bool [H, W].
    """
    height, width = size
    y, x = np.meshgrid(
        (np.arange(height, dtype=np.float32) + 0.5) / height,
        (np.arange(width, dtype=np.float32) + 0.5) / width,
        indexing="ij",
    )
    images = np.empty((len(pictures), height, width, 3), np.uint8)
    masks = []
    for i, picture in enumerate(pictures):
        regions = {name: np.broadcast_to(m, size) for name, m in _regions(picture, x, y).items()}
        canvas = np.empty((height, width, 3), np.float32)
        canvas[:] = COLORS[picture.colors[-1]]
        for mask, color in zip(regions.values(), picture.colors, strict=False):
            canvas[mask] = COLORS[color]
        noise = np.random.default_rng(picture.seed).normal(0.0, picture.grain, (height, width, 1))
        images[i] = np.clip(canvas + noise + 0.5, 0, 255).astype(np.uint8)
        masks.append(regions)
    return images, masks


def shape_questions(picture: ShapePicture) -> list[ShapeQuestion]:
    """All questions about a color or shape picture, with their answers."""
    if picture.layout == "quadrant":
        return [
            ShapeQuestion(text.format(q=q), "open", color, q)
            for q, color in zip(QUADRANTS, picture.colors, strict=True)
            for text in ("What color is the {q} quadrant?", "Which color is in the {q} quadrant?")
        ]
    if picture.layout != "shape":
        halves = HALVES[picture.layout.removeprefix("split_")]
        asked = [
            ShapeQuestion(text.format(h=word), "open", color, h)
            for h, color in zip(halves, picture.colors, strict=True)
            for text in ("What color is the {h} half?", "Which color is in the {h} half?")
            for word in dict.fromkeys((h, SAME_HALF[h]))
        ]
        whole = f"the {halves[0]} half is {picture.colors[0]} and the {halves[1]} half is {picture.colors[1]}"
        return [*asked, ShapeQuestion("What is in the picture?", "open", whole, None)]
    where = f"{'upper' if picture.center[1] < 0.5 else 'lower'} {'left' if picture.center[0] < 0.5 else 'right'}"
    shape, (color, background) = picture.shape, picture.colors
    asked = [
        ShapeQuestion(text.format(s=name), "yes_no", "yes" if name == shape else "no", "shape")
        for name in SHAPES
        for text in ("Is there a {s}?", "Can you see a {s}?")
    ]
    asked += [
        ShapeQuestion(f"What color is the {shape}?", "open", color, "shape"),
        ShapeQuestion("What color is the background?", "open", background, None),
        ShapeQuestion("What shape is there?", "open", f"{shape}", "shape"),
        ShapeQuestion(f"Where is the {shape}?", "open", f"in the {where} quadrant", "shape"),
        ShapeQuestion("What is in the picture?", "open", f"a {color} {shape} on a {background} background", "shape"),
    ]
    return asked
