"""Pictures for the report and TensorBoard; written only with `show_images: true`."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from cxr_faith.data.images import ImageError, load_image, load_mask
from cxr_faith.data.module import CXRVQADataModule
from cxr_faith.data.orientation import UNKNOWN_SIDES, sides_of_each
from cxr_faith.data.sample import Box, Sample
from cxr_faith.printable import json_text
from cxr_faith.records.controls import CENTER, RANDOM, RANDOM_MAP, first_setting
from cxr_faith.report.choice import telling_records
from cxr_faith.report.gallery import gallery
from cxr_faith.report.grids import compare_methods
from cxr_faith.report.side_by_side import side_by_side
from cxr_faith.run.large_view import orders_of, outline, removed_picture
from cxr_faith.storage.atomic import own_folder, replacing, write_atomic
from cxr_faith.summary.board import Setting

logger = logging.getLogger(__name__)

THUMB_SIDE, THUMB_QUALITY = 512, 80
_COLUMNS = ["image_path", "question", "predicted", "status", "finding", "srg", "effect", "map", "grids"]
Region = tuple[int, int, int, int]
"""(top, left, height, width) in pixels."""
_NOT_DRAWN = (CENTER, RANDOM, RANDOM_MAP)


def write_pictures(run_dir: Path, data: CXRVQADataModule) -> None:
    """Write the pictures of the samples in the report's gallery into `report/pictures`.

    Each sample gets a small picture `NN.jpg`, on which the page draws the maps, `NN-removed.jpg` without its cells,
    `NN-mask.png` with the outline of the finding's mask, and `NN-methods.png`, the maps of all methods side by side.
    `pictures.json` maps a sample to its files, its question, boxes, the part of the picture that the model saw and the
    order of the cells by method.

    Args:
        run_dir: the run directory, with its records.
        data: the data module that the records come from.
    """
    folder = own_folder(run_dir, "report", "pictures")
    for pattern in ("*.png", "*.jpg"):
        for old in folder.glob(pattern):
            old.unlink()
    records = telling_records(run_dir, _COLUMNS)
    records = records[records["condition"].eq("none")]
    listing: dict[str, dict[str, Any]] = {}
    if not records.empty:
        records = first_setting(records)
        chosen = list(dict.fromkeys(name for names in gallery(records).values() for name in names))
        samples = {sample.sample_id: sample for sample in _samples(data, set(chosen))}
        setting = Setting(*records[list(Setting._fields)].iloc[0])
        orders = orders_of(run_dir, chosen, setting)
        for number, sample_id in enumerate(name for name in chosen if name in samples):
            rows, stem = records[records["sample_id"].eq(sample_id)], f"{number:02d}"
            try:
                entry = _write(folder, stem, samples[sample_id], rows, data)
                listing[sample_id] = entry | {"orders": orders[sample_id]}
            except ImageError as error:  # gone or damaged since it was evaluated
                logger.warning("%s: no picture in the report: %s", sample_id, error)
    write_atomic(folder / "pictures.json", json_text(listing))


def _write(folder: Path, stem: str, sample: Sample, rows: pd.DataFrame, data: CXRVQADataModule) -> dict[str, Any]:
    picture, boxes, region = _shown(sample, data)
    height, width = picture.shape[:2]
    thumb = Image.fromarray(picture)
    thumb.thumbnail((THUMB_SIDE, THUMB_SIDE))
    _save(thumb, folder / f"{stem}.jpg")
    top, left, covered_h, covered_w = region
    drawn = rows[rows["map"].notna() & ~rows["method"].isin(_NOT_DRAWN)]
    maps = {row["method"]: _map(row["map"], row["grids"]) for row in drawn.to_dict("records")}
    maps = {name: values for name, values in maps.items() if np.isfinite(values).all()}
    if maps:
        status = {row["method"]: row["status"] for row in drawn.to_dict("records")}
        gray = {method for method, its in status.items() if its != "ok"}  # as on the page: nothing to explain
        srg = {row["method"]: f"srg {row['srg']:+.2f}" for row in drawn.to_dict("records") if row["srg"] == row["srg"]}
        title = f"{sample.question} {rows['predicted'].iloc[0]}"
        notes = srg | {method: status[method] for method in gray}
        sides = sides_of_each(sample.picture_ids, sample.image_id, sample.orientation, sample.view)
        common = sides[0] if len({*sides}) == 1 else UNKNOWN_SIDES
        figure = compare_methods(picture, maps, title, boxes, region, notes, gray, common)
        with replacing(folder / f"{stem}-methods.png", durable=False) as file:
            figure.savefig(file, format="png", dpi=90)
    shares = [top / height, left / width, covered_h / height, covered_w / width]
    removed = _removed(thumb, shares, rows, max(1, len(sample.images)))
    if removed is not None:
        _save(removed, folder / f"{stem}-removed.jpg")
    has_outline = not sample.images and _write_outline(sample, data, thumb.size, folder / f"{stem}-mask.png")
    return {
        "file": f"{stem}.jpg",
        "methods": f"{stem}-methods.png" if maps else None,
        "removed": f"{stem}-removed.jpg" if removed else None,
        "mask": f"{stem}-mask.png" if has_outline else None,
        "substrate": rows["substrate"].iloc[0],
        "question": sample.question,
        "boxes": [[b.label, b.x1 / width, b.y1 / height, b.x2 / width, b.y2 / height] for b in boxes],
        "region": shares,
    }


def _write_outline(sample: Sample, data: CXRVQADataModule, size: tuple[int, int], file: Path) -> bool:
    """Write the outline of the finding's mask; says whether there is one that can be read."""
    if sample.finding_mask_path is None:
        return False
    try:
        mask = load_mask(sample.finding_mask_path, data.data_root)
    except ImageError as error:  # gone or damaged since it was evaluated
        logger.warning("%s: no outline in the report: %s", sample.sample_id, error)
        return False
    _save(outline(mask, size), file)
    return True


