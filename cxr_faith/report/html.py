"""The report of a run as one self-contained page, which needs no network and sorts and filters by its own script."""

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from cxr_faith.perturb.condition import NONE
from cxr_faith.records import foreign_columns, read_records, write_atomic
from cxr_faith.report import legend, samples
from cxr_faith.report.alerts import alert_notes
from cxr_faith.report.figures import svg
from cxr_faith.report.glossary import GLOSSARY
from cxr_faith.report.page_data import page_data
from cxr_faith.report.run_figures import reliability_of, scatter_of
from cxr_faith.report.tables import answer_table
from cxr_faith.report.trust import trust_tables
from cxr_faith.summary import bands
from cxr_faith.summary.load import read_provenance

DETAIL_BUDGET = 11_000_000
"""Bytes for the samples' scores, maps and curves: with 2,000 samples the page stays below 15 MB."""
MOST_ROWS, MOST_LISTED = 200_000, 10_000
"""Records above which a page has no samples' maps, curves and bands; samples that are listed at most."""

_FAILURE = ("sample_id", "methods", "status", "reason")
_COLUMNS = tuple(dict.fromkeys((*samples.COLUMNS, *samples.DETAIL_COLUMNS, *bands.COLUMNS)))


def write_report(run_dir: str | Path) -> Path:
    """Write `report/index.html` of a run directory from its summary, records, provenance and thumbnails.

    Thumbnails are there only if the run was asked for pictures: `report/pictures/pictures.json` maps a sample to its
    file beside it and to the part of the picture that the model saw. `doctor.json`, if there is one, is shown on top.

    Returns:
        The page's path.

    Raises:
        FileNotFoundError: there is no `summary.json`; `write_summary` makes it.
        ValueError: a JSON file of the run is not a JSON object.
    """
    run_dir = Path(run_dir)
    path = run_dir / "summary.json"
    if not path.exists():
        raise FileNotFoundError(f"{path}: missing; summarize the run first")
    page = run_dir / "report" / "index.html"
    thumbs = read_thumbs(page.parent / "pictures")
    records, notes = _records(run_dir)
    notes += [*_other_version(run_dir), *alert_notes(run_dir)]
    doctor = _json_object(run_dir / "doctor.json")
    write_atomic(page, render(_json_object(path), records, read_provenance(run_dir), thumbs, notes, doctor))
    return page


def render(
    summary: dict[str, Any],
    records: pd.DataFrame,
    provenance: Mapping[str, Any],
    thumbs: Mapping[str, Mapping[str, Any]] | None = None,
    notes: Sequence[str] = (),
    doctor: Mapping[str, Any] | None = None,
) -> str:
    """The page's HTML.

    Args:
        summary: as `summarize` gives it; bands are added to its curves.
        records: the run's rows; without the columns of maps and curves the page has none of them.
        provenance: anything JSON-able; shown key by key.
        thumbs: sample → `uri` (data URI) and `region` (top, left, height, width as shares of the picture).
        notes: warnings beside those of the summary.
        doctor: what `cxr-faith doctor` found, as `doctor.json` holds it.
    """
    environment = Environment(
        loader=PackageLoader("cxr_faith.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    records = records[records["condition"].eq(NONE)]
    if "k" in records.columns:
        bands.add_bands(summary, records)
    listed = sorted(set(records["sample_id"]))
    kept = records[records["sample_id"].isin(listed[:MOST_LISTED])] if len(listed) > MOST_LISTED else records
    content = page_data(summary, kept, thumbs or {}, DETAIL_BUDGET)
    return environment.get_template("page.html.j2").render(
        summary=summary,
        warnings=[*summary["warnings"], *notes],
        doctor=_doctor(doctor or {}),
        provenance=list(_flat(provenance)),
        answers=answer_table(summary),
        trust=trust_tables(summary),
        reliability=_markup(reliability_of(records)),
        scatter=_markup(scatter_of(summary)),
        failures=[[row[key] or "–" for key in _FAILURE] for row in summary["failures"]["first"]],
        legend=[*legend.LEGEND, "Small: 95 % interval over patients.", legend.OWN_SUBSTRATE, legend.SANITY],
        left_out=_left_out(len(listed), content),
        glossary=GLOSSARY,
        # Ours, and JSON without "<" cannot end its element.
        data=Markup(json.dumps(content, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")),
        script=Markup(_own("page.js")),
        css=Markup(_own("page.css")),
    )


def read_thumbs(folder: Path) -> dict[str, dict[str, Any]]:
    """Sample → data URI and region of its thumbnail; empty if no pictures were asked for.

    Raises:
        ValueError: `pictures.json` is not a JSON object.
    """
    thumbs = {}
    for sample, entry in _json_object(folder / "pictures.json").items():
        path = folder / str(entry["file"]) if isinstance(entry, Mapping) else None
        if path is not None and path.exists():
            data = base64.b64encode(path.read_bytes()).decode("ascii")
            thumbs[sample] = {"uri": f"data:image/jpeg;base64,{data}", "region": entry["region"]}
    return thumbs


def _records(run_dir: Path) -> tuple[pd.DataFrame, list[str]]:
    """The rows that a page needs, and a note if there are too many of them for maps and curves."""
    slim = read_records(run_dir, samples.COLUMNS)
    if len(slim) <= MOST_ROWS:
        return read_records(run_dir, _COLUMNS), []
    return slim, [
        f"{len(slim):,} records: too many for single maps, curves and bands on a page; the records have them."
    ]


def _other_version(run_dir: Path) -> list[str]:
    """That the records were written by another version, if they were."""
    unknown, lacking = foreign_columns(run_dir)
    notes = []
    if unknown:
        notes.append(f"Written by a newer version: columns {', '.join(unknown)} of the records are not shown here.")
    if lacking:
        notes.append(f"Written by another version: the records lack {', '.join(lacking)}.")
    return notes


def _left_out(n_samples: int, content: Mapping[str, Any]) -> str:
    listed = content["samples"]
    bare = sum(entry["detail"] is None and any(row[2] == "ok" for row in entry["rows"]) for entry in listed)
    parts = []
    if len(listed) < n_samples:
        parts.append(f"The first {len(listed):,} of {n_samples:,} samples are listed.")
    if bare:
        parts.append(f"{bare:,} samples are listed without maps and curves, which the records have.")
    return " ".join(parts)


def _markup(figure: Figure | None) -> Markup | None:
    """A figure as SVG: the markup is matplotlib's, and it escapes names."""
    return None if figure is None else Markup(svg(figure))


def _doctor(doctor: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """(header, rows) of the checks, those that did not pass first; of any other content, key by key."""
    checks = doctor.get("checks")
    columns = ["status", "name", "figure", "advice"]
    if not isinstance(checks, list) or not all(isinstance(c, Mapping) and {*columns} <= c.keys() for c in checks):
        return ["check", "result"], [list(pair) for pair in _flat(doctor)]
    order = {"fail": 0, "warn": 1}
    rows = [[str(check[name]) for name in columns] for check in checks]
    return ["result", "check", "figure", "what to do"], sorted(rows, key=lambda row: order.get(row[0], 2))


def _own(name: str) -> str:
    return files("cxr_faith.report").joinpath(name).read_text(encoding="utf-8")


def _json_object(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error})") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path}: expected a JSON object")
    return value


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted name and text of every leaf."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
