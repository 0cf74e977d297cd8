"""Charts of a summary's numbers: mean curves, gaps as a forest, faithfulness against localization."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cxr_faith.metrics.calibration import BINS, expected_calibration_error, reliability
from cxr_faith.records.controls import CENTER, ORACLE, RANDOM
from cxr_faith.report.figures import COLUMN_WIDTH, OKABE_ITO, chart, legend_below, plain

_STYLES = ("-", "--", "-.")
_MARKERS = "osD^vP"


class Interval(NamedTuple):
    """A mean with its confidence interval, for one line of a forest; `low` and `high` None where there is none.

    Attributes:
        method: who.
        finding: of what; lines of one finding stand together.
        mean: the gap.
        low: lower end.
        high: upper end.
        n: samples in the mean.
    """

    method: str
    finding: str
    mean: float
    low: float | None
    high: float | None
    n: int


def method_styles(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Color and line of each method: seven colors, then the same dashed; the baselines grey, the oracle black."""
    styles, number = {}, 0
    for name in names:
        if name == RANDOM:
            styles[name] = {"color": "0.45", "ls": ":", "lw": 1.8}
        elif name == CENTER:
            styles[name] = {"color": "0.45", "ls": "--", "lw": 1.5}
        elif name == ORACLE:
            styles[name] = {"color": "black", "ls": "-", "lw": 1.8}
        else:
            color, line = OKABE_ITO[number % len(OKABE_ITO)], _STYLES[number // len(OKABE_ITO) % len(_STYLES)]
            styles[name] = {"color": color, "ls": line, "lw": 1.5}
            number += 1
    return styles


def mean_curves(
    curves: Mapping[str, Mapping[str, Any]], logit: bool = False, width: float = 2 * COLUMN_WIDTH
) -> Figure:
    """Draw mean curves of several methods: deletion (MoRF) beside insertion (LeRF, read backwards).

    Args:
        curves: method → `x`, `deletion`, `insertion`, each [steps + 1], and `n`, the number of samples, as in a
            summary's boards; with `deletion_low`, `deletion_high`, `insertion_low`, `insertion_high` also a band.
        logit: the values are scores in logits or nats rather than shares of the effect.
        width: of the figure, in inches; below 5 the panels stand one above the other, for one column of a paper.
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
    label = "score (logits or nats)" if logit else "share of the effect kept\n(1 = intact, 0 = all substrate)"
    for panel in panels if stacked else panels[:1]:
        panel.set_ylabel(label)
    handles = [Line2D([], [], **styles[name]) for name in curves]
    labels = [f"{name} (n={curve['n']})" for name, curve in curves.items()]
    legend_below(figure, legend_columns, handles=handles, labels=labels)
    return figure


def _curve(panel: Axes, curve: Mapping[str, Any], kind: str, style: Mapping[str, Any]) -> None:
    x = 100 * np.asarray(curve["x"])
    panel.plot(x, curve[kind], **style)
    low, high = curve.get(f"{kind}_low"), curve.get(f"{kind}_high")
    if low is not None and high is not None:
        panel.fill_between(x, low, high, color=style["color"], alpha=0.15, lw=0)


def answer_curves(curves: Mapping[str, Any]) -> Figure:
    """Draw one answer's score while cells are removed and while they are shown.

    Args:
        curves: `x`, `deletion`, `insertion`, each [steps + 1], in units of the score.
    """
    figure = chart(2.4)
    draw_answer_curves(figure.subplots(), curves)
    return figure


def draw_answer_curves(axes: Axes, curves: Mapping[str, Any]) -> None:
    """Draw one answer's curves into axes; see `answer_curves`."""
    share = 100 * np.asarray(curves["x"])
    axes.plot(share, curves["deletion"], color=OKABE_ITO[1], label="removed")
    axes.plot(share, curves["insertion"], color=OKABE_ITO[0], ls="--", label="shown")
    axes.set(xlabel="cells removed or shown, most salient first (%)", ylabel="score of the answer", xlim=(0, 100))
    axes.legend(frameon=False, fontsize=8)
    plain(axes)


def gap_forest(
    intervals: Sequence[Interval],
    label: str = "gap (positive = better than the baseline)",
    methods: Sequence[str] = (),
) -> Figure:
    """Draw means with their intervals, one line each, grouped by finding; a line at 0 is "no better".

    An interval that reaches over 0 is drawn with an open marker.

    Args:
        intervals: in the order in which they should stand, from the top.
        label: of the axis.
        methods: the order that colors are given in, so that they are those of the run's other charts; default: as the
            lines come.

    Raises:
        ValueError: nothing to draw.
    """
    if not intervals:
        raise ValueError("a forest plot needs one interval or more")
    findings = list(dict.fromkeys(line.finding for line in intervals))
    styles = method_styles(list(dict.fromkeys([*methods, *(line.method for line in intervals)])))
    n_lines = len(intervals) + len(findings)
    figure = chart(0.6 + 0.15 * n_lines)
    axes = figure.subplots()
    labels, y = [], 0.0
    for finding in findings:
        labels.append((y, finding, True))
        y += 1
        for line in (line for line in intervals if line.finding == finding):
            color = styles[line.method]["color"]
            known = line.low is not None and line.high is not None
            if line.low is not None and line.high is not None:
                axes.plot([line.low, line.high], [y, y], color=color, lw=1.4, solid_capstyle="butt")
            clear = known and not (line.low or 0) <= 0 <= (line.high or 0)
            axes.plot(line.mean, y, "o", ms=4, mec=color, mfc=color if clear else "white")
            labels.append((y, f"{line.method} (n={line.n})", False))
            y += 1
    axes.axvline(0, color="0.3", lw=1, zorder=0)
    axes.set_xlabel(label, loc="right")  # a long one goes on below the names
    axes.set(ylim=(y - 0.4, -0.6), yticks=[at for at, _, _ in labels])
    axes.set_yticklabels([text for _, text, _ in labels])
    for tick, (_, _, heading) in zip(axes.get_yticklabels(), labels, strict=True):
        tick.set_fontweight("bold" if heading else "normal")
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="0.9", lw=0.8)
    axes.set_axisbelow(True)
    plain(axes)
    return figure


