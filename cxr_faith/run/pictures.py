"""Pictures for the report and TensorBoard; written only with `show_images: true`."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from cxr_faith.data.images import ImageError, load_image
from cxr_faith.data.module import CXRVQADataModule
from cxr_faith.data.sample import Sample
from cxr_faith.printable import json_text
from cxr_faith.records.controls import CENTER, RANDOM, RANDOM_MAP, first_setting
from cxr_faith.report.choice import telling_records
from cxr_faith.report.gallery import gallery
from cxr_faith.report.grids import compare_methods
from cxr_faith.storage.atomic import own_folder, replacing, write_atomic

logger = logging.getLogger(__name__)

THUMB_SIDE, THUMB_QUALITY = 288, 80
_COLUMNS = ["image_path", "question", "predicted", "status", "finding", "srg", "effect", "map", "grid_h", "grid_w"]
_NOT_DRAWN = (CENTER, RANDOM, RANDOM_MAP)


def write_pictures(run_dir: Path, data: CXRVQADataModule) -> None:
    """Write the pictures of the samples in the report's gallery into `report/pictures`.

    Each sample gets a thumbnail `NN.jpg`, on which the page draws the maps, and `NN-methods.png`, the maps of all
    methods side by side. `pictures.json` maps a sample to its files and to the part of the picture that the model saw.

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
        for number, sample_id in enumerate(name for name in chosen if name in samples):
            rows = records[records["sample_id"].eq(sample_id)]
            try:
                listing[sample_id] = _write(folder, f"{number:02d}", samples[sample_id], rows, data)
            except ImageError as error:  # gone or damaged since it was evaluated
                logger.warning("%s: no picture in the report: %s", sample_id, error)
    write_atomic(folder / "pictures.json", json_text(listing))


def _write(folder: Path, stem: str, sample: Sample, rows: pd.DataFrame, data: CXRVQADataModule) -> dict[str, Any]:
    picture = load_image(sample.image_path, data.data_root, seconds=data.decode_seconds)
    height, width = picture.shape[:2]
    thumb = Image.fromarray(picture)
    thumb.thumbnail((THUMB_SIDE, THUMB_SIDE))
    with replacing(folder / f"{stem}.jpg", durable=False) as file:
        thumb.save(file, "JPEG", quality=THUMB_QUALITY)
    top, left, covered_h, covered_w = region = _region(picture, data.border_crop)
    drawn = rows[rows["map"].notna() & ~rows["method"].isin(_NOT_DRAWN)]
    maps = {
        row["method"]: np.asarray(row["map"], np.float32).reshape(int(row["grid_h"]), int(row["grid_w"]))
        for row in drawn.to_dict("records")
    }
    maps = {name: values for name, values in maps.items() if np.isfinite(values).all()}
    if maps:
        srg = {row["method"]: f"srg {row['srg']:+.2f}" for row in drawn.to_dict("records") if row["srg"] == row["srg"]}
        title = f"{sample.question} {rows['predicted'].iloc[0]}"
        figure = compare_methods(picture, maps, title, sample.boxes, region, srg)
        with replacing(folder / f"{stem}-methods.png", durable=False) as file:
            figure.savefig(file, format="png", dpi=90)
    shares = [top / height, left / width, covered_h / height, covered_w / width]
    return {"file": f"{stem}.jpg", "methods": f"{stem}-methods.png" if maps else None, "region": shares}


def _samples(data: CXRVQADataModule, wanted: set[str]) -> list[Sample]:
    ids = data.table.data.column("sample_id").to_pylist()
    return [Sample.from_row(data.table[row]) for row, sample_id in enumerate(ids) if sample_id in wanted]


def _region(picture: np.ndarray, border_crop: float) -> tuple[float, float, float, float]:
    height, width = picture.shape[:2]
    top, left = round(height * border_crop), round(width * border_crop)
    return (top, left, height - 2 * top, width - 2 * left)
