"""Masks of other data sets that `prepare` decodes and writes into a manifest's folder."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from cxr_faith.data.boxes import from_rle
from cxr_faith.data.folder import MASKS
from cxr_faith.data.sample import Sample
from cxr_faith.data.tally import PrepareError, Tally
from cxr_faith.storage.atomic import replacing

_LONGEST_NAME = 50
"""Characters, of up to four bytes; file systems allow 255 bytes."""


def decoded(rle: Any, sample: Sample, label: str, tally: Tally) -> npt.NDArray[np.bool_] | None:
    """A run-length mask of a sample's image; None, and counted, if it is damaged or of another size."""
    try:
        mask = from_rle(rle)
    except PrepareError:
        raise
    except ValueError as error:
        tally.drop("mask", sample.image_id, "run lengths are damaged", f"{label}: {error}")
        return None
    if mask.shape != (sample.height, sample.width):
        tally.drop("mask", sample.image_id, "has another size than its image", f"{label} {mask.shape}")
        return None
    return mask


def write_mask(mask: npt.NDArray[np.bool_], out: Path, label: str, image_id: str) -> str:
    """Write a mask as PNG into the manifest's folder; returns its path relative to that folder."""
    target = mask_path(label, image_id)
    with replacing(out / target, durable=False) as file:  # `new_folder` brings all of them to the disk in the end
        Image.fromarray(mask.astype(np.uint8) * 255).save(file, "PNG")
    return target


def mask_path(label: str, image_id: str) -> str:
    """Path of a mask in the manifest's folder."""
    return f"{MASKS}/{file_name(label)}/{file_name(image_id)}.png"


def file_name(word: str) -> str:
    """A label or image id as the name of a file.

    Image ids may hold slashes and dots, or be too long for a file's name: a hash keeps the names unique.
    """
    name = re.sub(r"[^\w -]", "_", word)[:_LONGEST_NAME]
    return name if name == word else f"{name}-{hashlib.blake2b(word.encode(), digest_size=4).hexdigest()}"


def bare_id(image_id: str) -> str:
    """An image id without a picture's file suffix; ids of the source `table` are paths and have one."""
    return re.sub(r"\.(png|jpe?g|dcm|dicom)$", "", image_id, flags=re.IGNORECASE)
