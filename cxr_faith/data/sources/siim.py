"""SIIM-ACR Pneumothorax: presence questions with exact masks.

Layout of the root: `train-rle.csv`, and the pictures as `<ImageId>.dcm` (or .png) in any folder below it. The masks are
of 1,024 px; they are brought to pictures of another size.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from cxr_faith.data.boxes import from_relative_rle
from cxr_faith.data.images import ImageError, read_size
from cxr_faith.data.masks import write_mask
from cxr_faith.data.picture_files import PictureFiles
from cxr_faith.data.sample import Sample
from cxr_faith.data.sources.presence import NO, YES, presence_samples, questions_from_labels
from cxr_faith.data.tables import find_file, read_table, text
from cxr_faith.data.tally import PrepareError, Tally

FINDING = "pneumothorax"
FRAME = (1024, 1024)
"""Height and width of the pictures and masks."""
NOTHING = "-1"
# The published header has a blank before the second name.
_COLUMNS = (" EncodedPixels", "EncodedPixels")


def siim(root: Path, tally: Tally, folder: Path, phrasings: int = 1, balanced: bool = True) -> Iterator[Sample]:
    """Presence questions for pneumothorax; the mask of an image is the union of its rows.

    Args:
        root: folder of the challenge.
        tally: takes the counts.
        folder: folder of the manifest that is being written; takes the masks.
        phrasings: how many phrasings of each question, 1 to 5; they form a question group.
        balanced: as many images without a pneumothorax as with one, chosen by a hash of their ids; false: all.
    """
    runs = _runs(root, tally)
    asked = questions_from_labels([(FINDING, {name: YES if rows else NO for name, rows in runs.items()})], balanced, "")
    tally.expected = len(asked) * phrasings
    files = PictureFiles(root, tally)
    for each in asked:
        path = files.find(f"{each.image}.dcm") or f"{each.image}.dcm"
        mask = _mask(each.image, runs[each.image], path, root, folder, tally)
        columns = {"image_path": path, "split": "train", "finding_mask_path": mask}
        yield from presence_samples("siim", each, columns, phrasings, tally)


def _runs(root: Path, tally: Tally) -> dict[str, list[str]]:
    """Run lengths of each image, one text a row; none where there is no pneumothorax."""
    path = find_file(root, "train-rle.csv", "train-rle.csv.gz", "stage_2_train.csv")
    table = read_table(path, ("ImageId",), _COLUMNS)
    column = next((name for name in _COLUMNS if name in table.columns), None)
    if column is None:
        raise PrepareError(f"{path}: lacks the column EncodedPixels")
    runs: dict[str, list[str]] = {}
    for position, (image, encoded) in enumerate(zip(table["ImageId"], table[column], strict=True)):
        name, written = text(image), text(encoded)
        if name is None or written is None:
            tally.drop("row", name or "", "row without image or run lengths", f"{path.name} row {position + 1}")
        elif written == NOTHING:
            runs.setdefault(name, [])
        else:
            runs.setdefault(name, []).append(written)
    return runs


def _mask(name: str, rows: list[str], picture: str, root: Path, folder: Path, tally: Tally) -> str | None:
    """Write the mask of an image at its picture's size; None without one.

    Where a row is damaged there is none, because a part of a mask would mislead.
    """
    mask = np.zeros(FRAME, bool)
    try:
        for written in rows:
            mask |= from_relative_rle(written, FRAME)
        size = read_size(picture, root) if rows else FRAME
    except ImageError:  # the picture costs its questions when it is judged
        return None
    except ValueError as error:
        tally.drop("mask", name, "run lengths are damaged", error)
        return None
    if size != FRAME:
        mask = np.asarray(Image.fromarray(mask).resize(size[::-1], Image.Resampling.NEAREST))
    return write_mask(mask, folder, FINDING, name) if mask.any() else None
