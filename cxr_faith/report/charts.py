"""Charts of numbers: curves, gaps as a forest, faithfulness against localization, reliability."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cxr_faith.metrics.calibration import BINS, ReliabilityBin, expected_calibration_error, reliability
from cxr_faith.metrics.shares import wilson
from cxr_faith.records.controls import CENTER, ORACLE, RANDOM
from cxr_faith.report.figures import COLUMN_WIDTH, OKABE_ITO, chart, legend_below, plain
from cxr_faith.summary.curves import Curves

_MARKERS = "osD^vP"


@dataclass(frozen=True)
class ForestLine:
    """One line of a forest: a mean gap with its confidence interval."""

    method: str
    """The method; lines of one method have one color."""
    finding: str
    """The heading of the line's group."""
    mean: float
    """The mean gap."""
    low: float | None
    """Lower end of the interval; None if there is no interval."""
    high: float | None
    """Upper end of the interval; None if there is no interval."""
    n: int
    """Samples in the mean."""


@dataclass(frozen=True)
class AnswerCurves:
    """One answer's score while cells are removed and while they are shown, most salient first."""

    x: Sequence[float]
    """Share of the cells, from 0 to 1, [points]."""
    deletion: Sequence[float]
    """Score with that share removed, in logits, [points]."""
    insertion: Sequence[float]
    """Score with only that share shown, in logits, [points]."""


class LineStyle(TypedDict):
    """How matplotlib draws a method's line."""

    color: str
    """Color name or hex code."""
    ls: str
    """Solid, dashed, dash-dotted or dotted."""
    lw: float
    """Width in points."""


_STYLES = ("-", "--", "-.")
_CONTROL_STYLES: dict[str, LineStyle] = {
    RANDOM: {"color": "0.45", "ls": ":", "lw": 1.8},
    CENTER: {"color": "0.45", "ls": "--", "lw": 1.5},
    ORACLE: {"color": "black", "ls": "-", "lw": 1.8},
}


def method_styles(names: Sequence[str]) -> dict[str, LineStyle]:
    """Each method's line: seven colors, then the same dashed; the baselines gray, the oracle black."""
    styles = dict(_CONTROL_STYLES)
    others = [name for name in dict.fromkeys(names) if name not in styles]
    for number, name in enumerate(others):
        color, line = OKABE_ITO[number % len(OKABE_ITO)], _STYLES[number // len(OKABE_ITO) % len(_STYLES)]
        styles[name] = {"color": color, "ls": line, "lw": 1.5}
    return {name: styles[name] for name in names}


def mean_curves(curves: Mapping[str, Curves], logit: bool = False, width: float = 2 * COLUMN_WIDTH) -> Figure:
    """Draw mean curves of several methods: deletion beside insertion, with their bands if they have any.

    Args:
        curves: method → its curves.
        logit: the values are scores in logits rather than shares of the effect.
        width: of the figure, in inches; below 5 one panel is above the other, for one column of a paper.
    """
    stacked = width < 5
    legend_columns = max(1, int(width / 1.7))
    legend_height = 0.16 * math.ceil(len(curves) / legend_columns)
    figure = chart((4.6 if stacked else 2.7) + legend_height, width)
    panels = figure.subplots(*((2, 1) if stacked else (1, 2)), sharex=stacked, sharey=True)
    styles = method_styles(list(curves))
    for panel, kind, better in zip(panels, ("deletion", "insertion"), ("lower", "higher"), strict=True):
        for name, curve in curves.items():
            _curve(panel, curve, kind, styles[name])
        for level in () if logit else (0, 1):
            panel.axhline(level, color="0.8", lw=0.8, zorder=0)
        verb = "removed" if kind == "deletion" else "shown"
        panel.set(title=f"{kind.capitalize()} ({better} is better)", xlabel=f"cells {verb}, most salient first (%)")
        panel.set_xlim(0, 100)
        plain(panel)
    label = "score (logits)" if logit else "share of the effect kept\n(1 = intact, 0 = all substrate)"
    for panel in panels if stacked else panels[:1]:
        panel.set_ylabel(label)
    handles = [Line2D([], [], **styles[name]) for name in curves]
    labels = [f"{name} (n={curve.n})" for name, curve in curves.items()]
    legend_below(figure, legend_columns, handles=handles, labels=labels)
    return figure


def _curve(panel: Axes, curve: Curves, kind: str, style: LineStyle) -> None:
    x, bands = 100 * np.asarray(curve.x), curve.bands
    panel.plot(x, getattr(curve, kind), **style)
    if bands is not None:
        low, high = getattr(bands, f"{kind}_low"), getattr(bands, f"{kind}_high")
        panel.fill_between(x, low, high, color=style["color"], alpha=0.15, lw=0)


def answer_curves(curves: AnswerCurves) -> Figure:
    """Draw one answer's score while cells are removed and while they are shown."""
    figure = chart(2.4)
    draw_answer_curves(figure.subplots(), curves)
    return figure


def draw_answer_curves(axes: Axes, curves: AnswerCurves) -> None:
    """Draw one answer's curves into axes; see `answer_curves`."""
    share = 100 * np.asarray(curves.x)
    axes.plot(share, curves.deletion, color=OKABE_ITO[1], label="removed")
    axes.plot(share, curves.insertion, color=OKABE_ITO[0], ls="--", label="shown")
    axes.set(xlabel="cells removed or shown, most salient first (%)", ylabel="score of the answer", xlim=(0, 100))
    axes.legend(frameon=False, fontsize=8)
    plain(axes)


def gap_forest(
    lines: Sequence[ForestLine],
    label: str = "gap (positive = better than the baseline)",
    methods: Sequence[str] = (),
) -> Figure:
    """Draw means with their intervals, grouped by finding; a vertical line at 0 is "no better".

    A marker is open if the interval includes 0 or is missing.

    Args:
        lines: from the top to the bottom; those of one finding become one group.
        label: of the axis.
        methods: the order in which colors are given, for the same colors as in the run's other charts; default: the
            order of the lines.

    Raises:
        ValueError: nothing to draw.
    """
    if not lines:
        raise ValueError("a forest plot needs one interval or more")
    findings = list(dict.fromkeys(line.finding for line in lines))
    styles = method_styles(list(dict.fromkeys([*methods, *(line.method for line in lines)])))
    figure = chart(0.6 + 0.15 * (len(lines) + len(findings)))
    axes = figure.subplots()
    labels: list[tuple[str, str]] = []  # text and font weight
    for finding in findings:
        labels.append((finding, "bold"))
        for line in (line for line in lines if line.finding == finding):
            _forest_line(axes, len(labels), line, styles[line.method]["color"])
            labels.append((f"{line.method} (n={line.n})", "normal"))
    axes.axvline(0, color="0.3", lw=1, zorder=0)
    axes.set_xlabel(label, loc="right")  # a long one continues below the names
    axes.set(ylim=(len(labels) - 0.4, -0.6), yticks=range(len(labels)))
    axes.set_yticklabels([text for text, _ in labels])
    for tick, (_, weight) in zip(axes.get_yticklabels(), labels, strict=True):
        tick.set_fontweight(weight)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="0.9", lw=0.8)
    axes.set_axisbelow(True)
    plain(axes)
    return figure


