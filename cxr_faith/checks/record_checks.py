"""The checks of `doctor` that look at the records of a few samples: answers, curves, maps and their agreement."""

from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from cxr_faith.checks.checklist import Check, graded, judged
from cxr_faith.metrics.functional import MEASURED
from cxr_faith.metrics.image_use import IGNORES
from cxr_faith.perturb.condition import NONE
from cxr_faith.records.controls import RANDOM, first_setting
from cxr_faith.summary.agreement import agreement_panel
from cxr_faith.summary.calibration import calibration_panel
from cxr_faith.summary.regions import region_panel
from cxr_faith.vlm.reasoning import OPENS

SAME_AUC = 1e-6
"""Largest difference of two AUCs that count as the same."""

IGNORED = 0.25
"""Share of answers that ignore the picture up to which nothing needs to be said: absent findings are often such."""

NO_USE = "it needs pictures of two patients, and model.protocol.image_use: true"
NO_REFERENCES = "it needs yes/no questions with a reference answer, which these samples lack"
ONE_METHOD = "it needs two methods or more, with maps of the same samples"


def record_checks(frame: pd.DataFrame, methods: Sequence[str]) -> Iterator[Check]:
    """Checks of the records of a few samples.

    Args:
        frame: all records, those of changed conditions too.
        methods: names of the methods, without the controls.
    """
    frame = frame[frame["condition"].eq(NONE)]
    first = first_setting(frame)
    yield from _answer_checks(frame, first)
    ok = first[first["status"].eq("ok")]
    random = ok.loc[ok["method"].eq(RANDOM), "deletion_auc"].mean()
    advice = "the answer saturates or breaks early: read gaps to random, not AUCs"
    yield graded("random deletion AUC", random, 0.4 <= random <= 0.6, True, advice)
    mine = ok[ok["method"].isin(list(methods))]
    moves = mine["monotonicity_violations"].mean()
    yield graded(
        "moves the wrong way", moves, moves <= 0.3, True, "curves are noisy: more samples, or a softer mask", ""
    )
    yield from _map_checks(first, methods)
    ece = calibration_panel([first], methods).ece
    ece = np.nan if ece is None else ece
    advice = "p(yes) is not calibrated: rank by margin instead"
    yield graded("calibration error (ECE)", ece, ece < 0.15, True, advice, missing=NO_REFERENCES)
    yield _different(mine)


def _answer_checks(frame: pd.DataFrame, first: pd.DataFrame) -> Iterator[Check]:
    """Are the answers right, and can their rows be scored?"""
    samples = first.drop_duplicates("sample_id")
    accuracy = samples["correct"].dropna().astype(float).mean()
    advice = "explanations of wrong answers say little about findings: check prompt_template and the questions"
    yield graded("accuracy", accuracy, accuracy >= 0.7, True, advice, missing=NO_REFERENCES)
    reasons = samples["reason"].dropna().astype(str)
    opened = reasons[reasons.str.startswith(OPENS)]
    figure = f"{len(opened)} of {len(samples)} answers open a thought"
    advice = opened.iloc[0].partition(": ")[2] if len(opened) else ""
    yield judged("no thought in place of an answer", opened.empty, figure, advice)
    yield _use_check(samples)
    valid = frame["status"].ne("invalid").mean()
    reasons = frame.loc[frame["status"].eq("invalid"), "reason"].dropna()
    advice = f"first reason: {reasons.iloc[0] if len(reasons) else ''}"
    yield graded("rows valid", valid, valid == 1, valid > 0.5, advice)
    yield _finite_curves(frame)
    coverage = frame["status"].isin(MEASURED).mean()
    advice = "few answers depend on the picture, or the substrate changes too little: try another substrate"
    yield graded("coverage", coverage, coverage >= 0.5, coverage > 0, advice)


def _use_check(samples: pd.DataFrame) -> Check:
    """Do the answers use their pictures?"""
    classes = samples["image_use"].dropna()
    advice = (
        "a map explains nothing where the answer ignores the picture: read the board uses_image, and check that "
        "pictures reach the model"
    )
    share = float(classes.eq(IGNORES).mean()) if len(classes) else np.nan
    return graded("answers that ignore the picture", share, share <= IGNORED, True, advice, missing=NO_USE)


def _finite_curves(frame: pd.DataFrame) -> Check:
    scored = frame[frame["status"].isin((*MEASURED, "degenerate", "inverted"))]
    curves = [np.asarray(c, dtype=np.float64) for side in ("deletion", "insertion") for c in scored[f"{side}_scores"]]
    share = float(np.mean([np.isfinite(curve).all() for curve in curves])) if curves else np.nan
    return graded("curves finite", share, share == 1, False, "logits overflow: use bfloat16 or float32, never float16")


def _map_checks(first: pd.DataFrame, methods: Sequence[str]) -> Iterator[Check]:
    border = [region.border for region in region_panel(first, methods) if region.border is not None]
    worst = max(border, default=np.nan)
    advice = "maps lie on the edge of the picture: burnt-in text or collimator? try data.border_crop"
    yield graded("border share of the maps, highest", worst, worst < 0.4, True, advice)
    correlations = [pair.spearman for pair in agreement_panel(first, methods) if pair.spearman is not None]
    mean = float(np.mean(correlations)) if correlations else np.nan
    advice = "methods contradict each other: look at the maps, and trust none before the gaps tell them apart"
    yield graded("agreement of the methods (Spearman)", mean, mean > 0.3, True, advice, missing=ONE_METHOD)


def _different(rows: pd.DataFrame) -> Check:
    """Different methods must not get the same scores: if all do, the curves do not use the maps."""
    name, means = "methods score differently", rows.groupby("method")[["deletion_auc", "insertion_auc"]].mean()
    spread = float((means.max() - means.min()).max()) if len(means) > 1 else np.nan
    alike = [
        f"{a} and {b}"
        for a, b in combinations(means.index, 2)
        if np.abs(means.loc[a].to_numpy() - means.loc[b].to_numpy()).max() <= SAME_AUC
    ]
    if alike and spread > SAME_AUC:
        return Check(name, "warn", f"the same AUCs: {', '.join(alike)}", "two names of one method, or equal maps?")
    return graded(name, spread, spread > SAME_AUC, False, "all methods score alike: maps are not used", "", ONE_METHOD)
