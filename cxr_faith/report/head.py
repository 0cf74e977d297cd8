"""The first lines of every result: what was run, which maps to believe, and what takes the meaning from it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cxr_faith.data.phantoms_only import PHANTOMS_ONLY
from cxr_faith.printable import printable
from cxr_faith.report.columns import setting_title
from cxr_faith.report.history import read_history
from cxr_faith.report.image_use import use_line
from cxr_faith.report.run_files import doctor_table
from cxr_faith.summary.cautions import urgent
from cxr_faith.summary.load import read_provenance
from cxr_faith.summary.summary import Summary
from cxr_faith.summary.verdict import verdict_lines

_HASH = 8
"""Characters of a hash that are shown."""


@dataclass(frozen=True)
class Head:
    """What a reader sees first."""

    facts: tuple[tuple[str, str], ...]
    """Name and text of each fact: model, data, questions and patients, image use, substrate."""
    times: tuple[tuple[str, str], ...]
    """Date with duration, and command; they differ between two runs of one config."""
    verdict: tuple[str, ...]
    """The sentences of `verdict_lines`; empty for a run without scores."""
    warnings: tuple[str, ...]
    """What takes the meaning from the numbers, or from part of them."""


def head_of(summary: Summary, run_dir: str | Path | None = None) -> Head:
    """The head of a run's results.

    Args:
        summary: the run's summary.
        run_dir: its directory; a file that is missing there leaves out its facts. None: the summary alone.

    Raises:
        ValueError: `provenance.json` or `doctor.json` is not a JSON object.
    """
    folder = None if run_dir is None else Path(run_dir)
    provenance = {} if folder is None else read_provenance(folder)
    history = None if folder is None else read_history(folder)
    times = {} if history is None else {"run": history.text, "command": printable(history.command)}
    return Head(
        facts=tuple(_facts(summary, provenance)),
        times=tuple((name, text) for name, text in times.items() if text),
        verdict=verdict_lines(summary.boards),
        warnings=(*_urgent(summary), *(() if folder is None else _checks(summary, folder))),
    )


def _facts(summary: Summary, provenance: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    model, data, identity = (_object(provenance, name) for name in ("model", "data", "identity"))
    if "source" in model:
        details = (model.get("revision"), _object(identity, "model").get("dtype"), str(model.get("hash", ""))[:_HASH])
        yield "model", printable(f"{model['source']} ({', '.join(str(one) for one in details if one)})")
    if "manifest" in data:
        name = "/".join(Path(str(data["manifest"])).parts[-2:])
        yield "data", printable(f"{name} ({str(data.get('fingerprint', ''))[:_HASH]})")
    total = f" of {summary.samples_total}" if summary.partial else ""
    yield "questions", f"{summary.n_samples}{total} ({summary.n_patients} patients)"
    if summary.image_use:
        yield "image use", use_line(summary.image_use, summary.settings[0].substrate)
    if summary.settings:
        others = len(summary.settings) - 1
        more = f"; {others} other board{'s' * (others > 1)} below" if others else ""
        yield "substrate", f"{setting_title(summary, summary.settings[0])}{more}"


def _urgent(summary: Summary) -> Iterator[str]:
    """The warnings of a summary that belong before its tables."""
    said = {PHANTOMS_ONLY, *urgent(summary)}
    return (warning for warning in summary.warnings if warning in said)


def _checks(summary: Summary, run_dir: Path) -> Iterator[str]:
    """What `doctor` found, and which of the two checks were not run."""
    doctor = doctor_table(run_dir)
    failed = [row[1] for row in doctor.rows if row[0] == "fail"]
    if failed:
        yield printable(f"cxr-faith doctor failed: {', '.join(failed)}.")
    missing = [] if doctor.rows else ["cxr-faith doctor (are model, data and machine fit?)"]
    if summary.boards and all(row.sanity_failed is None for row in summary.boards[0].rows):
        missing.append("cxr-faith sanity (do the maps depend on the model?)")
    if missing:
        yield f"Not run for this directory: {', '.join(missing)}."


def _object(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = values.get(name)
    return value if isinstance(value, Mapping) else {}
