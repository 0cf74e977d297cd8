"""Charts of a summary's numbers: mean curves, gaps as a forest, faithfulness against localization."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cxr_faith.report.figures import OKABE_ITO, plain

Floats = npt.NDArray[np.float64]

RANDOM, ORACLE = "random", "oracle"
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
    """Color and line of each method: seven colors, then the same dashed; random grey and dotted, the oracle black."""
    styles, number = {}, 0
    for name in names:
        if name == RANDOM:
            styles[name] = {"color": "0.45", "ls": ":", "lw": 1.8}
        elif name == ORACLE:
            styles[name] = {"color": "black", "ls": "-", "lw": 1.8}
        else:
            color, line = OKABE_ITO[number % len(OKABE_ITO)], _STYLES[number // len(OKABE_ITO) % len(_STYLES)]
            styles[name] = {"color": color, "ls": line, "lw": 1.5}
            number += 1
    return styles


def mean_curves(curves: Mapping[str, Mapping[str, Any]], logit: bool = False) -> Figure:
    """Draw mean curves of several methods: deletion (MoRF) beside insertion (LeRF, read backwards).

    Args:
        curves: method → `x`, `deletion`, `insertion`, each [steps + 1], and `n`, the number of samples, as in a
            summary's boards; with `deletion_low`, `deletion_high`, `insertion_low`, `insertion_high` also a band.
        logit: the values are scores in logits or nats rather than shares of the effect.
    """
    figure = Figure(figsize=(9.0, 4.6), dpi=110, layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    styles = method_styles(list(curves))
    for panel, kind, better in zip(panels, ("deletion", "insertion"), ("lower", "higher"), strict=True):
        for name, curve in curves.items():
            _curve(panel, curve, kind, styles[name])
        for level in () if logit else (0, 1):
            panel.axhline(level, color="0.8", lw=0.8, zorder=0)
        verb = "removed" if kind == "deletion" else "shown"
        panel.set(title=f"{kind.capitalize()} ({better} is better)", xlabel=f"cells {verb}, most salient first (%)")
        panel.set_xlim(0, 100)
        panel.spines[["top", "right"]].set_visible(False)
    label = "score (logits or nats)" if logit else "share of the effect kept\n(1 = intact picture, 0 = all substrate)"
    panels[0].set_ylabel(label)
    handles = [Line2D([], [], **styles[name]) for name in curves]
    labels = [f"{name} (n={curve['n']})" for name, curve in curves.items()]
    box = figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    for text in box.get_texts():
        text.set_parse_math(False)
    return figure


def _curve(panel: Axes, curve: Mapping[str, Any], kind: str, style: Mapping[str, Any]) -> None:
    x = 100 * np.asarray(curve["x"])
    panel.plot(x, curve[kind], **style)
    low, high = curve.get(f"{kind}_low"), curve.get(f"{kind}_high")
    if low is not None and high is not None:
        panel.fill_between(x, low, high, color=style["color"], alpha=0.15, lw=0)


def gap_forest(intervals: Sequence[Interval], label: str = "gap (positive = better than the baseline)") -> Figure:
    """Draw means with their intervals, one line each, grouped by finding; a line at 0 is "no better".

    An interval that reaches over 0 is drawn with an open marker.

    Args:
        intervals: in the order in which they should stand, from the top.
        label: of the axis.

    Raises:
        ValueError: nothing to draw.
    """
    if not intervals:
        raise ValueError("a forest plot needs one interval or more")
    findings = list(dict.fromkeys(line.finding for line in intervals))
    styles = method_styles(list(dict.fromkeys(line.method for line in intervals)))
    n_lines = len(intervals) + len(findings)
    figure = Figure(figsize=(5.6, 0.9 + 0.21 * n_lines), dpi=120, layout="constrained")
    axes = figure.subplots()
    labels, y = [], 0.0
    for finding in findings:
        labels.append((y, finding, True))
        y += 1
        for line in (line for line in intervals if line.finding == finding):
            color = styles[line.method]["color"]
            known = line.low is not None and line.high is not None
            if line.low is not None and line.high is not None:
                axes.plot([line.low, line.high], [y, y], color=color, lw=1.6, solid_capstyle="butt")
            clear = known and not (line.low or 0) <= 0 <= (line.high or 0)
            axes.plot(line.mean, y, "o", ms=5, mec=color, mfc=color if clear else "white")
            labels.append((y, f"{line.method} (n={line.n})", False))
            y += 1
    axes.axvline(0, color="0.3", lw=1, zorder=0)
    axes.set(xlabel=label, ylim=(y - 0.4, -0.6), yticks=[at for at, _, _ in labels])
    axes.set_yticklabels([text for _, text, _ in labels], fontsize=8)
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
    figure = Figure(figsize=(5.2, 4.4), dpi=120, layout="constrained")
    axes = figure.subplots()
    styles = method_styles(list(points))
    for number, (name, (x, y)) in enumerate(points.items()):
        color = styles[name]["color"]
        axes.plot(x, y, _MARKERS[number % len(_MARKERS)], color=color, ms=7, label=name, mec="white", mew=0.6)
    axes.axhline(0, color="0.7", lw=0.8, zorder=0)
    axes.set(xlabel=f"{x_label} (localization)", ylabel=f"{y_label} (faithfulness)")
    axes.margins(0.08)
    plain(axes)
    box = figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    for text in box.get_texts():
        text.set_parse_math(False)
    return figure


def reliability_diagram(p_yes: Sequence[float], is_yes: Sequence[bool], bins: int = 15) -> Figure:
    """Draw how often "yes" is right against how sure the model is, with the count of each bin below.

    Args:
        p_yes: the model's probability of yes, [n].
        is_yes: whether the reference is yes, [n].
        bins: of equal width over 0 to 1.

    Raises:
        ValueError: no value, or different lengths.
    """
    confidence, share, counts = _reliability(p_yes, is_yes, bins)
    used, error = counts > 0, calibration_error(p_yes, is_yes, bins)
    figure = Figure(figsize=(4.2, 4.8), dpi=120, layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    top.plot([0, 1], [0, 1], color="0.6", ls="--", lw=1)
    top.plot(confidence[used], share[used], "o-", color=OKABE_ITO[0], ms=5, clip_on=False)
    top.set(
        ylabel="share of references that are yes", ylim=(-0.03, 1.03), title=f"ECE {error:.3f}, n = {counts.sum():.0f}"
    )
    centers = (np.arange(bins) + 0.5) / bins
    bottom.bar(centers, counts, width=0.9 / bins, color="0.55")
    bottom.set(xlabel="p(yes)", ylabel="samples", xlim=(0, 1))
    bottom.yaxis.set_major_locator(mpl.ticker.MaxNLocator(3, integer=True))
    for axes in (top, bottom):
        plain(axes)
    return figure


def calibration_error(p_yes: npt.ArrayLike, is_yes: npt.ArrayLike, bins: int = 15) -> float:
    """Expected calibration error of p(yes), l1: mean of |share of yes − mean p| over bins, weighted by their counts.

    Args:
        p_yes: the model's probability of yes, [n].
        is_yes: whether the reference is yes, [n].
        bins: of equal width over 0 to 1.

    Raises:
        ValueError: no value, or different lengths.
    """
    confidence, share, counts = _reliability(p_yes, is_yes, bins)
    used = counts > 0
    return float((counts[used] * np.abs(share[used] - confidence[used])).sum() / counts.sum())


def _reliability(p_yes: npt.ArrayLike, is_yes: npt.ArrayLike, bins: int) -> tuple[Floats, Floats, Floats]:
    """Mean p, share of yes and count of every bin; NaN in the first two for an empty one."""
    probability, truth = np.asarray(p_yes, np.float64), np.asarray(is_yes, np.float64)
    if len(probability) == 0 or probability.shape != truth.shape:
        raise ValueError(f"reliability needs as many references as probabilities, got {len(truth)}, {len(probability)}")
    place = np.minimum((probability * bins).astype(int), bins - 1)
    counts = np.bincount(place, minlength=bins).astype(np.float64)
    filled = np.where(counts > 0, counts, np.nan)
    return np.bincount(place, probability, bins) / filled, np.bincount(place, truth, bins) / filled, counts
