"""Where a map's positive mass lies: peak, sides, thirds, organs and border, as numbers and in words."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from cxr_faith.data.orientation import MIRRORED_SIDES, UNKNOWN_SIDES, USUAL_SIDES, Sides
from cxr_faith.metrics.regions import border_weights, mass_shares, region_weights
from cxr_faith.report.figures import Map
from cxr_faith.report.formats import whole_percent

THIRDS = ("upper", "middle", "lower")
FRACTIONS = {
    "lungs": ((0.1, 0.75), ((0.1, 0.4), (0.6, 0.9))),
    "heart": ((0.45, 0.8), ((0.4, 0.75),)),
    "mediastinum": ((0.1, 0.8), ((0.4, 0.6),)),
}
"""Organ → (rows), (columns, …) as fractions of the picture from its top left: a rough guess, and said to be one."""
NOT_PLACED = "Organs without a mask are placed in the usual view alone, and this picture is lateral or turned."
"""Caveat of a picture whose sides are not known."""
FRACTIONS_CAVEAT = (
    "Organs without a mask are fixed, overlapping fractions (rows 10–75, 45–80, 10–80 %; columns 10–40 and 60–90, "
    "40–75, 40–60 %), wrong for a rotated, cropped or tilted film."
)


@dataclass(frozen=True)
class Peak:
    """The strongest cell of a map."""

    cell: tuple[int, int]
    """Row and column, from 0 at the top left."""
    words: str
    """The third that it lies in, and the patient's side, or the half of a picture whose sides are not known."""


@dataclass(frozen=True)
class Evidence:
    """Where a map's positive mass lies; a map without any has None for every number."""

    peak: Peak | None
    """The strongest cell."""
    coverage: float | None
    """Smallest share of the picture that holds half of the map."""
    sides: Mapping[str, float] | None
    """`patient_right` and `patient_left` → share of the map; None for a lateral or turned picture."""
    thirds: Mapping[str, float] | None
    """`upper`, `middle` and `lower` → share of the map."""
    organs: Mapping[str, float] | None
    """Organ → share of the map in it, by mask or else by fractions of the picture."""
    border: float | None
    """Share of the map in the outer 5 % of the picture."""
    words: str
    """The same in a sentence or two."""
    caveat: str | None
    """That organs were placed by fractions; None if all have masks."""


EMPTY = Evidence(
    peak=None,
    coverage=None,
    sides=None,
    thirds=None,
    organs=None,
    border=None,
    words="The map is empty: no cell supports the answer.",
    caveat=None,
)


def nothing_to_show(reason: str) -> Evidence:
    """The evidence of a map that must not be read as any, and why."""
    return replace(EMPTY, words=f"No evidence to show. {reason}")


def evidence_of(values: npt.NDArray[np.floating], masks: Mapping[str, Map], sides: Sides = USUAL_SIDES) -> Evidence:
    """Where a map's positive mass lies.

    Thirds are cut at 1/3 and 2/3 of the height by the cells' centers; a middle column counts half to each side.

    Args:
        values: the map, [grid_h, grid_w].
        masks: organ → share of each cell that it covers, [grid_h, grid_w].
        sides: of the patient, at the picture's left and right edges; empty texts where they are not known.
    """
    mass = np.clip(np.asarray(values, np.float64), 0, None)
    total = float(mass.sum())
    if total == 0:
        return EMPTY
    share, grid = mass / total, (mass.shape[0], mass.shape[1])
    known, mirrored = sides != UNKNOWN_SIDES, sides == MIRRORED_SIDES
    # [sides, thirds]: the patient's right first, or the left half of a picture whose sides are not known.
    parts = mass_shares(mass[:, ::-1] if mirrored else mass, region_weights(grid)).reshape(2, 3)
    first, coverage, peak = float(parts[0].sum()), _coverage(share), _peak(mass, sides)
    organs, caveat = _organs(share, masks, sides)
    where = ("on the patient's right", "on the left") if known else ("in the left half of the picture", "in the right")
    return Evidence(
        peak=peak,
        coverage=coverage,
        sides={"patient_right": first, "patient_left": 1 - first} if known else None,
        thirds=dict(zip(THIRDS, parts.sum(0).tolist(), strict=True)),
        organs=organs,
        border=float((share * border_weights(grid)).sum()),
        words=f"Strongest in the {peak.words}. Half of the map lies in {whole_percent(coverage)} of the picture; "
        f"{whole_percent(first)} of it is {where[0]}, {whole_percent(1 - first)} {where[1]}.",
        caveat=caveat,
    )


def _peak(mass: npt.NDArray[np.float64], sides: Sides) -> Peak:
    row, column = map(int, np.unravel_index(int(mass.argmax()), mass.shape))
    y, x = (row + 0.5) / mass.shape[0], (column + 0.5) / mass.shape[1]
    names = {"R": "patient's right", "L": "patient's left"}
    if sides == UNKNOWN_SIDES:
        side = (
            "middle of the picture" if np.isclose(x, 0.5) else f"{'left' if x < 0.5 else 'right'} half of the picture"
        )
    else:
        side = "midline" if np.isclose(x, 0.5) else names[sides[int(x > 0.5)]]
    return Peak((row, column), f"{THIRDS[min(int(3 * y), 2)]} third, {side}")


def _coverage(share: npt.NDArray[np.float64]) -> float:
    ordered = np.sort(share, axis=None)[::-1]
    return float((np.searchsorted(np.cumsum(ordered), 0.5 - 1e-12) + 1) / share.size)


def _organs(
    share: npt.NDArray[np.float64], masks: Mapping[str, Map], sides: Sides
) -> tuple[dict[str, float], str | None]:
    """Organ → share of the map in it, by mask or else by fractions, and the caveat of the fractions."""
    organs = {name: float((share * np.asarray(mask, np.float64)).sum()) for name, mask in masks.items()}
    guessed = [name for name in FRACTIONS if not any(name.rstrip("s") in mask for mask in masks)]
    if guessed and sides == UNKNOWN_SIDES:
        return organs, NOT_PLACED
    share = share[:, ::-1] if sides == MIRRORED_SIDES else share
    for name in guessed:
        band, spans = FRACTIONS[name]
        inside = np.outer(_overlap(share.shape[0], *band), sum(_overlap(share.shape[1], *span) for span in spans))
        organs[name] = float((share * inside).sum())
    if not guessed:
        return organs, None
    return organs, f"{FRACTIONS_CAVEAT} By fractions: {', '.join(guessed)}." if masks else FRACTIONS_CAVEAT


def _overlap(cells: int, start: float, stop: float) -> npt.NDArray[np.float64]:
    """Share of each of `cells` equal cells of [0, 1] that lies in [start, stop]."""
    edges = np.arange(cells + 1) / cells
    widths: npt.NDArray[np.float64] = np.clip(np.minimum(edges[1:], stop) - np.maximum(edges[:-1], start), 0, None)
    return widths * cells
