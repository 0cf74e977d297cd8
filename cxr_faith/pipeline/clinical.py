"""`cxr-faith explain … --clinical true`: the clinical summary of one answer, as JSON and as a page."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from cxr_faith.explainer import Explainer, Explanation
from cxr_faith.records import read_records, write_atomic
from cxr_faith.report.charts import calibration_error
from cxr_faith.report.clinical import Answer, clinical_page, clinical_summary

COMPARED = ("attention", "chefer", "gradient", "grad_x_input")
"""Methods whose maps of the same answer are compared with the one that was asked for: none needs many forwards."""


def write_clinical(
    explainer: Explainer,
    explanation: Explanation,
    scores: dict[str, Any],
    stem: Path,
    calibration_run: str | None = None,
) -> tuple[Path, Path]:
    """Write `<stem>-clinical.json` and `<stem>-clinical.html`.

    Args:
        explainer: that made the explanation.
        explanation: of one answer.
        scores: record columns of its evaluation.
        stem: path without an ending.
        calibration_run: run directory of the same model, whose yes/no answers say how often it is right.

    Returns:
        The two paths.

    Raises:
        ValueError: the run has no yes/no answer with a reference.
    """
    vlm, meta = explainer.vlm, explanation.metadata
    others = {
        name: explainer.explain(
            explanation.picture, meta["question"], name, kind=meta["kind"], image_id=meta["image_id"]
        ).map
        for name in COMPARED
        if name != meta["method"]
    }
    # Read from the weights that answered: what a name says about a model's size need not be so.
    parameters = sum(weight.numel() for weight in vlm.model.parameters()) if hasattr(vlm, "model") else None
    summary = clinical_summary(
        Answer(
            question=meta["question"],
            answer=explanation.answer,
            p_yes=meta["p_yes"],
            map=explanation.map,
            method=meta["method"],
            model={**vlm.identity(), "parameters": parameters},
            scores=scores,
            others=others,
            calibration=None if calibration_run is None else calibration_of(calibration_run),
        )
    )
    curves = None
    if scores.get("k") is not None and scores["status"] in ("ok", "degenerate", "inverted"):
        k = np.asarray(scores["k"], np.float64)
        curves = {"x": k / k[-1], "deletion": scores["deletion_scores"], "insertion": scores["insertion_scores"]}
    page = clinical_page(summary, explanation.picture, explanation.map, curves, explanation.geometry.crop)
    paths = stem.with_name(f"{stem.name}-clinical.json"), stem.with_name(f"{stem.name}-clinical.html")
    write_atomic(paths[0], json.dumps(summary, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    write_atomic(paths[1], page)
    return paths


def calibration_of(run_dir: str | Path) -> dict[str, Any]:
    """How right a run's yes/no answers are, and how sure the model was of them.

    Raises:
        ValueError: the run has no yes/no answer with a reference.
    """
    answers = read_records(run_dir, ["p_yes", "correct", "condition"]).drop_duplicates("sample_id")
    answers = answers[answers["p_yes"].notna() & answers["correct"].notna()]
    if answers.empty:
        raise ValueError(f"--calibration {run_dir}: no yes/no answer with a reference in its records")
    p_yes = answers["p_yes"].to_numpy(np.float64)
    correct = answers["correct"].to_numpy(bool)
    confidence = np.maximum(p_yes, 1 - p_yes)
    return {
        "dataset": Path(run_dir).name,
        "n": len(answers),
        "accuracy": float(correct.mean()),
        "ece": calibration_error(p_yes, (p_yes >= 0.5) == correct),
        "confidence_range": [float(confidence.min()), float(confidence.max())],
    }