def faithfulness_scatter(
    points: Mapping[str, tuple[float, float]], x_label: str = "pointing game", y_label: str = "srg"
) -> Figure:
    """Draw where methods look against how much the model needs what they show.

    A method far right and low points at the finding although the model's answer does not depend on it there.

    Args:
        points: method → (localization, faithfulness).
        x_label: what x is.
        y_label: what y is.
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


def reliability_diagram(p_yes: npt.ArrayLike, is_yes: npt.ArrayLike) -> Figure:
    """Draw how often "yes" is right against how sure the model is, with the count of each bin below.

    Args:
        p_yes: the model's probability of yes, [n].
        is_yes: whether the reference is yes, [n].

    Raises:
        ValueError: no value, or different lengths.
    """
    n, truths = np.size(p_yes), np.size(is_yes)
    if n == 0 or n != truths:
        raise ValueError(f"reliability needs as many references as probabilities, got {truths}, {n}")
    bins = reliability(p_yes, is_yes)
    figure = chart(3.8)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    top.plot([0, 1], [0, 1], color="0.6", ls="--", lw=1)
    points = [bin["p_yes"] for bin in bins], [bin["yes"] for bin in bins]
    top.plot(*points, "o-", color=OKABE_ITO[0], ms=4, clip_on=False)
    title = f"ECE {expected_calibration_error(p_yes, is_yes):.3f}, n = {n}"
    top.set(ylabel="share of references that are yes", ylim=(-0.03, 1.03), title=title)
    centers = [(bin["low"] + bin["high"]) / 2 for bin in bins]
    bottom.bar(centers, [bin["n"] for bin in bins], width=0.9 / BINS, color="0.55")
    bottom.set(xlabel="p(yes)", ylabel="samples", xlim=(0, 1))
    bottom.yaxis.set_major_locator(mpl.ticker.MaxNLocator(3, integer=True))
    for axes in (top, bottom):
        plain(axes)
    return figure
