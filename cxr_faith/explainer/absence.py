"""Why the answer is no: the smallest planted object that turns it into a yes, where, and how strong it has to be."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cxr_faith.data.boxes import box_of_mask
from cxr_faith.data.geometry import fit
from cxr_faith.data.orientation import MIRRORED_SIDES, UNKNOWN_SIDES, Sides
from cxr_faith.data.planting.blend import Planted, blend
from cxr_faith.data.planting.film import FILM_MM, Film, PlantError
from cxr_faith.data.planting.lungs import film_of
from cxr_faith.data.planting.objects import KINDS, draw, generator, side_in
from cxr_faith.data.sample import YES_NO
from cxr_faith.explainer.explanation import Explanation
from cxr_faith.report.film import Frame

DRAWS, CONTRASTS = 12, (0.25, 0.5, 1.0, 2.0)
"""Objects that are tried, each of its own size and at its own place, and how strong each of them is."""
_GRAY = 128


@dataclass(frozen=True)
class Needed:
    """What the model would have to see to say yes.

    Attributes:
        finding: what was planted.
        tried: number of objects that the film could show; each at every contrast.
        turned: number of these objects that turn the answer at some contrast.
        area: share of the picture that the smallest of these covers; where none turns it, the one that came nearest.
        contrast: the weakest contrast at which it does, or at which it came nearest; 1 is plain to see.
        box: where it lies: left, top, right and bottom in pixels of the picture.
        margin: margin of the answer about the picture with it.
        pixels: that picture, uint8 [H, W].
        masked: whether masks say where the lungs are.
        mm: millimeters per pixel; None: unknown, the longer side counts as that of a film.
    """

    finding: str
    tried: int
    turned: int
    area: float
    contrast: float
    box: tuple[float, float, float, float]
    margin: float
    pixels: NDArray[np.uint8]
    masked: bool = False
    mm: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """All but the picture, as JSON takes it."""
        return {name: value for name, value in asdict(self).items() if name != "pixels"}

    @property
    def sentence(self) -> str:
        """One line for people."""
        phrase = KINDS[self.finding].phrase
        left, top, right, bottom = self.box
        middle = f"({(left + right) / 2:.0f}, {(top + bottom) / 2:.0f})"
        what = f"{phrase} on {self.area:.1%} of the picture at pixel {middle}, contrast {self.contrast:g}"
        if self.turned:
            turned = f"{self.turned} of {self.tried} synthetic objects turn it"
            return f"yes from {what} (margin {self.margin:+.1f}); {turned}"
        return (
            f"none of {self.tried} synthetic objects turns it to yes, at contrasts up to {CONTRASTS[-1]:g}; "
            f"nearest: {what} (margin {self.margin:+.1f})"
        )

    @property
    def placed(self) -> str:
        """One line for people: where the objects could lie, and what their sizes are measured by."""
        place = "inside the lung masks" if self.masked else "where the lungs lie in most films"
        size = f"longer side taken as {FILM_MM:.0f} mm" if self.mm is None else f"{self.mm:.3g} mm per pixel"
        return f"{place}; {size}"


def smallest_needed(
    explanation: Explanation,
    finding: str,
    seed: int = 0,
    masks: Mapping[str, NDArray[np.bool_]] | None = None,
    mm: float | None = None,
) -> Needed:
    """Plant objects in the picture of an answer "no" until the smallest one that turns it is known.

    The objects are those of `cxr-faith prepare planted`, drawn by the picture's id. Others were not tried, so a smaller
    object may do.

    Args:
        explanation: of a yes/no question about one gray picture that was answered with no.
        finding: a name of `KINDS`.
        seed: another seed draws other objects.
        masks: organ → mask [H, W] in pixels of the picture; labels with the word *lung* say where the lungs are.
            Default: where they lie in most films.
        mm: millimeters per pixel. Default: the longer side is that of a film of 43 cm.

    Raises:
        ValueError: the answer is not a no, the picture is in color, from the side or turned, a mask is of another size
            or shows no lungs, or the film shows none of the objects.
    """
    if explanation.metadata["kind"] != YES_NO or explanation.answer != "no":
        raise ValueError("nothing is planted: only a no to a yes/no question can turn into a yes")
    picture = explanation.picture
    if (picture != picture[..., :1]).any():
        raise ValueError("nothing is planted: the picture is in color")
    pixels = np.ascontiguousarray(picture[..., 0])
    film, tried = _film(pixels, masks or {}, mm, explanation.sides[0]), 0
    turning, nearest = list[tuple[int, float, float, Planted]](), list[tuple[int, float, float, Planted]]()
    side = side_in(explanation._case.prompt.question)
    for number in range(DRAWS):
        stream = partial(generator, seed, explanation._case.image_id, finding)
        try:
            copies = _copies(film, finding, side, number, stream)
        except PlantError:
            continue
        tried += 1
        margins = _margins(explanation, [copy.pixels for copy in copies.values()])
        shown = [
            (int(copy.mask.sum()), contrast, margin, copy)
            for (contrast, copy), margin in zip(copies.items(), margins, strict=True)
        ]
        turning += [one for one in shown if one[2] >= 0][:1]
        nearest.append(max(shown, key=lambda one: one[2]))
    if not tried:
        raise ValueError(f"nothing is planted: the picture can show no {finding}")
    best = min(turning, key=lambda one: one[:2]) if turning else max(nearest, key=lambda one: one[2])
    area, contrast, margin, copy = best
    box = box_of_mask(copy.mask)
    assert box is not None  # an object covers a pixel or more
    return Needed(
        finding,
        tried,
        len(turning),
        area / pixels.size,
        contrast,
        box,
        margin,
        copy.pixels,
        any("lung" in label.casefold() for label in masks or {}),
        mm,
    )


def needed_frames(explanation: Explanation, needed: Needed) -> list[Frame]:
    """Film, planted film and what changed, each with what the model says; where nothing turns it, the nearest one."""
    film, margin = explanation.picture, explanation.metadata["margin"]
    planted = np.repeat(needed.pixels[..., None], 3, axis=2)
    change = (_GRAY + planted.astype(np.int16) - film).clip(0, 255).astype(np.uint8)
    name, said = f"{needed.finding}, contrast {needed.contrast:g}, synthetic", "it says yes"
    if not needed.turned:
        name, said = f"nearest of {needed.tried}: {needed.finding}, contrast {needed.contrast:g}", "it still says no"
    return [
        Frame(film, "the film", f"it says no (margin {margin:+.1f})"),
        Frame(planted, name, f"{said} (margin {needed.margin:+.1f})"),
        Frame(change, "what was planted", "light: brighter than before"),
    ]


def _film(pixels: NDArray[np.uint8], masks: Mapping[str, NDArray[np.bool_]], mm: float | None, sides: Sides) -> Film:
    """The film that objects are planted in; raises as `smallest_needed`."""
    if sides == UNKNOWN_SIDES:
        raise ValueError("nothing is planted: the picture is from the side or turned")
    if any(mask.shape != pixels.shape for mask in masks.values()):
        raise ValueError("nothing is planted: a mask has another size than the picture")
    try:
        return film_of(pixels, masks, mm, sides == MIRRORED_SIDES)
    except PlantError as error:
        raise ValueError(f"nothing is planted: {error}") from error


def _copies(
    film: Film, finding: str, side: str | None, number: int, stream: Callable[[str], np.random.Generator]
) -> dict[float, Planted]:
    """Contrast → a copy of the film with one object, weakest first; without those that the film does not show.

    Raises:
        PlantError: the film is too small, has no such object on that side, or shows the object at no contrast.
    """
    copies = dict[float, Planted]()
    item = draw(KINDS[finding], film, side, stream, f"absence {number}")
    for contrast in CONTRASTS:
        try:
            copies[contrast] = blend(film, item, contrast, stream(f"noise {number}"))
        except PlantError:
            continue
    if not copies:
        raise PlantError("the film shows nothing of it")
    return copies


def _margins(explanation: Explanation, copies: list[NDArray[np.uint8]]) -> list[float]:
    """Margins of the question about other pictures."""
    vlm, case = explanation._engine.vlm, explanation._case
    margins = []
    with torch.no_grad():
        for copy in copies:
            fitted, _ = fit(np.repeat(copy[..., None], 3, axis=2), vlm.image_size)
            prefix = vlm.prefill(vlm.encode(vlm.normalize(fitted[None].to(vlm.device))))
            score = vlm.score(prefix, case.prompt, explanation.target).s
            margins.append(explanation.target.sign * float(score[0]))
    return margins
