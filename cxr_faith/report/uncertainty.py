"""How sure the maps are, as a table."""

from collections.abc import Sequence

from cxr_faith.report.formats import number, percent
from cxr_faith.report.tables import TextTable
from cxr_faith.summary.uncertainty import Uncertainty

_NOTE = (
    "Each map was made again for copies of its picture with noise, or under other seeds. A cell is stable when "
    "its rank varies by at most 5 % of the cells (standard deviation). A correlation above 0 says that unsure maps are "
    "less faithful. Interval: Bonett & Wright, over patients."
)


def uncertainty_table(panel: Sequence[Uncertainty]) -> TextTable:
    """Share of stable cells by method, and whether it tells how faithful a map is; no rows where it is unknown."""
    header = ["method", "maps", "stable cells", "maps with srg", "correlation with srg", "95 % interval"]
    rows = [
        [
            one.method,
            str(one.n),
            percent(one.stable_share),
            str(one.n_srg),
            number(one.with_srg),
            "–" if one.low is None else f"{number(one.low)} to {number(one.high)}",
        ]
        for one in panel
    ]
    return TextTable("Are the maps sure, and are unsure maps less faithful?", header, rows, _NOTE)
