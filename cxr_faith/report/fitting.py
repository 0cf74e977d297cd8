"""Tables for the terminal that lose columns, rather than parts of names, where the terminal is narrow."""

from collections.abc import Callable, Collection, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

FEWER = "Some columns do not fit here: a wider terminal, a file or a pipe has them all."


def fitted(draw: Callable[[Collection[str]], Table], least_first: Sequence[str], width: int | None) -> Table:
    """A table without the columns that do not fit.

    Args:
        draw: draws the table without some of its columns, which are given by name.
        least_first: the columns that may be left out, the least important one first.
        width: of the terminal, in letters; None keeps all columns.
    """
    table = draw(())
    for count in range(1, len(least_first) + 1):
        if width is None or natural_width(table) <= width:
            break
        table = draw(least_first[:count])
        table.caption = Text("\n").join(map(Text, filter(None, (str(table.caption or ""), FEWER))))
        table.caption.stylize("dim")
    return table


def natural_width(table: Table) -> int:
    """Letters that a table takes if no cell is broken."""
    return Console(width=10_000).measure(table).maximum
