"""The comparison of runs as one self-contained page, and as JSON."""

from importlib.resources import files
from pathlib import Path

from markupsafe import Markup
from matplotlib.figure import Figure

from cxr_faith.printable import json_text
from cxr_faith.records.controls import is_control
from cxr_faith.report.charts import ForestLine, gap_forest, method_styles
from cxr_faith.report.compare_tables import (
    comparison_tables,
    difference_table,
    gap_matrix,
    matrix,
    ranking_table,
    run_table,
)
from cxr_faith.report.figures import chart, legend_below, plain, svg
from cxr_faith.report.templates import templates
from cxr_faith.storage.atomic import write_atomic
from cxr_faith.summary.compare import Comparison
from cxr_faith.summary.compare_differences import ANSWERS

_MARKERS = "oD^vP*X<"


def write_comparison(comparison: Comparison, folder: str | Path) -> Path:
    """Write `compare.json` and `index.html` into a folder.

    Returns:
        the page's path.

    Raises:
        OSError: a file could not be saved.
    """
    folder = Path(folder)
    write_atomic(folder / "compare.json", json_text(comparison.to_dict(), sort_keys=True) + "\n")
    write_atomic(folder / "index.html", comparison_page(comparison))
    return folder / "index.html"


def comparison_page(comparison: Comparison) -> str:
    """The page's HTML."""
    first, *others = comparison.slices
    figures = {
        "Paired differences in srg": forest_of(comparison),
        "Accuracy beside faithfulness": scatter_of(comparison, "accuracy", "accuracy"),
        "Image use beside faithfulness": scatter_of(comparison, "has_effect", "share of questions with an effect"),
    }
    css = files("cxr_faith.report").joinpath("page.css").read_text(encoding="utf-8")
    page = templates().get_template("page_compare.html.j2")
    return page.render(
        comparison=comparison,
        runs=run_table(comparison),
        tables=[matrix(comparison, first), gap_matrix(comparison, first)],
        differences=difference_table(comparison, first),
        rankings=ranking_table(comparison),
        others=list(comparison_tables(comparison, others)),
        figures={title: Markup(svg(figure)) for title, figure in figures.items() if figure is not None},
        css=Markup(css),
    )


def forest_of(comparison: Comparison) -> Figure | None:
    """Paired differences in srg over all shared samples, a group for each pair of runs; None without any."""
    methods = _methods(comparison)
    lines = [
        ForestLine(one.of, f"{one.a} − {one.b}", one.mean, one.t_low, one.t_high, one.n)
        for one in comparison.differences
        if one.slice == "all" and one.of not in ANSWERS
    ]
    label = "difference in srg (positive = the first run is better)"
    return gap_forest(sorted(lines, key=lambda line: methods.index(line.method)), label, methods) if lines else None


def scatter_of(comparison: Comparison, column: str, label: str) -> Figure | None:
    """The srg of each method against one number of its run; a color for each method, a marker for each run.

    Args:
        comparison: the runs side by side.
        column: a field of `ComparedRun`.
        label: its name in words.
    """
    places = {run.name: getattr(run, column) for run in comparison.runs if getattr(run, column) is not None}
    methods = _methods(comparison)
    if not places or not methods:
        return None
    figure = chart(3.0 + 0.16 * (len(methods) + len(places)) / 2)
    axes, styles = figure.subplots(), method_styles(methods)
    markers = {name: _MARKERS[number % len(_MARKERS)] for number, name in enumerate(places)}
    for one in comparison.scores:
        if one.slice == "all" and one.srg is not None and one.method in methods and one.run in places:
            color = styles[one.method]["color"]
            axes.plot(places[one.run], one.srg, markers[one.run], color=color, ms=6, mec="white", mew=0.5)
    for name, marker in markers.items():
        axes.plot([], [], marker, color="0.45", ms=6, label=name)
    for method in methods:
        axes.plot([], [], "s", color=styles[method]["color"], ms=6, label=method)
    axes.axhline(0, color="0.7", lw=0.8, zorder=0)
    axes.set(xlabel=label, ylabel="srg (faithfulness)")
    axes.margins(0.1)
    plain(axes)
    legend_below(figure)
    return figure


def _methods(comparison: Comparison) -> list[str]:
    """The methods that are no controls, the first run's best first."""
    names = dict.fromkeys(one.method for one in comparison.scores if one.slice == "all")
    return [name for name in names if not is_control(name)]
