"""Planted pairs as tables and as a psychometric curve."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from cxr_faith.metrics.box_protocol import PLACE_COLUMNS
from cxr_faith.printable import printable
from cxr_faith.report.charts import method_styles
from cxr_faith.report.figures import chart, legend_below, plain
from cxr_faith.report.formats import number, percent
from cxr_faith.report.tables import TextTable
from cxr_faith.summary.localization import Localization
from cxr_faith.summary.pairs import Pairs

SYNTHETIC = (
    "The objects are synthetic: planted in copies of the films, in their gray scale, sharpness and noise. Verified: "
    "the model says no to the film and yes to its copy, so the object changed the answer. "
    "Intervals: Wilson, over patients."
)


def pair_tables(panel: Pairs | None) -> list[TextTable]:
    """The answers to the pairs, and where the maps of the verified ones lie; none for a run without pairs."""
    return [flip_table(panel), _located(panel.localization)] if panel else []


def flip_table(panel: Pairs) -> TextTable:
    """How often a planted object turns the answer into a yes, by finding and contrast."""
    rows = [
        [
            printable(one.finding),
            f"{one.contrast:g}",
            str(one.n),
            percent(one.verified),
            f"{percent(one.low)} to {percent(one.high)}",
            str(one.n - one.n_said_no),
            str(one.n_lost),
        ]
        for one in panel.flips
    ]
    header = ["planted", "contrast", "pairs", "verified", "95 % interval", "film: yes", "yes to no"]
    unread = f" Planted copies without a pair of readable answers: {panel.n_unread}." if panel.n_unread else ""
    return TextTable("Does the planted object turn the answer into a yes?", header, rows, SYNTHETIC + unread)


def _located(panel: Sequence[Localization]) -> TextTable:
    rows = [[entry.method, str(entry.n), *(number(getattr(entry, name)) for name in PLACE_COLUMNS)] for entry in panel]
    header = ["method", "n", *(name.replace("_", " ") for name in PLACE_COLUMNS)]
    return TextTable("Do the maps of verified pairs lie on what was planted?", header, rows, "Against the exact mask.")


def psychometric(panel: Pairs | None) -> Figure | None:
    """The share of verified pairs against the contrast, a line for each finding; None without pairs."""
    if panel is None or not panel.flips:
        return None
    figure = chart(3.6)
    axes = figure.subplots()
    styles = method_styles([one.finding for one in panel.flips])
    for place, (finding, style) in enumerate(styles.items()):
        points = [one for one in panel.flips if one.finding == finding]
        # Beside each other, so that equal shares and their bars stay apart.
        x = [one.contrast * 1.03 ** (place - len(styles) / 2) for one in points]
        shares = [one.verified for one in points]
        bars = [[one.verified - one.low for one in points], [one.high - one.verified for one in points]]
        axes.plot(x, shares, marker="o", ms=3, label=finding, **style)
        axes.errorbar(x, shares, yerr=bars, fmt="none", ecolor=style["color"], elinewidth=0.7)
    contrasts = sorted({one.contrast for one in panel.flips})
    axes.set(xscale="log", xlabel="contrast of the planted object", ylabel="pairs verified", ylim=(-0.03, 1.03))
    axes.set_xticks(contrasts, [f"{contrast:g}" for contrast in contrasts])
    axes.minorticks_off()
    plain(axes)
    legend_below(figure)
    return figure
