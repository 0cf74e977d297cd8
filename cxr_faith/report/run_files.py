"""Files of a run directory that the page shows beside the summary: thumbnails, the doctor's checks, provenance."""

import base64
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cxr_faith.records import foreign_columns
from cxr_faith.report.tables import TextTable
from cxr_faith.storage.atomic import read_file

_CHECK = ("status", "name", "figure", "advice")
_ORDER = {"fail": 0, "warn": 1}


@dataclass(frozen=True)
class Thumb:
    """A sample's small picture on the page."""

    uri: str
    """The JPEG as a data URI."""
    region: tuple[float, float, float, float]
    """Top, left, height and width of the part that the model saw, as shares of the picture."""
    boxes: tuple[tuple[str, float, float, float, float], ...] = ()
    """Label, x1, y1, x2 and y2 of each box of the finding, as shares of the picture."""
    mask: str | None = None
    """The outline of the finding's mask as a transparent PNG as large as the picture, a data URI."""
    removed: str | None = None
    """The part that the model saw with every cell removed, as a data URI."""
    substrate: str | None = None
    """The substrate of `removed`."""
    orders: Mapping[str, str] = field(default_factory=dict)
    """Method → its order of the cells: whole numbers of two bytes, low byte first, in base64."""


def read_thumbs(run_dir: Path) -> dict[str, Thumb]:
    """Sample → its small picture; empty if the run was not asked for pictures.

    `report/pictures/pictures.json` names each sample's file and the part of the picture that the model saw.

    Raises:
        ValueError: `pictures.json` is not a JSON object.
    """
    masks, removed = (
        {sample: _uri(path) for sample, _, path in _listed_pictures(run_dir, kind)} for kind in ("mask", "removed")
    )
    return {
        sample: Thumb(
            _uri(path),
            tuple(listed["region"]),
            tuple((str(label), *corners) for label, *corners in listed.get("boxes", ())),
            masks.get(sample),
            removed.get(sample),
            listed.get("substrate"),
            listed.get("orders", {}),
        )
        for sample, listed, path in _listed_pictures(run_dir, "file")
    }


def read_gallery(run_dir: Path) -> list[tuple[str, str, Path]]:
    """(sample, question, file) of each picture that shows the maps of all methods side by side.

    Raises:
        ValueError: `pictures.json` is not a JSON object.
    """
    listing = _listed_pictures(run_dir, "methods")
    return [(sample, str(listed.get("question", "")), path) for sample, listed, path in listing]


def doctor_table(run_dir: Path) -> TextTable:
    """The checks in `doctor.json`, those that did not pass first; no rows if there is no such file.

    Raises:
        ValueError: `doctor.json` is not a JSON object.
    """
    doctor = _json_object(run_dir / "doctor.json")
    checks = doctor.get("checks")
    if not isinstance(checks, list) or not all(isinstance(c, Mapping) and {*_CHECK} <= c.keys() for c in checks):
        return TextTable("from doctor.json", ["check", "result"], flat_rows(doctor))
    rows = [[str(check[name]) for name in _CHECK] for check in checks]
    rows.sort(key=lambda row: _ORDER.get(row[0], 2))
    return TextTable("from doctor.json", ["result", "check", "figure", "what to do"], rows)


def flat_rows(values: Mapping[str, object]) -> list[list[str]]:
    """Dotted name and text of every leaf of a JSON object."""
    return [[name, text] for name, text in _leaves(values, "")]


def version_notes(run_dir: Path) -> list[str]:
    """Notes for a run whose records another version wrote; empty for a run of this version."""
    unknown, lacking = foreign_columns(run_dir)
    notes = []
    if unknown:
        notes.append(f"Written by a newer version: columns {', '.join(unknown)} of the records are not shown here.")
    if lacking:
        notes.append(f"Written by another version: the records lack {', '.join(lacking)}.")
    return notes


def _uri(path: Path) -> str:
    kind = "png" if path.suffix == ".png" else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"


def _listed_pictures(run_dir: Path, kind: str) -> Iterator[tuple[str, Mapping[str, Any], Path]]:
    """(sample, its entry in `pictures.json`, its file of a kind) for each file that is there."""
    folder = run_dir / "report" / "pictures"
    for sample, listed in _json_object(folder / "pictures.json").items():
        name = listed.get(kind) if isinstance(listed, Mapping) else None
        path = folder / Path(str(name)).name if name else None
        # A link could show a private picture to all who may read the page.
        if path is not None and path.is_file() and not path.is_symlink():
            yield sample, listed, path


def _leaves(values: Mapping[str, object], prefix: str) -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _json_object(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        value = json.loads(read_file(path))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error})") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path}: expected a JSON object")
    return value
