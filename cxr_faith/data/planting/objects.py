"""The objects that can be planted, and the question about each."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cxr_faith.data.planting.film import Film
from cxr_faith.data.planting.hardware import device, line, marker
from cxr_faith.data.planting.opacities import PlantedObject, consolidation, mass, nodule
from cxr_faith.data.planting.pleura import pleural_effusion, pneumothorax


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


def generator(seed: int, image_id: str, finding: str, purpose: str) -> np.random.Generator:
    """The random stream of one object on one film; neither other films nor other findings play a part."""
    key = f"{seed}\n{image_id}\n{finding}\n{purpose}".encode()
    return np.random.default_rng(int.from_bytes(hashlib.blake2b(key, digest_size=16).digest(), "little"))
