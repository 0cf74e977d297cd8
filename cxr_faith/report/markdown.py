"""A summary as Markdown, with aligned tables that read well in a terminal too."""

from collections.abc import Callable, Sequence
from pathlib import Path
from textwrap import fill

from cxr_faith.printable import markdown_text, printable
from cxr_faith.report.columns import board_title
from cxr_faith.report.comparisons import comparisons, few_patients
from cxr_faith.report.head import head_of
from cxr_faith.report.legend import EFFECT_SIZE, INTERVALS, SCORED, legend
from cxr_faith.report.tables import FINDING, TextTable, answer_table, board_table, finding_tables
from cxr_faith.summary.subgroups import SUBGROUP
from cxr_faith.summary.summary import Summary

LINE = 100
"""Columns of a sentence in a block of code."""
PARAGRAPH, ITEM, BROKEN = "{}\n", "- {}\n", "{}  \n"
"""Forms of a sentence in Markdown: a paragraph, an item of a list, a line of a paragraph."""


def markdown(summary: Summary, more: Sequence[TextTable] = (), run_dir: str | Path | None = None) -> str:
    """The summary as one Markdown document.

    Args:
        summary: the run's summary.
        more: further tables for its end, such as `trust_tables`.
        run_dir: the run's directory, for its model and data. Date, duration and command are left out: two runs of one
            config write the same text.
    """
    return "\n".join([head_markdown(summary, run_dir), tables_markdown(summary, more)])


def head_markdown(summary: Summary, run_dir: str | Path | None = None) -> str:
    """What was run, the verdict and the notes."""
    head = head_of(summary, run_dir)
    facts = "".join(f"- {name}: {markdown_text(text)}\n" for name, text in head.facts)
    parts = [f"# Faithfulness summary\n\n{facts}"]
    if head.verdict:
        parts.append(f"**{markdown_text(head.verdict[0])}** {' '.join(map(markdown_text, head.verdict[1:]))}\n")
    warnings = dict.fromkeys((*head.warnings, *summary.warnings))
    if warnings:
        parts.append("".join(f"- **Note:** {markdown_text(warning)}\n" for warning in warnings))
    return "\n".join(parts)


def tables_markdown(summary: Summary, more: Sequence[TextTable] = (), fenced: bool = False) -> str:
    """The boards and the other tables.

    Args:
        summary: the run's summary.
        more: further tables for the end.
        fenced: tables as blocks of code, and sentences as lines of one, for a viewer that breaks words to make a table
            fit, and wraps sentences at the end of the widest table.
    """
    parts = list[str]()
    for board in summary.boards:
        if not board.slice.startswith((FINDING, *SUBGROUP)):
            note = SCORED if board.by_scored else ""
            parts.append(section(board_title(summary, board), board_table(board), note, fenced))
            parts.append(_said([*few_patients(board), *comparisons(board)], ITEM, fenced))
    lines = dict.fromkeys(line for board in summary.boards for line in legend(board) if line != SCORED)
    parts.append(_said([*lines, INTERVALS, EFFECT_SIZE], BROKEN, fenced))
    for table in [*finding_tables(summary), answer_table(summary), *more]:
        parts.append(section(table.title, table, table.note, fenced))
    return "\n".join(parts)


def section(title: str, table: TextTable, note: str, fenced: bool = False) -> str:
    """A heading, a table as Markdown or as a block of code, and a note, which may be empty."""
    lines = f"```\n{_table(table, printable)}```\n" if fenced else _table(table, markdown_text)
    text = f"## {markdown_text(title)}\n\n{lines}"
    return f"{text}\n{_said([note], PARAGRAPH, fenced)}" if note else text


def _said(lines: Sequence[str], form: str, fenced: bool) -> str:
    """Sentences as Markdown, each in its form, or as lines of a block of code that are broken between words."""
    if not fenced or not lines:
        return "".join(form.format(markdown_text(line)) for line in lines)
    broken = (fill(printable(line), LINE, subsequent_indent="  ", break_long_words=False) for line in lines)
    return "".join(["```\n", *(f"{line}\n" for line in broken), "```\n"])


def _table(table: TextTable, safe: Callable[[str], str]) -> str:
    """A Markdown table, first column left, the others right, padded; `safe` makes a cell's text."""
    lines = [[safe(cell) for cell in line] for line in (table.header, *table.rows)]
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]

    def line(cells: Sequence[str]) -> str:
        first = cells[0].ljust(widths[0])
        return f"| {' | '.join([first, *(c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True))])} |\n"

    rule = f"| {' | '.join(['-' * widths[0], *('-' * (width - 1) + ':' for width in widths[1:])])} |\n"
    return "".join([line(lines[0]), rule, *map(line, lines[1:])])
