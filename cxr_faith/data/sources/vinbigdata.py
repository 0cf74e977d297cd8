"""VinBigData, the Kaggle edition of VinDr-CXR's training split: presence questions, with the readers' boxes.

Layout of the root: `train.csv`, and `train/<image_id>.dicom`; or PNG or JPEG files of another size in `train/`, with
`train_meta.csv` (`image_id, dim0, dim1`: height and width of the original).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from cxr_faith.data.boxes import on_picture
from cxr_faith.data.picture_files import PictureFiles
from cxr_faith.data.sample import Sample
from cxr_faith.data.sources.presence import presence_samples, questions_from_labels
from cxr_faith.data.sources.readings import (
    BOX_COLUMNS,
    NO_FINDING,
    Marks,
    Votes,
    answers,
    finding_name,
    read_marks,
)
from cxr_faith.data.tables import find_file, length, read_table, text
from cxr_faith.data.tally import PrepareError, Tally

TABLES = {name: (f"{name}.csv", f"{name}.csv.gz") for name in ("train", "train_meta")}


def vinbigdata(root: Path, tally: Tally, phrasings: int = 1, balanced: bool = True) -> Iterator[Sample]:
    """Presence questions for the 14 findings of VinBigData, by a vote of the three readers of each image.

    A finding is present if at least two readers marked it and absent if none did; where one reader alone marked it, the
    image gets no question about it. `Other lesion` gets no question. The boxes are merged as those of `vindr-cxr` and
    scaled to the pictures that are there.

    Args:
        root: folder with train.csv and train/.
        tally: takes the counts.
        phrasings: how many phrasings of each question, 1 to 5; they form a question group.
        balanced: for each finding, as many images without it as with it, chosen by a hash of their ids; false: all.
    """
    path = find_file(root, *TABLES["train"])
    table = read_table(path, (*BOX_COLUMNS, "rad_id"), ())
    votes = votes_of(table, path.name, tally)
    marks = read_marks(table, path.name, votes, tally)
    asked = questions_from_labels(answers(votes, "vinbigdata", tally), balanced, "train")
    tally.expected = len(asked) * phrasings
    pictures = _Pictures(root, tally)
    last: dict[str, Any] = {}
    for each in asked:
        if last.get("image_id") != each.image:
            last = {"image_id": each.image, **pictures.columns(each.image, marks.get(each.image, Marks()))}
        yield from presence_samples("vinbigdata", each, {**last, "split": "train"}, phrasings, tally)


def votes_of(table: pd.DataFrame, file: str, tally: Tally) -> dict[str, dict[str, Votes]]:
    """Votes by finding and image: each reader has a row for each box, or one that says that there is no finding."""
    readers: dict[str, set[str]] = {}
    seen: dict[str, dict[str, set[str]]] = {}
    for position, row in enumerate(table[["image_id", "rad_id", "class_name"]].itertuples(index=False)):
        name, reader, label = map(text, row)
        if name is None or reader is None or label is None:
            tally.drop("row", name or "", "row without image, reader or finding", f"{file} row {position + 1}")
            continue
        readers.setdefault(name, set()).add(reader)
        finding = finding_name(label)
        if finding != NO_FINDING:
            seen.setdefault(finding, {}).setdefault(name, set()).add(reader)
    return {
        finding: {name: Votes(len(images.get(name, ())), len(known)) for name, known in readers.items()}
        for finding, images in sorted(seen.items())
    }


class _Pictures:
    """Finds the picture of an image, and brings boxes to its size.

    Args:
        root: folder of the data set.
        tally: takes a picture that could be several files.
    """

    def __init__(self, root: Path, tally: Tally) -> None:
        self._root, self._files = root, PictureFiles(root, tally)
        self._originals: Mapping[str, tuple[int, int]] | None = None

    def columns(self, name: str, marks: Marks) -> dict[str, Any]:
        """Path, boxes and readers of an image."""
        path = self._files.find(f"train/{name}.dicom") or f"train/{name}.dicom"
        if not marks.boxes and not marks.readers or path.endswith(".dicom"):
            return {"image_path": path, **vars(marks)}
        drawn_on = self._original_size(name)
        readers = ((reader, on_picture(boxes, drawn_on, path, self._root)) for reader, boxes in marks.readers)
        boxes = on_picture(marks.boxes, drawn_on, path, self._root)
        return {"image_path": path, "boxes": boxes, "readers": tuple(readers)}

    def _original_size(self, name: str) -> tuple[int, int]:
        """Height and width of the picture that the boxes were drawn on."""
        if self._originals is None:
            path = find_file(self._root, *TABLES["train_meta"])
            rows = read_table(path, ("image_id", "dim0", "dim1"), ()).itertuples(index=False)
            sizes = {text(image): (length(height), length(width)) for image, height, width in rows}
            self._originals = {str(image): (h, w) for image, (h, w) in sizes.items() if image and h and w}
        if name not in self._originals:
            raise PrepareError(f"{self._root / TABLES['train_meta'][0]}: has no size of image {name}")
        return self._originals[name]
