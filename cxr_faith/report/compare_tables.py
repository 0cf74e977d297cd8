"""Runs side by side as tables: what was compared, srg by method and run, paired differences, and rankings."""

from collections.abc import Callable, Iterator, Sequence

from cxr_faith.printable import printable
from cxr_faith.report.columns import slice_title
from cxr_faith.report.formats import number, p_value, percent
from cxr_faith.report.tables import TextTable
from cxr_faith.summary.compare import ComparedScore, Comparison
from cxr_faith.summary.compare_differences import ACCURACY, EFFECT, RunDifference

_OF = {ACCURACY: "accuracy", EFFECT: "share with an effect"}


def run_table(comparison: Comparison) -> TextTable:
    """What was compared, and how the models answer the shared questions; a column for each run."""
    runs = comparison.runs
    facts = {
        "model": [printable(run.model) or "–" for run in runs],
        "data": [printable(run.data) or "–" for run in runs],
        "substrate": [printable(run.substrate) for run in runs],
        "samples": [str(run.n_samples) for run in runs],
        "not in all runs": [str(run.n_not_shared) for run in runs],
        "another question": [str(run.n_other_question) for run in runs],
        "another picture": [str(run.n_other_picture) for run in runs],
        "compared": [str(comparison.n_shared) for _ in runs],
        "accuracy": [percent(run.accuracy) for run in runs],
        "calibration error": [number(run.ece) for run in runs],
        "use the picture": [percent(run.uses_image) for run in runs],
        "ignore the picture": [percent(run.ignores_image) for run in runs],
        "with an effect": [percent(run.has_effect) for run in runs],
        "coverage": [percent(run.coverage) for run in runs],
    }
    note = (
        f"Compared: {comparison.n_shared} samples of {comparison.n_patients} patients, which all have with the "
        "same id, question and picture; accuracy and what follows are over them. With an effect: share of questions "
        "whose score falls without the picture. Coverage: share that all methods of the run could score."
    )
    header = ["", *(printable(run.name) for run in runs)]
    return TextTable("What is compared", header, [[name, *cells] for name, cells in facts.items()], note)


def matrix(comparison: Comparison, slice: str, verdicts: bool = True) -> TextTable:
    """Srg of each method in each run, with its interval and verdict; the first run's best method first.

    Args:
        comparison: the runs side by side.
        slice: one of `comparison.slices`.
        verdicts: whether a cell names the verdict too.
    """
    note = "srg [95 % interval over patients], each run over the shared samples that are ok for all of its methods."

    def cell(score: ComparedScore) -> str:
        verdict = f" {score.verdict}" if verdicts and score.verdict else ""
        return f"{_mean(score.srg, score.srg_low, score.srg_high)}{verdict}"

    return _by_run(comparison, slice, "srg", cell, note)


def gap_matrix(comparison: Comparison, slice: str) -> TextTable:
    """Gap to the center prior of each method in each run, with its interval."""
    note = "Δsrg to the center prior of the same run [95 % interval over patients]; positive = better than it."
    return _by_run(
        comparison,
        slice,
        "Δsrg center",
        lambda score: _mean(score.gap_srg_center, score.gap_low, score.gap_high, signed=True),
        note,
    )


def _by_run(
    comparison: Comparison, slice: str, what: str, cell: Callable[[ComparedScore], str], note: str
) -> TextTable:
    """A row for each method, a column for each run."""
    scores = {(one.run, one.method): one for one in comparison.scores if one.slice == slice}
    runs = [run.name for run in comparison.runs]
    rows = []
    for method in dict.fromkeys(name for _, name in scores):
        mine = (scores.get((run, method)) for run in runs)
        rows.append([printable(method), *("–" if score is None else cell(score) for score in mine)])
    counts = [max((one.n for one in scores.values() if one.run == run), default=0) for run in runs]
    header = ["method", *(f"{printable(run)} (n={n})" for run, n in zip(runs, counts, strict=True))]
    return TextTable(f"{what} by method and run · {slice_title(slice)}", header, rows, note)


def difference_table(comparison: Comparison, slice: str) -> TextTable:
    """Paired differences between runs in one slice."""
    rows = [
        [
            f"{printable(one.a)} − {printable(one.b)}",
            difference_name(one),
            str(one.n),
            str(one.n_patients),
            number(one.mean, signed=True),
            "–" if one.t_low is None else f"{number(one.t_low, signed=True)} to {number(one.t_high, signed=True)}",
            p_value(one.p_holm),
        ]
        for one in comparison.differences
        if one.slice == slice
    ]
    header = ["runs", "difference in", "n", "patients", "mean", "95 % interval", "p"]
    note = (
        "Paired: over the samples that count in both runs. Intervals and p by bootstrap-t over patients; p after "
        "Holm's correction over the methods and pairs of runs, for accuracy and effect over the pairs."
    )
    return TextTable(f"Paired differences · {slice_title(slice)}", header, rows, note)


def difference_name(one: RunDifference) -> str:
    """What a difference is in, in words."""
    return _OF.get(one.of) or f"srg of {printable(one.of)}"


def ranking_table(comparison: Comparison) -> TextTable:
    """Whether the runs rank the methods alike."""
    rows = [
        [f"{printable(one.a)}, {printable(one.b)}", slice_title(one.slice), str(one.n_methods), number(one.kendall_tau)]
        for one in comparison.rankings
        if one.kendall_tau is not None or one.slice == "all"
    ]
    note = "1: the same order, −1: the opposite one. Baselines and controls are left out; none under three methods."
    return TextTable(
        "Do the runs rank the methods alike?", ["runs", "samples", "methods", "Kendall τ of srg"], rows, note
    )


def comparison_tables(comparison: Comparison, slices: Sequence[str]) -> Iterator[TextTable]:
    """The matrix and the differences of some slices."""
    for slice in slices:
        yield matrix(comparison, slice)
        yield difference_table(comparison, slice)


def _mean(value: float | None, low: float | None, high: float | None, signed: bool = False) -> str:
    ends = "" if low is None else f" [{number(low, signed)}, {number(high, signed)}]"
    return "–" if value is None else f"{number(value, signed)}{ends}"
