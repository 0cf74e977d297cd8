"""From a run's records to its summary: means per method, setting and slice, from the records alone.

The summary holds no time and no count of files, and every sum runs over rows sorted by key: one process and many, a
restart and an uninterrupted run give the same bytes.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from cxr_faith.metrics.functional import BASELINES
from cxr_faith.perturb.condition import NONE
from cxr_faith.printable import json_text
from cxr_faith.records import KEY, Shown, rows_of, scan_records, unfinished_samples
from cxr_faith.records.controls import ABLATED, CENTER, RANDOM, SETTING
from cxr_faith.records.view import RecordView
from cxr_faith.storage.atomic import write_atomic
from cxr_faith.summary import (
    agreement,
    calibration,
    caveats,
    conditions,
    image_use,
    localization,
    mean_curves,
    pairs,
    regions,
    samples,
    sets,
    stability,
    subgroups,
    substrates,
    uncertainty,
)
from cxr_faith.summary.answers import answers_of
from cxr_faith.summary.board import Board, Setting
from cxr_faith.summary.cautions import cautions
from cxr_faith.summary.columns import Flags
from cxr_faith.summary.failures import LISTED, Failures, failures_of
from cxr_faith.summary.load import no_run, read_provenance, while_it_runs
from cxr_faith.summary.maps import ComparedMaps
from cxr_faith.summary.mean_curves import MeanCurves
from cxr_faith.summary.mean_scores import has_differences, make_board
from cxr_faith.summary.method_rows import (
    NORMALIZED,
    UNNORMALIZED,
    MethodRows,
    SharedSamples,
    method_rows,
    shared_samples,
)
from cxr_faith.summary.regions import MeanRegions
from cxr_faith.summary.rows import FrameRows, Rows, ViewRows
from cxr_faith.summary.samples import ANSWERED_NO
from cxr_faith.summary.sanity import with_sanity
from cxr_faith.summary.summary import Summary

_PANELS = (
    agreement,
    calibration,
    caveats,
    conditions,
    image_use,
    localization,
    sets,
    stability,
    substrates,
    uncertainty,
)

_BOARDS = ("own_substrate", "status", "effect", "flat", *NORMALIZED, *UNNORMALIZED)
_FAILURES = ("status", "reason")
_OF_PANELS = (column for panel in _PANELS for column in panel.COLUMNS)

COLUMNS = tuple(dict.fromkeys((*samples.COLUMNS, *_BOARDS, *_FAILURES, *_OF_PANELS)))
"""The columns of the records that are read as numbers and names, a few at a time."""

PIECE_COLUMNS = tuple(dict.fromkeys((*mean_curves.COLUMNS, *regions.COLUMNS)))
"""The columns of curves and maps, which are read in pieces."""


def summarize(
    records: pd.DataFrame,
    methods: Sequence[str] = (),
    samples_total: int | None = None,
    pieces: Iterable[pd.DataFrame] | None = None,
) -> Summary:
    """Summarize a run: a board per setting and slice, how well the model answered, and panels on how far to trust it.

    Methods are compared on the *common* samples: those where all methods that have a row for the sample are ok. A
    method that does not apply everywhere, such as `oracle` without a mask, has no rows there; it does not exclude
    those samples for the others, and its own means cover fewer samples (its `n_common` says how many). Nor does a
    method that failed on every sample.

    Args:
        records: as `read_records` gives them, in any order; rows with a condition other than "none" serve the panel
            of conditions alone.
        methods: names in the order of the config; others in the records follow, sorted.
        samples_total: how many samples the whole run has; None if unknown.
        pieces: the same rows with their curves and maps, in pieces; default: `records` has them.

    Raises:
        ValueError: curves of one method that were measured at different steps.
    """
    everything = _sorted(records.reindex(columns=list(dict.fromkeys((*KEY, *COLUMNS)))))  # older versions lack columns
    return _summarize(FrameRows(everything), methods, samples_total, [records] if pieces is None else pieces)


def _summarize(
    rows: Rows, methods: Sequence[str], samples_total: int | None, pieces: Iterable[pd.DataFrame], unfinished: int = 0
) -> Summary:
    """The summary of rows from any place; each panel holds the columns that it reads, and only while it reads them."""
    settings, table = rows.settings(), rows.samples()
    first = settings[0] if settings else Setting("", "", "")
    order = method_order(rows.methods(), methods)
    compared = [name for name in order if name not in (RANDOM, CENTER) and not name.endswith(ABLATED)]
    slices = samples.slices_of(table)
    shared = {place: shared_samples(rows.parts(("status",), place, order), table) for place in settings}
    maps = ComparedMaps(rows, first, order, compared)
    curves = MeanCurves(table.index, {place: one.common for place, one in shared.items()}, slices)
    mean_regions = _read(pieces, first, curves, maps)
    parts = partial(rows.parts, setting=first, methods=order)
    caveats_of_methods = caveats.caveats_panel(parts(caveats.COLUMNS), order)
    boards = caveats.with_caveats(_boards(rows, shared, order, table, slices, curves), caveats_of_methods)
    verified = table.index[pairs.verified(table)]
    missing = unfinished + (0 if samples_total is None else max(samples_total - len(table), 0))
    summary = Summary(
        n_samples=len(table),
        n_patients=int(table["patient"].nunique()),
        n_without_patient=int(table["patient_id"].isna().sum()),
        samples_total=samples_total,
        missing=missing,
        partial=missing > 0,
        methods=tuple(order),
        answers=tuple(answers_of(name, table[inside]) for name, inside in slices.items()),
        boards=boards,
        failures=_failures(rows, table.index, shared),
        substrates=substrates.substrate_panel(_first_target(rows, settings, order), table.index, boards),
        localization=localization.localization_panel(rows.parts(localization.COLUMNS, None, order), first, order),
        localization_across=localization.across_methods(parts(localization.COLUMNS), order),
        calibration=calibration.calibration_panel(parts(calibration.COLUMNS), order),
        regions=mean_regions.panel(order),
        agreement=agreement.agreement_panel(maps.frame(agreement.COLUMNS), compared),
        stability=stability.stability_panel(maps.frame(stability.COLUMNS)),
        conditions=conditions.condition_panel(maps.frame(conditions.COLUMNS, plain=False)),
        warnings=(),
        sets=sets.sets_panel(rows.frame(sets.COLUMNS, known=sets.SCORED), order),
        caveats=caveats_of_methods,
        subgroups=subgroups.subgroup_panel(table, _arrays(rows, first, order, table, shared)),
        pairs=pairs.pairs_panel(table, rows.frame(localization.COLUMNS, first, samples=verified), order),
        uncertainty=uncertainty.uncertainty_panel(
            rows.frame(uncertainty.COLUMNS, first, known=("stable_share",)), order
        ),
        image_use=image_use.use_panel(table, rows.frame(image_use.COLUMNS, known=("mask_removal_flips",)), slices),
        turns=stability.turn_panel(maps.frame(stability.COLUMNS)),
    )
    return replace(summary, warnings=tuple(cautions(summary)))


def method_order(names: Collection[str], methods: Sequence[str]) -> list[str]:
    """The methods in the order of the config; others follow, sorted."""
    return [*(name for name in methods if name in names), *sorted({*names} - set(methods))]


def _read(pieces: Iterable[pd.DataFrame], first: Setting, curves: MeanCurves, maps: ComparedMaps) -> MeanRegions:
    """Add up curves and maps, which are never all in memory."""
    regions = MeanRegions()
    for piece in pieces:
        curves.add(piece)
        inside = _inside(piece.reindex(columns=list(dict.fromkeys((*KEY, *PIECE_COLUMNS)))), first)
        regions.add(inside[inside["condition"].eq(NONE)])
        maps.add(inside)
    return regions


def write_summary(run_dir: str | Path, methods: Sequence[str] = ()) -> Summary:
    """Summarize the records of a run directory into its `summary.json`.

    The order of the methods and the expected number of samples are `methods` and `samples_total` of `provenance.json`.
    Rows that a run wrote for another config, before methods were taken out of it, are left out. A run that has begun
    and has no record yet, and an empty directory, get a summary that says so.

    Args:
        run_dir: the run directory.
        methods: only these methods, beside the baselines `random` and `center`; default: all.

    Raises:
        ValueError: there is no such directory, or it holds other things: neither records nor `provenance.json`. Or the
            run has no such method.
        OSError: the file could not be saved.
    """
    run_dir = Path(run_dir)
    summary = while_it_runs(lambda: _summarize_run(run_dir, methods))
    write_atomic(run_dir / "summary.json", json_text(summary.to_dict(), sort_keys=True) + "\n")
    return summary


def _summarize_run(run_dir: Path, methods: Sequence[str]) -> Summary:
    provenance = read_provenance(run_dir)
    shown = Shown.from_dict(provenance)
    unfinished = 0 if shown is None else unfinished_samples(run_dir, shown)
    if methods:
        shown = _only(methods, shown or rows_of(run_dir))
    view = RecordView(run_dir, COLUMNS, shown)
    is_empty = run_dir.is_dir() and not any(run_dir.iterdir())
    if not len(view) and not provenance and not is_empty:
        raise ValueError(no_run(run_dir))
    pieces = scan_records(run_dir, PIECE_COLUMNS, shown=shown)
    total, names = provenance.get("samples_total"), provenance.get("methods", ())
    summary = _summarize(ViewRows(view), names, total, pieces, unfinished)
    known = [str(line) for line in provenance.get("cautions", ())]
    return with_sanity(replace(summary, warnings=(*known, *summary.warnings)), run_dir)


def _only(methods: Sequence[str], shown: Shown) -> Shown:
    """The rows of some methods and of the baselines.

    Raises:
        ValueError: there are no rows of a method.
    """
    names = list(dict.fromkeys(name for names in shown.scored.values() for name in names))
    unknown = [name for name in methods if name not in names]
    if unknown:
        raise ValueError(f"--methods: the run has no method {unknown[0]!r}; there are {', '.join(names)}")
    return shown.only({*methods, *BASELINES})


def _sorted(records: pd.DataFrame) -> pd.DataFrame:
    """The records sorted by key; no copy where they are sorted already, since they may be most of the memory."""
    keys = list(KEY)
    in_order = pd.MultiIndex.from_frame(records[keys]).is_monotonic_increasing
    return records if in_order else records.sort_values(keys, kind="stable")


def _inside(rows: pd.DataFrame, setting: Setting) -> pd.DataFrame:
    """The rows of a setting."""
    return rows[(rows[list(SETTING)] == list(setting)).all(axis=1)]


def _boards(
    rows: Rows,
    shared: Mapping[Setting, SharedSamples],
    order: Sequence[str],
    table: pd.DataFrame,
    slices: Mapping[str, Flags],
    curves: MeanCurves,
) -> tuple[Board, ...]:
    """A board per setting and slice, in the order of the settings; one setting's rows are in memory at a time."""
    boards = []
    for setting in shared:
        arrays = list(_arrays(rows, setting, order, table, shared))
        made: dict[tuple[bytes, bool, bool], Board] = {}  # slices of the same samples differ in their names alone
        for name, inside in slices.items():
            kind = inside.tobytes(), name == ANSWERED_NO, has_differences(name)
            if kind not in made:
                made[kind] = make_board(arrays, inside, name, setting, curves)
            boards.append(replace(made[kind], slice=name))
        del arrays  # before those of the next setting are read
    return tuple(boards)


def _arrays(
    rows: Rows, setting: Setting, order: Sequence[str], table: pd.DataFrame, shared: Mapping[Setting, SharedSamples]
) -> Iterator[MethodRows]:
    """The rows of one setting, method by method; read when they are asked for."""
    if setting in shared:
        yield from method_rows(rows.parts(_BOARDS, setting, order), order, table, shared[setting])


def _failures(rows: Rows, samples: "pd.Index[str]", shared: Mapping[Setting, SharedSamples]) -> Failures:
    failed = np.zeros(len(samples), bool)
    for one in shared.values():
        failed |= one.failed
    return failures_of(int(failed.sum()), rows.frame(_FAILURES, samples=samples[failed][:LISTED]))


def _first_target(rows: Rows, settings: Sequence[Setting], order: Sequence[str]) -> Iterator[pd.DataFrame]:
    """Rows of all substrates for the first target by name, and its first space."""
    if settings:
        target = min(setting.target for setting in settings)
        space = min(setting.space for setting in settings if setting.target == target)
        for part in rows.parts(substrates.COLUMNS, None, order):
            yield part[part["target"].eq(target) & part["space"].eq(space)]
