"""Boxes that other data sets give for pictures of MIMIC-CXR: MS-CXR (findings) and Chest ImaGenome gold (anatomy)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from cxr_faith.data.boxes import from_xywh
from cxr_faith.data.sample import Box
from cxr_faith.data.tables import number, read_table, text
from cxr_faith.data.tally import PrepareError, Tally

BoxesByImage = Mapping[str, Sequence[Box]]

IMAGENOME_GOLD = "gold_dataset/gold_bbox_coordinate_annotations_1000images.csv"


def read_ms_cxr(path: Path, tally: Tally) -> BoxesByImage:
    """Boxes by image, labeled with the finding in small letters.

    Args:
        path: ``MS_CXR_Local_Alignment_v*.csv``, or the folder that it is in.
        tally: Takes the rows without an id.

    Raises:
        PrepareError: The file or a column is missing.
    """
    files = sorted(path.glob("MS_CXR*.csv")) if path.is_dir() else [path]
    if not files:
        raise PrepareError(f"{path}: no file MS_CXR*.csv")
    boxes: dict[str, list[Box]] = {}
    for row in read_table(files[-1], ("dicom_id", "category_name", "x", "y", "w", "h"), ()).to_dict("records"):
        name, label = text(row["dicom_id"]), text(row["category_name"])
        if name is None or label is None:
            tally.drop("box", name or "", "MS-CXR row without image or category")
            continue
        corners = from_xywh(number(row["x"]), number(row["y"]), number(row["w"]), number(row["h"]))
        boxes.setdefault(name, []).append(Box(label.lower(), *corners))
    return boxes


def read_chest_imagenome(path: Path, tally: Tally) -> BoxesByImage:
    """Gold boxes by image, labeled with the anatomy in small letters, in pixels of the original picture.

    The file also has the corners in a padded 224 px square, in columns with shorter names; those are left alone.

    Args:
        path: The gold box CSV, the folder that it is in, or the folder of Chest ImaGenome.
        tally: Takes the rows without an id.

    Raises:
        PrepareError: The file or a column is missing.
    """
    candidates = (path / IMAGENOME_GOLD, path / Path(IMAGENOME_GOLD).name) if path.is_dir() else (path,)
    file = next((candidate for candidate in candidates if candidate.is_file()), candidates[0])
    corners = ("original_x1", "original_y1", "original_x2", "original_y2")
    boxes: dict[str, list[Box]] = {}
    for row in read_table(file, ("image_id", "bbox_name", *corners), ()).to_dict("records"):
        name, label = text(row["image_id"]), text(row["bbox_name"])
        if name is None or label is None:
            tally.drop("box", name or "", "Chest ImaGenome row without image or anatomy")
            continue
        x1, y1, x2, y2 = (number(row[corner]) for corner in corners)
        boxes.setdefault(name.removesuffix(".dcm"), []).append(Box(label.lower(), x1, y1, x2, y2))
    return boxes
