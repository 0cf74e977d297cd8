"""The objects that can be planted, and the question about each."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cxr_faith.data.planting.film import Film, PlantError
from cxr_faith.data.planting.hardware import device, line, marker
from cxr_faith.data.planting.lungs import side_of
from cxr_faith.data.planting.opacities import PlantedObject, consolidation, mass, nodule
from cxr_faith.data.planting.pleura import pleural_effusion, pneumothorax

TRIES = 12
"""Objects that are drawn until one lies on the side that a question names."""


@dataclass(frozen=True)
class Kind:
    """A kind of object.

    Attributes:
        draw: gives an object at contrast 1 on a film.
        phrase: how a question names it.
        same_as: words of data sets that name the same thing; a film that has one of them gets no such object.
    """

    draw: Callable[[Film, np.random.Generator], PlantedObject]
    phrase: str
    same_as: tuple[str, ...] = ()


KINDS: Mapping[str, Kind] = {
    "nodule": Kind(nodule, "a nodule", ("nodule", "mass", "lung lesion", "lung opacity")),
    "mass": Kind(mass, "a mass", ("mass", "nodule", "lung lesion", "lung opacity")),
    "consolidation": Kind(
        consolidation, "a consolidation", ("consolidation", "pneumonia", "infiltration", "lung opacity")
    ),
    "pleural effusion": Kind(pleural_effusion, "a pleural effusion", ("pleural effusion", "effusion")),
    "pneumothorax": Kind(pneumothorax, "a pneumothorax", ("pneumothorax",)),
    "line": Kind(line, "a central venous line", ("line", "central venous line", "support devices")),
    "device": Kind(device, "a pacemaker", ("device", "pacemaker", "support devices")),
    "marker": Kind(marker, "a side marker", ("marker", "side marker")),
}
"""The kinds by the name of their finding."""


def kinds_named(names: Sequence[str], option: str = "--findings") -> list[str]:
    """Findings as `KINDS` names them.

    Args:
        names: with spaces or underscores.
        option: names it in an error.

    Raises:
        ValueError: an unknown name, or none.
    """
    plain = [name.strip().casefold().replace("_", " ") for name in names if name.strip()]
    unknown = [name for name in plain if name not in KINDS]
    if unknown or not plain:
        wrong = f"{unknown[0]!r} cannot be planted" if unknown else "no finding is named"
        raise ValueError(f"{option}: {wrong}; choose from {', '.join(KINDS)}")
    return list(dict.fromkeys(plain))


def side_in(question: str) -> str | None:
    """The one side that a question names, `left` or `right`; None: it names neither, or both."""
    sides: set[str] = set(re.findall(r"\b(left|right)\b", question.casefold()))
    return sides.pop() if len(sides) == 1 else None


def draw(
    kind: Kind, film: Film, side: str | None, stream: Callable[[str], np.random.Generator], purpose: str = "shape"
) -> PlantedObject:
    """Draw an object, on the side that is asked about if one is.

    Args:
        kind: what to draw.
        film: the film.
        side: the patient's side, `left` or `right`; None: either.
        stream: purpose → what draws it.
        purpose: of the first object that is drawn.

    Raises:
        PlantError: the film has no room for it, or none of `TRIES` objects lies on that side.
    """
    for tried in range(TRIES):
        item = kind.draw(film, stream(f"{purpose} {tried}" if tried else purpose))
        if side is None or side_of(film, item.density) == side:
            return item
    raise PlantError("it never lies on the side that the question names")


def generator(seed: int, image_id: str, finding: str, purpose: str) -> np.random.Generator:
    """The random stream of one object on one film; neither other films nor other findings play a part."""
    key = f"{seed}\n{image_id}\n{finding}\n{purpose}".encode()
    return np.random.default_rng(int.from_bytes(hashlib.blake2b(key, digest_size=16).digest(), "little"))
