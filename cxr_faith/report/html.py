"""The report of a run as one self-contained page, which needs no network and sorts and filters by its own script."""

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure

from cxr_faith.perturb.condition import NONE
from cxr_faith.printable import plain
from cxr_faith.records import read_records
from cxr_faith.report import legend, samples
from cxr_faith.report.alerts import alert_notes
from cxr_faith.report.choice import MOST_ROWS, Listed, listed_part
from cxr_faith.report.figures import svg
from cxr_faith.report.glossary import GLOSSARY, anchor
from cxr_faith.report.head import Head, head_of
from cxr_faith.report.packing import DETAIL_COLUMNS
from cxr_faith.report.page_data import page_data
from cxr_faith.report.pairs import psychometric
from cxr_faith.report.run_figures import ANSWER_COLUMNS, reliability_of, scatter_of
from cxr_faith.report.run_files import Thumb, doctor_table, flat_rows, read_thumbs, version_notes
from cxr_faith.report.tables import TextTable, answer_table
from cxr_faith.report.templates import breakable, templates
from cxr_faith.report.trust import trust_tables
from cxr_faith.storage.atomic import own_folder, write_atomic
from cxr_faith.summary import bands
from cxr_faith.summary.load import read_provenance, read_summary, shown_in, while_it_runs
from cxr_faith.summary.summary import Summary
from cxr_faith.summary.verdict import VERDICTS

DETAIL_BUDGET = 11_000_000
"""Bytes for the samples' scores, maps and curves: with 2,000 samples the page stays below 15 MB."""

SCRIPTS = (
    "page.js",
    "page_board.js",
    "page_charts.js",
    "page_agreement.js",
    "page_samples.js",
    "page_sample.js",
    "page_large.js",
    "page_start.js",
)
"""Parts of the page's one script, in the order in which they run."""

_LEGEND = (
    *legend.LEGEND,
    "Small: 95 % interval over patients.",
    legend.OWN_SUBSTRATE,
    legend.SANITY,
    legend.CAVEAT,
)
_COLUMNS = tuple(dict.fromkeys((*samples.COLUMNS, *DETAIL_COLUMNS, *bands.COLUMNS, *ANSWER_COLUMNS)))


def write_report(run_dir: str | Path) -> Path:
    """Write `report/index.html` of a run directory from its summary, records and other files.

    Returns:
        the page's path.

    Raises:
        FileNotFoundError: there is no `summary.json`; `write_summary` makes it.
        ValueError: a JSON file of the run cannot be used; the message names it.
    """
    run_dir = Path(run_dir)
    summary, provenance = read_summary(run_dir), read_provenance(run_dir)
    shown = shown_in(summary)
    part = while_it_runs(lambda: listed_part(run_dir, summary))
    records = read_records(run_dir, _COLUMNS, shown) if part is None else part.records
    if part is not None and part.n_records <= MOST_ROWS:
        whole = summary
        summary = while_it_runs(lambda: bands.with_bands_of(run_dir, whole, shown))
    notes = [*version_notes(run_dir), *alert_notes(run_dir)]
    page = own_folder(run_dir, "report") / "index.html"
    thumbs, doctor, head = read_thumbs(run_dir), doctor_table(run_dir), head_of(summary, run_dir)
    write_atomic(page, render(summary, records, provenance, thumbs, notes, doctor, head, part))
    return page


def render(
    summary: Summary,
    records: pd.DataFrame,
    provenance: Mapping[str, object],
    thumbs: Mapping[str, Thumb] | None = None,
    notes: Sequence[str] = (),
    doctor: TextTable | None = None,
    head: Head | None = None,
    part: Listed | None = None,
) -> str:
    """The page's HTML.

    Args:
        summary: the run's summary.
        records: the run's rows, or those of `part`; without the columns of maps and curves the page has none of them.
        provenance: a JSON object, shown key by key.
        thumbs: sample → its small picture.
        notes: warnings beside those of the summary.
        doctor: the checks before the run.
        head: the first lines; default: what the summary alone says.
        part: the samples that the page lists, if they are not all; the bands must then be in the summary.
    """
    head = head_of(summary) if head is None else head
    records = records[records["condition"].eq(NONE)]
    if "k" in records.columns and part is None:
        summary = bands.with_bands(summary, records)
    content = plain(page_data(summary, records, thumbs or {}, DETAIL_BUDGET))
    trust = trust_tables(summary, agreement=False)
    page = templates().get_template("page.html.j2")
    return page.render(
        summary=summary,
        head=head,
        warnings=list(dict.fromkeys((*head.warnings, *summary.warnings, *notes))),
        verdicts=VERDICTS,
        doctor=doctor,
        provenance=[[breakable(name), *values] for name, *values in flat_rows(provenance)],
        answers=answer_table(summary),
        trust=trust,
        contents=_contents(summary, trust),
        reliability=_markup(reliability_of(records if part is None else part.answers)),
        scatter=_markup(scatter_of(summary)),
        psychometric=_markup(psychometric(summary.pairs)),
        failures=[[one.sample_id, one.methods, one.status, one.reason or "–"] for one in summary.failures.first],
        legend=_LEGEND,
        left_out=_left_out(part, content["samples"]),
        glossary={anchor(word): (word, meaning) for word, meaning in GLOSSARY.items()},
        # The package makes this text, and JSON without "<" cannot end its element.
        data=Markup(json.dumps(content, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")),
        script=Markup("\n".join(map(_package_text, SCRIPTS))),
        css=Markup(_package_text("page.css")),
    )


def _contents(summary: Summary, trust: Sequence[TextTable]) -> list[tuple[str, str]]:
    """Id and name of each part that the page has."""
    parts = [
        ("leaderboard", "Leaderboard", summary.boards),
        ("curves-title", "Mean curves", summary.boards),
        ("gaps", "Gaps", summary.boards),
        ("gallery-title", "Samples worth a look", summary.boards),
        ("samples", "All samples", summary.boards),
        ("answers", "Answers", summary.answers),
        ("trust", "Trust", trust or summary.agreement),
        ("failures", "Failures", summary.failures.n),
        ("provenance", "Provenance", True),
        ("terms", "Terms", True),
    ]
    return [(place, name) for place, name, there in parts if there]


def _left_out(part: Listed | None, entries: Sequence[Mapping[str, Any]]) -> str:
    """A sentence or two about samples that the page lacks, in whole or in part; may be empty."""
    bare = sum(one["detail"] is None and any(row[2] == "ok" for row in one["rows"]) for one in entries)
    parts = []
    if part is not None:
        parts.append(
            f"{len(entries):,} of {part.n_samples:,} samples are listed: the worst and the best explained, those on "
            "which the methods disagree most in srg, those with the least effect, and others at random. "
            "`cxr-faith view` shows them all. "
            f"All tables are over all samples.{'' if part.n_records <= MOST_ROWS else ' Curves have no bands.'}"
        )
    if bare:
        parts.append(f"{bare:,} samples are listed without maps and curves, which the records have.")
    return " ".join(parts)


def _markup(figure: Figure | None) -> Markup | None:
    """A figure as SVG: the markup is matplotlib's, and it escapes names."""
    return None if figure is None else Markup(svg(figure))


def _package_text(name: str) -> str:
    return files("cxr_faith.report").joinpath(name).read_text(encoding="utf-8")
