"""The tables of the panel, from the run directories of its checkpoints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import kendalltau

from cxr_faith.metrics.functional import MEASURED
from cxr_faith.perturb.substrate import PAIR
from cxr_faith.records.controls import ORACLE, RANDOM, is_control
from cxr_faith.summary.board import Board
from cxr_faith.summary.cautions import SIGNIFICANT
from cxr_faith.summary.load import Run, load_run
from cxr_faith.summary.summary import Summary

MARKER = "oracle/marker"
FEWEST = 3
"""Methods that a rank correlation needs, and samples that a mean of a slice is shown for."""
Lines = Iterator[str]


def settings_of(summary: Summary, settings: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Method → the options that scored best in the tuning run; the first of those that score the same.

    Args:
        summary: of the tuning run, whose methods are `NAME-i` for option number i of a method.
        settings: method → its options.
    """
    board = summary.board("all")
    chosen = {}
    for name, listed in settings.items():
        rows = [board.row(f"{name}-{i}") for i in range(len(listed))]
        scores = [-np.inf if row is None or row.srg is None else row.srg for row in rows]
        chosen[name] = dict(listed[int(np.argmax(scores))])
    return chosen


def tables(folder: Path, names: Sequence[str]) -> str:
    """All tables of the checkpoints that have runs, as text.

    Args:
        folder: holds a folder for each checkpoint, with its runs `main`, `substrates` and `marker`.
        names: the checkpoints, in order.
    """
    main, substrates, marker = (
        {name: load_run(folder / name / part) for name in names if (folder / name / part / "summary.json").exists()}
        for part in ("main", "substrates", "marker")
    )
    lines: list[str] = []
    if main:
        summaries = {name: run.summary for name, run in main.items()}
        lines += [*scores(summaries), *answers(summaries), *rankings(summaries), *locations(summaries)]
        lines += [*splits(summaries), *budget(main)]
    if marker:
        lines += marker_and_lesion({name: run.summary for name, run in marker.items()})
    if substrates:
        tables = {name: bias_table(_columns(run)) for name, run in substrates.items()}
        lines += [*out_of_distribution(substrates), *biases(substrates, tables)]
        lines += rankings_by_substrate({name: table for name, (table, _) in tables.items()})
    return "\n".join(lines or ["No run is done yet."])


def scores(summaries: Mapping[str, Summary]) -> Lines:
    """The srg of each method on each checkpoint, with its interval, best on average first."""
    boards = {name: summary.board("all") for name, summary in summaries.items()}
    methods = sorted(
        {row.method for board in boards.values() for row in board.rows},
        key=lambda method: -np.mean([_srg(board, method, -1.0) for board in boards.values()]),
    )
    yield from ("srg [95 %], under blur, on the samples that are ok for every method of the checkpoint", "")
    yield _line("method", [*(f"{name} ({board.n_common})" for name, board in boards.items()), "above center on"], 22)
    for method in methods:
        above = sum(above_center(board, method) for board in boards.values())
        yield _line(method, [*(_cell(board, method) for board in boards.values()), f"{above} of {len(boards)}"], 22)


def above_center(board: Board, method: str) -> bool:
    """Whether the interval of a method's gap to the center prior lies above 0."""
    row = board.row(method)
    ends = None if row is None or "gap_srg_center" not in row.intervals else row.intervals["gap_srg_center"].ends
    return ends is not None and ends[0] > 0


def answers(summaries: Mapping[str, Summary]) -> Lines:
    """How many answers are right."""
    yield from ("", "answers: all, right", "")
    for name, summary in summaries.items():
        whole = next(each for each in summary.answers if each.slice == "all")
        yield _line(name, [str(whole.n_known), _number(whole.accuracy, ".0%")], 10)


def rankings(summaries: Mapping[str, Summary]) -> Lines:
    """Kendall's τ-b of the methods' ranking between each two checkpoints; baselines and controls are left out."""
    means = {name: _means(summary.board("all")) for name, summary in summaries.items()}
    yield from ("", "Kendall's τ of the methods' ranking between checkpoints", "")
    yield _line("", list(means), 14)
    for name, own in means.items():
        yield _line(name, [_number(tau(own, other), ".2f") for other in means.values()], 14)