def _forest_line(axes: Axes, y: float, line: ForestLine, color: str) -> None:
    clear = False
    if line.low is not None and line.high is not None:
        axes.plot([line.low, line.high], [y, y], color=color, lw=1.4, solid_capstyle="butt")
        clear = not line.low <= 0 <= line.high
    axes.plot(line.mean, y, "o", ms=4, mec=color, mfc=color if clear else "white")


def faithfulness_scatter(
    points: Mapping[str, tuple[float, float]], x_label: str = "pointing game", y_label: str = "srg"
) -> Figure:
    """Draw each method's faithfulness (up) against its localization (right).

    A method far right and low points at the finding, but the model's answer does not depend on it there.

    Args:
        points: method → (localization, faithfulness).
        x_label: name of the localization score.
        y_label: name of the faithfulness score.
    """
    figure = chart(2.6 + 0.16 * math.ceil(len(points) / 2))
    axes = figure.subplots()
    styles = method_styles(list(points))
    for number, (name, (x, y)) in enumerate(points.items()):
        color = styles[name]["color"]
        axes.plot(x, y, _MARKERS[number % len(_MARKERS)], color=color, ms=6, label=name, mec="white", mew=0.5)
    axes.axhline(0, color="0.7", lw=0.8, zorder=0)
    axes.set(xlabel=f"{x_label} (localization)", ylabel=f"{y_label} (faithfulness)")
    axes.margins(0.08)
    plain(axes)
    legend_below(figure)
    return figure


def reliability_diagram(p_yes: npt.ArrayLike, is_yes: npt.ArrayLike, patients: npt.ArrayLike | None = None) -> Figure:
    """Draw how often the reference is yes against the model's p(yes), with the count of each bin below.

    A dot for each bin, whose area grows with its count; bars are 95 % intervals (Wilson) over patients.

    Args:
        p_yes: the model's probability of yes, [n].
        is_yes: whether the reference is yes, [n].
        patients: whose answer it is, [n]; default: each answer is another patient's.

    Raises:
        ValueError: no value, or different lengths.
    """
    n, truths = np.size(p_yes), np.size(is_yes)
    if n == 0 or n != truths:
        raise ValueError(f"reliability needs as many references as probabilities, got {truths} and {n}")
    bins = reliability(p_yes, is_yes)
    figure = chart(3.8)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    top.plot([0, 1], [0, 1], color="0.6", ls="--", lw=1)
    most = max(bin.n for bin in bins)
    for bin, count in zip(bins, _patients_in(bins, p_yes, patients), strict=True):
        top.plot([bin.p_yes] * 2, wilson(bin.yes, count), color=OKABE_ITO[0], lw=1, clip_on=False)
        top.scatter(bin.p_yes, bin.yes, 6 + 60 * bin.n / most, color=OKABE_ITO[0], lw=0, clip_on=False, zorder=3)
    title = f"ECE {expected_calibration_error(p_yes, is_yes):.3f}, n = {n}"
    top.set(ylabel="share of references that are yes", ylim=(-0.03, 1.03), title=title)
    centers = [(bin.low + bin.high) / 2 for bin in bins]
    bottom.bar(centers, [bin.n for bin in bins], width=0.9 / BINS, color="0.55")
    bottom.set(xlabel="p(yes)", ylabel="samples", xlim=(0, 1))
    bottom.yaxis.set_major_locator(mpl.ticker.MaxNLocator(3, integer=True))
    for axes in (top, bottom):
        plain(axes)
    return figure


def _patients_in(bins: Sequence[ReliabilityBin], p_yes: npt.ArrayLike, patients: npt.ArrayLike | None) -> list[int]:
    """How many patients each bin has."""
    p = np.asarray(p_yes, np.float64)
    names = np.arange(len(p)) if patients is None else np.asarray(patients)
    # The last bin includes its upper edge, which is 1.
    return [len(np.unique(names[(p >= bin.low) & ((p < bin.high) | (bin.high == 1))])) for bin in bins]
