"""Boxes on pictures of MIMIC-CXR from two other data sets: MS-CXR (findings) and Chest ImaGenome gold (anatomy)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from cxr_faith.data.boxes import Corners, from_xywh
from cxr_faith.data.sample import Box
from cxr_faith.data.sources.mimic_pictures import Pictures
from cxr_faith.data.tables import length, number, read_table, text
from cxr_faith.data.tally import PrepareError, Tally

BoxesByImage = Mapping[str, Sequence[Box]]

IMAGENOME_GOLD = "gold_dataset/gold_bbox_coordinate_annotations_1000images.csv"


def read_ms_cxr(path: Path, pictures: Pictures, tally: Tally) -> BoxesByImage:
    """Read MS-CXR: boxes by image id, labeled with the finding in lower case.

    Args:
        path: `MS_CXR_Local_Alignment_v*.csv`, or its folder.
        pictures: the pictures of MIMIC-CXR-JPG; a box drawn on a picture of another size is dropped.
        tally: takes the rows that are dropped.

    Raises:
        PrepareError: the file or a column is missing.
    """
    files = sorted(path.glob("MS_CXR*.csv")) if path.is_dir() else [path]
    if not files:
        raise PrepareError(f"{path}: no file MS_CXR*.csv")
    columns = ("dicom_id", "category_name", "x", "y", "w", "h")
    table = read_table(files[-1], columns, ("image_width", "image_height"))
    boxes: dict[str, list[Box]] = {}
    for position, row in enumerate(table.to_dict("records")):
        name, label = text(row["dicom_id"]), text(row["category_name"])
        drawn_on = length(row.get("image_height")), length(row.get("image_width"))
        corners = from_xywh(number(row["x"]), number(row["y"]), number(row["w"]), number(row["h"]))
        fault = _fault(name, label, corners, pictures)
        if fault is None and name in pictures.sizes and all(drawn_on) and drawn_on != pictures.sizes[name]:
            fault = "was drawn on a picture of another size"
        if fault is not None or name is None or label is None:
            tally.drop("box", name or "", f"MS-CXR: {fault}", f"row {position + 1}")
        else:
            boxes.setdefault(name, []).append(Box(label.lower(), *corners))
    return boxes


def read_chest_imagenome(path: Path, pictures: Pictures, tally: Tally) -> BoxesByImage:
    """Read Chest ImaGenome's gold boxes by image id, labeled with the anatomy in lower case, in original pixels.

    The file's columns with shorter names, which hold the corners in a padded 224 px square, are not used.

    Args:
        path: the gold box CSV, its folder, or the folder of Chest ImaGenome.
        pictures: the pictures of MIMIC-CXR-JPG.
        tally: takes the rows that are dropped.

    Raises:
        PrepareError: the file or a column is missing.
    """
    candidates = (path / IMAGENOME_GOLD, path / Path(IMAGENOME_GOLD).name) if path.is_dir() else (path,)
    file = next((candidate for candidate in candidates if candidate.is_file()), candidates[0])
    original = ("original_x1", "original_y1", "original_x2", "original_y2")
    boxes: dict[str, list[Box]] = {}
    for position, row in enumerate(read_table(file, ("image_id", "bbox_name", *original), ()).to_dict("records")):
        name, label = (text(row["image_id"]) or "").removesuffix(".dcm") or None, text(row["bbox_name"])
        x1, y1, x2, y2 = (number(row[corner]) for corner in original)
        fault = _fault(name, label, (x1, y1, x2, y2), pictures)
        if fault is not None or name is None or label is None:
            tally.drop("box", name or "", f"Chest ImaGenome: {fault}", f"row {position + 1}")
        else:
            boxes.setdefault(name, []).append(Box(label.lower(), x1, y1, x2, y2))
    return boxes


def _fault(name: str | None, label: str | None, corners: Corners, pictures: Pictures) -> str | None:
    """Why a row is not a usable box; checked here, once, because several questions may get the same box."""
    x1, y1, x2, y2 = corners
    height, width = pictures.sizes.get(name or "", (math.inf, math.inf))
    if name is None or label is None:
        return "row without image or label"
    if name not in pictures.ids:
        return "image is not in the metadata"
    if not all(map(math.isfinite, corners)):
        return "corner is not a number"
    if x1 >= x2 or y1 >= y2:
        return "empty or of negative size"
    return "outside the image" if x1 >= width or y1 >= height or x2 <= 0 or y2 <= 0 else None