def tau(one: Mapping[str, float], other: Mapping[str, float]) -> float | None:
    """Kendall's τ-b over the methods that both have; None under three."""
    shared = sorted(one.keys() & other.keys())
    if len(shared) < FEWEST:
        return None
    value = float(kendalltau([one[name] for name in shared], [other[name] for name in shared]).statistic)
    return value if np.isfinite(value) else None


def locations(summaries: Mapping[str, Summary]) -> Lines:
    """How well the maps of each method lie on the finding, on each checkpoint."""
    scored = {name: {row.method: row for row in summary.localization} for name, summary in summaries.items()}
    methods = list(dict.fromkeys(method for rows in scored.values() for method in rows))
    yield from ("", "localization: average precision of the map's pixels against the mask of the finding", "")
    yield _line("method", list(scored), 14)
    for method in methods:
        values = [rows[method].auprc if method in rows else None for rows in scored.values()]
        yield _line(method, [_number(value, ".3f") for value in values], 14)


def splits(summaries: Mapping[str, Summary]) -> Lines:
    """The srg of each method by whether the finding is present and whether the answer is right."""
    for name, summary in summaries.items():
        boards = {
            each.slice: each for each in summary.first_boards if each.slice in ("present", "absent", "correct", "wrong")
        }
        shown = {key: board for key, board in boards.items() if board.n_common >= FEWEST}
        yield from (
            "",
            f"{name}: srg where the finding is present or absent, and where the answer is right or wrong",
            "",
        )
        yield _line("method", [f"{key} ({board.n_common})" for key, board in boards.items()], 14)
        for row in summary.board("all").ranked():
            yield _line(row.method, [_number(_srg(shown.get(key), row.method), ".3f") for key in boards], 14)


def marker_and_lesion(summaries: Mapping[str, Summary]) -> Lines:
    """What the masks of the marker and of the finding score, and whether the answers depend on the one or the other."""
    yield from ("", "mask of the finding against mask of the side marker, on pictures that have both", "")
    for name, summary in summaries.items():
        board = summary.board("all")
        pair = next((each for each in board.differences if {each.a, each.b} == {ORACLE, MARKER}), None)
        if pair is None:
            yield f"{name}: no sample with both"
            continue
        ahead = pair.mean if pair.a == MARKER else -pair.mean
        verdict = "the answers depend on the finding"
        if pair.p >= SIGNIFICANT:  # the one comparison that is planned here, so none of the board's others counts
            verdict = "these samples do not say which of them decides"
        elif ahead > 0:
            verdict = "localization and faithfulness disagree: the answers depend on the marker, not on the finding"
        p = "< .001" if pair.p < 0.001 else f"{pair.p:.3f}"
        yield (
            f"{name}: finding {_number(_srg(board, ORACLE), '.3f')}, marker {_number(_srg(board, MARKER), '.3f')}; "
            f"marker − finding {ahead:+.3f} (n {pair.n}, p {p}): {verdict}"
        )


def budget(runs: Mapping[str, Run]) -> Lines:
    """Passes of one map by method, and of all curves of a sample."""
    name, run = next(iter(runs.items()))
    records = run.records(["forwards", "backwards", "method"])
    own = records.groupby("method", sort=False)[["forwards", "backwards"]].mean().sum(axis=1)
    protocol = run.config["model"]["protocol"]
    methods, steps, orders = records["method"].nunique() - 1, int(protocol["steps"]), int(protocol["random_orders"])
    curves = curve_pictures(methods, steps, orders)
    each = ", ".join(f"{method} {passes:.0f}" for method, passes in own.items() if passes >= 1)
    yield from ("", f"passes of one map (forwards + backwards, {name}): {each}; every other one under 1")
    yield (
        f"passes of the curves of one sample: at most {curves} ({methods} maps and {orders} random orders of {steps} "
        f"steps); of one sample together: {curves + own.sum():.0f}"
    )


