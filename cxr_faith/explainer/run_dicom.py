"""`cxr-faith export dicom RUN`: the maps of a run as DICOM objects of their films' studies."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cxr_faith.data.images import ImageError, load_image, read_header, resolve
from cxr_faith.data.orientation import orientation_of, sides_of
from cxr_faith.data.phantoms_only import PHANTOMS_ONLY
from cxr_faith.explainer.answer_verdict import judged
from cxr_faith.explainer.dicom import check_size, require_highdicom
from cxr_faith.explainer.drawing import pixels_of
from cxr_faith.perturb.condition import NONE
from cxr_faith.printable import printable
from cxr_faith.records import scan_records
from cxr_faith.records.controls import is_control
from cxr_faith.report.dicom.result import NUMBERS, DicomResult
from cxr_faith.report.figures import overlay
from cxr_faith.report.formats import without_folder
from cxr_faith.summary.board import Setting
from cxr_faith.summary.load import load_run, read_provenance, read_summary
from cxr_faith.summary.verdict import BELIEVE

_COLUMNS = ("question", "predicted", "p_yes", "status", "map", "order", "grids", "image_path", *NUMBERS)
_SANITY = {True: "failed: its maps hardly change when the model is made random", False: "passed", None: "not run"}


@dataclass
class Exported:
    """What was written."""

    maps: int = 0
    """Maps that have their objects."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Sample → why it has none."""


def export_dicom(run_dir: Path, data_root: Path, out: Path, method: str | None = None) -> Exported:
    """Write the objects of each map of a run's first setting; a sample whose film cannot be used is left out.

    Args:
        run_dir: the run directory, with its summary.
        data_root: the folder that the films' paths start from.
        out: where to write, a folder for each sample.
        method: only the maps of this one; default: of all methods that are no controls.

    Raises:
        ValueError: the extra is not installed, or the run has no such method.
    """
    require_highdicom("export dicom")
    summary = read_summary(run_dir)
    wanted = [name for name in summary.methods if not is_control(name)] if method is None else [method]
    if not set(wanted) <= set(summary.methods) or not summary.settings:
        raise ValueError(f"{run_dir}: has no maps of {method}; it has {', '.join(summary.methods)}")
    rows = summary.board().rows
    sanity = {row.method: _SANITY[row.sanity_failed] for row in rows}
    stated = read_provenance(run_dir).get("model", {})
    model = {name: without_folder(str(stated[name])) for name in ("source", "revision", "hash") if stated.get(name)}
    border, exported = _border(run_dir), Exported()
    caution = PHANTOMS_ONLY if PHANTOMS_ONLY in read_provenance(run_dir).get("cautions", ()) else ""
    for row in _maps(run_dir, summary.settings[0], wanted):
        try:
            _write(row, data_root, out, border, sanity.get(row["method"], "not run"), model, caution)
            exported.maps += 1
        except (ImageError, ValueError) as error:
            exported.left_out[str(row["sample_id"])] = printable(str(error))
    return exported


def _maps(run_dir: Path, setting: Setting, methods: list[str]) -> Iterator[Mapping[str, Any]]:
    for rows in scan_records(run_dir, _COLUMNS):
        mine = rows["condition"].eq(NONE) & rows[list(Setting._fields)].eq(list(setting)).all(axis=1)
        mine &= rows["method"].isin(methods) & rows["map"].notna() & rows["order"].notna()
        yield from (dict(zip(rows.columns, row, strict=True)) for row in rows[mine].itertuples(index=False, name=None))


def _border(run_dir: Path) -> float:
    data = load_run(run_dir).config.get("data")
    border = data.get("border_crop", 0) if isinstance(data, dict) else 0
    return float(border) if isinstance(border, int | float) else 0.0


def _write(
    row: Mapping[str, Any],
    root: Path,
    out: Path,
    border: float,
    sanity: str,
    model: Mapping[str, str],
    caution: str,
) -> None:
    """Write the objects of one record; with a caution about the model no map is to be believed.

    Raises:
        ImageError: the film cannot be read.
        ValueError: it is no DICOM film, or the question shows several.
    """
    from cxr_faith.report.dicom.write import write_dicom

    if len(row["grids"]) > 1:
        raise ValueError("the question shows several pictures")
    film = resolve(row["image_path"], root)
    picture = load_image(film)
    check_size(film, picture)
    height, width = picture.shape[:2]
    top, left = round(height * border), round(width * border)
    region = (top, left, height - 2 * top, width - 2 * left)
    values = np.asarray(row["map"], np.float32).reshape(row["grids"][0]["h"], row["grids"][0]["w"])
    numbers = {name: None if pd.isna(row[name]) else float(row[name]) for name in NUMBERS}
    verdict = judged(row["status"], numbers["srg"], numbers["random_p"], numbers["gap_srg_center"])
    believed = verdict is not None and verdict.verdict == BELIEVE and not sanity.startswith("failed") and not caution
    title = f"{row['question']} {row['predicted']} ({row['method']})"
    sides = sides_of(orientation_of(read_header(film)))
    result = DicomResult(
        question=str(row["question"]),
        answer=str(row["predicted"]),
        p_yes=None if pd.isna(row["p_yes"]) else float(row["p_yes"]),
        method=row["method"],
        map=values,
        order=np.asarray(row["order"]),
        region=region,
        scores=numbers,
        verdict=f"{caution} {'Not judged.' if verdict is None else verdict.sentence}".strip(),
        believed=believed,
        sanity=sanity,
        model=model,
        figure=pixels_of(overlay(picture, values, title, region=region, gray=row["status"] != "ok", sides=sides)),
    )
    write_dicom(film, result, out / _named(row["sample_id"]), _named(row["method"]))


def _named(text: str) -> str:
    """A name of a file that no other text has."""
    readable = re.sub(r"[^\w-]", "_", text, flags=re.ASCII)[:60]
    return readable if readable == text else f"{readable}-{blake2b(text.encode(), digest_size=4).hexdigest()}"
