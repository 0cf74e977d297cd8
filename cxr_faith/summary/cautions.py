"""What a reader should know before the numbers: read off a summary, one sentence each, most serious first."""

from collections.abc import Mapping
from typing import Any

from cxr_faith.metrics.statistics import FEW_CLUSTERS, FEWEST_CLUSTERS, LEVEL
from cxr_faith.records.controls import is_control

LOW_COVERAGE = 0.5
USUAL_RANDOM_AUC = (0.4, 0.6)
SIGNIFICANT = 1 - LEVEL


def cautions(summary: Mapping[str, Any]) -> list[str]:
    """The warnings of a summary, in a fixed order."""
    found = []
    if summary["partial"]:
        total, missing = summary["samples_total"], summary["missing"]
        found.append(f"Partial: {summary['n_samples']} of {total} samples have records, {missing} are missing.")
    failures = summary["failures"]["n"]
    if failures:
        found.append(f"{failures} of {summary['n_samples']} samples could not be scored (invalid or off_format).")
    found += [*_nothing(summary), *_patients(summary)]
    for board in summary["boards"]:
        if board["slice"] == "all":
            found += _coverage(board)
    for board in summary["boards"]:
        if board["slice"] == "all":
            found += [*_random_auc(board), *_controls(board)]
    compared = {board["slice"] for board in summary["boards"]} & {"with_oracle"} or {"present"}
    for board in summary["boards"]:
        if board["slice"] in compared:
            found += _oracle(board)
    return found


def _nothing(summary: Mapping[str, Any]) -> list[str]:
    """What a reader of an empty table would otherwise take for a fault."""
    found, rows = [], [row for board in summary["boards"] for row in board["rows"]]
    if not any(row["n_scored"] for row in rows):
        found.append("No sample could be scored: there is nothing to compare.")
    elif not any(row["n_ok"] for row in rows):
        found.append(
            "No sample is ok under any substrate: normalized scores do not exist, srg logit ranks the methods."
        )
    real = [name for name in summary["methods"] if not is_control(name)]
    if len(real) == 1:
        found.append(f"Only one method besides the baselines ({real[0]}): compare it with random and center.")
    elif not real and summary["methods"]:
        found.append("Only baselines and controls were scored.")
    return found


def _patients(summary: Mapping[str, Any]) -> list[str]:
    found, patients, unnamed = [], summary["n_patients"], summary["n_without_patient"]
    if 0 < patients < FEWEST_CLUSTERS:
        found.append(f"Only {patients} patients: no interval under {FEWEST_CLUSTERS}.")
    elif 0 < patients < FEW_CLUSTERS:
        found.append(f"Only {patients} patients: under {FEW_CLUSTERS}, intervals are somewhat too short.")
    if unnamed:
        found.append(f"{unnamed} samples have no patient_id: each of their images is taken as a patient of its own.")
    return found


def _coverage(board: Mapping[str, Any]) -> list[str]:
    share = board["n_common"] / board["n_samples"]
    if share >= LOW_COVERAGE or not any(row["n_ok"] for row in board["rows"]):
        return []
    return [
        f"Low coverage under {board['substrate']}: normalized scores compare {board['n_common']} of "
        f"{board['n_samples']} samples ({share:.0%}); the others are not ok for every method."
    ]


def _random_auc(board: Mapping[str, Any]) -> list[str]:
    """An order at random need not have an AUC of one half, so no AUC should be read against one half."""
    low, high = USUAL_RANDOM_AUC
    aucs = [row["deletion_auc"] for row in board["rows"] if row["method"] == "random"]
    return [
        f"Random orders have a deletion AUC of {auc:.2f} under {board['substrate']}, not .5 (the answer "
        f"{'outlasts most of the picture' if auc > high else 'breaks early'}): read the gaps to random rather than the "
        "AUCs."
        for auc in aucs
        if auc is not None and not low <= auc <= high
    ]


def _controls(board: Mapping[str, Any]) -> list[str]:
    """A map of noise that is not noise, and maps that a blur alone makes better."""
    found, substrate = [], board["substrate"]
    for row in board["rows"]:
        test = row["intervals"][board["headline"]]
        if row["method"] == "random_map" and test["p_holm"] is not None and test["p_holm"] < SIGNIFICANT:
            found.append(
                f"random_map differs from random orders under {substrate} by {test['mean']:+.3f} "
                f"(p {test['p_holm']:.3f}): suspect the scoring."
            )
    smoother = [
        pair["a"]
        for pair in board["differences"]
        if pair["b"] == f"{pair['a']}/blurred" and pair["mean"] < 0 and pair["p_holm"] < SIGNIFICANT
    ]
    if smoother:
        found.append(
            f"Under {substrate} a blurred copy of the map scores better than the map itself: {', '.join(smoother)}. "
            "Smoothness alone is rewarded there."
        )
    return found


def _oracle(board: Mapping[str, Any]) -> list[str]:
    srg = {row["method"]: row["srg"] for row in board["rows"] if row["srg"] is not None}
    if "oracle" not in srg:
        return []
    best = max(srg, key=lambda name: (srg[name], name == "oracle"))
    if best == "oracle":
        return []
    return [
        f"Oracle is not the best under {board['substrate']}: {best} has srg {srg[best]:.3f}, the true mask "
        f"{srg['oracle']:.3f}. The model looks at more than the finding, or the substrate leaves traces."
    ]