def curve_pictures(methods: int, steps: int, orders: int) -> int:
    """Most pictures that the curves of one question need: both ends once, and a random order shares its reverse's."""
    return 2 * (steps - 1) * (methods + orders // 2) + 2


def out_of_distribution(runs: Mapping[str, Run]) -> Lines:
    """Each substrate's out-of-distribution score, and how early random removal breaks the answer."""
    panels = {name: run.summary.substrates for name, run in runs.items()}
    specs = list(dict.fromkeys(spec for panel in panels.values() for spec in panel.breaks_early))
    yield from (
        "",
        "out-of-distribution score of each substrate: share of the effect that is lost when the half of the",
    )
    yield from ("cells that the best map ranks lowest is replaced; below it, 1 − 2 × deletion AUC of random orders", "")
    yield _line("", specs, 12)
    for name, panel in panels.items():
        yield _line(name, [_number(panel.ood.get(spec), ".3f") for spec in specs], 12)
        yield _line("  random orders", [_number(panel.breaks_early.get(spec), ".3f") for spec in specs], 12)


def biases(runs: Mapping[str, Run], tables: Mapping[str, tuple[pd.DataFrame, int]]) -> Lines:
    """For each checkpoint, what each substrate adds to a method's srg under `pair`.

    Args:
        runs: the run `substrates` of each checkpoint.
        tables: `bias_table` of each of them.
    """
    for name, (table, n) in tables.items():
        records = _columns(runs[name])
        own = set(map(tuple, records.loc[records["own_substrate"].eq(True), ["method", "substrate"]].to_numpy()))
        yield from ("", f"{name}: srg under pair, and what other substrates add to it, on {n} samples ok under all", "")
        if table.empty:
            continue
        others = [spec for spec in table.columns if spec != PAIR]
        yield _line("method", [PAIR, *others], 12)
        for method, row in table.sort_values(PAIR, ascending=False, kind="stable").iterrows():
            cells = [f"{row[spec] - row[PAIR]:+.3f}{'*' if (method, spec) in own else ''}" for spec in others]
            yield _line(str(method), [f"{row[PAIR]:.3f}", *cells], 12)
        means = explained(table)
        ranked = [_number(tau(means[PAIR], means[spec]), ".2f") for spec in others]
        yield _line("τ with pair", ["", *ranked], 12)
    yield "* the method was made with this substrate"


def explained(table: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Substrate → method → mean srg of a `bias_table`, without baselines and controls."""
    kept = table[[not is_control(str(method)) for method in table.index]]
    return {str(spec): kept[spec].to_dict() for spec in kept.columns}


def rankings_by_substrate(tables: Mapping[str, pd.DataFrame]) -> Lines:
    """Kendall's τ-b of the methods' ranking between each two checkpoints, under each substrate."""
    means = {name: explained(table) for name, table in tables.items() if not table.empty}
    specs = list(dict.fromkeys(spec for each in means.values() for spec in each))
    yield from ("", "Kendall's τ of the methods' ranking between two checkpoints, under each substrate", "")
    yield _line("", specs, 12)
    for one, other in combinations(means, 2):
        taus = [tau(means[one].get(spec, {}), means[other].get(spec, {})) for spec in specs]
        yield _line(f"{one}, {other}", [_number(value, ".2f") for value in taus], 12)


def bias_table(records: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """Mean srg, weighted by the effect, by method and substrate, and the number of samples behind every one of them.

    A sample counts if it is ok under every substrate for every method that has a row for it.
    """
    records = records[records["method"].ne(RANDOM)]
    ok = records["status"].isin(MEASURED).groupby(records["sample_id"]).transform("all")
    kept = records[ok]
    sums = (
        kept.assign(weighted=kept["srg"] * kept["effect"])
        .groupby(["method", "substrate"], sort=False)[["weighted", "effect"]]
        .sum()
    )
    return (sums["weighted"] / sums["effect"]).unstack(), int(kept["sample_id"].nunique())


def _columns(run: Run) -> pd.DataFrame:
    return run.records(["method", "substrate", "status", "srg", "effect", "own_substrate"])


def _means(board: Board) -> dict[str, float]:
    return {row.method: row.srg for row in board.rows if row.srg is not None and not is_control(row.method)}


def _srg(board: Board | None, method: str, missing: float | None = None) -> Any:
    row = None if board is None else board.row(method)
    return missing if row is None or row.srg is None else row.srg


def _cell(board: Board, method: str) -> str:
    row = board.row(method)
    if row is None or row.srg is None:
        return "–"
    ends = row.intervals["srg"].ends if "srg" in row.intervals else None
    return f"{row.srg:.3f}" + ("" if ends is None else f" [{ends[0]:.3f}, {ends[1]:.3f}]")


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else f"{value:{form}}"


def _line(name: str, cells: Sequence[str], width: int) -> str:
    return f"{name:22s}" + "".join(f"{cell:>{width}s} " for cell in cells).rstrip()
