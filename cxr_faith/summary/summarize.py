"""From a run's records to its summary: means per method, substrate and slice, from the records alone.

The summary holds no time, no timing and no count of files, and every sum runs over rows sorted by key: one process and
many, a restart and an uninterrupted run give the same bytes.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from cxr_faith.perturb.condition import NONE
from cxr_faith.records import KEY, read_records, scan_records, write_atomic
from cxr_faith.records.controls import CENTER, RANDOM, SETTING, first_setting
from cxr_faith.report.markdown import markdown
from cxr_faith.report.trust import trust_tables
from cxr_faith.summary import mean_curves, mean_regions
from cxr_faith.summary.cautions import cautions
from cxr_faith.summary.mean_curves import MeanCurves
from cxr_faith.summary.mean_regions import Maps
from cxr_faith.summary.mean_scores import (
    NORMALIZED,
    UNNORMALIZED,
    UNSCORED,
    Flags,
    board,
    mean,
    method_rows,
    never_scored,
    numbers,
)
from cxr_faith.summary.panels import PANEL_COLUMNS, agreement_panel, ood_scores, panels
from cxr_faith.summary.significance import add_statistics
from cxr_faith.summary.stability import condition_panel, stability_panel

FAILURES_LISTED = 20
T = TypeVar("T")

_PER_SAMPLE = (
    *("patient_id", "image_id", "finding", "kind", "present", "predicted", "p_yes"),
    *("correct", "yes_no_mass", "answer_mismatch"),
)
COLUMNS = tuple(
    dict.fromkeys(
        (*_PER_SAMPLE, "own_substrate", "status", "reason", "effect", *NORMALIZED, *UNNORMALIZED, *PANEL_COLUMNS)
    )
)
"""The columns of the records that a summary holds in memory; curves and maps pass through it."""


def summarize(
    records: pd.DataFrame,
    methods: Sequence[str] = (),
    samples_total: int | None = None,
    pieces: Iterable[pd.DataFrame] | None = None,
) -> dict[str, Any]:
    """Summarize a run: one board per (substrate, target, space) and slice, and how well the model answered.

    Methods are compared on the *common* samples: those where all methods that have a row for the sample are ok. A
    method that does not apply everywhere, such as `oracle` without a mask, has no rows there; it does not block the
    others, and its own means cover fewer samples (its `n_common` says how many). Neither does one that failed on all.

    Args:
        records: as `read_records` gives them, in any order; rows with a condition other than "none" serve the panel
            of conditions alone.
        methods: names in the order of the config; others found in the records follow, sorted.
        samples_total: how many samples the whole run has; None if unknown.
        pieces: the same rows with their curves and maps, in pieces; default: `records` has them.

    Returns:
        A JSON-able dict without NaN: `n_samples, n_patients, n_without_patient, samples_total, missing, partial,
        methods, answers` (accuracy and so on, a list over slices), `boards` (list), `failures`, `warnings`, and
        the panels of `cxr_faith.summary.panels`. A mean of nothing is None.

    Raises:
        ValueError: curves of one method that were measured at different steps.
    """
    pieces = [records] if pieces is None else pieces
    records = records.reindex(columns=list(dict.fromkeys((*KEY, *COLUMNS))))  # records of an older version lack some
    everything = _sorted(records)
    plain = everything["condition"].eq(NONE)
    records = everything if plain.all() else everything[plain]
    found = sorted(set(records["method"]) - set(methods))
    order = [*(name for name in methods if records["method"].eq(name).any()), *found]
    samples = _samples(records)
    slices, settings = _slices(samples), records.groupby(list(SETTING), sort=True)
    common = {_names(setting): _common(rows, samples) for setting, rows in settings}
    curves, compared = MeanCurves(samples.index, common, slices), [n for n in order if n not in (RANDOM, CENTER)]
    maps = Maps(everything, compared)
    for piece in pieces:
        curves.add([piece])
        maps.add([piece])
    boards = []
    for setting, members in sorted(settings, key=lambda one: -len(one[1])):  # first those with all methods
        arrays = list(method_rows(members, order, samples))
        for name, inside in slices.items():
            head: dict[str, Any] = dict(zip(SETTING, setting, strict=True)) | {"slice": name}
            one = head | board(arrays, inside, name, _names(setting), curves)
            add_statistics(
                one, [(rows, inside[rows.sample]) for rows in arrays if inside[rows.sample].any()], len(samples)
            )
            boards.append(one)
    first = first_setting(records)
    total = len(samples) if samples_total is None else samples_total
    missing = max(total - len(samples), 0)
    summary: dict[str, Any] = {
        "n_samples": len(samples),
        "n_patients": int(samples["patient"].nunique()),
        "n_without_patient": int(samples["patient_id"].isna().sum()),
        "samples_total": samples_total,
        "missing": missing,
        "partial": missing > 0,
        "methods": order,
        "answers": [{"slice": name, **_answers(samples[inside])} for name, inside in slices.items()],
        "boards": boards,
        "failures": _failures(records),
        **panels(records, order),
        "regions": maps.regions.panel(order),
        "agreement": agreement_panel(maps.compared(first), compared),
        "stability": stability_panel(maps.compared(first)),
        "conditions": condition_panel(maps.compared(first_setting(everything))),
    }
    summary["substrates"]["ood"] = ood_scores(boards)
    return summary | {"warnings": cautions(summary)}


def _sorted(records: pd.DataFrame) -> pd.DataFrame:
    """Sorted by key; what is sorted already is not copied, since it may be most of the memory."""
    keys = list(KEY)
    in_order = pd.MultiIndex.from_frame(records[keys]).is_monotonic_increasing
    return records if in_order else records.sort_values(keys, kind="stable")


def _names(setting: object) -> tuple[str, str, str]:
    """Substrate, target and space, as a key of a grouping."""
    assert isinstance(setting, tuple)
    substrate, target, space = map(str, setting)
    return substrate, target, space


def write_summary(run_dir: str | Path) -> dict[str, Any]:
    """Summarize the records of a run directory into its `summary.json` and `summary.md`.

    The order of the methods and the expected number of samples are `methods` and `samples_total` of `provenance.json`.

    A run that has begun and has no record yet, and an empty directory, get a summary that says so.

    Raises:
        ValueError: there is no such directory, or it holds other things: neither records nor `provenance.json`.
        OSError: a file could not be saved.
    """
    run_dir = Path(run_dir)
    summary = while_it_runs(lambda: _summarize_run(run_dir))
    text = json.dumps(summary, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
    write_atomic(run_dir / "summary.json", text + "\n")
    write_atomic(run_dir / "summary.md", markdown(summary, trust_tables(summary)))
    return summary


def while_it_runs(read: Callable[[], T]) -> T:
    """Read records, again if a run that is going on has merged parts between two looks at them."""
    for _ in range(2):
        try:
            return read()
        except FileNotFoundError:
            continue
    return read()


def _summarize_run(run_dir: Path) -> dict[str, Any]:
    provenance = read_provenance(run_dir)
    records = read_records(run_dir, COLUMNS)
    is_empty = run_dir.is_dir() and not any(run_dir.iterdir())
    if records.empty and not provenance and not is_empty:
        raise ValueError(
            f"{run_dir}: no run directory, it has neither records nor provenance.json; run `cxr-faith evaluate` first"
        )
    pieces = scan_records(run_dir, (*mean_curves.COLUMNS, *mean_regions.COLUMNS))
    summary = summarize(records, provenance.get("methods", ()), provenance.get("samples_total"), pieces)
    mark_sanity(summary, run_dir)
    return summary


def mark_sanity(summary: dict[str, Any], run_dir: Path) -> None:
    """Mark the methods that `sanity.json` of the run directory, if there is one, says have failed.

    Raises:
        ValueError: the file is not what `cxr-faith sanity` writes.
    """
    path = run_dir / "sanity.json"
    if not path.exists():
        return
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["methods"]
        failed = [name for name, entry in found.items() if entry["failed"]]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not a result of `cxr-faith sanity` ({error})") from None
    for row in (row for one in summary["boards"] for row in one["rows"]):
        row["sanity_failed"] = row["method"] in failed
    if failed:
        summary["warnings"].append(f"Failed the sanity check (maps of a random model look alike): {', '.join(failed)}.")


def read_provenance(run_dir: Path) -> dict[str, Any]:
    """`provenance.json` of a run directory; empty if there is none.

    Raises:
        ValueError: the file is not a JSON object.
    """
    path = run_dir / "provenance.json"
    if not path.exists():
        return {}
    try:
        provenance = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error})") from None
    if not isinstance(provenance, dict):
        raise ValueError(f"{path}: expected a JSON object")
    return provenance


def _samples(records: pd.DataFrame) -> pd.DataFrame:
    """One row per sample, sorted by `sample_id`: the first value that is not null among its rows."""
    samples = records.groupby("sample_id", sort=True)[list(_PER_SAMPLE)].first()
    names = samples["patient_id"].fillna(samples["image_id"])  # without patients, an image is its own cluster
    masked = samples.index.isin(records.loc[records["method"].eq("oracle"), "sample_id"])
    return samples.assign(patient=names, masked=masked)


def _common(rows: pd.DataFrame, samples: pd.DataFrame) -> Flags:
    """Which samples are ok for every method that has a row for them, and that was scored on any."""
    kept = ~never_scored(rows)
    ok = rows["status"][kept].eq("ok").groupby(rows["sample_id"][kept]).all()
    return ok.reindex(samples.index, fill_value=False).to_numpy(bool)


def _slices(samples: pd.DataFrame) -> dict[str, Flags]:
    """Name → which samples are in it; empty slices are left out."""
    yes_no = samples["p_yes"].notna()
    slices = {
        "all": pd.Series(True, index=samples.index),
        "present": samples["present"].eq(True),
        "absent": samples["present"].eq(False),
        "answered_yes": yes_no & samples["predicted"].eq("yes"),
        "answered_no": yes_no & samples["predicted"].eq("no"),
        "correct": samples["correct"].eq(True),
        "wrong": samples["correct"].eq(False),
    }
    kinds = sorted(set(samples["kind"].dropna()))
    if len(kinds) > 1:
        slices |= {f"kind:{kind}": samples["kind"].eq(kind) for kind in kinds}
    if not samples["masked"].eq(slices["present"]).all():
        slices["with_oracle"] = samples["masked"]  # where `oracle` and the others have the same samples
    for finding in sorted(set(samples["finding"].dropna())):
        slices[f"finding:{finding}"] = samples["finding"].eq(finding)
    return {name: inside.to_numpy(bool) for name, inside in slices.items() if inside.any()}


def _answers(samples: pd.DataFrame) -> dict[str, Any]:
    """How the model answered, over samples (not over rows: a sample has one answer)."""
    known = samples["correct"].dropna()
    return {
        "n_samples": len(samples),
        "n_patients": int(samples["patient"].nunique()),
        "n_known": len(known),
        "accuracy": mean(numbers(samples["correct"])),
        "yes_no_mass": mean(numbers(samples["yes_no_mass"])),
        "answer_mismatch": mean(numbers(samples["answer_mismatch"])),
    }


def _failures(records: pd.DataFrame) -> dict[str, Any]:
    """Samples with rows that could not be scored, and the reason of the first such row; at most 20 are listed."""
    failed = records[records["status"].isin(UNSCORED)]
    concerned = {str(sample): rows for sample, rows in failed.groupby("sample_id", sort=True)}
    rows_of = records["sample_id"].value_counts()
    listed = []
    for sample, rows in list(concerned.items())[:FAILURES_LISTED]:
        reason = rows["reason"].iloc[0]
        listed.append(
            {
                "sample_id": sample,
                "methods": "all" if len(rows) == rows_of[sample] else ", ".join(dict.fromkeys(rows["method"])),
                "status": rows["status"].iloc[0],
                "reason": None if pd.isna(reason) else reason,
            }
        )
    return {"n": len(concerned), "first": listed}
