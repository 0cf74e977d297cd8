"""How far a run's numbers can be trusted: what the records say beside the leaderboard.

Each panel is a list or dict of plain numbers for `summary.json`; a number that does not exist is None. Maps do not
depend on the substrate, so panels about maps take them from the first one.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, cast

import numpy as np
import pandas as pd
from scipy.stats import kendalltau, spearmanr

from cxr_faith.metrics.agreement import spearman, ssim, top_overlap
from cxr_faith.metrics.calibration import (
    area_under_roc,
    expected_calibration_error,
    reliability,
    selective_accuracy,
)
from cxr_faith.metrics.localization import LOCALIZATION_COLUMNS
from cxr_faith.records.controls import first_setting, is_control
from cxr_faith.summary.mean_scores import Floats, numbers
from cxr_faith.summary.significance import DIGITS

AGREEMENT_SAMPLES = 200
"""Agreement is a mean over at most so many samples, the first ones by `sample_id`."""

FEWEST = 3  # a rank correlation of two points is always 1

PANEL_COLUMNS = (
    *("question_group", "variant", "strategy", "margin", "predicted", "correct", "p_yes", "status"),
    *("srg", "gap_srg_random", "deletion_auc", "grid_h", "grid_w", *LOCALIZATION_COLUMNS),
)
"""Columns of the records that panels read; maps are in `mean_regions`."""


def panels(records: pd.DataFrame, methods: Sequence[str]) -> dict[str, Any]:
    """The panels of a run that need no map.

    Args:
        records: as `read_records` gives them, sorted by key, condition "none".
        methods: the order in which methods are listed.
    """
    first = first_setting(records)
    listed = [name for name in methods if first["method"].eq(name).any()]
    placed = [localization_panel(records, first, name) for name in listed if name != "random"]
    return {
        "substrates": substrate_panel(records),
        "localization": placed,
        "localization_across": across_methods(placed),
        "calibration": calibration_panel(first, listed),
    }


def substrate_panel(records: pd.DataFrame) -> dict[str, Any]:
    """Do the substrates rank the methods alike? Kendall's τ-b of the mean srg, on samples that are ok for both.

    Baselines and controls are left out: they are far from the methods under any substrate, and would raise τ.
    `breaks_early` is 1 − 2 × the deletion AUC of random orders: 0 if the answer fades in step with the picture,
    towards 1 if any cells at all are enough to break it, as pictures far from what the model knows do.
    """
    for name in ("target", "space"):  # the first of each
        records = records[records[name].eq(records[name].min())]
    ok = records[records["status"].eq("ok") & ~records["method"].map(is_control).astype(bool)]
    wide = ok.pivot_table(index=["sample_id", "method"], columns="substrate", values="srg")
    pairs = []
    for a, b in combinations(sorted(wide.columns), 2):
        both = wide[[a, b]].dropna().groupby(level="method").mean()
        tau = kendalltau(both[a], both[b]).statistic if len(both) >= FEWEST else np.nan
        n = int(wide[[a, b]].dropna().index.get_level_values("sample_id").nunique())
        pairs.append({"a": a, "b": b, "n_methods": len(both), "n_samples": n, "kendall_tau": _number(tau)})
    random = records[records["method"].eq("random") & records["status"].eq("ok")]
    broken = {
        str(name): _number(1 - 2 * numbers(rows["deletion_auc"]).mean()) for name, rows in random.groupby("substrate")
    }
    return {"pairs": pairs, "breaks_early": broken}


def ood_scores(boards: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """How far each substrate alone takes pictures from what the model knows: an out-of-distribution score.

    What is lost when half of the cells are replaced, and the best map says which half matters least: 1 − the highest
    mean insertion curve at x = .5, not below 0. Evidence is in the half that stays, so a substrate that does no harm of
    its own loses nothing; towards 1, the substrate breaks the answer wherever it stands. It is an upper bound: evidence
    that is spread over the whole picture, or maps that are all bad, raise it too.

    Args:
        boards: those of a summary; per substrate the first one over all samples counts, and of its methods those that
            have all its common samples, there and under every other substrate.

    Returns:
        Substrate → score in units of the effect; None without a curve.
    """
    kept: dict[str, dict[str, float]] = {}
    for board in boards:
        if board["slice"] == "all" and board["substrate"] not in kept:
            curves = {row["method"]: row["curves"] for row in board["rows"] if "curves" in row}
            kept[board["substrate"]] = {
                name: float(np.interp(0.5, c["x"], c["insertion"]))
                for name, c in curves.items()
                if c["n"] == board["n_common"]
            }
    shared = set[str]().union(*kept.values()).intersection(*(mine for mine in kept.values() if mine))
    return {
        substrate: _number(max(0.0, 1 - max(mine[name] for name in shared))) if mine and shared else None
        for substrate, mine in kept.items()
    }


def localization_panel(records: pd.DataFrame, first: pd.DataFrame, method: str) -> dict[str, Any]:
    """Means of the localization scores of one method, and whether faithful maps are also the well placed ones.

    `srg_located` is the mean srg of the samples that have a localization score and are ok under the first substrate.
    `with_srg` holds, by substrate, `n` and Spearman's correlation over samples between srg and each score.
    """
    mine = first[first["method"].eq(method)]
    result: dict[str, Any] = {"method": method, "n": int(mine[LOCALIZATION_COLUMNS[0]].notna().sum())}
    result |= {name: _mean(numbers(mine[name])) for name in LOCALIZATION_COLUMNS}
    located = mine[mine["status"].eq("ok") & mine[LOCALIZATION_COLUMNS[0]].notna()]
    result["srg_located"] = _mean(numbers(located["srg"]))
    result["with_srg"] = {}
    for substrate, rows in records[records["method"].eq(method) & records["status"].eq("ok")].groupby("substrate"):
        srg = numbers(rows["srg"])
        scores = {name: numbers(rows[name]) for name in LOCALIZATION_COLUMNS}
        found = {name: _rank_correlation(srg, values) for name, values in scores.items()}
        n = int((np.isfinite(srg) & np.isfinite(scores[LOCALIZATION_COLUMNS[0]])).sum())
        result["with_srg"][str(substrate)] = {"n": n} | found
    return result


def across_methods(panel: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Are the methods with the more faithful maps also those whose maps are better placed? Spearman over their means.

    Baselines and controls are left out, as in `substrate_panel`.

    Args:
        panel: one `localization_panel` for each method.
    """
    mine = [entry for entry in panel if not is_control(entry["method"]) and entry["srg_located"] is not None]
    srg = np.array([entry["srg_located"] for entry in mine], np.float64)
    scores = {name: np.array([entry[name] for entry in mine], np.float64) for name in LOCALIZATION_COLUMNS}
    return {"n_methods": len(mine)} | {name: _rank_correlation(srg, values) for name, values in scores.items()}


