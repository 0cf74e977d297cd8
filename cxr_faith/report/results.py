"""What a run directory holds beside its records: the summary as JSON and as Markdown."""

from pathlib import Path

from cxr_faith.records import write_atomic
from cxr_faith.report.markdown import markdown
from cxr_faith.report.trust import trust_tables
from cxr_faith.summary.summarize import write_summary
from cxr_faith.summary.summary import Summary


def write_results(run_dir: str | Path) -> Summary:
    """Summarize the records of a run directory into its `summary.json` and `summary.md`.

    Raises:
        ValueError: the directory is not a run directory.
        OSError: a file could not be saved.
    """
    summary = write_summary(run_dir)
    values = summary.to_dict()
    write_atomic(Path(run_dir) / "summary.md", markdown(values, trust_tables(values)))
    return summary
