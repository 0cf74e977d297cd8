"""What commands print, in a terminal, a file or a pipe."""

from collections.abc import Iterable
from pathlib import Path
from textwrap import wrap
from typing import Any

from rich import box
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from cxr_faith.printable import printable
from cxr_faith.report.ablations import ablation_tables
from cxr_faith.report.compare_tables import difference_table, matrix, ranking_table, run_table
from cxr_faith.report.costs import render_costs
from cxr_faith.report.head import Head, head_of
from cxr_faith.report.leaderboard import render_leaderboard
from cxr_faith.report.pairs import flip_table
from cxr_faith.report.tables import TextTable
from cxr_faith.report.trust import sets_table
from cxr_faith.summary.compare import Comparison
from cxr_faith.summary.summary import Summary

_INDENT = 13  # of what stands behind a name


class PlainConsole(Console):
    """A console that shows text as it is: brackets are no markup, and escape sequences do nothing."""

    def print(self, *objects: Any, **options: Any) -> None:
        """Print tables and texts; while a progress bar is shown, rich also sends the lines of stderr through here."""
        plain = [Text(printable(each.plain, keep="\n")) if isinstance(each, Text) else each for each in objects]
        super().print(*plain, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """The text of a line, of a table's cell or of a title; line ends stay."""
        plain = {"markup": False, "emoji": False, "highlight": False}
        return super().render_str(printable(text, keep="\n"), **(options | plain))


def wide_console() -> Console:
    """The terminal, or a console wide enough for the leaderboard where the output is a file or a pipe."""
    console = PlainConsole()
    return console if console.is_terminal else PlainConsole(width=120)


def print_line(console: Console, text: str) -> None:
    """Print one line, however long, whatever the names in it hold."""
    console.print(printable(text), soft_wrap=True, highlight=False, markup=False, emoji=False)


def show(console: Console, content: RenderableType) -> None:
    """Print a table; in a file or a pipe, lines have no trailing blanks."""
    if console.is_terminal:
        console.print(content, highlight=False)
        return
    with console.capture() as captured:
        console.print(content, highlight=False)
    console.file.write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))


def show_summary(console: Console, summary: Summary, run_dir: str | Path) -> None:
    """Print what was run and which maps to believe, then the leaderboard over all samples, costs, ablations and sets.

    Warnings that take the meaning from the numbers come before them, the others after them.
    """
    head = head_of(summary, run_dir)
    show_head(console, head)
    if summary.boards:
        show(console, render_leaderboard(summary, width=console.width))
        show(console, render_costs(summary, run_dir, console.width))
        flips = [flip_table(summary.pairs)] if summary.pairs else []
        for table in (*ablation_tables(summary), *flips, sets_table(summary)):
            if table.rows:
                show(console, _rendered(table))
    show_notes(console, [warning for warning in summary.warnings if warning not in head.warnings])


def show_head(console: Console, head: Head) -> None:
    """Print the facts, the verdict and the first warnings, a line each."""
    for name, text in (*head.facts, *head.times):
        print_line(console, f"{name:<12} {text}")
    for number, sentence in enumerate(head.verdict):
        _print_words(console, "" if number else "verdict", sentence)
    show_notes(console, head.warnings)


def show_comparison(console: Console, comparison: Comparison) -> None:
    """Print the verdict on each run, the runs, srg by method and run, and the paired differences."""
    for name, sentences in comparison.verdicts.items():
        print_line(console, f"{name}: {' '.join(sentences)}")
    show_notes(console, comparison.warnings)
    tables = [run_table(comparison), matrix(comparison, "all", verdicts=False), difference_table(comparison, "all")]
    for table in (*tables, ranking_table(comparison)):
        if table.rows:
            show(console, _rendered(table))


def _rendered(content: TextTable) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, caption_justify="left")
    table.title, table.caption = Text(content.title, style="bold"), Text(content.note, style="dim")
    for place, name in enumerate(content.header):
        table.add_column(name, justify="right" if place else "left", no_wrap=True)
    for row in content.rows:
        table.add_row(*map(Text, map(printable, row)))
    return table


def show_notes(console: Console, notes: Iterable[str]) -> None:
    """Print what to know before reading on, a line each."""
    for note in notes:
        _print_words(console, "note", note)


def _print_words(console: Console, name: str, text: str) -> None:
    """Print a sentence; a terminal breaks it between words and keeps its indent, a file or a pipe has one line."""
    lines = wrap(printable(text), max(console.width - _INDENT, 20)) if console.is_terminal else [text]
    for number, line in enumerate(lines):
        print_line(console, f"{'' if number else name:<{_INDENT - 1}} {line}")
