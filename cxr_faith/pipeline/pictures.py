"""Overlays for the report, drawn only when pictures were asked for."""

import json
import re
from pathlib import Path

import numpy as np

from cxr_faith.data.images import load_image
from cxr_faith.data.module import CXRVQADataModule
from cxr_faith.data.sample import Sample
from cxr_faith.records import read_records, write_atomic
from cxr_faith.report.figures import overlay

SAMPLES = 6
_COLUMNS = ["image_path", "question", "predicted", "status", "finding", "present", "srg", "map", "grid_h", "grid_w"]
_NOT_DRAWN = ("center", "random", "random_map")


def write_pictures(run_dir: Path, data: CXRVQADataModule, count: int = SAMPLES) -> None:
    """Draw the maps of a few samples into `report/pictures`, one finding after the other.

    Args:
        run_dir: the run directory, with its records.
        data: the data module that the records come from.
        count: number of samples.
    """
    folder = run_dir / "report" / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.png"):
        old.unlink()
    records = read_records(run_dir, _COLUMNS)
    records = records[records["status"].eq("ok") & records["map"].notna() & ~records["method"].isin(_NOT_DRAWN)]
    captions: dict[str, str] = {}
    if not records.empty:
        # The first sample of each finding, then the second, …
        firsts = records.drop_duplicates("sample_id").sort_values(["finding", "sample_id"])
        turn = firsts.groupby("finding", dropna=False).cumcount()
        chosen = firsts.assign(turn=turn).sort_values(["turn", "finding"], kind="stable")["sample_id"].head(count)
        boxes = {sample.sample_id: sample for sample in _samples(data, set(chosen))}
        for number, sample_id in enumerate(chosen):
            rows = records[records["sample_id"].eq(sample_id)].drop_duplicates("method")
            sample = boxes[sample_id]
            picture = load_image(sample.image_path, data.data_root)
            for _, row in rows.iterrows():
                values = np.asarray(row["map"], np.float32).reshape(int(row["grid_h"]), int(row["grid_w"]))
                figure = overlay(picture, values, row["method"], sample.boxes, _region(picture, data.border_crop))
                name = f"{number:02d}-{re.sub(r'[^a-zA-Z0-9_-]', '_', row['method'])}.png"
                figure.savefig(folder / name, dpi=60)
                captions[name] = f"{row['question']} {row['predicted']} · {row['method']} · srg {row['srg']:+.2f}"
    write_atomic(folder / "pictures.json", json.dumps(captions, indent=1, ensure_ascii=False))


def _samples(data: CXRVQADataModule, wanted: set[str]) -> list[Sample]:
    ids = data.table.data.column("sample_id").to_pylist()
    return [Sample.from_row(data.table[row]) for row, sample_id in enumerate(ids) if sample_id in wanted]


def _region(picture: np.ndarray, border_crop: float) -> tuple[float, float, float, float]:
    height, width = picture.shape[:2]
    top, left = round(height * border_crop), round(width * border_crop)
    return (top, left, height - 2 * top, width - 2 * left)