def agreement_panel(first: pd.DataFrame, methods: Sequence[str]) -> list[dict[str, Any]]:
    """Mean Spearman, SSIM and overlap of the top tenth for each pair of methods."""
    drawn = first[first["map"].notna() & first["grid_h"].notna() & first["method"].isin(list(methods))]
    samples = drawn["sample_id"].drop_duplicates().sort_values().head(AGREEMENT_SAMPLES)
    rows = drawn[drawn["sample_id"].isin(samples)].set_index(["method", "sample_id"])
    members = {name: cast(pd.DataFrame, rows.xs(name)) for name in methods if name in rows.index}
    found = []
    for place, a in enumerate(members):
        shared = {b: members[a].index.intersection(members[b].index) for b in list(members)[place + 1 :]}
        shared = {b: common for b, common in shared.items() if len(common)}
        if not shared:
            continue
        # All pairs of a method at once: with a call for each, SSIM takes three times as long.
        x = np.concatenate([maps_of(members[a].loc[common]) for common in shared.values()])
        y = np.concatenate([maps_of(members[b].loc[common]) for b, common in shared.items()])
        ends = np.cumsum([len(common) for common in shared.values()])[:-1]
        alike = {"spearman": spearman(x, y), "ssim": ssim(x, y), "top_overlap": top_overlap(x, y)}
        parts = {name: np.split(values, ends) for name, values in alike.items()}
        for number, (b, common) in enumerate(shared.items()):
            means = {name: _mean(values[number]) for name, values in parts.items()}
            found.append({"a": a, "b": b, "n": len(common)} | means)
    return found


def calibration_panel(first: pd.DataFrame, methods: Sequence[str]) -> dict[str, Any]:
    """Calibration and AUROC of p(yes), selective accuracy, and whether surer answers have more faithful maps."""
    samples = first.groupby("sample_id", sort=True)[["p_yes", "margin", "predicted", "correct"]].first()
    known = samples[samples["p_yes"].notna() & samples["correct"].notna()]
    p, correct = numbers(known["p_yes"]), numbers(known["correct"])
    is_yes = known["predicted"].eq("yes").to_numpy(bool) == (correct == 1)
    ok = first[first["status"].eq("ok")]
    confidence, counts = {}, {}
    for method in methods:
        rows = ok[ok["method"].eq(method)]
        margin, srg = np.abs(numbers(rows["margin"])), numbers(rows["srg"])
        confidence[method] = _rank_correlation(margin, srg)
        counts[method] = int((np.isfinite(margin) & np.isfinite(srg)).sum())
    return {
        "n": len(known),
        "ece": _number(expected_calibration_error(p, is_yes)),
        "auroc": _number(area_under_roc(p, is_yes)),
        "reliability": reliability(p, is_yes),
        "selective_accuracy": selective_accuracy(np.maximum(p, 1 - p), correct),
        "confidence_with_srg": confidence,
        "confidence_n": counts,
    }


def maps_of(rows: pd.DataFrame) -> Floats:
    """Maps [rows, gH, gW] of records that have one, all of one grid."""
    grid = (int(rows["grid_h"].iloc[0]), int(rows["grid_w"].iloc[0]))
    return np.stack(rows["map"].to_list()).astype(np.float64).reshape(-1, *grid)


def _rank_correlation(a: Floats, b: Floats) -> float | None:
    known = np.isfinite(a) & np.isfinite(b)
    a, b = a[known], b[known]
    if len(a) < FEWEST or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    return _number(spearmanr(a, b).statistic)


def _mean(values: Floats) -> float | None:
    return _number(values[np.isfinite(values)].mean()) if np.isfinite(values).any() else None


def _number(value: Any) -> float | None:
    return float(f"{value:.{DIGITS}g}") if np.isfinite(value) else None
