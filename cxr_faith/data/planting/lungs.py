"""Where the lungs of a film are: their masks where a manifest has some, else stated shares of the film."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import binary_fill_holes, distance_transform_edt, gaussian_filter, label
from skimage.filters import threshold_otsu

from cxr_faith.data.planting.film import Field, Film, Mask, PlantError

CENTERS, REACH = ((0.27, 0.43), (0.73, 0.43)), (0.2, 0.33)
"""Center (x, y) of each lung and its half axes in shares of width and height, where there are no masks."""
_WIDER = 1.4  # a lung may reach this far beyond, in half axes
_SMALLEST = 0.005  # share of the film: less is no lung
_AERATED = 0.35  # smallest share of a lung that is believed to be all of its air


def film_of(pixels: npt.NDArray[np.uint8], masks: Mapping[str, Mask], mm: float | None, mirrored: bool = False) -> Film:
    """Measure a film, with its lungs.

    Args:
        pixels: uint8 [H, W].
        masks: organ masks by label.
        mm: millimeters per pixel; None: unknown.
        mirrored: whether the patient's left is on the left of the picture.

    Raises:
        PlantError: the film is too small, or its masks show no lungs.
    """
    across = -1 if mirrored else 1
    turned = np.ascontiguousarray(pixels[:, ::across])
    lungs = lungs_of({label: mask[:, ::across] for label, mask in masks.items()}, turned.shape)
    within = lungs if any(_is_lung(label) for label in masks) else _ellipses(turned.shape, _WIDER)
    return Film.from_pixels(turned, mm, aerated(np.asarray(turned / 255, np.float32), lungs, within), mirrored)


def lungs_of(masks: Mapping[str, Mask], shape: tuple[int, int]) -> tuple[Mask, Mask]:
    """Masks of the lungs, the one on the left of the picture first.

    Args:
        masks: organ masks by label; labels with the word *lung* count.
        shape: height and width of the film.

    Raises:
        PlantError: there are masks of lungs, and they show none.
    """
    lungs = [mask for label, mask in masks.items() if _is_lung(label)]
    if not lungs:
        return _ellipses(shape, 1.0)
    both = np.logical_or.reduce(lungs)
    if both.mean() < _SMALLEST:
        raise PlantError("its lung masks show no lungs")
    if len(lungs) == 1:  # one mask of both: the middle of the body parts them
        columns = np.arange(shape[1]) < np.flatnonzero(both.any(0)).mean()
        lungs = [both & columns, both & ~columns]
    lungs = [mask for mask in lungs if mask.any()]
    if len(lungs) != 2:
        raise PlantError("its lung masks show one lung")
    first, second = sorted(lungs, key=lambda mask: float(np.nonzero(mask)[1].mean()))
    return first, second


def _is_lung(label: str) -> bool:
    return "lung" in label.casefold()


def _ellipses(shape: tuple[int, int], size: float) -> tuple[Mask, Mask]:
    """Where the lungs lie in most films, each in its half of the film; size 1: what of it is lung in most of them."""
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]]
    first, second = (
        ((x / shape[1] - cx) / REACH[0]) ** 2 + ((y / shape[0] - cy) / REACH[1]) ** 2 < size**2 for cx, cy in CENTERS
    )
    return first & (x < shape[1] / 2), second & (x >= shape[1] / 2)


def aerated(gray: Field, lungs: tuple[Mask, Mask], within: tuple[Mask, Mask] | None = None) -> tuple[Mask, Mask]:
    """The parts of the lungs that are dark: masks reach behind heart and diaphragm, and shares of the film anywhere.

    The threshold is that of Otsu between the gray levels of the frame around both lungs. The part that has most of the
    lung counts, with its holes. A lung of which little would be left stays as it is.

    Args:
        gray: float32 [H, W].
        lungs: masks of the lungs.
        within: how far each may reach beyond its mask; default: nowhere.
    """
    smooth = gaussian_filter(gray, max(gray.shape) / 250)
    rows, columns = np.nonzero(lungs[0] | lungs[1])
    frame = smooth[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    dark = smooth < threshold_otsu(frame)
    first, second = (_dark_part(dark, *both) for both in zip(lungs, within or lungs, strict=True))
    return first, second


def _dark_part(dark: Mask, lung: Mask, within: Mask) -> Mask:
    """The dark part that has most of a lung, and reaches beyond it unless it is one with what lies around the body."""
    beyond = _most_of(lung, dark)
    edges = (beyond[0], beyond[-1], beyond[:, 0], beyond[:, -1])
    part = lung & dark if any(edge.any() for edge in edges) else within & beyond
    whole = np.asarray(binary_fill_holes(_most_of(lung, part)), np.bool_)
    return whole if whole.sum() >= _AERATED * lung.sum() else lung


def _most_of(lung: Mask, part: Mask) -> Mask:
    """The connected piece of a part that has most of a lung; nothing where none has any."""
    pieces, count = label(part)
    sizes = np.bincount(pieces[lung], minlength=count + 1)[1:]
    return np.asarray(pieces == 1 + int(np.argmax(sizes)), np.bool_) if sizes.any() else np.zeros_like(part)


@dataclass(frozen=True)
class Chest:
    """The frame of both lungs, in pixels.

    Attributes:
        left: left edge.
        top: upper edge.
        width: distance of the outer edges.
        height: distance from the apex to the lowest point.
        middle: x of the middle between the lungs.
    """

    left: float
    top: float
    width: float
    height: float
    middle: float

    @classmethod
    def of(cls, film: Film) -> Chest:
        """The frame of a film's lungs."""
        rows, columns = np.nonzero(film.lungs[0] | film.lungs[1])
        middle = (np.nonzero(film.lungs[0])[1].mean() + np.nonzero(film.lungs[1])[1].mean()) / 2
        left, top = float(columns.min()), float(rows.min())
        return cls(left, top, float(columns.max()) - left, float(rows.max()) - top, float(middle))

    def at(self, x: float, y: float, side: int = 1) -> npt.NDArray[np.float64]:
        """The point x widths beside the middle (to the right for side 1) and y heights below the top, as (x, y)."""
        return np.array([self.middle + side * x * self.width, self.top + y * self.height])


def side_of(film: Film, density: Field) -> str:
    """The patient's side that most of an object lies on, `left` or `right`.

    Args:
        film: the film.
        density: of the object, float32 [H, W].
    """
    columns = np.abs(density).sum(0)
    return "right" if np.average(np.arange(len(columns)), weights=columns) < Chest.of(film).middle else "left"


def place(film: Film, radius: float, side: int, rng: np.random.Generator) -> tuple[float, float]:
    """A point (x, y) of a lung with at least the radius, in pixels, to the lung's border.

    Raises:
        PlantError: the lung is too small.
    """
    distance = distance_transform_edt(np.pad(film.lungs[side], 1))[1:-1, 1:-1]
    rows, columns = np.nonzero(distance >= radius)
    if not len(rows):
        raise PlantError("the lung is too small for it")
    chosen = int(rng.integers(len(rows)))
    return float(columns[chosen]), float(rows[chosen])
