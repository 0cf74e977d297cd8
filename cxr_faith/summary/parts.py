"""Records that come in parts, whole methods at a time, so that those of a large run are never all in memory."""

from collections.abc import Iterable, Iterator, Sequence

import pandas as pd


def by_method(parts: Iterable[pd.DataFrame], methods: Sequence[str]) -> Iterator[tuple[str, pd.DataFrame]]:
    """Each method that has rows, and these rows.

    Args:
        parts: what `Rows.parts` gave for these methods, or for more.
        methods: names of the methods.
    """
    for part in parts:
        for method in methods:
            mine = part[part["method"].eq(method)]
            if len(mine):
                yield method, mine
