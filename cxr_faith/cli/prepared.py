"""Prints what `prepare` took and what it left out."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from cxr_faith.data.prepare import Prepared


def print_prepared(prepared: "Prepared", console: "Console") -> None:
    """Print the counts of a manifest that was written, and where it is."""
    from rich.table import Table

    from cxr_faith.data.folder import DROPS
    from cxr_faith.data.prepare import counted
    from cxr_faith.report.terminal import print_line, show

    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_row("images", str(prepared.images))
    table.add_row("patients", str(prepared.patients) if prepared.patients else "not stated: clusters are images")
    table.add_row("questions", f"{prepared.questions}   {_listed(prepared.kinds)}")
    table.add_row("answers", _listed(prepared.answers))
    table.add_row("boxes", str(prepared.boxes))
    table.add_row("masks", str(prepared.masks))
    for number, (column, own) in enumerate(prepared.columns.items()):
        table.add_row("" if number else "columns", f"{column} from {own}")
    for title, counts in (("dropped", prepared.dropped), ("changed", prepared.changed)):
        for number, line in enumerate(counted(counts)):
            table.add_row("" if number else title, line)
    show(console, table)
    if prepared.missing:
        print_line(console, f"not found {prepared.missing}")
    print_line(console, f"manifest  {prepared.out}   fingerprint {prepared.fingerprint}")
    if prepared.dropped:
        print_line(console, f"drops     {prepared.out / DROPS}")


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())
