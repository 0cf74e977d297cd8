"""Converts the published box conventions to the one used here: (x1, y1, x2, y2), half open, in original pixels.

`cxr_faith.data.geometry` then maps boxes to the model's input and its grid cells; nothing else does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cxr_faith.data.images import MAX_PIXELS, ImageError, read_size
from cxr_faith.data.sample import Box
from cxr_faith.data.tally import PrepareError, Tally

MAX_BOXES = 1000
"""Most boxes of one image that are merged; the time that takes grows with their square."""
Corners = tuple[float, float, float, float]

_NUMBER = r"\s*(-?\d+(?:\.\d+)?)\s*"
_LOC = re.compile(rf"<loc_{_NUMBER}_{_NUMBER}_{_NUMBER}_{_NUMBER}>")


def from_xywh(x: float, y: float, width: float, height: float) -> Corners:
    """Convert left, top, width and height in pixels (MS-CXR, SLAKE, COCO)."""
    return x, y, x + width, y + height


def from_unit(corners: Sequence[float], size: tuple[int, int]) -> Corners:
    """Convert corners x1, y1, x2, y2 given as shares of the width and height (PadChest-GR).

    Args:
        corners: four numbers in [0, 1].
        size: height and width of the image, pixels.
    """
    (x1, y1, x2, y2), (height, width) = corners, size
    return x1 * width, y1 * height, x2 * width, y2 * height


def scaled(boxes: Sequence[Box], drawn_on: tuple[int, int], size: tuple[int, int]) -> tuple[Box, ...]:
    """Bring boxes from the picture that they were drawn on to an edition of another size; both are (height, width)."""
    if drawn_on == size:
        return tuple(boxes)
    x, y = size[1] / drawn_on[1], size[0] / drawn_on[0]
    return tuple(Box(box.label, box.x1 * x, box.y1 * y, box.x2 * x, box.y2 * y) for box in boxes)


def on_picture(boxes: Sequence[Box], drawn_on: tuple[int, int], path: str, root: Path) -> tuple[Box, ...]:
    """Boxes that were drawn on a picture of (height, width), in pixels of the edition of it that is there.

    Args:
        boxes: the boxes.
        drawn_on: height and width of the picture that they were drawn on.
        path: the picture that is there, relative to `root`; where it cannot be read, the boxes stay as they are.
        root: folder of the data set.
    """
    if not boxes:
        return ()
    try:
        return scaled(boxes, drawn_on, read_size(path, root))
    except ImageError:  # the picture costs its questions when it is judged
        return tuple(boxes)


def from_padded(corners: Sequence[float], size: tuple[int, int], side: int = 224) -> Corners:
    """Convert corners x1, y1, x2, y2 in a padded square (columns x1 … y2 of Chest ImaGenome).

    The image was scaled until its longer side filled the square; the shorter side is centered. Both lengths are
    truncated to whole pixels.

    Args:
        corners: four numbers in pixels of the square.
        size: height and width of the image, pixels.
        side: side of the square, pixels.
    """
    height, width = size
    ratio = side / max(height, width)
    left, top = (side - int(width * ratio)) // 2, (side - int(height * ratio)) // 2
    x1, y1, x2, y2 = corners
    return (x1 - left) / ratio, (y1 - top) / ratio, (x2 - left) / ratio, (y2 - top) / ratio


def from_loc(text: str) -> list[Corners]:
    """Every `<loc_x1_y1_x2_y2>` in a text, in original pixels (VinDr-CXR-VQA)."""
    return [(float(a), float(b), float(c), float(d)) for a, b, c, d in _LOC.findall(text)]


def damaged_locs(text: str) -> int:
    """Number of boxes in a text that `from_loc` cannot read; a text without any box counts as one."""
    return max(text.count("<loc"), 1) - len(_LOC.findall(text)) if text.strip() else 0


def from_relative_rle(text: str, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Decode a mask from relative run lengths (SIIM-ACR): pairs of a gap since the run before and a length.

    Args:
        text: the numbers, separated by blanks; pixels are counted column by column.
        size: height and width of the mask.

    Returns:
        bool [H, W].

    Raises:
        ValueError: the text is not pairs of whole numbers of at least 0, or its runs end outside the picture.
    """
    words = text.split()
    if len(words) % 2 or not words or not all(word.isdecimal() and len(word) < 10 for word in words):
        raise ValueError("run lengths are not pairs of whole numbers")
    height, width = size
    mask = np.zeros(height * width, bool)
    end = 0
    for gap, run in zip(words[::2], words[1::2], strict=True):
        start, end = end + int(gap), end + int(gap) + int(run)
        if end > mask.size:
            raise ValueError(f"a run ends at pixel {end} of {mask.size}")
        mask[start:end] = True
    return mask.reshape(width, height).T


_MOST_BITS = 64
_NOTHING = b"ifdl3"
"""What CheXlocalize writes for an empty mask of any size."""


