"""All results that are made from a run's records, in one call."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cxr_faith.report.html import write_report
from cxr_faith.report.markdown import markdown
from cxr_faith.report.trust import trust_tables
from cxr_faith.storage.atomic import write_atomic
from cxr_faith.summary.summarize import write_summary
from cxr_faith.summary.summary import Summary


@dataclass(frozen=True)
class Results:
    """The results of a run."""

    summary: Summary
    """The numbers, which `summary.json` holds too."""
    page: Path
    """The report, `report/index.html`."""


def write_results(run_dir: str | Path, methods: Sequence[str] = ()) -> Results:
    """Write `summary.json`, `summary.md` and `report/index.html` of a run directory from its records.

    A run that has begun and has no record yet, and an empty directory, get results that say so.

    Args:
        run_dir: the run directory.
        methods: only these methods, beside the baselines `random` and `center`; default: all.

    Raises:
        ValueError: there is no such directory, it holds files but no run, or one of its files cannot be used. Or the
            run has no such method.
        OSError: a file could not be saved.
    """
    summary = write_summary(run_dir, methods)
    write_atomic(Path(run_dir) / "summary.md", markdown(summary, trust_tables(summary), run_dir))
    return Results(summary, write_report(run_dir))
