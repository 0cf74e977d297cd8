"""Places a phantom's lesions: spread over both lungs and all zones, focal ones in free lung."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from cxr_faith.data.sources.phantom_body import SIGN, heart, lesion_shape, lung
from cxr_faith.data.sources.phantom_questions import FINDINGS, SIDES
from cxr_faith.data.sources.phantom_spec import Lesion, Phantom

BILATERAL = 0.12


def place(phantom: Phantom, wanted: set[str], rng: np.random.Generator) -> tuple[Lesion, ...]:
    """Place a lesion for each finding: large ones first, focal ones where the lung is still free.

    Args:
        phantom: the phantom without lesions.
        wanted: names of the findings to show.
        rng: source of randomness.

    Returns:
        lesions in the order of `FINDINGS`, the patient's right before the left.
    """
    placed: list[Lesion] = [Lesion("cardiomegaly")] if "cardiomegaly" in wanted else []
    for finding in ("pleural effusion", "pneumothorax", "consolidation", "nodule"):
        if finding not in wanted:
            continue
        sides = [str(s) for s in rng.permutation(SIDES)]
        if finding == "pneumothorax":
            # Prefer a side without an effusion: the two would hide each other.
            sides.sort(key=lambda side: any(p.side == side for p in placed))
            sides = sides[:1]
        elif rng.random() >= BILATERAL:
            sides = sides[:1]
        placed += [_lesion(phantom, finding, side, placed, rng) for side in sides]
    return tuple(sorted(placed, key=lambda p: (FINDINGS.index(p.finding), SIDES.index(p.side or "right"))))


def _lesion(phantom: Phantom, finding: str, side: str, placed: Sequence[Lesion], rng: np.random.Generator) -> Lesion:
    """One lesion on a side of a phantom."""
    if finding == "pleural effusion":
        level = phantom.diaphragm - rng.uniform(0.035, 0.15)
        return Lesion(finding, side, cy=level, contrast=rng.uniform(0.27, 0.33))
    if finding == "pneumothorax":
        return Lesion(finding, side, r=rng.uniform(0.045, 0.085), tilt=rng.uniform(-1.0, 0.6))
    nodule = finding == "nodule"
    radius = rng.uniform(0.036, 0.056) if nodule else rng.uniform(0.07, 0.11)
    lesion = Lesion(
        finding,
        side,
        r=radius,
        tilt=rng.uniform(0.85, 1.15) if nodule else rng.uniform(0.8, 1.4),
        phase=rng.uniform(0.0, 2 * np.pi),
        contrast=rng.uniform(0.24, 0.34) if nodule else rng.uniform(0.24, 0.32),
    )
    best, room, third = lesion, -np.inf, (phantom.diaphragm + 0.37) / 3
    zone = rng.integers(3)
    for attempt in range(90):
        zone = (zone + 1) % 3 if attempt in (40, 65) else zone
        y = -0.37 + third * (zone + rng.uniform(0.0, 1.0)) + 0.02 * (zone - 1)
        trial = replace(lesion, cx=SIGN[side] * _lateral(phantom, rng), cy=y)
        space = _room(phantom, trial, placed)
        if space > room:
            best, room = trial, space
        if room > 0:
            break
    return replace(best, zone=_zone(phantom, best.cy))


def _lateral(phantom: Phantom, rng: np.random.Generator) -> float:
    """Distance of a focal lesion from the midline, more often in the periphery."""
    low = 0.09 if rng.random() < 0.4 else 0.2
    return float(rng.uniform(low, phantom.lung_width))


def _zone(phantom: Phantom, y: float) -> str:
    """Upper, middle or lower third of the lung's height."""
    share = (y + 0.37) / (phantom.diaphragm + 0.37)
    return "upper" if share < 1 / 3 else "middle" if share < 2 / 3 else "lower"


def _room(phantom: Phantom, lesion: Lesion, placed: Sequence[Lesion]) -> float:
    """How much room a focal lesion has: positive in free lung, else minus the largest overlap or excess."""
    angles = np.linspace(0.0, 2 * np.pi, 8, endpoint=False)
    reach = lesion.r * (1.0 if lesion.finding == "nodule" else 0.8)
    x = np.asarray([lesion.cx, *(lesion.cx + reach * np.cos(angles))], np.float32)
    y = np.asarray([lesion.cy, *(lesion.cy + reach * np.sin(angles))], np.float32)
    body = [np.float32(v) for v in (phantom.lung_width, phantom.diaphragm, phantom.heart_size, phantom.heart_shift)]
    inside = lung(x * np.float32(SIGN[lesion.side or "left"]), y, body[0], body[1])  # type: ignore[arg-type]
    # The border of the lung may cut a consolidation; a nodule must be entirely inside.
    slack = 0.004 if lesion.finding == "nodule" else -0.7 * lesion.r
    free = min(float(inside.min()) - slack, float(inside[0]) - 0.02)
    free = min(free, -float(heart(x, y, body[2], body[3]).max()) - 0.01)  # type: ignore[arg-type]
    for other in placed:
        shape = lesion_shape(other, x, y, *body)  # type: ignore[arg-type]
        free = min(free, -float(shape.max()) - 0.01)
    return free