def from_rle(rle: Mapping[str, Any]) -> npt.NDArray[np.bool_]:
    """Decode a mask from COCO run lengths `{size: [H, W], counts: …}` (CheXlocalize).

    Args:
        rle: the run lengths; `counts` is a text where they are compressed, else a list.

    Returns:
        bool [H, W].

    Raises:
        ValueError: `rle` has another form, or its runs do not fill its size.
        PrepareError: pycocotools is not installed.
    """
    try:
        from pycocotools import mask as coco
    except ImportError as error:
        raise PrepareError("run-length masks need pycocotools: pip install 'cxr-faith[masks]'") from error
    try:
        height, width = (int(length) for length in rle["size"])
        counts = rle["counts"]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError("run-length mask is not {size: [height, width], counts: …}") from error
    if height < 1 or width < 1:
        raise ValueError(f"{height} × {width} is not a size")
    if height * width > MAX_PIXELS:
        raise ValueError(f"{height * width} pixels are more than the {MAX_PIXELS} allowed")
    if not isinstance(counts, list | str | bytes):
        raise ValueError(f"counts is {type(counts).__name__}, expected a list or a text")
    packed = counts.encode() if isinstance(counts, str) else counts
    if packed == _NOTHING:
        return np.zeros((height, width), bool)
    runs = packed if isinstance(packed, list) else _runs(packed)
    if not all(type(run) is int and run >= 0 for run in runs):
        raise ValueError("a run length is not a whole number of at least 0")
    if sum(runs) != height * width:  # pycocotools leaves pixels beyond the runs undefined
        raise ValueError(f"run lengths add up to {sum(runs)}, not to {height} × {width} pixels")
    mask = {"size": [height, width], "counts": packed}
    compressed = coco.frPyObjects(mask, height, width) if isinstance(packed, list) else mask
    return np.asarray(coco.decode(compressed)).astype(bool)


def _runs(text: bytes) -> list[int]:
    """Run lengths of a compressed mask: five bits per byte, low bits first; from the fourth run on, differences."""
    runs: list[int] = []
    value = shift = 0
    for byte in text:
        bits = byte - 48
        value |= (bits & 31) << shift
        shift += 5
        if shift > _MOST_BITS:
            raise ValueError("a run length has more than 64 bits")
        if not bits & 32:
            value -= (bits & 16) << (shift - 4)  # the sign
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    if shift:
        raise ValueError("the last run length is cut off")
    return runs


def box_of_mask(mask: npt.NDArray[np.bool_]) -> Corners | None:
    """Tight box of a mask [H, W]; None for an empty mask."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return None
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def limited(boxes: Sequence[Box], image_id: str, tally: Tally) -> Sequence[Box]:
    """The first `MAX_BOXES` boxes of an image; the others are counted as dropped."""
    for position in range(MAX_BOXES, len(boxes)):
        tally.drop("box", image_id, f"image has more than {MAX_BOXES} boxes", position)
    return boxes[:MAX_BOXES]


def fuse(boxes: Sequence[Box], iou: float = 0.4) -> tuple[Box, ...]:
    """Merge the boxes that several readers drew for the same finding.

    Weighted box fusion (Solovyev et al. 2021) with equal confidences. From the largest box to the smallest, each box
    joins the cluster of its label whose mean box it overlaps most, if the overlap is at least `iou`; otherwise it
    starts a new cluster. A merged box has the mean corners of its cluster. A box that only one reader drew is kept.

    Args:
        boxes: all readers' boxes of one image.
        iou: smallest intersection over union that joins a box to a cluster.

    Returns:
        the merged boxes, sorted by label and then from the largest; independent of the order of `boxes`.
    """
    clusters: list[list[Box]] = []
    means: list[Box] = []
    for box in sorted(boxes, key=lambda b: (b.label, -_area(b), b.x1, b.y1, b.x2, b.y2)):
        overlaps = [_iou(mean, box) if mean.label == box.label else -1.0 for mean in means]
        best = int(np.argmax(overlaps)) if overlaps else -1
        if best >= 0 and overlaps[best] >= iou:
            clusters[best].append(box)
            means[best] = _mean(clusters[best])
        else:
            clusters.append([box])
            means.append(box)
    return tuple(means)


def _mean(cluster: Sequence[Box]) -> Box:
    corners = np.mean([(box.x1, box.y1, box.x2, box.y2) for box in cluster], axis=0)
    x1, y1, x2, y2 = (float(corner) for corner in corners)
    return Box(cluster[0].label, x1, y1, x2, y2)


def _area(box: Box) -> float:
    return (box.x2 - box.x1) * (box.y2 - box.y1)


def _iou(a: Box, b: Box) -> float:
    width = min(a.x2, b.x2) - max(a.x1, b.x1)
    height = min(a.y2, b.y2) - max(a.y1, b.y1)
    shared = max(width, 0.0) * max(height, 0.0)
    return shared / (_area(a) + _area(b) - shared) if shared > 0 else 0.0