def _save(picture: Image.Image, path: Path) -> None:
    with replacing(path, durable=False) as file:
        picture.save(file, "PNG") if path.suffix == ".png" else picture.save(file, "JPEG", quality=THUMB_QUALITY)


def _removed(thumb: Image.Image, shares: Sequence[float], rows: pd.DataFrame, pictures: int) -> Image.Image | None:
    """The part of a small picture that the model saw, with every cell removed; None where it cannot be shown."""
    if rows["space"].iloc[0] != "pixels":
        return None
    top, left, height, width = shares
    across, down = thumb.size
    corners = (left * across, top * down, (left + width) * across, (top + height) * down)
    seen = thumb.crop((round(corners[0]), round(corners[1]), round(corners[2]), round(corners[3])))
    return removed_picture(seen, str(rows["substrate"].iloc[0]), pictures)


def _map(values: Sequence[float], grids: Sequence[Mapping[str, int]]) -> np.ndarray:
    """A map of the records, with the parts of several pictures side by side."""
    return side_by_side(np.asarray(values, np.float32).reshape(-1, grids[0]["w"]), len(grids))


def _shown(sample: Sample, data: CXRVQADataModule) -> tuple[np.ndarray, list[Box], Region]:
    """The picture of a question with its boxes, and the part of it that the model sees.

    Several pictures stand side by side, each as the model sees it and as large as the one with the boxes.
    """
    own = load_image(sample.image_path, data.data_root, seconds=data.decode_seconds)
    region = _region(own, data.border_crop)
    if not sample.images:
        return own, list(sample.boxes), region
    height, width = region[2:]
    parts, boxes = [], list[Box]()
    for place, image in enumerate(sample.images):
        picture = load_image(image.path, data.data_root, seconds=data.decode_seconds)
        top, left, covered_h, covered_w = _region(picture, data.border_crop)
        seen = Image.fromarray(picture[top : top + covered_h, left : left + covered_w])
        parts.append(np.asarray(seen.resize((width, height), Image.Resampling.BILINEAR)))
        down, right = height / covered_h, width / covered_w
        boxes += [
            Box(
                box.label,
                (box.x1 - left) * right + place * width,
                (box.y1 - top) * down,
                (box.x2 - left) * right + place * width,
                (box.y2 - top) * down,
            )
            for box in sample.boxes
            if (box.image_id or sample.image_id) == image.image_id
        ]
    return np.hstack(parts), boxes, (0, 0, height, width * len(parts))


def _samples(data: CXRVQADataModule, wanted: set[str]) -> list[Sample]:
    ids = data.table.data.column("sample_id").to_pylist()
    return [Sample.from_row(data.table[row]) for row, sample_id in enumerate(ids) if sample_id in wanted]


def _region(picture: np.ndarray, border_crop: float) -> Region:
    height, width = picture.shape[:2]
    top, left = round(height * border_crop), round(width * border_crop)
    return (top, left, height - 2 * top, width - 2 * left)
