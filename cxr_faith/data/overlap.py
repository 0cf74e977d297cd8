"""Pictures and patients that two manifests share: what one of them tuned on, the other cannot test.

Files with the same bytes are the same picture. Other editions of it (another format, size or window) are found by a
perceptual hash: the signs of the lowest 255 coefficients of a cosine transform of the picture at 64 × 64 pixels.
Editions differ in a few signs, different pictures in about half of them. A cropped or rotated edition is not found.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.fft import dctn

from cxr_faith.data.folder import noted_root
from cxr_faith.data.images import ImageError, load_image, resolve
from cxr_faith.data.manifest import MappedManifest, open_manifest

SAME_BITS = 16
"""Most signs in which editions of one picture differ; phantoms, which are all alike, differ in twice as many."""
_SIDE, _LOW = 64, 16
_BLOCK = 256


class Picture(NamedTuple):
    """What is compared of a picture.

    Attributes:
        image_id: its id in its manifest.
        content: hash of the file's bytes; empty where the file cannot be read.
        signs: +1 and −1, [255]; None where the picture cannot be decoded.
    """

    image_id: str
    content: bytes
    signs: npt.NDArray[np.int8] | None


class Match(NamedTuple):
    """A picture of one manifest that is also in the other; `bits` is the number of signs that differ."""

    image_id: str
    other_id: str
    same_file: bool
    bits: int


@dataclass(frozen=True)
class Patients:
    """Patients that should be on one side only, as `source/patient_id`.

    Attributes:
        shared: patients of both manifests.
        two_splits: patients of more than one split in the two manifests together, each with its splits.
    """

    shared: list[str]
    two_splits: dict[str, list[str]]


def pictures_of(manifest: Path, root: Path | None = None) -> tuple[int, Iterator[Picture]]:
    """Number of pictures of a manifest, and each of them, decoded when it is asked for.

    Args:
        manifest: Parquet file or folder.
        root: data root; None: the one noted in the manifest's data card, else the manifest's folder.
    """
    table = open_manifest(manifest)
    paths = dict(zip(table["image_id"][:], table["image_path"][:], strict=True))
    base = root or noted_root(manifest) or manifest.absolute().parent
    return len(paths), (_picture(str(name), str(path), base) for name, path in paths.items())


def matches(pictures: Sequence[Picture], others: Sequence[Picture]) -> list[Match]:
    """The pictures that are among the others too, each with the one that is most like it."""
    files = {other.content: other.image_id for other in others if other.content}
    exact = {each.image_id: files[each.content] for each in pictures if each.content in files}
    found = [Match(name, other, True, 0) for name, other in exact.items()]
    left = [each for each in pictures if each.image_id not in exact and each.signs is not None]
    known = [other for other in others if other.signs is not None]
    if left and known:
        theirs = np.stack([other.signs for other in known if other.signs is not None]).astype(np.float32)
        for start in range(0, len(left), _BLOCK):
            block = left[start : start + _BLOCK]
            ours = np.stack([each.signs for each in block if each.signs is not None]).astype(np.float32)
            differing = (ours.shape[1] - ours @ theirs.T) / 2
            for each, row in zip(block, differing, strict=True):
                nearest = int(row.argmin())
                if row[nearest] <= SAME_BITS:
                    found.append(Match(each.image_id, known[nearest].image_id, False, int(row[nearest])))
    return sorted(found)


def patients(manifest: Path, other: Path) -> Patients:
    """Patients of two manifests; ids of different data sets are different patients."""
    ours, theirs = (_splits(open_manifest(each)) for each in (manifest, other))
    together = {name: ours.get(name, set()) | theirs.get(name, set()) for name in ours.keys() | theirs.keys()}
    return Patients(
        sorted(ours.keys() & theirs.keys()),
        {name: sorted(splits) for name, splits in sorted(together.items()) if len(splits) > 1},
    )


def signs(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.int8]:
    """Signs of the lowest coefficients of a picture [H, W, 3], without the mean: int8 [255]."""
    small = Image.fromarray(pixels).convert("L").resize((_SIDE, _SIDE), Image.Resampling.BOX)
    low = dctn(np.asarray(small, np.float32), norm="ortho")[:_LOW, :_LOW].ravel()[1:]
    return np.where(low > 0, 1, -1).astype(np.int8)


def _picture(name: str, path: str, root: Path) -> Picture:
    try:
        with resolve(path, root).open("rb") as file:
            content = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).digest()
    except (ImageError, OSError):
        return Picture(name, b"", None)
    try:
        return Picture(name, content, signs(load_image(path, root)))
    except ImageError:
        return Picture(name, content, None)


def _splits(table: MappedManifest) -> dict[str, set[str]]:
    """Splits of each patient."""
    splits: dict[str, set[str]] = {}
    for source, patient, split in zip(table["source"][:], table["patient_id"][:], table["split"][:], strict=True):
        if patient is not None:
            splits.setdefault(f"{source}/{patient}", set()).update([split] if split else [])
    return splits
