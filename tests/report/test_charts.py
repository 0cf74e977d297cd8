import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.colors import to_hex, to_rgb

from cxr_faith.metrics.shares import wilson
from cxr_faith.report.charts import (
    ForestLine,
    faithfulness_scatter,
    gap_forest,
    mean_curves,
    method_styles,
    reliability_diagram,
)
from cxr_faith.report.figures import OKABE_ITO, svg
from cxr_faith.summary.curves import Bands, Curves


def seen_by(color: str, kind: str) -> np.ndarray:
    """Linear RGB as dichromats see it (Viénot, Brettel & Mollon 1999)."""
    rgb = np.asarray(to_rgb(color))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    protan = [[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]]
    deutan = [[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]]
    return np.asarray({"protan": protan, "deutan": deutan, "none": np.eye(3)}[kind]) @ linear


@pytest.mark.parametrize("kind", ["none", "protan", "deutan"])
def test_colors_of_methods_differ_for_color_blind_readers(kind: str) -> None:
    seen = [seen_by(color, kind) for color in OKABE_ITO]
    for one in range(len(seen)):
        for other in range(one):
            assert np.abs(seen[one] - seen[other]).sum() > 0.1, (OKABE_ITO[one], OKABE_ITO[other])


def test_twenty_methods_have_twenty_styles() -> None:
    styles = method_styles([f"m{i}" for i in range(19)] + ["random", "oracle"])
    assert len({(style["color"], style["ls"]) for style in styles.values()}) == 21


def test_mean_curves_draw_every_method_and_leave_no_global_state() -> None:
    x = np.linspace(0, 1, 5)
    curves = {name: Curves(n=7, x=x, deletion=1 - x, insertion=x) for name in ("chefer", "random", "<i>$a$</i>")}
    figure = mean_curves(curves)
    deletion, insertion = figure.axes
    assert "lower is better" in deletion.get_title() and "higher is better" in insertion.get_title()
    lines = [line for line in deletion.get_lines() if len(line.get_xdata()) == 5]
    assert [line.get_linestyle() for line in lines] == ["-", ":", "-"]
    np.testing.assert_allclose(insertion.get_lines()[0].get_xdata(), 100 * x)
    assert [text.get_text() for text in figure.legends[0].get_texts()][0] == "chefer (n=7)"
    text = svg(figure)
    assert text == svg(mean_curves(curves)) and text.startswith("<svg")
    assert "<i>" not in text and "&lt;i&gt;$a$" in text
    assert pyplot.get_fignums() == [] and len(deletion.collections) == 0


def test_bands_span_low_to_high() -> None:
    x = np.linspace(0, 1, 5)
    bands = Bands(deletion_low=0.9 - x, deletion_high=1.2 - x, insertion_low=x - 0.3, insertion_high=x + 0.4)
    deletion, insertion = mean_curves({"chefer": Curves(n=7, x=x, deletion=1 - x, insertion=x, bands=bands)}).axes
    for panel, low, high in ((deletion, -0.1, 1.2), (insertion, -0.3, 1.4)):
        (band,) = panel.collections
        corners = band.get_paths()[0].vertices
        assert corners[:, 1].min() == pytest.approx(low) and corners[:, 1].max() == pytest.approx(high)
    deletion, insertion = mean_curves({"chefer": Curves(n=7, x=x, deletion=1 - x, insertion=x)}).axes
    assert not deletion.collections
    assert not insertion.collections


def test_forest_shows_every_interval_and_opens_what_holds_zero() -> None:
    lines = [
        ForestLine("chefer", "nodule", 0.4, 0.1, 0.7, 30),
        ForestLine("edges", "nodule", 0.1, -0.2, 0.4, 30),
        ForestLine("chefer", "effusion", -0.3, None, None, 4),
    ]
    (axes,) = gap_forest(lines).axes
    texts = [tick.get_text() for tick in axes.get_yticklabels()]
    assert texts == ["nodule", "chefer (n=30)", "edges (n=30)", "effusion", "chefer (n=4)"]
    markers = [line for line in axes.get_lines() if line.get_marker() == "o"]
    assert [float(line.get_xdata()[0]) for line in markers] == [0.4, 0.1, -0.3]
    assert [to_hex(line.get_markerfacecolor()) == "#ffffff" for line in markers] == [False, True, True]
    spans = [list(line.get_xdata()) for line in axes.get_lines() if line.get_marker() == "None"]
    assert spans[:2] == [[0.1, 0.7], [-0.2, 0.4]]
    assert axes.yaxis_inverted()
    with pytest.raises(ValueError, match="one interval"):
        gap_forest([])


def test_scatter_has_localization_across_and_faithfulness_up() -> None:
    figure = faithfulness_scatter({"chefer": (0.2, 0.8), "random": (0.1, 0.0)})
    point = figure.axes[0].get_lines()[0]
    assert (point.get_xdata()[0], point.get_ydata()[0]) == (0.2, 0.8)
    assert "localization" in figure.axes[0].get_xlabel() and "faithfulness" in figure.axes[0].get_ylabel()


def test_reliability_agrees_with_a_loop() -> None:
    rng = np.random.default_rng(3)
    p_yes = np.r_[rng.random(200), 0.0, 1.0]
    truth = rng.random(202) < p_yes**2
    error = 0.0
    for b in range(15):
        inside = [i for i, p in enumerate(p_yes) if b / 15 <= p < (b + 1) / 15 or (b == 14 and p == 1)]
        if inside:
            error += len(inside) / 202 * abs(truth[inside].mean() - p_yes[inside].mean())
    figure = reliability_diagram(p_yes.tolist(), truth.tolist())
    assert figure.axes[0].get_title() == f"ECE {error:.3f}, n = 202"
    assert sum(bar.get_height() for bar in figure.axes[1].patches) == 202
    inside = [[i for i, p in enumerate(p_yes) if min(int(15 * p), 14) == b] for b in range(15)]
    patients = np.arange(202) // 3  # three answers of each
    top = reliability_diagram(p_yes, truth, patients).axes[0]
    dots, bars = top.collections, [line.get_ydata() for line in top.get_lines()[1:]]
    assert all(len(set(line.get_xdata())) == 1 for line in top.get_lines()[1:])  # no line joins the dots
    assert len(dots) == len(bars) == 15
    areas = [dot.get_sizes()[0] for dot in dots]
    for rows, dot, area, bar in zip(inside, dots, areas, bars, strict=True):
        share, people = truth[rows].mean(), len({patients[row] for row in rows})
        assert tuple(dot.get_offsets()[0]) == pytest.approx((p_yes[rows].mean(), share))
        assert area == pytest.approx(6 + 60 * len(rows) / max(map(len, inside)))
        assert tuple(bar) == pytest.approx(wilson(share, people)) and people <= len(rows)
    with pytest.raises(ValueError, match="as many references"):
        reliability_diagram([], [])
